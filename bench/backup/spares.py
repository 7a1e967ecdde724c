"""A standby promoted after the loss of its primary: ours, which reads the repository alone, and PostgreSQL's own, which streams from the
primary. The clock runs from the command to the first committed write; rows are counted afterwards."""

import os
import shutil
import time

from cases import Bench, in_turn
from cluster import Cluster, as_user, folder
from measure import Failed, Helper, run, settle

CASE = "promotion after a loss, command to first committed write"
OURS, PEER = "ours, spare from the repository", "PostgreSQL's standby, streaming"


def spares(bench: Bench):
    ours = bench.ours()
    bench.base(ours)
    ours.leave()
    for number in range(bench.rounds):
        for turn in in_turn([promote_ours, promote_peer], number):
            turn(bench, ours)
    ours.close()


def write_some(bench):
    """As a last transaction that nobody may lose."""
    bench.cluster.sql("INSERT INTO trades (client, quantity, price, note) SELECT n, 100, 19.5, 'before the loss' FROM generate_series(1, 1000) n")
    return bench.cluster.sql("SELECT count(*) FROM trades")


def lose(bench):
    bench.cluster.stop("immediate")
    settle()


def bring_back(bench):
    bench.cluster.start()


def promote_ours(bench, ours):
    home = folder(f"{bench.work}/spare", empty=True)
    sockets = folder(f"{bench.work}/run-spare", empty=True)
    ours.enter()
    command = as_user([bench.protect, "spare", *ours.place, "--to", f"{home}/standby-data", "--sockets", sockets])
    os.makedirs(f"{home}/standby-data", exist_ok=True)
    folder(f"{home}/standby-data")
    os.chmod(f"{home}/standby-data", 0o700)
    spare = Helper(command, f"{home}/log", ready="following")
    count = write_some(bench)
    flushed = "SELECT pg_wal_lsn_diff(flush_lsn, pg_current_wal_flush_lsn()) >= 0 FROM pg_stat_replication WHERE application_name = 'bre'"
    bench.cluster.until(lambda: bench.cluster.sql(flushed), "the repository holds it")
    # Killed, so that no clean ending helps.
    ours.helper.end(9)
    ours.helper = None
    lose(bench)
    began = time.monotonic()
    spare.child.stdin.write(b"promote\n")
    spare.child.stdin.flush()
    words = spare.child.stdout.readline().decode().split()
    wall = time.monotonic() - began
    if not words or words[0] != "promoted":
        raise Failed(f"the spare was not promoted: {words}; see {home}/log")
    spare.end()
    note(bench, OURS, wall)
    check(bench, words[2], count)
    shutil.rmtree(home)
    bring_back(bench)


def promote_peer(bench, _ours):
    home = folder(f"{bench.work}/standby", empty=True)
    run(as_user(bench.cluster.client("pg_basebackup", "-D", f"{home}/standby-data", "-R", "-X", "stream", "-c", "fast")))
    standby = Cluster(f"{home}/standby-data", bench.work, log=f"{home}/log")
    standby.start(["archive_mode=off"])
    count = write_some(bench)
    flushed = "SELECT pg_wal_lsn_diff(replay_lsn, pg_current_wal_flush_lsn()) >= 0 FROM pg_stat_replication WHERE application_name = 'walreceiver'"
    bench.cluster.until(lambda: bench.cluster.sql(flushed), "the standby has replayed it")
    lose(bench)
    connection = standby.connect()
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_promote(true, 60)")
        cursor.execute("CREATE TABLE promoted (n int)")
    wall = time.monotonic() - began
    connection.close()
    standby.stop()
    note(bench, PEER, wall)
    check(bench, f"{home}/standby-data", count)
    shutil.rmtree(home)
    bring_back(bench)


def check(bench, data, count):
    server = Cluster(data, bench.work, log=f"{bench.work}/promoted.log")
    server.start(["archive_mode=off"])
    found = server.sql("SELECT count(*) FROM trades")
    server.stop("immediate")
    if found != count:
        raise Failed(f"{found} rows are on the promoted cluster, of {count}")


def note(bench, name, wall):
    bench.results.add(CASE, name, {"wall, s": wall})
    bench.say(f"  {name:45} {wall:7.3f} s")
