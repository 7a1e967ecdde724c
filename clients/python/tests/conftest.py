"""The engine that runs: `scripts/python-client` starts one and says where."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def engine() -> tuple[str, str]:
    url, key = os.environ.get("BRE_URL"), os.environ.get("BRE_API_KEY")
    if not url or not key:
        pytest.skip("no engine: run scripts/python-client, or set BRE_URL and BRE_API_KEY")
    return url, key
