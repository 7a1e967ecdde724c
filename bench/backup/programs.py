"""The programs that are compared, each behind the same few words: `fresh`, `full`, `incremental`, `restore`, `delta`, and more where it has more."""

import http.client
import os
import shutil
import signal
import socket

from cluster import USER, as_user, folder
from measure import Helper, measured, run


class Program:
    """Stands beside the cluster; what it keeps lies in a folder of its own."""

    name = helper = None

    def __init__(self, cluster, work):
        self.cluster = cluster
        self.home = folder(f"{work}/{type(self).__name__.lower()}-{len(os.listdir(work))}", empty=True)
        self.repository = f"{self.home}/repository"

    def server(self):
        return [self.cluster.pid] if self.cluster.running else []

    def helpers(self):
        return [self.helper.pid] if self.helper else []

    def measure(self, command, stored=True):
        kept = self.repository if stored else None
        return measured(as_user(command), self.server(), self.helpers(), kept)

    def enter(self):
        """Before a measurement: what this one needs from the server."""

    def leave(self):
        """After it, so that the next one is alone."""

    def close(self):
        self.leave()
        shutil.rmtree(self.home, ignore_errors=True)


class Ours(Program):
    settings = "bre: zstd 1, AES-256-GCM, X25519-wrapped keys, 2 threads, stream attached"

    def __init__(self, cluster, work, program, source="local"):
        super().__init__(cluster, work)
        self.program, self.source = program, source
        self.name = f"ours, {source} source"
        self.strict = False
        self.slot = "bre" if source == "local" else f"bre_{source}"
        self.keys = f"{self.home}/keys"
        self.place = ["--repository", self.repository, "--keys", self.keys]
        self.where = ["--sockets", cluster.sockets, "--port", cluster.port]

    def fresh(self):
        self.leave()
        self.drop_slot()
        for kept in (self.repository, self.keys):
            shutil.rmtree(kept, ignore_errors=True)
        run(as_user([self.program, "init", *self.place]))

    def enter(self):
        if not self.helper:
            words = [self.program, "stream", *self.place, *self.where, "--slot", self.slot]
            command = as_user(words + ["--strict"] * self.strict)
            self.helper = Helper(command, f"{self.home}/stream.log", ready="attached")

    def leave(self):
        if self.helper:
            self.helper.end()
            self.helper = None

    def drop_slot(self):
        gone = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{self.slot}'"
        drop = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{self.slot}' AND NOT active"
        self.cluster.until(lambda: [self.cluster.sql(drop), self.cluster.sql(gone)][1] == 0, "our slot is dropped")

    def full(self):
        return self.measure([self.program, "full", "--source", self.source, *self.place, *self.where])

    def incremental(self):
        return self.measure([self.program, "incremental", "--source", self.source, *self.place, *self.where])

    def restore(self, to):
        return self.measure([self.program, "restore", *self.place, "--to", to], stored=False)

    def delta(self, to):
        return self.measure([self.program, "restore", "--over", *self.place, "--to", to], stored=False)

    def recover(self, to):
        return self.measure([self.program, "recover", *self.place, "--to", to], stored=False)


class OursInS3(Ours):
    """In a bucket of moto's on loopback: one process of Python, which keeps everything in memory."""

    BUCKET = "bench"

    def __init__(self, cluster, work, program, moto):
        super().__init__(cluster, work, program)
        self.settings = "the same, into S3 as moto serves it (one Python process in memory, on loopback)"
        self.name, self.slot, self.moto, self.server_of_s3 = "ours, S3 (moto)", "bre_s3", moto, None
        self.credentials = f"{self.home}/credentials"
        with open(self.credentials, "w") as file:
            file.write("[default]\naws_access_key_id = bench\naws_secret_access_key = bench\n")
        self.repository = None

    def fresh(self):
        """A new server: what an old one holds is memory."""
        self.leave()
        self.end_server()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server_of_s3 = Helper([self.moto, "-H", "127.0.0.1", "-p", port], f"{self.home}/moto.log")
        self.cluster.until(lambda: self.put_bucket(port), "moto serves")
        where = f"s3://{self.BUCKET}/bre?region=us-east-1&endpoint=http://127.0.0.1:{port}&credentials-file={self.credentials}"
        self.place = ["--repository", where, "--keys", self.keys]
        self.drop_slot()
        shutil.rmtree(self.keys, ignore_errors=True)
        run(as_user([self.program, "init", *self.place]))

    def put_bucket(self, port):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("PUT", f"/{self.BUCKET}")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def measure(self, command, stored=False):
        return super().measure(command, stored=False)

    def end_server(self):
        if self.server_of_s3:
            self.server_of_s3.end(signal.SIGTERM)
            self.server_of_s3 = None

    def close(self):
        self.leave()
        self.end_server()
        super().close()


