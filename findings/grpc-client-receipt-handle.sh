#!/usr/bin/env bash
# After one refused change of the invisible time, the gRPC client acknowledges its message without a receipt handle.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: the client takes the new receipt handle out of a ChangeInvisibleDurationResponse before it looks at the status.
# A refusal that is a status alone (TOO_MANY_REQUESTS here) leaves an empty handle in the message, and the AckMessage
# that follows names none. With the request's handle in the refusal the ack is right.
# For a gateway: answer a refused change with the handle that the request named. Otherwise a moment's refusal costs
# the message its ack: it was consumed, and comes again. (rocketmq-clients has that order in Java's SimpleConsumer too.)
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
from rocketmq.grpc_protocol import Code, definition_pb2 as data, service_pb2 as service, service_pb2_grpc as rpc
from rocketmq.v5.exception import TooManyRequestsException

OK, BUSY = {"code": Code.OK}, {"code": Code.TOO_MANY_REQUESTS}


class Gateway(rpc.MessagingServiceServicer):
    def QueryRoute(self, request, context):
        queue = {"topic": request.topic, "permission": data.READ_WRITE, "broker": {"endpoints": request.endpoints}}
        return service.QueryRouteResponse(status=OK, message_queues=[queue])

    def ReceiveMessage(self, request, context):
        system = {"receipt_handle": "handle-1", "body_encoding": data.IDENTITY}
        message = {"topic": request.message_queue.topic, "body": b"x", "system_properties": system}
        yield service.ReceiveMessageResponse(message=message)
        yield service.ReceiveMessageResponse(status=OK)

    def ChangeInvisibleDuration(self, request, context):
        return service.ChangeInvisibleDurationResponse(status=BUSY, receipt_handle=self.returned)

    def AckMessage(self, request, context):
        self.acknowledged.append(request.entries[0].receipt_handle)
        return service.AckMessageResponse(status=OK)


gateway, server = Gateway(), grpc.server(ThreadPoolExecutor(8))
rpc.add_MessagingServiceServicer_to_server(gateway, server)
address = "127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0")
server.start()
consumer = SimpleConsumer(ClientConfiguration(address, Credentials()), "readers", {"Topic": FilterExpression()}, 2)
consumer.startup()
gateway.acknowledged = []
for gateway.returned in ("", "handle-1"):
    message = consumer.receive(1, 10)[0]
    try:
        consumer.change_invisible_duration(message, 60)
    except TooManyRequestsException:
        consumer.ack(message)
        print("received 'handle-1', refused with %r, acknowledged %r" % (gateway.returned, gateway.acknowledged[-1]))
holds = gateway.acknowledged == ["", "handle-1"]
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
