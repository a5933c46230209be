"""Connects to a port again and again, sends one request and waits for its answer, until SIGTERM.

    prober.py PORT

Prints one JSON object: answered, refused (ECONNREFUSED: what must not happen while systemd keeps the socket), broken (an accepted
connection that ended without an answer) and the longest wait for an answer in milliseconds.
"""

import json
import signal
import socket
import struct
import sys
import time

# GET_BROKER_RUNTIME_INFO (28) is answered by brokers, GET_BROKER_CLUSTER_INFO (106) by name servers; the other refuses in words.
header = json.dumps({"code": 28, "flag": 0, "language": "JAVA", "opaque": 1, "version": 399}).encode()
request = struct.pack(">ii", 4 + len(header), len(header)) + header
counts = {"answered": 0, "refused": 0, "broken": 0, "longest": 0}
running = True


def end(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, end)
since = time.monotonic()
while running:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as connection:
            connection.sendall(request)
            outcome = "answered" if len(connection.recv(4)) == 4 else "broken"
    except ConnectionRefusedError:
        outcome = "refused"
    except OSError:
        outcome = "broken"
    counts[outcome] += 1
    if outcome == "answered":
        counts["longest"] = max(counts["longest"], round((time.monotonic() - since) * 1000))
        since = time.monotonic()
    time.sleep(0.002)
print(json.dumps(counts), flush=True)
