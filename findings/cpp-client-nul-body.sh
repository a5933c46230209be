#!/usr/bin/env bash
# A consumer of the official C++ client gets a body only up to its first zero byte.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: a pull answers two messages, both well-formed. One body is 'abc', 0, 'def' (7 bytes): the listener gets
# b'abc'. The other, without a zero byte, arrives whole. No error and no log line; the listener acknowledges, and the
# offset moves on. Sending is not affected: `set_body` with bytes passes all of them. Protobuf, Avro and compressed
# bodies are so cut on receipt.
# Why: the C API hands a body out as a C string (GetMessageBody), without its length.
# For a broker: nothing in its log explains such a report; the stored message is whole. Tests with this client use
# bodies without zeros.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import os
import time
from remoting_stub import Stub, record
from rocketmq.client import PushConsumer

stub = Stub("Bodies").start()
stub.messages = [record("Bodies", b"abc\0def", 0, b"KEYS\1zero\2"), record("Bodies", b"abcdef", 1, b"KEYS\1plain\2")]
received = {}
consumer = PushConsumer("readers")
consumer.set_namesrv_addr(stub.address)
consumer.subscribe("Bodies", lambda message: received.update({message.keys: message.body}) or True)
consumer.start()
for _ in range(200):
    if len(received) == 2:
        break
    time.sleep(0.1)
print("received:", received)
holds = received == {b"zero": b"abc", b"plain": b"abcdef"}
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
