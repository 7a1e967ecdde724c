"""A private PostgreSQL with a database whose data compress about four times: built once, copied for every run."""

import fcntl
import getpass
import glob
import os
import pwd
import random
import shutil
import string
import time

import psycopg2

from measure import Failed, folder_bytes, run

# Raised whenever the data change, so that an old copy is not taken for the new one.
VERSION = 8
SEED = 20261123
ROOT = os.geteuid() == 0
USER = "postgres" if ROOT else getpass.getuser()
CONF = """
listen_addresses = ''
shared_buffers = 512MB
max_connections = 100
max_wal_senders = 10
max_replication_slots = 10
max_wal_size = 16GB
checkpoint_timeout = 1h
wal_level = replica
archive_mode = on
archive_command = '/bin/true'
autovacuum = off
logging_collector = off
"""
TABLES = """
CREATE TABLE events (id bigint, at timestamptz, client int, ticker text, quantity numeric, price numeric(16,4),
    note text, extra jsonb, digest bytea);
CREATE TABLE rates (ticker int, at timestamptz, rate numeric(12,6), available bigint, source smallint);
CREATE TABLE documents (id int, body text);
CREATE TABLE trades (id bigserial, at timestamptz DEFAULT now(), client int, quantity numeric, price numeric(16,4), note text);
"""
INDEXES = """
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX ON events (client, at);
CREATE INDEX ON rates (ticker, at);
ALTER TABLE documents ADD PRIMARY KEY (id);
ALTER TABLE trades ADD PRIMARY KEY (id);
"""


def as_user(command):
    """PostgreSQL and what works on its files never run as root."""
    command = list(map(str, command))
    if not ROOT:
        return command
    home = pwd.getpwnam(USER).pw_dir
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
    return ["env", f"HOME={home}", f"USER={USER}", *drop, *command]


def folder(path, empty=False):
    """Made, and the server's user's."""
    if empty:
        shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path, mode=0o755, exist_ok=True)
    if ROOT:
        shutil.chown(path, USER, USER)
    return path


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise Failed("PostgreSQL is not installed; see scripts/setup")
    return found[-1]


class Rows:
    """Text for COPY, the same on every machine; a file as far as COPY can tell."""

    def __init__(self, rows):
        self.rows, self.rest = rows, ""

    def read(self, size=-1):
        parts, length = [self.rest], len(self.rest)
        for row in self.rows:
            parts.append(row)
            length += len(row)
            if length >= size > 0:
                break
        text = "".join(parts)
        self.rest = text[size:] if size > 0 else ""
        return text[:size] if size > 0 else text


