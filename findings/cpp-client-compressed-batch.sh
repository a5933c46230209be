#!/usr/bin/env bash
# The official C++ client compresses a whole batch, so that no broker can split it.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: `send_batch` uses SEND_MESSAGE (code 10) with the field batch=1. Up to 4 KB the body is the list of encoded
# messages that RocketMQ's brokers take apart. From 4 KB on (100 messages of 6 bytes are enough) the client deflates
# the list as if it were one message's body and sets bit 0 of sysFlag (compressed). RocketMQ's Java client never
# compresses a batch; a broker that splits the body as it came finds no message in it.
# For a broker: inflate first when batch=1 and the compressed bit are both set (bounded by maxMessageSize), then
# split.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import os
import struct
import zlib
from remoting_stub import Stub
from rocketmq.client import Message, Producer


def bodies(batch):
    """Bodies of an encoded batch: size, magic, crc, flag, body length and body, properties length and properties."""
    found = []
    while batch:
        size, _, _, _, length = struct.unpack_from(">iiiii", batch)
        found.append(batch[20:20 + length])
        batch = batch[size:]
    return found


stub = Stub("Batches").start()
producer = Producer("writers")
producer.set_namesrv_addr(stub.address)
producer.start()
holds = True
for count, compressed in ((10, False), (100, True)):
    messages = []
    for number in range(count):
        message = Message("Batches")
        message.set_body("body%02d" % number)
        messages.append(message)
    producer.send_batch(messages)
    frame = stub.of(10)[-1]
    flag = int(frame.fields["sysFlag"])
    content = zlib.decompress(frame.body) if flag & 1 else frame.body
    print("%d messages: batch=%s sysFlag=%d, %d bytes, first byte 0x%02x; %d messages inside" % (
        count, frame.fields["batch"], flag, len(frame.body), frame.body[0], len(bodies(content))))
    holds &= frame.fields["batch"] == "1" and bool(flag & 1) == compressed
    holds &= bodies(content) == [b"body%02d" % number for number in range(count)]
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
