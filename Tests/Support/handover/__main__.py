"""Hand-over of queues under load: members of a group join, leave and die, routes change, workers restart, and every message must come.

    Tests/Scripts/handover [ROUNDS [SEED]] [--bin FOLDER] [--orderly] [--official N] …

Says for each round how long the longest wait of a message was and which came twice; ends with 1 if a message waited longer than a
rebalance (20 s), a queue was taken at an offset older than one committed before, or what was finished came again after a clean hand-over.
"""

import argparse
import collections
import heapq
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "../../Fuzz/stateful"))

import wire  # noqa: E402
from member import Member  # noqa: E402
from net import Net  # noqa: E402
from world import Finding, World, workspace  # noqa: E402

TOPIC = "HandOver"


class Official:
    """The official C++ client in a process of its own."""

    def __init__(self, scenario, name, group, orderly):
        self.scenario, self.name, self.buffer = scenario, name, b""
        home = os.path.join(scenario.base, "home-" + name)
        os.makedirs(home)
        root = os.path.join(here, "../../..")
        python = os.environ.get("APUS_CLIENT_PYTHON", os.path.join(root, ".build/clients/bin/python"))
        self.process = subprocess.Popen(
            [python, os.path.join(root, "Tests/Clients/push.py"), "--name-server", f"127.0.0.1:{scenario.world.nameserver}",
             "--topic", TOPIC, "--group", group, "--instance", name, "--from", "first", *(["--orderly"] if orderly else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"})
        os.set_blocking(self.process.stdout.fileno(), False)
        scenario.net.chores.append(self.read)

    def start(self):
        self.scenario.note(self, "starts")

    def read(self):
        data = self.process.stdout.read()
        *lines, self.buffer = (self.buffer + (data or b"")).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "body" in said:
                self.scenario.delivered(self.name, said["body"].encode(), said["queue"])
                self.scenario.finished(said["body"].encode())

    def leave(self):
        """Its shutdown is known to hang now and then, and it goes on with its heartbeats: then nobody has its queues."""
        self.scenario.note(self, "leaves")
        self.process.stdin.close()
        self.scenario.after(10, self.give_up)

    def give_up(self):
        if self.process.poll() is None:
            self.scenario.note(self, "hangs in its shutdown and is killed")
            self.scenario.hung += 1
            self.process.kill()

    def kill(self):
        self.scenario.note(self, "is killed")
        self.process.kill()


def threads(pid):
    """What a process's threads wait for, and how much they work."""
    waits = collections.Counter()
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/wchan") as file:
                where = file.read()
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            waits[f"{fields[0]} {where} {int(fields[11]) + int(fields[12])} ticks"] += 1
    except OSError as error:
        return str(error)
    return dict(waits)


class Scenario:
    def __init__(self, options, seed, base):
        self.options, self.base = options, base
        self.dice = random.Random(seed)
        self.world = World(os.path.abspath(options.bin), base, {"mappedFileSizeCommitLog": 64 << 20})
        self.net, self.topic, self.queues = Net(), TOPIC, options.queues
        self.net.chores.append(self.run_due)
        self.due, self.serial = [], 0
        self.members, self.made = [], 0
        self.notes = collections.deque(maxlen=4000)
        # Body → [acknowledged, queue, first delivery, by whom, finished, times].
        self.messages = {}
        self.sent = 0
        self.commits = {}
        self.wrong = []
        self.twice = collections.Counter()
        self.sending = True
        self.unclean_until = 0.0
        # Official clients that hung in their own shutdown.
        self.hung = 0
        self.limit = options.limit
        self.producer = None

    # Time

    def now(self):
        return time.monotonic()

    def after(self, seconds, act):
        self.serial += 1
        heapq.heappush(self.due, (self.now() + seconds, self.serial, act))

    def run_due(self):
        now = self.now()
        while self.due and self.due[0][0] <= now:
            heapq.heappop(self.due)[2]()

    def go_on(self, seconds):
        end = self.now() + seconds
        while self.now() < end:
            self.net.poll(0.002)

    # What members tell

    def note(self, member, text):
        self.notes.append((self.now(), f"{member.name if hasattr(member, 'name') else member} {text}"))

    def committed(self, queue, offset):
        """On its way: true for whoever asks a moment later."""
        self.after(0.2, lambda: self.commits.__setitem__(queue, offset))

    def taken(self, member, queue, offset, asked):
        self.note(member, f"takes {queue} at {offset}")
        if offset < self.commits.get(queue, 0):
            self.wrong.append(f"{member.name} was told offset {offset} of queue {queue}, although {self.commits[queue]} had been "
                              "committed 0.2 s before")

    def delivered(self, name, body, queue):
        entry = self.messages.get(body)
        if entry is None:
            return
        entry[5] += 1
        if entry[2] is None:
            entry[2], entry[3] = self.now(), name
        elif entry[4] and not self.options.orderly:
            # A newcomer asks for the offset in the moment in which the owner is told to give the queue up: RocketMQ's way without locks.
            self.twice["finished, not committed"] += 1
        elif entry[4] and ("official" in name or "official" in entry[3]):
            # The C++ client asks for the offset before it has the lock, and drops queues in the middle of a message.
            self.twice["by the official client"] += 1
        elif entry[4] and self.now() > self.unclean_until:
            self.twice["finished before"] += 1
            if self.twice["finished before"] < 20:
                self.wrong.append(f"{body.decode()} of queue {queue} came again, to {name}, {self.now() - entry[4]:.2f} s after {entry[3]} "
                                  "had finished it, and nobody has died")
        else:
            self.twice["in work or by a death"] += 1

    def finished(self, body):
        entry = self.messages.get(body)
        if entry and not entry[4]:
            entry[4] = self.now()

    # Load

    def produce(self):
        if not self.sending:
            return
        if self.producer is None or self.producer.closed:
            try:
                self.producer = self.net.connect("producer", self.world.broker)
            except OSError:
                return self.after(0.1, self.produce)
        body, queue = b"m%d" % self.sent, self.sent % self.queues
        self.sent += 1

        def then(answer):
            if answer and answer.code == 0:
                self.messages[body][0] = self.now()
            else:
                self.messages.pop(body, None)
        # Delivered perhaps before the answer is read.
        self.messages[body] = [None, queue, None, None, None, 0]
        self.producer.request(310, {"a": "p", "b": TOPIC, "c": "TBW102", "d": "4", "e": queue, "f": "0", "g": "1", "h": "0",
                                    "i": "", "j": "0"}, body, then)
        self.after(1 / self.options.rate, self.produce)

    # Events

    def join(self):
        self.made += 1
        if self.dice.random() * 100 < self.options.official:
            member = Official(self, f"official-{self.made}", "hand-over", self.options.orderly)
        else:
            member = Member(self, f"model-{self.made}", "hand-over", self.options.orderly, self.options.work)
        self.members.append(member)
        member.start()

    def leave(self):
        if len(self.members) > 1:
            self.members.pop(self.dice.randrange(len(self.members))).leave()
            return True

    def kill(self):
        """An orderly queue's lock lives on for a minute: its death is a scenario of its own."""
        if len(self.members) > 1 and not self.options.orderly:
            self.unclean_until = self.now() + 15
            self.members.pop(self.dice.randrange(len(self.members))).kill()
            return True

    def route(self):
        if self.queues < 16:
            self.queues += self.dice.choice([1, 2])
            self.make_topic()
            # The official client looks at its routes every 30 s: until then members divide different numbers of queues.
            self.limit = self.options.limit + (40 if self.options.official else 0)
            self.note("route", f"has {self.queues} queues")

    def make_topic(self):
        admin = self.net.connect("admin", self.world.broker)
        answer = self.net.ask(admin, 17, {
            "topic": TOPIC, "defaultTopic": "TBW102", "readQueueNums": self.queues, "writeQueueNums": self.queues, "perm": 6,
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"})
        admin.close()
        if not answer or answer.code != 0:
            raise Finding("answer", f"the topic was not made: {answer and answer.remark}")

    def restart(self):
        """The name server dies; the brokers' clients must not notice."""
        self.note("name server", "is killed")
        self.world.kill("nameserver", self.net.until)

    def round(self, number):
        began, first = self.now(), self.sent
        events = []
        for _ in range(self.dice.randint(1, 4)):
            kind = self.dice.choices(["join", "leave", "kill", "route", "restart"], [40, 35, 15, 5, 5])[0]
            if len(self.members) < 2 or len(self.members) > 6:
                kind = "join" if len(self.members) < 2 else "leave"
            getattr(self, kind)()
            events.append(kind)
            # Often in the middle of what the last one has caused.
            self.go_on(self.dice.choice([0, 0.005, 0.03, 0.1, 0.3, 1.5]))
        # Whoever has waited with a lock for 20 s, or looks at its route every 30 s, is done by then.
        settled = self.settle(20 + self.limit)
        waits = [(entry[2] - entry[0], body) for body, entry in self.messages.items() if entry[0] and entry[2]]
        longest = max(waits, default=(0, b""))
        missing = [(body, entry) for body, entry in self.messages.items() if entry[0] and entry[2] is None]
        print(f"round {number}: {', '.join(events)}; {len(self.members)} members, {self.queues} queues, {self.sent - first} messages, "
              f"longest wait {longest[0] * 1000:.0f} ms, twice {dict(self.twice)}, {self.now() - began:.0f} s"
              + (f", {self.hung} official clients hung in their shutdown" if self.hung else ""), flush=True)
        if not settled and missing:
            body, entry = missing[0]
            self.wrong.append(f"{body.decode()} of queue {entry[1]} has not come within {self.now() - entry[0]:.0f} s; {len(missing)} like it")
        if longest[0] > self.limit:
            entry = self.messages[longest[1]]
            self.wrong.append(f"{longest[1].decode()} of queue {entry[1]} waited {longest[0]:.1f} s (bound {self.limit} s), came "
                              f"to {entry[3]}")
        if self.wrong:
            print("\n".join(self.wrong))
            self.evidence(began)
            return False
        for body in [body for body, entry in self.messages.items() if entry[4] and entry[4] < self.now() - 60]:
            del self.messages[body]
        return True

    def settle(self, seconds):
        """Load goes on for a second, until all of it up to then has come."""
        self.go_on(1.0)
        end = self.now() + seconds
        while self.now() < end:
            mark = self.now() - 1.0
            if not any(entry[0] and entry[2] is None and entry[0] < mark for entry in self.messages.values()):
                return True
            self.go_on(0.2)
        return False

    def evidence(self, began):
        for at, text in self.notes:
            if at > began - 30:
                print(f"  {at - began:8.3f} s {text}")
        answer = None
        try:
            link = self.net.connect("evidence", self.world.broker)
            answer = self.net.ask(link, 38, {"consumerGroup": "hand-over"})
            print("  members by the broker:", answer and answer.body.decode("utf-8", "replace"))
            answer = self.net.ask(link, 208, {"consumerGroup": "hand-over", "topic": TOPIC})
            print("  offsets by the broker:", answer and answer.body.decode("utf-8", "replace")[:2000])
            # Locks that are free are given to whoever asks, and given back at once.
            body = {"consumerGroup": "hand-over", "clientId": "evidence", "mqSet": [
                {"topic": TOPIC, "brokerName": "broker-a", "queueId": queue} for queue in range(self.queues)]}
            answer = self.net.ask(link, 41, {}, json.dumps(body).encode())
            print("  locks nobody has:", sorted(each["queueId"] for each in answer.json()["lockOKMQSet"]) if answer else None)
            self.net.ask(link, 42, {}, json.dumps(body).encode())
        except OSError as error:
            print("  the broker cannot be asked:", error)
        # Bytes the broker has not read, and those its clients have not.
        port = f":{self.world.broker:04X}"
        with open("/proc/net/tcp") as file:
            for line in file:
                fields = line.split()
                if port in fields[1] + fields[2] and fields[3] == "01" and fields[4] != "00000000:00000000":
                    print(f"  {fields[1]} → {fields[2]}: not sent:not read {fields[4]}")
        status = subprocess.run([os.path.join(self.world.binaries, "apus"), "status", "--data-dir", self.world.data],
                                capture_output=True, text=True, check=False)
        print("  " + status.stdout.strip().replace("\n", "\n  "))
        for member in self.members:
            if isinstance(member, Official):
                print(f"  {member.name}: {threads(member.process.pid)}")
        print("  log: " + "\n       ".join(self.world.tail(15)))

    def run(self, rounds):
        self.world.start()
        self.make_topic()
        self.produce()
        self.join()
        self.go_on(1)
        good = True
        for number in range(rounds):
            good = self.round(number)
            if not good:
                break
        self.sending = False
        for member in self.members:
            member.leave()
        self.go_on(1)
        return good

    def end(self):
        for member in self.members:
            if isinstance(member, Official) and member.process.poll() is None:
                member.process.kill()
        self.net.chores.clear()
        self.net.close_all()
        if self.world.process and self.world.process.poll() is None:
            self.world.kill_all()


def main():
    parser = argparse.ArgumentParser(prog="handover")
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("seed", nargs="?", default=os.environ.get("APUS_SEED") or str(time.time_ns() // 1_000_000 % 10**9))
    parser.add_argument("--bin", default=os.environ.get("APUS_BIN_DIR", ".build/release"))
    parser.add_argument("--orderly", action="store_true")
    parser.add_argument("--official", type=float, default=0, help="percent of the members that are official C++ clients")
    parser.add_argument("--queues", type=int, default=8)
    parser.add_argument("--rate", type=float, default=300, help="messages a second")
    parser.add_argument("--work", type=float, default=0.02, help="seconds a model member works on a message at most")
    parser.add_argument("--limit", type=float, default=25, help="seconds a message may wait")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"hand-over of queues, {'orderly' if options.orderly else 'concurrent'}, {options.rounds} rounds, seed {options.seed}", flush=True)
    base = workspace()
    scenario = Scenario(options, options.seed, base)
    try:
        return 0 if scenario.run(options.rounds) else 1
    except Finding as finding:
        print(f"FINDING {finding}")
        return 1
    finally:
        scenario.end()
        shutil.rmtree(base, ignore_errors=True)


sys.exit(main())
