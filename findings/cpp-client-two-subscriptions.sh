#!/usr/bin/env bash
# A consumer that subscribes to two topics with two listeners hands everything to the second.
#
# Package: rocketmq 0.4.4 (PyPI; Python over librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: `subscribe(topic, callback)` looks as if each topic had its listener. Both topics are pulled, but the C API
# knows one listener for a consumer, and the last call replaces it. The first topic's messages go to the second
# topic's listener, and are acknowledged. There is no error.
# For a broker: the subscriptions in the heartbeat are right and so are the offsets; only `message.topic` shows it.
# Who moves a team of several topics to this client gives each topic a consumer, in a group of its own.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import json
import os
import time
from remoting_stub import Stub, record
from rocketmq.client import PushConsumer


class Two(Stub):
    def answer(self, frame):
        if frame.code == 11 and frame.fields["topic"] in stored:
            self.topic = frame.fields["topic"]
            self.messages = stored[self.topic]
        return super().answer(frame)


stored = {topic: [record(topic, b"for " + topic.encode(), 0, b"KEYS\1k\2")] for topic in ("Orders", "Payments")}
stub, received = Two("Orders").start(), []
consumer = PushConsumer("readers")
consumer.set_namesrv_addr(stub.address)
consumer.subscribe("Orders", lambda message: received.append(("first listener", message.topic, message.body)))
consumer.subscribe("Payments", lambda message: received.append(("second listener", message.topic, message.body)))
consumer.start()
for _ in range(200):
    if len(received) == 2:
        break
    time.sleep(0.1)
consumer.shutdown()
beat = json.loads(stub.of(34)[-1].body)["consumerDataSet"][0]["subscriptionDataSet"]
topics = sorted(entry["topic"] for entry in beat)
print("subscribed in the heartbeat:", topics)
for line in sorted(received):
    print("%s got a message of %s: %r" % line)
committed = {frame.fields["topic"]: frame.fields["commitOffset"] for frame in stub.of(15)}
print("committed:", committed)
holds = sorted(received) == [
    ("second listener", "Orders", b"for Orders"), ("second listener", "Payments", b"for Payments")]
holds &= {"Orders", "Payments"} <= set(topics) and committed["Orders"] == committed["Payments"] == "1"
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
