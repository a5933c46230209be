#!/usr/bin/env bash
# An orderly consumer of the official C++ client leaves and gives back every queue lock but the first.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: with a topic of four queues the consumer locks eight (LOCK_BATCH_MQ, 41; the retry topic's too). At shutdown
# one UNLOCK_BATCH_MQ (42) names seven of them, in the order they are sorted in; the first of all is missing.
# UNREGISTER_CLIENT (35) follows.
# For a broker: a lock lives for 60 s. The next member of the group waits that long for the forgotten queue, unless
# the broker frees what is left when the client unregisters from the group.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import json
import os
import time
from remoting_stub import Stub
from rocketmq.client import PushConsumer


def queues(frames):
    return {(queue["topic"], queue["queueId"]) for frame in frames for queue in json.loads(frame.body)["mqSet"]}


stub = Stub("Orders", queues=4).start()
consumer = PushConsumer("workers", orderly=True)
consumer.set_namesrv_addr(stub.address)
consumer.subscribe("Orders", lambda message: True)
consumer.start()
for _ in range(200):
    if len(queues(stub.of(41))) == 8:
        break
    time.sleep(0.1)
consumer.shutdown()
stub.wait_for(35)
locked, unlocked = queues(stub.of(41)), queues(stub.of(42))
order = [frame.code for frame in stub.of(42, 35)]
print("locked %d, unlocked %d, left locked: %s; then %s" % (
    len(locked), len(unlocked), sorted(locked - unlocked), order))
holds = len(locked) == 8 and locked - unlocked == {sorted(locked)[0]} and order == [42, 35]
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
