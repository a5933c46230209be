#!/usr/bin/env bash
# A send of the official C++ client sleeps through the close of its connection, and then blames the route.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: the server takes SEND_MESSAGE (code 10) and closes the connection without an answer. Nothing wakes the send: it
# waits for its whole time-out (3 s by default), and only then tries again, by a new connection. Closed three times it
# fails after three time-outs with 'No route info of this topic', though the route never changed. The client does see
# the close: a send that begins half a second after one passes at once.
# For a broker: a close is no answer to this client. Whoever stops a broker or sheds a connection first answers what
# is under way; otherwise each sending thread stands still for seconds, and its error points to the name server.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import os
import socket
import time
from remoting_stub import Stub
from rocketmq.client import Message, Producer


class Closing(Stub):
    closes = 0

    def answer(self, frame):
        if frame.code == 10 and self.closes:
            self.closes -= 1
            return self.peer.shutdown(socket.SHUT_RDWR)
        return super().answer(frame)


def send(what, closes, *wanted):
    message = Message("Sends")
    message.set_body("x")
    stub.closes, before, begun = closes, len(stub.of(10)), time.monotonic()
    try:
        outcome = producer.send_sync(message).status.name
    except Exception as error:
        outcome = str(error).split(":")[0]
    took, requests = time.monotonic() - begun, len(stub.of(10)) - before
    print("%s: %s after %.2f s, requests: %d" % (what, outcome, took, requests))
    return (outcome, requests) == wanted[:2] and abs(took - wanted[2]) < 0.6


stub = Closing("Sends").start()
producer = Producer("writers")
producer.set_namesrv_addr(stub.address)
producer.start()
holds = send("no close", 0, "OK", 1, 0)
stub.peer.shutdown(socket.SHUT_RDWR)
time.sleep(0.5)
holds &= send("closed 0.5 s before", 0, "OK", 1, 0)
holds &= send("closed during the first request", 1, "OK", 2, 3)
producer.set_timeout(1000)
holds &= send("closed during each, time-out 1 s", 3, "No route info of this topic", 3, 3)
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
