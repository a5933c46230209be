#!/usr/bin/env bash
# A received message that the gRPC client sends on becomes a priority message, or one for the year 55840.
#
# Package: rocketmq-python-client 5.1.2 (PyPI; official, gRPC).
# Seen: each received Message has priority 0, also when the gateway sent none. A relay or a replay of dead letters
# sends it on: then a normal message has the type PRIORITY, which a topic for normal messages refuses. A delayed one
# keeps DELAY, but its time is read in milliseconds and written as seconds: 2023-11-14 becomes a day in the year
# 55840. The doc string of `delivery_timestamp` says milliseconds as well. A message with a group stays FIFO, with a
# priority.
# For a gateway: priority 0 is no wish for priority. Name the type found and the types accepted in the refusal. Check
# the delivery time as a number of seconds: such a value overflows a count of nanoseconds in 64 bits.
source "$(dirname "$0")/lib/client.bash"
with_client rocketmq-python-client==5.1.2 <<'PYTHON'
import os

from grpc_stub import Gateway, message
from rocketmq import FilterExpression, Producer, SimpleConsumer
from rocketmq.grpc_protocol import MessageType, definition_pb2 as data

gateway = Gateway("Topic").start()
gateway.batches = [[
    message("Topic", b"x"), message("Topic", b"x", message_type=data.FIFO, message_group="group"),
    message("Topic", b"x", message_type=data.DELAY, delivery_timestamp={"seconds": 1700000000})]]
producer = Producer(gateway.configuration, ["Topic"])
producer.startup()
consumer = SimpleConsumer(gateway.configuration, "readers", {"Topic": FilterExpression()}, 2)
consumer.startup()
seen = []
for received in consumer.receive(3, 30):
    type_in = MessageType.Name(received.message_type)
    producer.send(received)
    system = gateway.sent[-1].system_properties
    seconds = system.delivery_timestamp.seconds
    seen.append((type_in, MessageType.Name(system.message_type), system.HasField("priority"), seconds))
    year = "" if not seconds else ", delivery in the year %d" % (1970 + seconds / 86400 / 365.2425)
    priority = system.priority if system.HasField("priority") else "none"
    print("received %s, sent on %s, priority %s%s" % (type_in, seen[-1][1], priority, year))
holds = seen == [
    ("NORMAL", "PRIORITY", True, 0), ("FIFO", "FIFO", True, 0), ("DELAY", "DELAY", True, 1700000000000)]
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
