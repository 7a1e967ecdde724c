"""What a program cost, seen from outside: wall time, processor time (its own and the server's), peak memory, bytes left behind."""

import os
import signal
import subprocess
import threading
import time

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_SECONDS = 0.02


class Failed(Exception):
    pass


def stat(pid):
    """Parent, own ticks, ticks of children that ended; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def tree(roots):
    """The processes below and including these."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found = stat(pid)
        if found:
            children.setdefault(found[0], []).append(int(pid))
    open_, found = list(roots), []
    while open_:
        pid = open_.pop()
        found.append(pid)
        open_ += children.get(pid, [])
    return found


def cpu_seconds(roots):
    """Of living processes and of those below them that have ended."""
    found = [stat(pid) for pid in tree(roots)]
    return sum(own + ended for _, own, ended in filter(None, found)) * TICK_SECONDS


def rss_bytes(pid):
    """Of a process and everything below it, without looking at all of /proc."""
    total, open_ = 0, [pid]
    while open_:
        pid = open_.pop()
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * PAGE_BYTES
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    open_ += map(int, file.read().split())
        except (OSError, IndexError):
            continue
    return total


class PeakMemory(threading.Thread):
    """The highest sum of resident sets of a process tree, looked at every 20 ms."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while True:
            self.peak = max(self.peak, rss_bytes(self.pid))
            if self.over.wait(LOOK_SECONDS):
                return

    def end(self):
        self.over.set()
        self.join()
        return self.peak


def folder_bytes(folder):
    total = 0
    for at, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(at, name)).st_size
            except OSError:
                continue
    return total


def settle():
    """What an earlier program wrote is on disk before the next one is timed; the page cache stays as it is."""
    os.sync()


def run(command, **options):
    """Runs to the end; anything but success is an error with the program's own words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def measured(command, server=(), helpers=(), stored=None):
    """`server` and `helpers`: roots of processes that work for it; `stored`: the folder that grows. A dict of figures."""
    settle()
    before = folder_bytes(stored) if stored else 0
    server_before, helpers_before = cpu_seconds(server), cpu_seconds(helpers)
    began = time.monotonic()
    with open(os.devnull) as nothing:
        child = subprocess.Popen(list(map(str, command)), stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    memory = PeakMemory(child.pid)
    output = child.stdout.read().decode(errors="replace")
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    peak = memory.end()
    if child.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {child.returncode}\n{output[-4000:]}")
    return {
        "wall": wall,
        "cpu_tool": used.ru_utime + used.ru_stime + cpu_seconds(helpers) - helpers_before,
        "cpu_server": cpu_seconds(server) - server_before,
        "stored": folder_bytes(stored) - before if stored else None,
        "peak": max(peak, used.ru_maxrss * 1024),
        "output": output,
    }


class Helper:
    """A program that runs beside: a stream, a receiver. Ended by its own process id."""

    def __init__(self, command, log, ready=None, **options):
        self.log = open(log, "ab")
        out = subprocess.PIPE if ready else self.log
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=out, stderr=self.log, **options)
        self.pid = self.child.pid
        if ready and self.child.stdout.readline().decode().strip() != ready:
            self.child.kill()
            self.child.wait()
            with open(log) as text:
                raise Failed(f"{' '.join(map(str, command))} did not say {ready!r}\n{text.read()[-2000:]}")

    def end(self, how=None):
        if self.child.poll() is None:
            self.child.stdin.close() if how is None else self.child.send_signal(how)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.send_signal(signal.SIGKILL)
                self.child.wait()
        self.log.close()
