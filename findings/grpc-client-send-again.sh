#!/usr/bin/env bash
# TOO_MANY_REQUESTS makes other languages' producers wait and send again; the Python one fails at once.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: each other refusal is tried again, up to the five attempts of the settings' policy. All five come within
# milliseconds, with the same message id, also where the answer can only be the same (ILLEGAL_MESSAGE_KEY,
# UNAUTHORIZED). TOO_MANY_REQUESTS alone is raised after one send. The pauses of the policy, from 300 ms on, are never
# made. The Java, Go and Node clients make them after that very code, by their source (rocketmq-clients), and send
# again.
# For a gateway: who sheds load with this code loses the messages of a Python application that does not catch it. A
# short delay before the answer spares it. Count refusals by message id: one mistake makes five.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os
import time

from grpc_stub import Gateway
from rocketmq import Message, Producer
from rocketmq.grpc_protocol import Code, definition_pb2 as data, service_pb2 as service


class Refusing(Gateway):
    def settings(self, settings):
        backoff = {"initial": {"nanos": 300_000_000}, "max": {"seconds": 2}, "multiplier": 2}
        settings.backoff_policy.CopyFrom(data.RetryPolicy(max_attempts=5, exponential_backoff=backoff))
        self.synchronized = True
        return super().settings(settings)

    def answer_send(self, id):
        return service.SendMessageResponse(status={"code": self.code}, entries=[{"status": {"code": self.code}}])


gateway = Refusing("Topic").start()
producer = Producer(gateway.configuration, ["Topic"])
producer.startup()
time.sleep(2)
holds = gateway.synchronized
for gateway.code in (Code.ILLEGAL_MESSAGE_KEY, Code.UNAUTHORIZED, Code.HA_NOT_AVAILABLE, Code.TOO_MANY_REQUESTS):
    gateway.sent, begun, message = [], time.monotonic(), Message()
    message.topic, message.body = "Topic", b"x"
    try:
        producer.send(message)
        raised = "nothing"
    except Exception as error:
        raised = type(error).__name__
    took, ids = time.monotonic() - begun, {sent.system_properties.message_id for sent in gateway.sent}
    print("%s: %d sends, %d message id, %.2f s, raised %s" % (
        Code.Name(gateway.code), len(gateway.sent), len(ids), took, raised))
    holds &= len(gateway.sent) == (1 if gateway.code == Code.TOO_MANY_REQUESTS else 5)
    holds &= len(ids) == 1 and took < 0.5 and raised.endswith("Exception")
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
