"""What the stream costs while pgbench runs: how far behind the durable copy is, and what is left of the rate."""

import re
import statistics
import threading
import time

from cases import Bench, in_turn
from cluster import as_user
from measure import Failed, Helper, run, settle
from programs import Ours, OursInS3, PgBackRest, Receiver

CLIENTS = 16
SCRIPT = """\\set id random(1, {rows})
BEGIN;
UPDATE events SET quantity = quantity + 1 WHERE id = :id;
INSERT INTO trades (client, quantity, price, note) VALUES (:id % 9973, 100, 19.5, 'granted by the desk after a call with the lender');
END;
"""


class Lag(threading.Thread):
    """Asks the server every 5 ms what it knows of a standby: bytes not yet durable there, and its flush lag. The server repeats the
    last lag it saw, which may be that of catching up: what it shows when the load begins counts only from its first change."""

    SQL = (
        "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn), extract(epoch FROM flush_lag) * 1000"
        " FROM pg_stat_replication WHERE application_name = %s"
    )

    def __init__(self, cluster, name):
        super().__init__(daemon=True)
        self.connection, self.name = cluster.connect(), name
        self.bytes, self.millis, self.over = [], [], threading.Event()

    def run(self):
        stale = None
        with self.connection.cursor() as cursor:
            while not self.over.wait(0.005):
                cursor.execute(self.SQL, (self.name,))
                behind, lag = cursor.fetchone() or (None, None)
                if behind is not None:
                    self.bytes.append(float(behind))
                stale = lag if stale is None else stale
                if lag is not None and lag != stale:
                    stale = -1
                    self.millis.append(float(lag))

    def end(self):
        self.over.set()
        self.join()
        self.connection.close()
        if not self.millis:
            raise Failed(f"the server never told a lag of {self.name}")
        return {**percentiles("behind", "ms", self.millis), **percentiles("behind", "kB", [each / 1000 for each in self.bytes])}


class ArchiveLag(Lag):
    """The same of whole segments: what is not in the archive, and since when."""

    SQL = (
        "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0'), last_archived_wal,"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') FROM pg_stat_archiver WHERE %s IS NOT NULL"
    )

    def run(self):
        history = []
        with self.connection.cursor() as cursor:
            while not self.over.wait(0.005):
                cursor.execute(self.SQL, (self.name,))
                flushed, segment, size = cursor.fetchone()
                flushed, now = float(flushed), time.monotonic()
                history.append((now, flushed))
                if not segment:
                    continue
                archived = (int(segment[8:16], 16) * (2**32 // size) + int(segment[16:24], 16) + 1) * size
                since = next((at for at, end in history if end > archived), now)
                self.bytes.append(max(flushed - archived, 0))
                self.millis.append((now - since) * 1000)


def percentiles(name, unit, values):
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else values * 99
    return {f"{name} p50, {unit}": cuts[49], f"{name} p99, {unit}": cuts[98]}


def streams(bench: Bench, seconds):
    ours, receiver, archive = bench.ours(), bench.take(Receiver), bench.take(PgBackRest)
    bucket = bench.take(OursInS3, bench.protect, bench.moto)
    archive.fresh()
    script = f"{bench.work}/trade.sql"
    with open(script, "w") as file:
        file.write(SCRIPT.format(rows=bench.cluster.sql("SELECT count(*) FROM events")))
    load = lambda lag=None: throughput(bench.cluster, script, seconds, lag)
    load()
    turns = [
        lambda: with_stream(bench, ours, "ours", "bre", False, load),
        lambda: alone(bench, load),
        lambda: with_stream(bench, ours, "ours, strict", "bre", True, load),
        lambda: with_stream(bench, receiver, "pg_receivewal --synchronous", "receiver", False, load),
        lambda: with_stream(bench, receiver, "pg_receivewal --synchronous, waited for", "receiver", True, load),
        lambda: archived(bench, archive, load),
        lambda: with_stream(bench, bucket, "ours, S3 (moto)", "bre", False, load),
    ]
    for number in range(bench.rounds):
        for turn in turns if number == 0 else in_turn(turns, number):
            turn()
    for program in (ours, receiver, archive, bucket):
        program.close()


def throughput(cluster, script, seconds, lag=None):
    cluster.sql("CHECKPOINT")
    settle()
    if lag:
        lag.start()
    words = ["-n", "-M", "prepared", "-c", CLIENTS, "-j", 1, "-T", seconds, "-f", script, "postgres"]
    output = run(as_user(cluster.client("pgbench", *words)))
    return float(re.search(r"tps = ([0-9.]+)", output).group(1))


def note(bench, name, rate, lag):
    bench.results.add(f"pgbench, {CLIENTS} clients", name, {"transactions, 1/s": rate})
    if lag:
        bench.results.add("lag of the durable copy", name, lag)
    bench.say(f"  pgbench {name:45} {rate:7.0f} /s  {lag['behind p99, ms'] if lag else 0:8.2f} ms p99")


def alone(bench, load):
    note(bench, "no protection", load(), None)


def with_stream(bench, program, name, standby, waited_for, load):
    # A slot would keep the WAL of all other turns, and the first thing measured would be how long that takes to catch up.
    program.fresh()
    program.strict = waited_for
    program.enter()
    # A new slot begins at the last checkpoint: what was written since is not part of the lag.
    level = f"SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication WHERE application_name = '{standby}'"
    bench.cluster.until(lambda: bench.cluster.sql(level), "the stream is level with the server")
    if waited_for:
        bench.cluster.set("synchronous_standby_names", standby)
    lag = Lag(bench.cluster, standby)
    try:
        rate = load(lag)
    finally:
        figures = lag.end()
        bench.cluster.set("synchronous_standby_names", "")
        program.leave()
        if isinstance(program, Ours):
            program.drop_slot()
    note(bench, name, rate, figures)


def archived(bench, program, load):
    bench.cluster.sql("SELECT pg_switch_wal()")
    program.enter()
    lag = ArchiveLag(bench.cluster, "archive")
    try:
        rate = load(lag)
    finally:
        figures = lag.end()
        program.leave()
    note(bench, "pgBackRest archive_command", rate, figures)
