#!/usr/bin/env python3
"""Checks a proof that one entry is in the engine's audit log: python3 check_proof.py PROOF KEY...

Stands alone: Python's standard library and nothing else. The formats: docs/formats/audit_log.md, sections 1, 5, 11;
`check_cosigned` checks what a witness signed: docs/formats/audit_transparency.md, sections 3, 5.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from dataclasses import dataclass
from typing import Any, Sequence

KINDS = (
    "Quote EpochOpened FeedLoaded KeyChanged BrokerChanged ConfigurationChanged BackupRun RestoreRun DrillRun LocateChanged"
    " BookPriced EntryRecovered JobRun RunbookStep ApprovalGiven AlertChanged RoleChanged"
).split()
NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_.")


class NotProved(Exception):
    """Why a proof does not hold."""


@dataclass(frozen=True)
class Proved:
    """An entry that is in the log as a trusted key signed it."""

    log: int
    epoch: int
    position: int
    kind: str
    at_micros: int
    fields: dict[str, str]
    entry_hash: str
    head_size: int
    head_at_micros: int
    key_id: str


def need(holds: object, why: str) -> None:
    if not holds:
        raise NotProved(why)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


# Ed25519 (RFC 8032, section 5.1), verification alone; points are (x, y, z, x*y) over 2^255 - 19.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int, int, int]


def add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number: int, p: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = add(total, p)
        p, number = add(p, p), number >> 1
    return total


def point(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little") & (2**255 - 1)
    odd = data[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    x = P - x if x & 1 != odd else x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature over the message is that of the public key."""
    public, s = point(key), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or public is None or BASE is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    x, y, z, _ = add(times(s, BASE), times(ORDER - k, public))
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


def unhex(text: object, length: int | None = None) -> bytes:
    need(isinstance(text, str) and set(str(text)) <= set("0123456789abcdef") and len(str(text)) % 2 == 0, "it is not lower-case hex")
    data = bytes.fromhex(str(text))
    need(length in (None, len(data)), "a value in hex has not the length that it must have")
    return data


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        part = self.data[self.at : self.at + length]
        need(len(part) == length, "bytes end early")
        self.at += length
        return part

    def number(self, length: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(length), "big", signed=signed)

    def end(self) -> None:
        need(self.at == len(self.data), "bytes follow the last field")


def read_entry(data: bytes) -> dict[str, Any]:
    need(len(data) <= 1 << 20, "the entry is longer than 1 MiB")
    r = Reader(data)
    need(r.take(4) == b"BREA" and r.number(2) == 1, "the entry is not of version 1")
    log, epoch, position = r.number(2), r.number(4), r.number(8)
    r.take(32)
    at, kind, count = r.number(8, signed=True), r.number(1), r.number(4)
    need(0 < epoch < 2**31 and 0 < position < 2**63 and kind and count <= 1024, "a number of the entry is out of range")
    fields: dict[str, str] = {}
    last = b""
    for _ in range(count):
        name = r.take(r.number(2))
        need(0 < len(name) <= 64 and set(name) <= NAME_BYTES and name > last, "a field's name is not as it must be")
        value, last = r.take(r.number(4)), name
        try:
            fields[name.decode()] = value.decode()
        except UnicodeDecodeError:
            raise NotProved("a value is not UTF-8") from None
    r.end()
    what = KINDS[kind - 1] if kind <= len(KINDS) else "Other"
    return {"log": log, "epoch": epoch, "position": position, "kind": what, "at_micros": at, "fields": fields}


