#!/usr/bin/env bash
# An offset reset as Java consumers read it does nothing to the official C++ client, and its next commit undoes it.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: RESET_CONSUMER_CLIENT_OFFSET (220) carries an offsetTable. With RocketMQ's map, whose keys are queues, the
# client goes on as if nothing had come. The broker's own reset, to 1, is overwritten within 5 s by the next commit,
# 4. With a list of queues, each with its offset, the client begins again at 1. Neither form is answered, and nor is
# CONSUME_MESSAGE_DIRECTLY (309).
# For a broker: write 220 in the form of the consumer's own language (CPP in its heartbeat's frame), not of the admin
# tool that asks. Bound the wait for 309, and tell the admin why.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import json
import os
import struct
import time
from remoting_stub import Stub, record
from rocketmq.client import PushConsumer


class Keeping(Stub):
    offset = "0"

    def answer(self, frame):
        if frame.code in (14, 15) and frame.fields["topic"] == self.topic:
            self.offset = frame.fields.get("commitOffset", self.offset)
            return 0, {"offset": self.offset}, b""
        return super().answer(frame)


def request(code, fields, body, seconds, more=0):
    header = json.dumps({
        "code": code, "language": "JAVA", "version": 399, "opaque": code, "flag": 0, "serializeTypeCurrentRPC": "JSON",
        "extFields": fields}).encode()
    before, enough, end = len(stub.frames), len(received) + more, time.monotonic() + seconds
    stub.peer.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
    while time.monotonic() < end and not (more and len(received) == enough):
        time.sleep(0.1)
    answers = [frame for frame in stub.frames[before:] if frame.header["flag"] & 1]
    print("%d %s: answers %d, committed %s, received %s" % (
        code, body[:20].decode(), len(answers), stub.offset, "".join(received)), flush=True)
    return len(answers), stub.offset, "".join(received)


stub, received = Keeping("Orders").start(), []
stub.messages = [record("Orders", b"%d" % number, number, b"KEYS\1k\2") for number in range(4)]
consumer = PushConsumer("readers")
consumer.set_namesrv_addr(stub.address)
consumer.subscribe("Orders", lambda message: received.append(message.body.decode()))
consumer.start()
stub.wait_for(15)
stub.offset = "1"
print("received %s; the broker sets the offset to 1" % "".join(received))
fields = {"group": "readers", "topic": "Orders", "timestamp": "1", "isForce": "true"}
queue = b'"brokerName":"stub","queueId":0,"topic":"Orders"'
holds = request(220, fields, b'{"offsetTable":{{%s}:1}}' % queue, 7) == (0, "4", "0123")
client = json.loads(stub.of(34)[-1].body)["clientID"]
holds &= request(309, {"consumerGroup": "readers", "clientId": client, "msgId": "x"}, b"", 2)[0] == 0
answers, _, all = request(220, fields, b'{"offsetTable":[{%s,"offset":1}]}' % queue, 20, 3)
holds &= (answers, all) == (0, "0123123")
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
