"""A process of its own that asks broker and name server something cheap all the time, 200 times a second, and says when the answer was long in coming.

What the machine did to it is measured in the same moments: a thread that only sleeps notes how late it woke and how long each worker's
event loop waited for a CPU, and the judged process's CPU time says how much of the wait was its own work.
probe.py STALL; standard input, one JSON object a line: `targets` to ask from now on, `workers` (process ids) to look at.
"""

import json
import os
import select
import socket
import struct
import sys
import threading
import time

import wire
from waits import Waits, cpu

STALL = float(sys.argv[1])
TICK = 0.02
# From an answer to the next question. Asked without a pause, three of four CPU seconds of the whole fuzzer were questions and answers;
# a stall is seen all the same, short of this.
PAUSE = 0.005
late = []
targets = {}
waits = Waits()
guard = threading.Lock()


def sleeper():
    told = time.monotonic()
    while True:
        before = time.monotonic()
        time.sleep(TICK)
        after = time.monotonic()
        late.append((after, max(0.0, after - before - TICK)))
        if len(late) > 5000:
            del late[:2500]
        with guard:
            for pid, span, waited in waits.sample(TICK):
                write({"gone": pid, "span": span, "waited": waited})
            if after - told > 1:
                write({"late": min(after - told, max(noise(told), waits.longest(told)))})
                told = after


def noise(since):
    return sum(each for at, each in list(late) if at >= since and each > 0.005)


class Target:
    def __init__(self, name, port, pid):
        self.name, self.port, self.pid = name, port, pid
        self.socket, self.since, self.told, self.earliest = None, None, False, 0.0
        code, fields = (30, {"topic": "Verified-0", "queueId": "0"}) if name == "broker-store" else (
            101, {"namespace": "probe", "key": "probe"})
        self.frame = wire.frame(code, fields, opaque=7)
        self.need = 0

    def connect(self):
        try:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = b""
        except OSError:
            self.socket = None

    def drop(self):
        if self.socket:
            self.socket.close()
        self.socket, self.since, self.told = None, None, False

    def ask(self):
        if time.monotonic() < self.earliest:
            return
        if not self.socket:
            self.connect()
        if self.socket and self.since is None:
            self.since, self.cpu = time.monotonic(), cpu(self.pid)
            try:
                self.socket.sendall(self.frame)
            except OSError:
                self.drop()

    def receive(self):
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            return self.drop()
        self.buffer += data
        while len(self.buffer) >= 4 and len(self.buffer) >= 4 + struct.unpack(">i", self.buffer[:4])[0]:
            self.buffer = self.buffer[4 + struct.unpack(">i", self.buffer[:4])[0]:]
            if self.since is not None:
                self.judge(done=True)
                self.since, self.told, self.earliest = None, False, time.monotonic() + PAUSE

    def judge(self, done=False):
        latency = time.monotonic() - self.since
        if done and latency > 0.05:
            say(self.name, latency, False, 0, 0)
        if latency < STALL or self.told:
            return
        used = cpu(self.pid)
        spent = used - self.cpu if used is not None and self.cpu is not None else 0
        # One after the other: the loop waits for its turn, then this process does.
        with guard:
            if not waits.knows(self.pid):
                return  # It is ending, and whether it may is judged elsewhere.
            machine = noise(self.since) + waits.waited(self.pid, self.since)
        # Its own work, or far longer than any noise explains.
        if (latency - machine > STALL and spent > 0.6 * STALL) or latency - machine > 8 * STALL:
            self.told = True
            say(self.name, latency, True, spent, machine)


def say(target, latency, alarm, spent, machine):
    with guard:
        write({"target": target, "latency": latency, "alarm": alarm, "cpu": spent, "noise": machine})


def write(said):
    print(json.dumps(said), flush=True)


def hear(line):
    said = json.loads(line)
    if "workers" in said:
        with guard:
            waits.know(said["workers"])
    if "targets" in said:
        for target in targets.values():
            target.drop()
        targets.clear()
        for name, (port, pid) in said["targets"].items():
            targets[name] = Target(name, port, pid)


def main():
    threading.Thread(target=sleeper, daemon=True).start()
    os.set_blocking(0, False)
    text = b""
    while True:
        sockets = {target.socket: target for target in targets.values() if target.socket}
        pausing = any(target.since is None for target in targets.values())
        ready, _, _ = select.select([0, *sockets], [], [], PAUSE if pausing else TICK)
        for each in ready:
            if each != 0:
                if sockets[each].socket is each:
                    sockets[each].receive()
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                hear(line)
        for target in targets.values():
            if target.since is not None:
                target.judge()
            else:
                target.ask()


main()
