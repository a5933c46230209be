#!/usr/bin/env bash
# A listener of the official C++ client that raises, or returns False, acknowledges its message.
#
# Package: rocketmq 0.4.4 (PyPI; Python over librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: nothing that a listener does asks for another delivery. What it returns is ignored, False too. An exception is
# printed as "Exception ignored"; no CONSUMER_SEND_MSG_BACK (code 36) follows, and the offset moves on. (`subscribe`
# turns the exception into RECONSUME_LATER, but raises it again in `finally`: ctypes then has no result to return.)
# For a broker: lost messages of such a group are no fault of the store, where they still are. An admin finds them
# between two committed offsets, with no retry and no dead letter; a reset of the offset brings them back.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import os
import time
from remoting_stub import Stub, record
from rocketmq.client import PushConsumer


def listen(message):
    number = int(message.body)
    delivered.append(number)
    if number in raising:
        raise ValueError("the database is away")
    return False


def run(group, *numbers):
    global stub, delivered, raising
    stub, delivered, raising = Stub("Work").start(), [], numbers
    stub.messages = [record("Work", b"%d" % number, number, b"KEYS\1k\2") for number in range(6)]
    consumer = PushConsumer(group)
    consumer.set_namesrv_addr(stub.address)
    consumer.subscribe("Work", listen)
    consumer.start()
    stub.wait_for(11, 3)
    time.sleep(3)
    consumer.shutdown()
    committed = [frame.fields["commitOffset"] for frame in stub.of(15) if frame.fields["topic"] == "Work"][-1]
    print("raising at %s, else False: delivered %s of 0 to 5, sent back %d, committed %s" % (
        list(numbers), delivered, len(stub.of(36)), committed), flush=True)
    return delivered, len(stub.of(36)), committed


holds = run("one") == ([0, 1, 2, 3, 4, 5], 0, "6")
holds &= run("two", 2) == ([0, 1, 2, 3, 4, 5], 0, "6")
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
