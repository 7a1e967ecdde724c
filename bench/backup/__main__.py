"""`make bench-backup`: pgBackRest, Barman, PostgreSQL's own tools and bre on one private database, in one run; see scripts/bench-backup."""

import datetime
import os
import shutil
import signal
import sys
import tempfile

sys.dont_write_bytecode = True

from cases import Bench
from cluster import Cluster, build, compression, copy, source_bytes
from spares import spares
from streams import streams
from table import Results, printed, printed_others, publish

CASES = ("full", "incremental", "restore", "recover", "stream", "s3", "spare")
ELSEWHERE = {"stream": lambda bench, seconds: streams(bench, seconds), "spare": lambda bench, _: spares(bench)}


def say(text):
    print(text, flush=True)


def settings(bench, made, rounds):
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    server = bench.cluster.sql("SHOW server_version")
    say(f"\n## backup: {datetime.date.today()}, {rounds} rounds, medians; {cores} cores, {memory:.0f} GB of memory")
    say(
        f"PostgreSQL {server}, {source_bytes(made) / 1e9:.2f} GB to back up (zstd -1 makes it {compression(made)} times smaller), page checksums on. "
        "Page cache warm for all; what others wrote is synced before each is timed; a checkpoint before each backup. All write to the "
        "same disk and sync what they write. Processor time: user and system, of the program with all it starts, its stream included, "
        "and (in brackets) of the server's processes meanwhile. Peak memory: the highest sum of resident sets of its processes, the server's not among them."
    )
    for name, text in bench.settings.items():
        say(f"- {name}: {text}")
    say("")


def main():
    rounds, size = int(os.environ.get("ROUNDS") or 5), int(os.environ.get("SIZE") or 3200)
    wanted = (os.environ.get("CASES") or " ".join(CASES)).split()
    seconds = int(os.environ.get("LOAD_SECONDS") or 6)
    unknown = [case for case in wanted if case not in CASES]
    if unknown:
        raise SystemExit(f"no case is called {unknown[0]}; there are: {' '.join(CASES)}")
    protect, moto, out = sys.argv[1:4]
    cache = os.environ.get("BENCH_CACHE") or "/var/tmp/bre-bench-backup"
    made = build(cache, size, say)
    compression(made)
    work = tempfile.mkdtemp(prefix="work-", dir=cache)
    os.chmod(work, 0o755)
    if os.geteuid() == 0:
        shutil.chown(work, "postgres", "postgres")
    # A stop from outside cleans up like the end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    cluster = Cluster(copy(made, f"{work}/data"), work)
    # Where the server's user can run it, wherever the build lies.
    protect = shutil.copy(protect, f"{work}/protect")
    results = Results()
    bench = Bench(cluster, work, protect, moto, rounds, results, say)
    try:
        cluster.start()
        for case in wanted:
            say(f"{case}:")
            ELSEWHERE[case](bench, seconds) if case in ELSEWHERE else getattr(bench, case)()
        settings(bench, made, rounds)
        printed(results, say)
        printed_others(results, say)
        publish(results, out)
    finally:
        bench.end_helpers()
        cluster.stop("immediate")
        shutil.rmtree(work, ignore_errors=True)


main()
