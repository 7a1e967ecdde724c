"""What is measured. In every round each program has its turn, beginning with another one each time."""

import hashlib
import os
import random
import shutil
import signal
import time

from cluster import Cluster, as_user, folder, source_bytes
from measure import Failed, cpu_seconds, run, settle
from programs import Barman, Floor, Ours, OursInS3, PgBackRest, PgBackRestLevel1, PgBaseBackup


def in_turn(programs, number):
    at = number % len(programs)
    return programs[at:] + programs[:at]


class Bench:
    def __init__(self, cluster, work, protect, moto, rounds, results, say):
        self.cluster, self.work, self.protect, self.moto = cluster, work, protect, moto
        self.rounds, self.results, self.say = rounds, results, say
        self.settings, self.taken = {}, []

    def take(self, kind, *words):
        program = kind(self.cluster, self.work, *words)
        self.settings[program.name] = program.settings
        self.taken.append(program)
        return program

    def end_helpers(self):
        for program in self.taken:
            if program.helper:
                program.helper.end(signal.SIGTERM)
            if isinstance(program, OursInS3):
                program.end_server()

    def ours(self, source="local"):
        return self.take(Ours, self.protect, source)

    def announce(self, case, program, sample):
        self.results.add_measured(case, program.name, sample)
        self.say(f"  {case:40} {program.name:42} {sample['wall']:7.2f} s  {sample['cpu_tool'] + sample['cpu_server']:6.2f} CPU s")

    def checkpoint(self):
        self.cluster.sql("CHECKPOINT")
        settle()

    def base(self, program):
        """A new repository with one full backup."""
        program.fresh()
        program.enter()
        self.checkpoint()
        return program.full()

    def full(self):
        programs = [self.ours(), self.ours("protocol"), self.take(PgBackRest), self.take(PgBackRestLevel1)]
        programs += [self.take(Barman), self.take(PgBaseBackup), self.take(Floor, self.protect)]
        for program in programs:
            # So that tables and JSON list them in this order, whoever begins.
            self.results.cases.setdefault("full backup", {})[program.name] = {}
        for number in range(self.rounds):
            for program in in_turn(programs, number):
                self.announce("full backup", program, self.base(program))
                program.leave()
        for program in programs:
            program.close()

    def incremental(self):
        programs = [self.ours(), self.take(PgBackRest)]
        for program in programs:
            self.base(program)
        # Ours stays attached, as it does in life; the other's archiver is switched on for its own turns.
        programs[1].leave()
        rows = self.cluster.sql("SELECT count(*) FROM events")
        for number in range(self.rounds):
            start = rows // 10 + number * (rows // 50)
            contiguous = f"id > {start} AND id <= {start + rows // 100}"
            changes = {
                "incremental, 1 % of rows in one place": contiguous,
                "incremental, every 100th row": f"id % 100 = {number}",
                "incremental, nothing changed": "false",
            }
            for case, where in changes.items():
                self.cluster.sql(f"UPDATE events SET quantity = quantity + 1 WHERE {where}")
                self.checkpoint()
                for program in in_turn(programs, number):
                    program.enter()
                    self.announce(case, program, program.incremental())
                    if program is not programs[0]:
                        program.leave()
        for program in programs:
            program.close()

    def restore(self):
        programs = [self.ours(), self.take(PgBackRest), self.take(PgBaseBackup)]
        for program in programs:
            self.base(program)
            program.leave()
        to = f"{self.work}/restored"
        for number in range(self.rounds):
            for program in in_turn(programs, number):
                self.announce("restore to an empty folder", program, program.restore(to))
                if isinstance(program, (Ours, PgBackRest)):
                    mend = damage(to, number)
                    self.announce("restore over a damaged folder", program, program.delta(to))
                    mend()
                shutil.rmtree(to)
        for program in programs:
            program.close()

    def s3(self):
        """The same program into a bucket and into a folder."""
        programs = [self.take(OursInS3, self.protect, self.moto), self.ours()]
        to = f"{self.work}/restored"
        for number in range(self.rounds):
            for program in in_turn(programs, number):
                self.announce("full backup into S3", program, self.base(program))
                self.announce("restore from S3", program, program.restore(to))
                shutil.rmtree(to)
                program.leave()
        for program in programs:
            program.close()

    def recover(self):
        """Both hold the same WAL; each brings everything back to its end, opens, and stops cleanly."""
        ours, peer = self.ours(), self.take(PgBackRest)
        plain = folder(f"{self.work}/plain-wal", empty=True)
        self.base(ours)
        peer.fresh()
        self.cluster.set("archive_command", f"{peer.archive_command} && cp %p {plain}/%f")
        peer.full()
        megabytes, count = self.make_wal(1000 if self.cluster.sql("SELECT count(*) > 2000000 FROM events") else 100)
        self.wait_archived(ours)
        ours.leave()
        peer.leave()
        self.cluster.stop()
        case = f"restore and replay {megabytes / 1000:.1f} GB of WAL, to open and stopped"
        source = source_bytes(self.cluster.data) / 1e9
        for number in range(self.rounds):
            turns = [lambda: self.recover_ours(case, ours, count), lambda: self.recover_peer(case, peer, count)]
            turns.append(lambda: self.redo(peer, plain, count))
            for turn in in_turn(turns, number):
                turn()
        self.rto(ours.name, source, megabytes / 1000)
        self.rto(peer.name, source, megabytes / 1000)
        ours.close()
        peer.close()
        self.cluster.start()

    def make_wal(self, megabytes):
        """Scattered updates and inserts of single rows until there is so much; tells how much, and a count to check."""
        start, number = self.cluster.wal(), 0
        while self.cluster.wal() - start < megabytes * 1_000_000:
            number += 1
            self.cluster.sql(
                f"UPDATE events SET quantity = quantity + 1 WHERE id % 500 = {number}; INSERT INTO trades (client, quantity, price, note)"
                f" SELECT client, quantity, price, note FROM events WHERE id % 500 = {number}"
            )
        made = (self.cluster.wal() - start) / 1e6
        return made, self.cluster.sql("SELECT count(*) FROM trades")

    def wait_archived(self, ours):
        self.cluster.sql("CHECKPOINT")
        last = self.cluster.sql("SELECT pg_walfile_name(pg_switch_wal())")
        archived = "SELECT last_archived_wal FROM pg_stat_archiver"
        self.cluster.until(lambda: (self.cluster.sql(archived) or "") >= last, f"{last} is archived", 600)
        wanted = self.cluster.wal()
        flushed = "SELECT pg_wal_lsn_diff(flush_lsn, '0/0') FROM pg_stat_replication WHERE application_name = 'bre'"
        self.cluster.until(lambda: (self.cluster.sql(flushed) or 0) >= wanted, "ours has it too")

    def recover_ours(self, case, ours, count):
        to = f"{self.work}/recovered"
        sample = ours.recover(to)
        self.announce(case, ours, sample)
        words = sample["output"].split()
        replay = float(words[words.index("replay") + 1])
        self.results.add("of it, replay to open and stopped", ours.name, {"replay, s": replay})
        self.check_recovered(to, count)

    def recover_peer(self, case, peer, count):
        to = f"{self.work}/recovered"
        sample = peer.restore(to)
        before = sample["wall"]
        replay = self.run_recovery(to)
        for name in ("wall", "cpu_tool"):
            sample[name] += replay[name]
        sample["peak"] = None
        self.announce(case, peer, sample)
        self.results.add("of it, replay to open and stopped", peer.name, {"replay, s": sample["wall"] - before})
        self.check_recovered(to, count)

    def redo(self, peer, plain, count):
        """The yardstick of replay: the same WAL, all of it in pg_wal already."""
        to = f"{self.work}/recovered"
        peer.restore(to)
        os.remove(f"{to}/recovery.signal")
        run(as_user(["cp", "-a", f"{plain}/.", f"{to}/pg_wal/"]))
        settle()
        replay = self.run_recovery(to)
        self.results.add("of it, replay to open and stopped", "PostgreSQL alone, WAL in pg_wal", {"replay, s": replay["wall"]})
        self.check_recovered(to, count)

    def run_recovery(self, to):
        """Starts it as its settings say, waits until it is open, stops it; processor time by the clock of its processes."""
        server = Cluster(to, self.work, log=f"{self.work}/recovered.log")
        began = time.monotonic()
        server.start(["archive_mode=off", "hot_standby=off"], timeout=600)
        server.until(lambda: not server.sql("SELECT pg_is_in_recovery()"), "recovery has ended", 600)
        cpu = cpu_seconds([server.pid])
        server.stop()
        return {"wall": time.monotonic() - began, "cpu_tool": cpu}

    def check_recovered(self, to, count):
        server = Cluster(to, self.work, log=f"{self.work}/recovered.log")
        server.start(["archive_mode=off"])
        found = server.sql("SELECT count(*) FROM trades")
        server.stop("immediate")
        shutil.rmtree(to)
        if found != count:
            raise Failed(f"{found} rows came back of {count}")

    def rto(self, program, gigabytes, wal_gigabytes):
        cases = self.results.cases
        total = next(rounds for case, rounds in cases.items() if case.startswith("restore and replay"))[program]["wall"]
        replay = cases["of it, replay to open and stopped"][program]["replay, s"]
        for whole, part in zip(total, replay):
            figures = {"a GB of data, s": (whole - part) / gigabytes, "a GB of WAL, s": part / wal_gigabytes}
            self.results.add("time to recover", program, figures)


def damage(folder_, seed):
    """Spoils pages, cuts a file, deletes one. What it returns fails unless all of them are as they were."""
    dice = random.Random(seed)
    files = []
    for at, _, names in os.walk(f"{folder_}/base"):
        files += [os.path.join(at, name) for name in names if os.path.getsize(os.path.join(at, name)) >= 1 << 20]
    spoiled = dice.sample(sorted(files), min(4, len(files)))
    before = {path: digest(path) for path in spoiled}
    for path in spoiled[2:]:
        with open(path, "r+b") as file:
            for _ in range(50):
                file.seek(dice.randrange(os.path.getsize(path) // 8192) * 8192)
                file.write(dice.randbytes(8192))
    with open(spoiled[0], "r+b") as file:
        file.truncate(os.path.getsize(spoiled[0]) // 2)
    os.remove(spoiled[1])

    def mended():
        for path, expected in before.items():
            if digest(path) != expected:
                raise Failed(f"{path} was not mended")

    return mended


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
