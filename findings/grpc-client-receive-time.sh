#!/usr/bin/env bash
# Without the delivery time at the end of a receive, the gRPC push consumer drops every message and its listener sleeps.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: a ReceiveMessage stream has a status, messages and, as its own element, `delivery_timestamp`. The push
# consumer computes its latency metric from that time before it hands the messages over, also when metrics are off.
# Without it the batch ends in "unsupported operand type(s) for -: 'int' and 'NoneType'", in the log file alone. It
# asks again after a second, and so on. The simple consumer takes the same answer.
# For a gateway: end each stream that carries messages with a delivery time. One that leaves it out passes its tests
# with simple consumers. In a push group the messages come again and again, and the application sees none.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os
import pathlib
import time

from grpc_stub import Gateway, message
from rocketmq import ConsumeResult, FilterExpression, MessageListener, PushConsumer, SimpleConsumer


class Brief(Gateway):
    timed = False

    def answer_receive(self, messages):
        for part in super().answer_receive(messages):
            if self.timed or "delivery_timestamp" not in part:
                yield part


class Listening(MessageListener):
    def __init__(self):
        self.bodies = []

    def consume(self, message):
        self.bodies.append(message.body)
        return ConsumeResult.SUCCESS


gateway, listener, topics = Brief("Topic").start(), Listening(), {"Topic": FilterExpression()}
gateway.batches = [[message("Topic", b"simple")]]
simple = SimpleConsumer(gateway.configuration, "readers", topics, 2)
simple.startup()
print("without time, simple consumer:", [received.body for received in simple.receive(1, 30)])
gateway.batches = [[message("Topic", b"one")], [message("Topic", b"two")]]
PushConsumer(gateway.configuration, "workers", listener, topics).startup()
time.sleep(5)
left, dropped = len(gateway.batches), list(listener.bodies)
print("without time, push consumer: %d batches left, listener got %s" % (left, dropped))
gateway.timed, gateway.batches = True, [[message("Topic", b"three")]]
time.sleep(3)
print("with time, push consumer: listener got", listener.bodies)
log = "".join(path.read_text() for path in pathlib.Path.home().glob("logs/rocketmq_python/*.log"))
errors = log.count("unsupported operand type(s) for -: 'int' and 'NoneType'")
print("log: %d such errors" % errors)
holds = (left, dropped, listener.bodies, errors) == (0, [], [b"three"], 2)
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
