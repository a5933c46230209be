"""Measures how long official push consumers take to share queues anew: one joins, leaves, is killed.

    rebalance.py --name-server ADDRESS [--rounds N] [--orderly]

A producer sends without a pause; who gets the messages of which queue shows who owns it. Prints a table.
HOME must be a folder of this run (see official.py). What the clients say on standard error goes on to this one's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

options = argparse.ArgumentParser()
options.add_argument("--name-server", required=True)
options.add_argument("--rounds", type=int, default=5)
options.add_argument("--orderly", action="store_true")
options = options.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
kind = "orderly" if options.orderly else "concurrent"
topic, group, queues = f"OfficialRebalance-{kind}", f"official-rebalance-{kind}", 4


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, os.path.join(here, script + ".py"), "--name-server", options.name_server, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Consumer:
    """A push consumer process; remembers when it got the last message of each queue, and the first since marked."""

    def __init__(self, name):
        mode = ["--orderly"] if options.orderly else []
        self.process = start("push", "--topic", topic, "--group", group, "--instance", name, *mode)
        self.ready = threading.Event()
        self.first, self.last = {}, {}
        threading.Thread(target=self.read, daemon=True).start()
        if not self.ready.wait(30):
            sys.exit("a consumer did not start")
        self.since = time.time()

    def read(self):
        for line in self.process.stdout:
            record = json.loads(line)
            if "ready" in record:
                self.ready.set()
            elif "queue" in record:
                self.first.setdefault(record["queue"], record["at"])
                self.last[record["queue"]] = record["at"]

    def mark(self):
        self.first = {}

    def end(self):
        self.process.stdin.close()


def until(what, holds, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if holds():
            return
        time.sleep(0.005)
    sys.exit(f"not within {seconds} s: {what}")


producer = start("produce", "--mode", "sync")
producer.stdout.readline()
sending = True


def produce():
    number = 0
    while sending:
        try:
            producer.stdin.write(json.dumps({"n": number, "topic": topic, "body": "b"}) + "\n")
            producer.stdin.flush()
        except (BrokenPipeError, ValueError):
            return
        number += 1
        time.sleep(0.002)


threading.Thread(target=lambda: [None for _ in producer.stdout], daemon=True).start()
threading.Thread(target=produce, daemon=True).start()
time.sleep(1)
first = Consumer("first")
until("the first consumer has all queues", lambda: len(first.first) == queues)
joins, leaves, deaths = [], [], []
for round in range(options.rounds * 2):
    other = Consumer(f"other-{round}")
    until("the newcomer gets messages of half of the queues", lambda: len(other.first) >= queues // 2)
    taken = set(other.first)
    joins.append(max(other.first[queue] for queue in taken) - other.since)
    time.sleep(0.5)
    first.mark()
    began = time.time()
    if round % 2 == 0:
        other.end()
    else:
        other.process.send_signal(signal.SIGKILL)
    until("the first consumer has them again", lambda: taken <= set(first.first))
    (leaves if round % 2 == 0 else deaths).append(max(first.first[queue] for queue in taken) - began)
    other.process.wait(timeout=30)
    time.sleep(0.5)
sending = False
first.end()
producer.stdin.close()
first.process.wait(timeout=30)
producer.wait(timeout=30)


def row(what, times):
    times = sorted(time * 1000 for time in times)
    print(f"{what:<80}p50 {times[len(times) // 2]:.0f}  max {times[-1]:.0f} ms")


row(f"official C++ client, {kind}, {queues} queues: from start() to messages", joins)
row(f"official C++ client, {kind}: shutdown, until the other gets its messages", leaves)
row(f"official C++ client, {kind}: kill -9, until the other gets its messages", deaths)
