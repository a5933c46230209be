#!/usr/bin/env bash
# A group's exponential retry policy becomes one second flat, and seventeen attempts, in the gRPC push consumer.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: the settings that a gateway answers on Telemetry hold the group's policy as `customized_backoff` (a list) or
# as `exponential_backoff`. This push consumer knows the list alone. For an exponential policy of 5 s to 2 h it asks
# for 1 s after each failure, whatever the attempt. In a FIFO group it goes past the policy's three attempts as well
# (to 17, by its source). Parts of a second in a list are cut off: half a second becomes 0, visible at once.
# For a gateway: write an exponential policy out as a list, in whole seconds. Otherwise a poison message uses up all
# its attempts within a minute, while the system that it waits for is still down.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os
import time

from grpc_stub import Gateway, message
from rocketmq import ConsumeResult, MessageListener, PushConsumer
from rocketmq import FilterExpression
from rocketmq.grpc_protocol import definition_pb2 as data


class Retrying(Gateway):
    def settings(self, settings):
        settings.backoff_policy.CopyFrom(self.policy)
        settings.subscription.fifo = self.fifo
        return super().settings(settings)

    def ChangeInvisibleDuration(self, request, context):
        duration = request.invisible_duration
        self.asked.append(duration.seconds + duration.nanos / 1e9)
        return super().ChangeInvisibleDuration(request, context)


class Failing(MessageListener):
    def __init__(self):
        self.calls = 0

    def consume(self, message):
        self.calls += 1
        return ConsumeResult.FAILURE


def run(what, fifo, seconds, **strategy):
    gateway, listener = Retrying("Topic").start(), Failing()
    gateway.policy, gateway.fifo, gateway.asked = data.RetryPolicy(max_attempts=3, **strategy), fifo, []
    gateway.batches = [[message("Topic", b"x", delivery_attempt=number)] for number in ((1,) if fifo else (1, 2, 3))]
    PushConsumer(gateway.configuration, "readers", listener, {"Topic": FilterExpression()}).startup()
    time.sleep(seconds)
    print("%s: listener called %d times; asked for %s s" % (what, listener.calls, sorted(gateway.asked)))
    return listener.calls, sorted(gateway.asked)


exponential = {"initial": {"seconds": 5}, "max": {"seconds": 7200}, "multiplier": 2}
listed = {"next": [{"nanos": 500_000_000}, {"seconds": 5}, {"seconds": 10}]}
holds = run("list 0.5, 5, 10 s", False, 3, customized_backoff=listed) == (3, [0, 5, 10])
holds &= run("exponential 5 s to 2 h", False, 3, exponential_backoff=exponential) == (3, [1, 1, 1])
holds &= run("exponential, FIFO, 3 attempts, first 6.5 s", True, 6.5, exponential_backoff=exponential)[0] in (5, 6)
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
