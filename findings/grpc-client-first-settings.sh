#!/usr/bin/env bash
# The gRPC push consumer reads one settings message in its life; the rest of that stream goes unread.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: with client metrics off, the consumer takes the first settings and then fails to register its gauges. Its log
# file has "'NoneType' object has no attribute 'get_meter'". That ends the loop that reads Telemetry. The stream stays
# open and the consumer goes on consuming. A second settings message, with another retry list, changes nothing.
# For a gateway: a changed retry policy does not reach such a consumer over the open stream, and nothing says so. The
# same holds for each later answer on it. Bound what is kept to be written to a stream that may not be read.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os
import pathlib
import threading
import time

from grpc_stub import OK, Gateway, message
from rocketmq import ConsumeResult, FilterExpression, MessageListener, PushConsumer
from rocketmq.grpc_protocol import definition_pb2 as data, service_pb2 as service


class Changing(Gateway):
    asked, change, streams, open = [], threading.Event(), 0, 0

    def Telemetry(self, commands, context):
        self.streams, self.open = self.streams + 1, self.open + 1
        context.add_callback(lambda: setattr(self, "open", self.open - 1))
        settings = self.settings(next(commands).settings)
        for seconds in (1, 7):
            backoff = {"next": [{"seconds": seconds}]}
            settings.backoff_policy.CopyFrom(data.RetryPolicy(max_attempts=3, customized_backoff=backoff))
            yield service.TelemetryCommand(status=OK, settings=settings)
            self.change.wait()
        for _ in commands:
            pass

    def ChangeInvisibleDuration(self, request, context):
        self.asked.append(request.invisible_duration.seconds)
        return super().ChangeInvisibleDuration(request, context)


class Failing(MessageListener):
    def consume(self, message):
        return ConsumeResult.FAILURE


def fail_one(number):
    gateway.batches.append([message("Topic", b"x", delivery_attempt=1)])
    end = time.monotonic() + 15
    while len(gateway.asked) < number and time.monotonic() < end:
        time.sleep(0.1)


gateway = Changing("Topic").start()
PushConsumer(gateway.configuration, "readers", Failing(), {"Topic": FilterExpression()}).startup()
fail_one(1)
print("settings say 1 s: asked for", gateway.asked)
gateway.change.set()
time.sleep(2)
fail_one(2)
print("settings say 7 s: asked for", gateway.asked)
log = "".join(path.read_text() for path in pathlib.Path.home().glob("logs/rocketmq_python/*.log"))
errors = log.count("'NoneType' object has no attribute 'get_meter'")
print("streams %d, open %d; such errors in the log: %d" % (gateway.streams, gateway.open, errors))
holds = (gateway.asked, gateway.streams, gateway.open, errors) == ([1, 1], 1, 1, 1)
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