class Content:
    def __init__(self, megabytes):
        self.dice = random.Random(SEED)
        self.megabytes = megabytes
        syllables = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "or", "st")]
        words = ["".join(self.dice.choices(syllables, k=self.dice.randint(1, 4))) for _ in range(6000)]
        weights = [1 / (rank + 5) for rank in range(len(words))]
        pool = self.dice.choices(words, weights, k=2_000_000)
        self.sentences = [" ".join(pool[at : at + 6]) for at in range(0, 1_200_000, 6)]
        self.tickers = ["".join(self.dice.choices(string.ascii_uppercase, k=4)) for _ in range(5000)]

    def events(self):
        dice, sentences = self.dice, self.sentences
        states = ["granted", "denied", "expired", "pending review"]
        for number in range(1, self.megabytes * 1450 + 1):
            r = dice.getrandbits(64)
            at = 1_700_000_000 + number // 3
            yield (
                f"{number}\t{stamp(at)}.{r % 1000:03}\t{r % 9973}\t{self.tickers[r % 5000]}\t{(r >> 20) % 100000 * 100}"
                f"\t{(r >> 12) % 10**8 / 10**4:.4f}\t{sentences[(r >> 8) % 200000]}"
                f'\t{{"state": "{states[r >> 62]}", "venue": {r % 37}, "desk": "{self.tickers[r % 50]}", "score": {(r >> 30) % 1000}}}'
                f"\t\\\\x{r & 0xffffffff:08x}\n"
            )

    def rates(self):
        for number in range(self.megabytes * 5600):
            r = self.dice.getrandbits(40)
            at = stamp(1_600_000_000 + number // 80)
            yield f"{r % 5000}\t{at}\t{r % 40000 / 10**6:.6f}\t{(r >> 16) % 5000 * 100}\t{r % 5}\n"

    def documents(self):
        for number in range(self.megabytes * 6):
            start = self.dice.randrange(190_000)
            yield f"{number}\t{'. '.join(self.sentences[start : start + 90])}\n"


_days = {}


def stamp(second):
    """A UTC time; the day's text is made once."""
    day, rest = divmod(second, 86400)
    if day not in _days:
        _days[day] = time.strftime("%Y-%m-%d", time.gmtime(day * 86400))
    return f"{_days[day]} {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def attempt(condition):
    """A server that is not open yet says no."""
    try:
        return condition()
    except psycopg2.OperationalError:
        return False


class Cluster:
    def __init__(self, data, work, port=5432, log=None):
        self.data, self.port, self.bin = data, port, binaries()
        self.sockets = folder(f"{work}/run-{os.path.basename(data)}")
        self.log = log or f"{work}/{os.path.basename(data)}.log"
        self.running = False

    def start(self, settings=(), timeout=600):
        options = " ".join(["-k", self.sockets, "-p", str(self.port), *(f"-c {setting}" for setting in settings)])
        try:
            run(as_user([f"{self.bin}/pg_ctl", "-D", self.data, "-l", self.log, "-o", options, "-w", "-t", timeout, "-s", "start"]))
        except Failed as failed:
            with open(self.log, errors="replace") as log:
                raise Failed(f"{failed}\n{log.read()[-3000:]}") from None
        self.running = True

    def stop(self, mode="fast"):
        if self.running:
            run(as_user([f"{self.bin}/pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", 300, "-s", "stop"]))
            self.running = False

    @property
    def pid(self):
        with open(f"{self.data}/postmaster.pid") as file:
            return int(file.readline())

    def connect(self):
        connection = psycopg2.connect(host=self.sockets, port=self.port, user=USER, dbname="postgres")
        connection.autocommit = True
        return connection

    def sql(self, text):
        """The first field of the first row, if there is one."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
                row = cursor.fetchone() if cursor.description else None
                return row[0] if row else None
        finally:
            connection.close()

    def set(self, name, value):
        self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")
        self.until(lambda: self.sql(f"SHOW {name}") == value, f"{name} = {value}")

    def until(self, condition, what, patience=120):
        end = time.monotonic() + patience
        while not attempt(condition):
            if time.monotonic() > end:
                raise Failed(f"not within {patience} s: {what}")
            time.sleep(0.02)

    def wal(self):
        return int(self.sql("SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')"))

    def client(self, program, *words):
        """For `as_user`."""
        return [f"{self.bin}/{program}", "-h", self.sockets, "-p", self.port, "-U", USER, *words]


def build(cache, megabytes, say):
    """The folder of a stopped cluster of about this size; made when it is not there."""
    made = f"{folder(cache)}/v{VERSION}-{os.path.basename(os.path.dirname(binaries()))}-{megabytes}MB"
    if os.path.exists(f"{made}/PG_VERSION"):
        return made
    # Two at once would build into one folder.
    lock = open(f"{cache}/lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.path.exists(f"{made}/PG_VERSION"):
        return made
    say(f"building a database of {megabytes} MB in {made} (once)")
    data = folder(f"{made}.part", empty=True)
    os.chmod(data, 0o700)
    run(as_user([f"{binaries()}/initdb", "-D", data, "-k", "-N", "-U", USER, "-A", "trust", "--locale=C.UTF-8"]))
    with open(f"{data}/postgresql.conf", "a") as file:
        file.write(CONF)
    cluster = Cluster(data, folder(f"{cache}/build", empty=True))
    minimal = ["wal_level=minimal", "max_wal_senders=0", "archive_mode=off", "fsync=off", "maintenance_work_mem=1GB", "max_wal_size=256MB"]
    cluster.start(minimal)
    try:
        fill(cluster, Content(megabytes))
    finally:
        cluster.stop()
    os.rename(data, made)
    os.sync()
    lock.close()
    return made


def fill(cluster, content):
    connection = cluster.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        for table in ("events", "rates", "documents"):
            cursor.copy_expert(f"COPY {table} FROM STDIN", Rows(getattr(content, table)()), 1 << 20)
        cursor.execute(INDEXES)
    connection.commit()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    connection.close()


def compression(data):
    """How often zstd -1 makes the files smaller; asked once."""
    note = f"{data}.ratio"
    if not os.path.exists(note):
        packed = run(["bash", "-c", f"tar -C {data} --exclude=pg_wal -c . | zstd -1 -T2 -q | wc -c"])
        with open(note, "w") as file:
            file.write(f"{source_bytes(data) / int(packed):.2f}")
    with open(note) as file:
        return file.read()


def source_bytes(data):
    """What a backup has to read."""
    return folder_bytes(data) - folder_bytes(f"{data}/pg_wal")


def copy(made, to):
    """Warm as well: every byte was just read and written."""
    run(["cp", "-a", "--reflink=auto", made, to])
    os.sync()
    return to