class PgBackRest(Program):
    name = "pgBackRest"
    level = 3

    def __init__(self, cluster, work):
        super().__init__(cluster, work)
        self.version = run(["pgbackrest", "version"]).strip()
        self.settings = f"{self.version}: repo1-cipher-type=aes-256-cbc, compress-type=zst, compress-level={self.level}, process-max=2, start-fast"
        self.config = f"{self.home}/pgbackrest.conf"
        for name in ("lock", "spool", "log"):
            folder(f"{self.home}/{name}")
        with open(self.config, "w") as file:
            file.write(
                f"[global]\nrepo1-path={self.repository}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=correct-horse-battery\n"
                f"compress-type=zst\ncompress-level={self.level}\nprocess-max=2\nstart-fast=y\nrepo1-retention-full=99\n"
                f"lock-path={self.home}/lock\nspool-path={self.home}/spool\nlog-path={self.home}/log\nlog-level-file=off\nlog-level-console=warn\n"
                f"[main]\npg1-path={cluster.data}\npg1-port={cluster.port}\npg1-socket-path={cluster.sockets}\npg1-user={USER}\n"
            )

    def command(self, *words):
        return ["pgbackrest", f"--config={self.config}", "--stanza=main", *words]

    @property
    def archive_command(self):
        return " ".join(self.command("archive-push", "%p"))

    def enter(self):
        self.cluster.set("archive_command", self.archive_command)

    def leave(self):
        if self.cluster.running:
            self.cluster.set("archive_command", "/bin/true")

    def fresh(self):
        shutil.rmtree(self.repository, ignore_errors=True)
        folder(self.repository)
        run(as_user(self.command("stanza-create")))

    def full(self):
        return self.measure(self.command("backup", "--type=full"))

    def incremental(self):
        return self.measure(self.command("backup", "--type=incr"))

    def restore(self, to):
        folder(to)
        os.chmod(to, 0o700)
        return self.measure(self.command("restore", f"--pg1-path={to}"), stored=False)

    def delta(self, to):
        return self.measure(self.command("restore", "--delta", f"--pg1-path={to}"), stored=False)


class PgBackRestLevel1(PgBackRest):
    name = "pgBackRest, zst level 1"
    level = 1


class PgBaseBackup(Program):
    name = "pg_basebackup (reference, not encrypted)"
    settings = "-Ft -X stream -c fast -Z server-zstd:level=1,workers=2"

    def fresh(self):
        folder(self.repository, empty=True)

    def full(self):
        words = ["-Ft", "-X", "stream", "-c", "fast", "-Z", "server-zstd:level=1,workers=2", "-D", f"{self.repository}/base"]
        return self.measure(self.cluster.client("pg_basebackup", *words))

    def restore(self, to):
        folder(to)
        os.chmod(to, 0o700)
        return self.measure(["tar", "--zstd", "-xf", f"{self.repository}/base/base.tar.zst", "-C", to], stored=False)


class Barman(Program):
    name = "Barman (not encrypted)"

    def __init__(self, cluster, work):
        super().__init__(cluster, work)
        self.version = run(["barman", "-v"]).split()[0]
        self.settings = f"{self.version}: backup_method=postgres, backup_compression=zstd level 1 with 2 workers, streaming_archiver"
        self.config = f"{self.home}/barman.conf"
        connect = f"host={cluster.sockets} port={cluster.port} user={USER} dbname=postgres"
        folder(f"{self.home}/etc")
        with open(self.config, "w") as file:
            file.write(
                f"[barman]\nbarman_user={USER}\nbarman_home={self.repository}\nconfiguration_files_directory={self.home}/etc\n"
                f"log_file={self.home}/barman.log\nlog_level=WARNING\n"
                f"[main]\ndescription=bench\nconninfo={connect}\nstreaming_conninfo={connect}\nbackup_method=postgres\n"
                "backup_compression=zstd\nbackup_compression_level=1\nbackup_compression_location=server\n"
                f"streaming_archiver=on\nslot_name=barman\ncreate_slot=auto\nimmediate_checkpoint=true\npath_prefix={cluster.bin}\n"
            )

    def command(self, *words):
        return ["barman", "-c", self.config, *words]

    def fresh(self):
        self.leave()
        self.cluster.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'barman'")
        folder(self.repository, empty=True)

    def enter(self):
        if not self.helper:
            run(as_user(self.command("receive-wal", "--create-slot", "main")))
            command = as_user(self.command("receive-wal", "main"))
            self.helper = Helper(command, f"{self.home}/receive.log")
            attached = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'barman_receive_wal'"
            self.cluster.until(lambda: self.cluster.sql(attached) > 0, "Barman receives WAL")
            # It refuses to begin before it has seen a whole segment.
            run(as_user(self.command("switch-wal", "--force", "--archive", "main")))

    def leave(self):
        if self.helper:
            self.helper.end(signal.SIGINT)
            self.helper = None

    def full(self):
        return self.measure(self.command("backup", "main"))


class Receiver(Program):
    """pg_receivewal: the yardstick of streaming; it seals nothing."""

    name = "pg_receivewal --synchronous (not encrypted)"
    settings = "--synchronous, no compression"

    def fresh(self):
        folder(f"{self.home}/wal", empty=True)

    def enter(self):
        kept = f"{self.home}/wal"
        self.leave()
        run(as_user(self.cluster.client("pg_receivewal", "--create-slot", "--if-not-exists", "-S", "receiver")))
        command = as_user(self.cluster.client("pg_receivewal", "--synchronous", "-S", "receiver", "-D", kept, "--no-loop"))
        self.helper = Helper(command, f"{self.home}/log", env={**os.environ, "PGAPPNAME": "receiver"})
        attached = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'receiver'"
        self.cluster.until(lambda: self.cluster.sql(attached) > 0, "pg_receivewal streams")

    def leave(self):
        if self.helper:
            self.helper.end(signal.SIGINT)
            self.helper = None
            drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'receiver' AND NOT active"
            gone = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'receiver'"
            self.cluster.until(lambda: [self.cluster.sql(drop), self.cluster.sql(gone)][1] == 0, "the receiver's slot is dropped")


class Floor(Program):
    """Read, compress, seal, write: what no backup can be without."""

    name = "bare read-compress-seal-write loop"
    settings = "2 threads, zstd 1, AES-256-GCM"

    def __init__(self, cluster, work, program):
        super().__init__(cluster, work)
        self.program = program

    def fresh(self):
        folder(self.repository, empty=True)

    def full(self):
        return self.measure([self.program, "floor", "--from", self.cluster.data, "--to", self.repository])
