"""The judged platform: `apus up` in a folder of its own, its workers found in /proc, its log."""

import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time


CAUSE = re.compile(r" (error|critical): |Fatal error|[Cc]rash|killed by")


class Finding(Exception):
    """`kind` is one word: worker, start, stall, memory, lost, foreign, twice, path, log, answer."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Starved(Exception):
    """The machine kept workers from answering, and the supervisor killed them for it: no fault of theirs, and as good as a kill -9.
    `ended`: kind → process id of those workers."""

    def __init__(self, text, ended):
        super().__init__(text)
        self.ended = ended


def workspace(folder=None):
    """Deep enough that names with many `..` still end inside it. In memory when there is room: no disk's noise."""
    if not folder:
        shm = "/dev/shm"
        roomy = os.path.isdir(shm) and os.access(shm, os.W_OK) and os.statvfs(shm).f_bavail * 4096 > 4 << 30
        folder = shm if roomy else tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="apus-fuzz-", dir=folder)


def free_port(around, held):
    """A port nobody listens at, nor at the two below and the one above it if `around`.

    Other fuzzers leave it alone as long as the files in `held` are open, also while nothing listens there: between a
    kill and the next start one of 26 had once taken another's."""
    folder = os.path.join(tempfile.gettempdir(), "apus-fuzz-ports")
    os.makedirs(folder, exist_ok=True)
    while True:
        port = random.randrange(10_000, 32_000)
        locks = []
        try:
            for each in range(port - 2, port + 2) if around else [port]:
                locks.append(open(os.path.join(folder, str(each)), "w"))
                fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", each))
            held += locks
            return port
        except OSError:
            for lock in locks:
                lock.close()


class World:
    DEPTH = "a/b/c/d/e/f/run"
    WORKERS = ("nameserver", "broker-store", "replication", "filter")

    def __init__(self, binaries, base, settings):
        self.binaries, self.base, self.settings = binaries, base, dict(settings)
        self.run = os.path.join(base, self.DEPTH)
        self.data = os.path.join(self.run, "data")
        os.makedirs(self.run)
        self.log_path = os.path.join(base, "log")
        self.process = None
        # Below those a connection gets, so that none takes them between two starts.
        self.held_ports = []
        self.broker = free_port(True, self.held_ports)
        self.nameserver = free_port(False, self.held_ports)
        self.pids = {}
        self.adopted = lambda pids: None

    def start(self, seconds=60):
        """Until it serves; a Finding when it does not."""
        arguments = [os.path.join(self.binaries, "apus"), "up", "--data-dir", self.data,
                     "--nameserver-port", str(self.nameserver), "--broker-port", str(self.broker), "--no-console"]
        for key, value in self.settings.items():
            arguments += ["--set", f"{key}={value}"]
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=self.run,
            env={**os.environ, "HOME": self.run, "TMPDIR": self.base})
        log.close()
        os.set_blocking(self.process.stdout.fileno(), False)
        said, end = b"", time.monotonic() + seconds
        while b"\n" not in said:
            if self.process.poll() is not None or time.monotonic() > end:
                state = "ended with " + str(self.process.poll()) if self.process.poll() is not None else "does not serve"
                raise Finding("start", f"the platform {state} at its start: " + self.evidence())
            said += self.process.stdout.read() or b""
            time.sleep(0.01)
        self.adopt()

    def adopt(self):
        """The present workers are those that are to stay."""
        self.pids = self.workers()
        self.adopted(self.pids)

    def workers(self):
        """Kind → pid of the present workers."""
        found = {}
        for pid in children(self.process.pid):
            try:
                name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            except OSError:
                continue  # It has just ended; the others are there.
            if name.startswith("apus-"):
                found[name.removeprefix("apus-")] = int(pid)
        return found

    def stop(self, seconds=60):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Finding("worker", f"the platform has not stopped {seconds} s after SIGTERM: " + self.evidence())
        if status != 0:
            raise Finding("worker", f"the platform ended with {status} after SIGTERM: " + self.evidence())

    def kill_all(self):
        pids = [self.process.pid, *self.workers().values()] if self.process else []
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process:
            self.process.wait()
        end = time.monotonic() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
            time.sleep(0.01)

    def kill(self, kind, poll, seconds=60):
        """kill -9 of one worker, and until a new one and all others are there."""
        old = self.pids[kind]
        os.kill(old, signal.SIGKILL)

        self.await_others({kind: old}, poll, seconds)

    def await_others(self, old, poll, seconds=60):
        """Until others are there for the workers that were killed."""
        def are_back():
            now = self.workers()
            return set(now) == set(self.pids) and all(now[kind] != pid for kind, pid in old.items())
        if not poll(are_back, seconds):
            raise Finding("start", f"{', '.join(old)} has not come back {seconds} s after kill -9: " + self.evidence())
        self.adopt()

    def tail(self, count):
        try:
            size = os.path.getsize(self.log_path)
            with open(self.log_path, "rb") as log:
                log.seek(max(0, size - 20_000))
                return [line[:300] for line in log.read().decode("utf-8", "replace").splitlines()[-count:]]
        except OSError:
            return []

    def evidence(self):
        """What the log says of causes, or else its end."""
        lines = self.tail(400)
        causes = [line for line in lines if CAUSE.search(line)]
        return " | ".join([line for line in causes if " supervisor " in line][-3:] or causes[-3:] or lines[-8:])


def read(path):
    with open(path) as file:
        return file.read()


def children(pid):
    """Process ids; none of a process that is gone."""
    try:
        return [child for task in os.listdir(f"/proc/{pid}/task") for child in read(f"/proc/{pid}/task/{task}/children").split()]
    except OSError:
        return []


def anonymous(pid):
    """Resident anonymous bytes of a process; 0 when it is gone."""
    try:
        found = re.search(r"^RssAnon:\s+(\d+)", read(f"/proc/{pid}/status"), re.M)
        return int(found.group(1)) << 10 if found else 0
    except OSError:
        return 0
