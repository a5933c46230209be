"""Sends messages one after the other on several connections and tries again as RocketMQ's Java client does: three attempts of one
send within three seconds, a new connection when the old one ended, no pause in between.

    sender.py TOPIC CONNECTIONS [PORT]

Runs until SIGTERM. Prints a JSON object a line for each send: {"body": "…", "ok": true, "at": monotonic seconds, "attempts": 1}.
"""

import json
import signal
import socket
import struct
import sys
import threading
import time

topic, connections = sys.argv[1], int(sys.argv[2])
port = int(sys.argv[3]) if len(sys.argv) > 3 else 10911
ATTEMPTS, SECONDS = 3, 3.0
# What that client takes as a reason to try again (DefaultMQProducer.retryResponseCodes).
RETRY = {1, 14, 17, 16, 204, 205}
running = True
output = threading.Lock()


def end(*_):
    global running
    running = False


def request(body, opaque, queue):
    fields = {
        "producerGroup": "RETRYING", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4",
        "queueId": str(queue), "sysFlag": "0", "bornTimestamp": str(int(time.time() * 1000)), "flag": "0",
        "properties": "WAIT\1true\2", "reconsumeTimes": "0", "unitMode": "false", "batch": "false",
    }
    header = json.dumps({
        "code": 10, "flag": 0, "language": "JAVA", "opaque": opaque, "version": 399, "extFields": fields}).encode()
    return struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


class Lane:
    def __init__(self, number):
        self.number = number
        self.connection = None
        self.opaque = 0

    def attempt(self, body, deadline):
        """The answer's code; raises OSError when there is none."""
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", port), timeout=max(0.001, deadline - time.monotonic()))
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opaque += 1
        try:
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            self.connection.sendall(request(body, self.opaque, self.opaque % 4))
            while True:
                length, head = struct.unpack(">ii", exactly(self.connection, 8))
                rest = exactly(self.connection, length - 4)
                header = json.loads(rest[:head & 0xFFFFFF])
                if header["opaque"] == self.opaque and header["flag"] & 1:
                    return header["code"]
        except OSError:
            self.connection.close()
            self.connection = None
            raise

    def run(self):
        count = 0
        while running:
            count += 1
            body = f"sender-{self.number}-{count}"
            record = {"body": body, "ok": False, "attempts": 0, "errors": []}
            deadline = time.monotonic() + SECONDS
            for _ in range(ATTEMPTS):
                record["attempts"] += 1
                try:
                    code = self.attempt(body.encode(), deadline)
                    if code == 0:
                        record["ok"] = True
                        break
                    record["errors"].append(f"code {code}")
                    if code not in RETRY:
                        break
                except OSError as error:
                    record["errors"].append(f"{error}")
                    if time.monotonic() >= deadline:
                        break
            record["at"] = time.monotonic()
            with output:
                print(json.dumps(record), flush=True)
            time.sleep(0.001)


signal.signal(signal.SIGTERM, end)
lanes = [threading.Thread(target=Lane(number).run) for number in range(connections)]
for lane in lanes:
    lane.start()
for lane in lanes:
    lane.join()