def read_head(payload: bytes) -> dict[str, Any]:
    r = Reader(payload)
    need(r.take(4) == b"BREH" and r.number(2) == 1, "the head is not of version 1")
    log, epoch, size, last, root = r.number(2), r.number(4), r.number(8), r.take(32), r.take(32)
    at, lsn, key_id = r.number(8, signed=True), r.number(8), r.take(8)
    peaks = [r.take(32) for _ in range(r.number(1))]
    r.end()
    need(0 < epoch < 2**31 and 0 < size < 2**63 and len(peaks) == bin(size).count("1"), "a number of the head is out of range")
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = sha(b"\x01", peak, node)
    need(node == root, "the head's root does not follow from its peaks")
    readable = {"format": "bre-audit-head-1", "log": log, "epoch": epoch, "size": size, "last_hash": last.hex(), "root": root.hex()}
    readable |= {"at_micros": at, "lsn": f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}", "key_id": key_id.hex(), "payload": payload.hex()}
    return readable


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """RFC 9162, section 2.1.3.2."""
    last, node = size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = sha(b"\x01", sibling, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = sha(b"\x01", node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None


def check(proof: bytes, keys: Sequence[bytes]) -> Proved:
    """What a proof says, if it holds under one of the public keys (32 bytes each); raises NotProved otherwise."""
    try:
        said = json.loads(proof)
        data, head, path = unhex(said["entry"]), said["head"], [unhex(node, 32) for node in said["path"]]
        payload, signature = unhex(head["payload"]), unhex(head["signature"], 64)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotProved("this is not a proof of the form bre-audit-proof-1") from None
    entry, covers = read_entry(data), read_head(payload)
    leaf = sha(b"\x00", data)
    content: dict[str, Any] = {"format": "bre-audit-proof-1"} | {name: entry[name] for name in ("log", "epoch", "position", "kind", "at_micros")}
    content |= {"hash": leaf.hex(), "entry": data.hex(), "path": [node.hex() for node in path]}
    content["head"] = covers | {"signature": signature.hex()}
    need((json.dumps(content, indent=2) + "\n").encode() == proof, "the proof's bytes are not those that its content is written as")
    key = next((key for key in keys if sha(key)[:8].hex() == covers["key_id"]), None)
    need(key is not None, "the head is signed by a key that is not among the trusted keys")
    need(key is not None and signed(key, payload, signature), "the head's signature is false")
    covered = entry["log"] == covers["log"] and entry["epoch"] <= covers["epoch"] and entry["position"] <= covers["size"]
    need(covered, "the head does not cover the entry")
    need(root_of(leaf, entry["position"] - 1, covers["size"], path) == unhex(covers["root"]), "the entry does not lead to the signed root")
    size, at, key_id = covers["size"], covers["at_micros"], covers["key_id"]
    return Proved(**entry, entry_hash=leaf.hex(), head_size=size, head_at_micros=at, key_id=key_id)


def unbase64(text: str) -> bytes:
    """In the one form that the bytes have."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise NotProved("it is not base64") from None
    need(base64.b64encode(data).decode() == text, "it is base64 of another form")
    return data


def note_key_id(name: str, kind: int, key: bytes) -> bytes:
    return sha(name.encode(), b"\n", bytes([kind]), key)[:4]


def read_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """A signed note (C2SP): its text, and of each signature name, key id and bytes."""
    need(len(note) <= 64 << 10, "the note is longer than 64 KiB")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise NotProved("the note is not UTF-8") from None
    is_text = whole.endswith("\n") and all(c == "\n" or ord(c) >= 32 for c in whole)
    need(is_text, "the note has control characters, or no line end")
    text, empty, lines = whole.rpartition("\n\n")
    need(empty, "no empty line divides text and signatures")
    signatures = []
    for line in lines[:-1].split("\n"):
        dash, name, data = line.split(" ") if line.count(" ") == 2 else ("", "", "")
        said = unbase64(data)
        is_name = name and "+" not in name and not any(c.isspace() for c in name)
        need(dash == "\u2014" and is_name and len(said) > 4, "a signature line is not as it must be")
        signatures.append((name, said[:4], said[4:]))
    need(len(signatures) <= 64, "the note has more than 64 signatures")
    return text + "\n", signatures


def check_cosigned(note: bytes, keys: Sequence[bytes], origin: str, witness: str) -> tuple[int, bytes, int]:
    """Size and root of a checkpoint of this origin that one of the log's keys signed and this witness (his verifier
    key) cosigned, and when, in seconds since 1970; raises NotProved otherwise. Both signatures are over the text, which
    names the origin."""
    text, signatures = read_note(note)
    lines = text.split("\n")[:-1]
    need(len(lines) >= 3 and all(lines), "this is not a checkpoint")
    need(lines[0] == origin, "it is a checkpoint of another origin")
    need(lines[1].isascii() and lines[1].isdigit() and str(int(lines[1])) == lines[1], "its size is not a whole number")
    size, root = int(lines[1]), unbase64(lines[2])
    need(0 < size < 2**63 and len(root) == 32, "its size or root is not as it must be")

    def of(name: str, key_id: bytes) -> list[bytes]:
        return [said for by, known, said in signatures if (by, known) == (name, key_id)]

    by_log = [(key, said) for key in keys for said in of(origin, note_key_id(origin, 1, key))]
    are_good = all(len(said) == 64 and signed(key, text.encode(), said) for key, said in by_log)
    need(by_log and are_good, "no trusted key of the log signed it")
    name, _, rest = witness.partition("+")
    key_id, _, data = rest.partition("+")
    kind_and_key = unbase64(data)
    need(len(kind_and_key) == 33 and kind_and_key[0] == 4, "this is not the verifier key of a witness")
    key = kind_and_key[1:]
    need(note_key_id(name, 4, key).hex() == key_id, "the witness's verifier key has another id")
    times_signed = []
    for said in of(name, note_key_id(name, 4, key)):
        at = int.from_bytes(said[:8], "big")
        message = f"cosignature/v1\ntime {at}\n{text}".encode()
        need(len(said) == 72 and at < 2**63 and signed(key, message, said[8:]), "the witness's signature is false")
        times_signed.append(at)
    need(times_signed, "the witness did not sign it")
    return size, root, max(times_signed)


def read_key(line: str) -> bytes:
    """The public key of a file such as audit_signing.pub."""
    label, _, digits = line.rstrip("\n").partition(" ")
    need(label == "bre-audit-verifying-key-1", "this is not a public key of an audit log")
    return unhex(digits, 32)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2:
        print("usage: python3 check_proof.py PROOF KEY...", file=sys.stderr)
        return 2
    try:
        keys = [read_key(open(name, encoding="ascii", errors="replace").read(256)) for name in arguments[1:]]
        with open(arguments[0], "rb") as file:
            proved = check(file.read(64 << 20), keys)
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 4
    except NotProved as why:
        print(f"NOT PROVED: {why}")
        return 1
    print(f"proved: entry {proved.position} of epoch {proved.epoch}, {proved.kind}, in the log that the head of size {proved.head_size} signs")
    for name, value in proved.fields.items():
        print(f"  {name:<16} {ascii(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
