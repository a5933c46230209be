#!/usr/bin/env bash
# The gRPC client reports a refused message as sent, and a refused ack as done, when the refusal is in the entry only.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: SendMessageResponse and AckMessageResponse carry a status of their own and one in each entry. This client
# looks at the first alone. Let that be OK, or MULTIPLE_RESULTS (the code for entries that differ), and the only entry
# refused. Then `send` returns a receipt with an empty message id, and `ack` returns as after success. Each raises, as
# expected, when the answer's own status is the refusal.
# For a gateway: put the refusal of a request with one entry into the answer's status too. Otherwise the application
# believes in a message that nobody stored, and lets go of one that will come again.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os

from grpc_stub import OK, Gateway, message
from rocketmq import FilterExpression, Message, Producer, SimpleConsumer
from rocketmq.grpc_protocol import Code, service_pb2 as service


class Refusing(Gateway):
    def answer_send(self, id):
        entry = {"status": {"code": Code.MESSAGE_PROPERTIES_TOO_LARGE}}
        return service.SendMessageResponse(status={"code": self.code}, entries=[entry])

    def AckMessage(self, request, context):
        entry = {"status": {"code": Code.INVALID_RECEIPT_HANDLE}, "receipt_handle": "handle"}
        return service.AckMessageResponse(status={"code": self.code}, entries=[entry])


def outcome(call, argument):
    try:
        result = call(argument)
        return "returned" if result is None else "receipt %r" % result.message_id
    except Exception as error:
        return type(error).__name__


gateway = Refusing("Topic").start()
gateway.batches = [[message("Topic", b"x")]]
producer = Producer(gateway.configuration, ["Topic"])
producer.startup()
consumer = SimpleConsumer(gateway.configuration, "readers", {"Topic": FilterExpression()}, 2)
consumer.startup()
received = consumer.receive(1, 30)[0]
seen = {}
for gateway.code in (Code.OK, Code.MULTIPLE_RESULTS, Code.BAD_REQUEST):
    sending = Message()
    sending.topic, sending.body = "Topic", b"x"
    name = Code.Name(gateway.code)
    seen[name] = outcome(producer.send, sending), outcome(consumer.ack, received)
    print("status %s, entry refused: send %s, ack %s" % (name, *seen[name]))
holds = seen == {
    "OK": ("receipt ''", "returned"), "MULTIPLE_RESULTS": ("receipt ''", "returned"),
    "BAD_REQUEST": ("BadRequestException", "BadRequestException")}
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
