"""Connections on one selector: requests with callbacks, and connections that misbehave."""

import collections
import selectors
import socket
import struct
import time

import wire


STRANGER = "127.0.0.2"


class Connection:
    """Non-blocking; `reads` False: takes nothing of what is sent to it.

    Strangers come from an address of their own: what is bounded per address leaves the verified traffic alone."""

    OWN = {"own", "verifier", "routes", "waits"}

    def __init__(self, net, name, port, reads=True):
        self.net, self.name, self.port, self.reads = net, name, port, reads
        self.inbox, self.outbox = bytearray(), bytearray()
        self.pending = {}
        self.history = collections.deque(maxlen=40)
        self.closed = False
        self.drip = 0
        self.serve = None
        self.socket = socket.socket()
        if not reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(5)
        try:
            self.socket.bind(("127.0.0.1" if name in self.OWN else STRANGER, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.mask = 0
        net.all.add(self)
        self.watch()

    def watch(self):
        mask = (selectors.EVENT_READ if self.reads else 0) | (
            selectors.EVENT_WRITE if self.outbox and not self.drip else 0)
        if mask == self.mask:
            return
        if self.mask == 0:
            self.net.selector.register(self.socket, mask, self)
        elif mask == 0:
            self.net.selector.unregister(self.socket)
        else:
            self.net.selector.modify(self.socket, mask, self)
        self.mask = mask

    def request(self, code, fields, body=b"", then=None, note=None, **how):
        """`then(answer)` is called with the answer, or with None when the connection ends before."""
        opaque = self.net.opaque = self.net.opaque % 0x7FFFFFFF + 1
        said = note or f"{code} {short(fields)} body {len(body)}"
        self.history.append((time.strftime("%H:%M:%S"), said))
        data = wire.frame(code, fields, body, opaque, **how)
        if then and not how.get("flag", 0) & wire.ONEWAY:
            self.pending[opaque] = then
        self.write(data)

    def write(self, data):
        if self.closed:
            return
        self.outbox += data
        if not self.drip:
            self.flush()

    def flush(self, limit=1 << 20):
        try:
            while self.outbox:
                count = self.socket.send(memoryview(self.outbox)[:limit])
                del self.outbox[:count]
                if self.drip:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            return self.close(why=f"sending: {error}")
        self.watch()

    def receive(self):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            return self.close(why=f"reading: {error}")
        if not data:
            return self.close(why="by the peer")
        self.inbox += data
        at = 0
        while len(self.inbox) - at >= 4:
            size = struct.unpack_from(">i", self.inbox, at)[0]
            if len(self.inbox) - at < 4 + size:
                break
            answer = wire.parse(bytes(self.inbox[at + 4:at + 4 + size]))
            at += 4 + size
            if answer.flag & wire.RESPONSE:
                then = self.pending.pop(answer.opaque, None)
                if then:
                    then(answer)
            elif self.serve:
                self.serve(self, answer)
            if self.closed:
                return
        if at:
            del self.inbox[:at]

    def close(self, reset=False, why="by us"):
        if self.closed:
            return
        self.why = why
        self.closed = True
        if self.mask:
            self.net.selector.unregister(self.socket)
            self.mask = 0
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.net.all.discard(self)
        waiting, self.pending = self.pending, {}
        for then in waiting.values():
            then(None)


class Net:
    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.opaque = 0
        self.all = set()
        self.chores = []
        # Seconds the machine has been late by now: limits are longer by what is added to them meanwhile.
        self.late = lambda: 0.0

    def poll(self, seconds=0.0):
        """One round: reads, writes, drips."""
        for key, mask in self.selector.select(seconds) if self.selector.get_map() else ():
            connection = key.data
            if mask & selectors.EVENT_WRITE and not connection.closed:
                connection.flush()
            if mask & selectors.EVENT_READ and not connection.closed:
                connection.receive()
        for connection in [each for each in self.all if each.drip and each.outbox]:
            connection.flush(connection.drip)
        for chore in self.chores:
            chore()

    def until(self, holds, seconds):
        """Whether it holds before so many seconds have passed that the machine was not late."""
        end = time.monotonic() + seconds - self.late()
        while not holds():
            left = end + self.late() - time.monotonic()
            if left <= 0:
                return False
            self.poll(min(left, 0.05))
        return True

    def wait(self, seconds):
        """So long, however late the machine is."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.poll(min(left, 0.05))

    def ask(self, connection, code, fields, body=b"", seconds=20, **how):
        """The answer, or None when none came in time or the connection ended."""
        came = []
        connection.request(code, fields, body, came.append, **how)
        self.until(lambda: came or connection.closed, seconds)
        return came[0] if came else None

    def connect(self, name, port, reads=True):
        return Connection(self, name, port, reads)

    def close_all(self):
        for connection in list(self.all):
            connection.close()


def short(value, limit=600):
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + f"… ({len(text)})"
