"""Whether the fuzzer can tell a worker that hangs from one the machine gives no CPU: both end by the supervisor's hand. And whether it
looks for dead letters where they lie."""

import os
import shutil
import signal
import subprocess
import sys
import time

import plan
import values
import wire
from fuzz import Fuzz
from traffic import letters
from world import Finding, Starved, workspace

# Each lengthens the time a thread of SCHED_IDLE waits for their CPU when it first wants it, by about half a second.
HOGS = 64
HOG = f"""
import os
for _ in range({HOGS.bit_length() - 1}):
    os.fork()
while True:
    pass
"""


def threads(pid):
    """None of a process that is gone."""
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def block(pid):
    """The loop stands still and does not want a CPU."""
    os.kill(pid, signal.SIGSTOP)


def occupy(cpu):
    """Processes that want nothing but this CPU; they lead a group of their own."""
    def stay():
        os.sched_setaffinity(0, {cpu})
        try:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        except PermissionError:
            pass
    hogs = subprocess.Popen([sys.executable, "-c", HOG], preexec_fn=stay, start_new_session=True)
    time.sleep(2)
    return hogs


def starve(pid):
    """The loop wants a CPU and does not get it."""
    cpu = min(os.sched_getaffinity(0))
    hogs = occupy(cpu)
    for thread in threads(pid):
        os.sched_setaffinity(int(thread), {cpu})
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
    return hogs


def feed(pid):
    """What the supervisor kills needs a CPU to end, too."""
    for thread in threads(pid):
        try:
            os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(int(thread), os.sched_getaffinity(0))
        except OSError:
            pass  # It has ended.


def block_among_busy(pid):
    """The loop does not want the CPU that others have."""
    block(pid)
    return starve(pid)


def end_of(options, act):
    """What the fuzzer says of a broker-store that this is done to, and whether the platform is whole again after it."""
    base = workspace(options.dir)
    fuzz = Fuzz(os.path.abspath(options.bin), base, "self-test", plan.settings("self-test", 0), options)
    try:
        fuzz.begin()
        fuzz.traffic.send(values.Dice("self-test"))
        fuzz.net.wait(1)
        pid = fuzz.world.pids["broker-store"]
        hogs = act(pid)
        try:
            end = time.monotonic() + 30
            while not fuzz.watch.was_silent("broker-store") and time.monotonic() < end:
                fuzz.net.wait(0.1)
        finally:
            if hogs:
                os.killpg(hogs.pid, signal.SIGKILL)
                hogs.wait()
        feed(pid)
        fuzz.net.wait(20)
        return None
    except Starved as starved:
        fuzz.revive(starved)
        fuzz.verify(killed=True)
        return starved
    except Finding as finding:
        return finding
    finally:
        fuzz.abandon()
        shutil.rmtree(base, ignore_errors=True)


def dead_letters(options):
    """What waits, sent to a retry topic with too many tries: found among the dead letters, at once. Returns what is still missed."""
    base = workspace(options.dir)
    fuzz = Fuzz(os.path.abspath(options.bin), base, "self-test", plan.settings("self-test", 0), options)
    try:
        fuzz.begin()
        for pairs in ([("TIMER_DELAY_MS", "2000")], [("DELAY", "2")], []):
            body = fuzz.model.token(None).encode()
            said = letters("%RETRY%fz-group-1", 0, props=wire.properties(pairs), reconsumed=16)
            fuzz.own.request(310, said, body, fuzz.expectation(310, said, body, odd=False))
        fuzz.net.until(lambda: not fuzz.own.pending, 20)
        sent = len(fuzz.model.awaited)
        fuzz.verifier.verify(final=True)
        return [f"{3 - sent} of 3 were not confirmed"] * (sent < 3) + [entry.kind for entry in fuzz.model.awaited]
    finally:
        fuzz.abandon()
        shutil.rmtree(base, ignore_errors=True)


def run(options):
    missed = dead_letters(options)
    failed = len(missed)
    print(f"{'WRONG' if missed else 'right'}: dead letters, missed {missed}", flush=True)
    for name, act, wanted in (
            ("blocked", block, Finding), ("blocked among busy", block_among_busy, Finding), ("starved", starve, Starved)):
        began = time.monotonic()
        # Whether a thread waits long enough is the scheduler's: a starved loop that was not killed shows nothing.
        end = next((each for each in (end_of(options, act) for _ in range(3)) if each), None)
        right = isinstance(end, wanted) and (wanted is Starved or end.kind == "worker")
        failed += not right
        print(f"{'right' if right else 'WRONG'}: {name} loop, after {time.monotonic() - began:.0f} s: "
              f"{type(end).__name__} {end}", flush=True)
    return 1 if failed else 0
