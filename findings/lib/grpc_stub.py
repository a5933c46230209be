"""A gateway on loopback, as little of RocketMQ's gRPC service as the 5.x client needs to send and to consume.

Written from the service's description alone and shares nothing with Apus. `Gateway("Topic").start()` serves the topic
with one queue; `sent` holds each message as it came. `batches` is what the receives answer, one list of messages each.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from rocketmq import ClientConfiguration, Credentials
from rocketmq.grpc_protocol import Code, definition_pb2 as data, service_pb2 as service, service_pb2_grpc as rpc

OK = {"code": Code.OK}


def message(topic, body, **system):
    """A message as a receive answers it; `system` goes into its system properties."""
    always = {"receipt_handle": "handle", "body_encoding": data.IDENTITY, "message_type": data.NORMAL}
    return {"topic": {"name": topic}, "body": body, "system_properties": {**always, **system}}


class Gateway(rpc.MessagingServiceServicer):
    def __init__(self, topic):
        self.topic = topic
        self.sent, self.batches = [], []

    def start(self):
        self.server = grpc.server(ThreadPoolExecutor(16))
        rpc.add_MessagingServiceServicer_to_server(self, self.server)
        address = "127.0.0.1:%d" % self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.configuration = ClientConfiguration(address, Credentials())
        return self

    def queue(self, request):
        return {
            "topic": request.topic, "permission": data.READ_WRITE, "broker": {"endpoints": request.endpoints},
            "accept_message_types": [data.NORMAL, data.FIFO, data.DELAY, data.TRANSACTION, data.LITE, data.PRIORITY]}

    def QueryRoute(self, request, context):
        return service.QueryRouteResponse(status=OK, message_queues=[self.queue(request)])

    def QueryAssignment(self, request, context):
        return service.QueryAssignmentResponse(status=OK, assignments=[{"message_queue": self.queue(request)}])

    def Heartbeat(self, request, context):
        return service.HeartbeatResponse(status=OK)

    def settings(self, settings):
        if settings.HasField("subscription"):
            settings.subscription.long_polling_timeout.seconds = 20
        return settings

    def Telemetry(self, commands, context):
        for command in commands:
            if command.HasField("settings"):
                yield service.TelemetryCommand(status=OK, settings=self.settings(command.settings))

    def SendMessage(self, request, context):
        self.sent.append(request.messages[0])
        return self.answer_send(request.messages[0].system_properties.message_id)

    def answer_send(self, id):
        return service.SendMessageResponse(status=OK, entries=[{"status": OK, "message_id": id}])

    def answer_receive(self, messages):
        yield {"status": OK}
        for one in messages:
            yield {"message": one}
        yield {"delivery_timestamp": {"seconds": int(time.time())}}

    def ReceiveMessage(self, request, context):
        if self.batches:
            for part in self.answer_receive(self.batches.pop(0)):
                yield service.ReceiveMessageResponse(**part)
        else:
            time.sleep(1)
            yield service.ReceiveMessageResponse(status={"code": Code.MESSAGE_NOT_FOUND})

    def AckMessage(self, request, context):
        return service.AckMessageResponse(status=OK)

    def ChangeInvisibleDuration(self, request, context):
        return service.ChangeInvisibleDurationResponse(status=OK, receipt_handle=request.receipt_handle)
