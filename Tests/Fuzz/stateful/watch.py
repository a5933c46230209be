"""The oracle that looks from outside: workers, memory, files, log, latency."""

import collections
import json
import os
import re
import subprocess
import sys
import time

import values
from waits import HANG
from world import Finding, Starved, anonymous

STAMP = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} [a-z-]+(-\d+)? +\S")
# What the broker says when it has looked through its log after a kill and found something wrong; nothing here damages a disk.
ERROR = re.compile(r"broker-store-\d+ error: ")
CHECKED = re.compile(r"broker-store-\d+ error: background check of the log has ended")
TOPIC = re.compile(r"^[%|a-zA-Z0-9_-]{1,255}$")


class Watch:
    """`memory`: MiB of anonymous memory a worker may have; `stall`: seconds a cheap request may take."""

    def __init__(self, world, stall, memory, passed, flood=4000):
        self.world, self.stall, self.memory, self.passed, self.flood = world, stall, memory << 20, passed, flood
        self.position = 0
        self.lines = []
        self.errors = collections.deque(maxlen=5)
        self.peak = {}
        self.longest = {}
        self.last = 0.0
        self.quiet = True
        self.probe = subprocess.Popen(
            [sys.executable, os.path.join(os.path.dirname(__file__), "probe.py"), str(stall)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.probe.stdout.fileno(), False)
        self.partial = b""
        # Process id → (seconds looked back, of them its event loop waited for a CPU), of workers that are gone.
        self.gone = {}
        # Seconds the machine has kept a worker, or the one who measures, waiting for a CPU since the start.
        self.late = 0.0
        # Where the log was when the present workers were there.
        self.known_at = 0
        world.adopted = self.know

    def send(self, said):
        self.probe.stdin.write(json.dumps(said).encode() + b"\n")
        self.probe.stdin.flush()

    def know(self, pids):
        """The workers there are now; whether their loops get a CPU is measured from their start on."""
        self.gone.clear()
        self.known_at = os.path.getsize(self.world.log_path)
        self.send({"workers": list(pids.values())})

    def tell(self):
        """The probe measures from now on."""
        self.quiet = False
        self.send({"targets": {"broker-store": [self.world.broker, self.world.pids.get("broker-store")],
                               "nameserver": [self.world.nameserver, self.world.pids.get("nameserver")]}})

    def hush(self):
        """Until `tell`, nothing that happens to workers or latency is a fault."""
        self.quiet = True
        self.send({"targets": {}})

    def end(self):
        try:
            self.probe.stdin.close()
        except BrokenPipeError:
            pass
        self.probe.wait(10)
        self.probe.stdout.close()

    def look(self, force=False):
        now = time.monotonic()
        if now - self.last < 0.2 and not force:
            return
        self.last = now
        if not self.quiet:
            self.look_at_workers()
        self.look_at_probe()
        self.look_at_log()

    def found(self, kind, text):
        finding = Finding(kind, text)
        if not re.search(self.passed, str(finding)):
            raise finding

    def look_at_workers(self):
        if self.world.process.poll() is not None:
            raise Finding("worker", f"apusd ended with {self.world.process.returncode}: " + self.evidence())
        now = self.world.workers()
        ended = {kind: pid for kind, pid in self.world.pids.items() if now.get(kind) != pid}
        if ended:
            time.sleep(1.0)
            starved = [self.judge_end(kind, pid) for kind, pid in ended.items()]
            raise Starved("; ".join(starved), ended)
        for kind, pid in self.world.pids.items():
            used = anonymous(pid)
            self.peak[kind] = max(self.peak.get(kind, 0), used)
            if used > self.memory:
                self.found("memory", f"{kind} has {used >> 20} MiB of anonymous memory (bound {self.memory >> 20})")

    def judge_end(self, kind, pid):
        """A worker has ended. A finding, unless the supervisor killed it for its silence and the machine gave it no time to answer: its
        event loop had less time off the run queue than a cheap request may take. Returns what was measured."""
        end = time.monotonic() + 10
        while pid not in self.gone and time.monotonic() < end:
            self.look_at_probe()
            time.sleep(0.05)
        span, waited = self.gone.get(pid, (0.0, 0.0))
        said = f"its event loop waited for a CPU in {waited:.1f} of the last {span:.1f} s"
        if not self.was_silent(kind) or span < HANG - 0.5 or span - waited > self.stall + 0.5:
            raise Finding("worker", f"{kind} (pid {pid}) has ended by itself, {said}: " + self.evidence())
        return f"{kind} (pid {pid}) was killed for its silence, {said}"

    def was_silent(self, kind):
        """The supervisor killed the present worker of this kind because it did not answer."""
        with open(self.world.log_path, "rb") as log:
            log.seek(self.known_at)
            return re.search(rb"^\S+( \S+)? supervisor +error: %s-\d+: hangs: " % kind.encode(), log.read(), re.M) is not None

    def evidence(self):
        return self.world.evidence()

    def look_at_probe(self):
        if self.probe.poll() is not None:
            raise RuntimeError("the probe has ended")
        said = self.probe.stdout.read() or b""
        *whole, self.partial = (self.partial + said).split(b"\n")
        for line in whole:
            alarm = json.loads(line)
            if "gone" in alarm:
                self.gone[alarm["gone"]] = alarm["span"], alarm["waited"]
                continue
            if "late" in alarm:
                self.late += alarm["late"]
                continue
            target, seconds = alarm["target"], alarm["latency"]
            if not alarm["alarm"]:
                self.longest[target] = max(self.longest.get(target, 0), seconds)
            elif not self.quiet:
                self.found("stall", f"a cheap request to {target} took {seconds:.2f} s, {alarm['cpu']:.2f} s of them its "
                              f"work, {alarm['noise']:.2f} s the machine's (bound {self.stall} s)")

    def look_at_log(self):
        try:
            with open(self.world.log_path, "rb") as log:
                log.seek(self.position)
                data = log.read()
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        self.position += end
        now = time.monotonic()
        lines = data[:end].split(b"\n")[:-1]
        self.lines = [entry for entry in self.lines if now - entry[0] < 10] + [(now, len(lines))]
        for line in lines:
            text = line.decode("utf-8", "replace")
            if text.startswith(values.FORGED):
                self.found("log", f"a peer's name has made a line of its own: {ascii(text[:200])}")
            if any(byte < 32 and byte != 9 or byte == 127 for byte in line):
                self.found("log", f"a control character of a peer's: {ascii(text[:300])}")
            if CHECKED.search(text):
                what = "; before it: ".join([text[:300], *reversed(self.errors)])
                self.found("log", f"the broker says of its own store: {what}")
            if ERROR.search(text):
                self.errors.append(ascii(text[:300]))
        count = sum(entry[1] for entry in self.lines)
        if lines and count > self.flood:
            self.found("log", f"{count} lines within 10 s; the last: {ascii(text[:200])}")

    def look_at_files(self):
        """No file outside the data folder; nothing but topics, queues and their files in the consume queues' folder."""
        place, allowed = self.world.base, {"log", "plan.json"}
        for part in self.world.DEPTH.split("/") + ["data"]:
            for name in os.listdir(place):
                if name != part and name not in allowed:
                    raise Finding("path", f"{ascii(os.path.join(place, name))} was made")
            place, allowed = os.path.join(place, part), set()
        data = set(os.listdir(self.world.data)) - {"config", "store", "run", "logs"}
        for name in data:
            if not re.fullmatch(r"[A-Za-z0-9.-]{1,40}", name) or "escape" in name:
                raise Finding("path", f"{ascii(name)} was made in the data folder")
        queues = os.path.join(self.world.data, "store", "consumequeue")
        for topic in os.listdir(queues) if os.path.isdir(queues) else ():
            if topic.startswith("."):
                continue
            if not TOPIC.match(topic):
                raise Finding("path", f"consumequeue/{ascii(topic)} is no topic")
            for queue in os.listdir(os.path.join(queues, topic)):
                if not queue.isdigit():
                    raise Finding("path", f"consumequeue/{ascii(topic)}/{ascii(queue)} is no queue")
                for file in os.listdir(os.path.join(queues, topic, queue)):
                    if not re.fullmatch(r"\d{20}", file):
                        raise Finding("path", f"consumequeue/{ascii(topic)}/{queue}/{ascii(file)} is no file of a queue")
        store = os.path.join(self.world.data, "store")
        for name in os.listdir(store):
            if "escape" in name or name.startswith(("Fuzz", "Verified", "%", "fz-", "g")):
                raise Finding("path", f"store/{ascii(name)} was made")
