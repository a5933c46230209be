"""Whether the fuzzer can tell a worker that hangs from one the machine gives no CPU: both end by the supervisor's hand."""

import os
import shutil
import signal
import subprocess
import sys
import time

import plan
import values
from fuzz import Fuzz
from world import Finding, Starved, workspace

# Together they leave a thread of SCHED_IDLE on their CPU less than a tick in the time of five heartbeats.
HOGS = 16


def block(pid):
    """The loop stands still and does not want a CPU."""
    os.kill(pid, signal.SIGSTOP)
    return []


def starve(pid):
    """The loop wants a CPU and does not get it."""
    cpu = min(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {cpu})
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))

    def stay():
        os.sched_setaffinity(0, {cpu})
        try:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        except PermissionError:
            pass
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=stay) for _ in range(HOGS)]


def block_among_busy(pid):
    """The loop does not want the CPU that others have."""
    block(pid)
    return starve(pid)


def end_of(options, act):
    """What the fuzzer says of a broker-store that this is done to, and whether the platform is whole again after it."""
    base = workspace(options.dir)
    fuzz = Fuzz(os.path.abspath(options.bin), base, "self-test", plan.settings("self-test", 0), options)
    hogs = []
    try:
        fuzz.begin()
        fuzz.traffic.send(values.Dice("self-test"))
        fuzz.net.wait(1)
        hogs = act(fuzz.world.pids["broker-store"])
        fuzz.net.until(lambda: fuzz.watch.was_silent("broker-store"), 30)
        # What the supervisor kills needs a CPU to end, too.
        for hog in hogs:
            hog.kill()
        fuzz.net.wait(10)
        return None
    except Starved as starved:
        fuzz.revive(starved)
        fuzz.verify(killed=True)
        return starved
    except Finding as finding:
        return finding
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
        fuzz.abandon()
        shutil.rmtree(base, ignore_errors=True)


def run(options):
    failed = 0
    for name, act, wanted in (
            ("blocked", block, Finding), ("blocked among busy", block_among_busy, Finding), ("starved", starve, Starved)):
        began = time.monotonic()
        end = end_of(options, act)
        right = isinstance(end, wanted) and (wanted is Starved or end.kind == "worker")
        failed += not right
        print(f"{'right' if right else 'WRONG'}: {name} loop, after {time.monotonic() - began:.0f} s: "
              f"{type(end).__name__} {end}", flush=True)
    return 1 if failed else 0
