"""How long the machine kept a worker's event loop waiting: time in which it could run and another process had the CPU.

That time is not the product's. A loop that is blocked (by a lock, the disk, a stop) or busy with its own work does not stand in the run
queue, so its time counts against it on a machine under any load. Nor is the machine blamed while the workers themselves have most of
its CPUs: a worker whose other threads keep its loop from running hangs by its own doing.
"""

import collections
import os
import time

# Seconds after which the supervisor kills a worker that does not answer: five heartbeats.
HANG = 5.0


CPUS = len(os.sched_getaffinity(0))


def cpu(pid):
    """Seconds of CPU time of a process with all its threads; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def loop_thread(pid):
    """The folder of the thread that answers the worker's heartbeats; None while it has none. Threads it makes have its name for a moment,
    and come behind it."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm") as file:
                if file.read().startswith("NIO-ELT"):
                    return f"/proc/{pid}/task/{thread}"
    except OSError:
        pass
    return None


class LoopWait:
    """Of one worker. Times are those of `time.monotonic`, in seconds."""

    def __init__(self, pid):
        self.pid = pid
        self.thread = None
        # (moment, seconds it had waited by then), the newest last.
        self.samples = collections.deque(maxlen=1200)
        self.turn, self.since = None, 0.0

    def sample(self, now):
        """False when the thread is gone."""
        self.thread = self.thread or loop_thread(self.pid)
        if not self.thread:
            return os.path.exists(f"/proc/{self.pid}") and not self.samples
        try:
            with open(self.thread + "/schedstat") as file:
                ran, delay, turns = (int(each) for each in file.read().split())
            with open(self.thread + "/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except (OSError, ValueError, IndexError):
            return False
        if state in "ZX":
            return False
        # The kernel adds a wait when it is over: one that lasts shows in a thread that could run and has not.
        if (ran, turns) != self.turn or state != "R":
            self.turn, self.since = (ran, turns), now
        self.samples.append((now, delay / 1e9 + now - self.since))
        return True

    def waited(self, begin, end, late=0.0):
        """Seconds from `begin` to `end`; `late`: how late the one who samples was since the last sample, which stands for the rest."""
        inside = [each for each in self.samples if begin <= each[0] <= end]
        if not inside:
            return min(late, end - begin)
        before = [each for each in self.samples if each[0] < begin]
        return min(max(0.0, inside[-1][1] - (before[-1] if before else inside[0])[1]) + late, end - begin)


class Waits:
    """Of all workers, as one who samples often sees them."""

    def __init__(self):
        self.workers = {}
        self.last = time.monotonic()
        # Process id → CPU time seen last; (moment, CPU time of all workers by then), the newest last; when they were looked at last.
        self.used, self.total = {}, 0.0
        self.totals = collections.deque(maxlen=150)

    def know(self, pids):
        """The workers there are now; those that were known stay known."""
        self.workers = {pid: self.workers.get(pid) or LoopWait(pid) for pid in pids}

    def knows(self, pid):
        return pid in self.workers

    def sample(self, tick):
        """To be called every `tick` seconds. Returns verdicts on workers that are gone: (pid, seconds looked back, of them waited)."""
        now, gone = time.monotonic(), []
        late = max(0.0, now - self.last - tick)
        self.last = now
        if not self.totals or now - self.totals[-1][0] > 0.2:
            self.count(now)
        for pid, loop in list(self.workers.items()):
            if not loop.sample(now):
                del self.workers[pid]
                begin = max(now - HANG, loop.samples[0][0] if loop.samples else now)
                gone.append((pid, now - begin, 0.0 if self.were_busy(begin, now) else loop.waited(begin, now, late)))
        return gone

    def count(self, now):
        for pid in self.workers:
            used = cpu(pid)
            if used is not None:
                self.total += max(0.0, used - self.used.get(pid, used))
                self.used[pid] = used
        self.totals.append((now, self.total))

    def were_busy(self, begin, end):
        """The workers had more than half of the machine themselves."""
        inside = [total for at, total in self.totals if begin - 0.5 <= at <= end]
        return bool(inside) and inside[-1] - inside[0] > 0.5 * CPUS * (end - begin)

    def waited(self, pid, since):
        """Seconds until now; none of a worker that is gone."""
        now = time.monotonic()
        return 0.0 if pid not in self.workers or self.were_busy(since, now) else self.workers[pid].waited(since, now)

    def longest(self, since):
        """Seconds until now that one worker's loop waited at most."""
        return max((self.waited(pid, since) for pid in self.workers), default=0.0)
