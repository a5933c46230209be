"""Connections that do not keep to the protocol, or keep to it very slowly."""

import struct

import wire

GREETINGS = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"\x16\x03\x01\x02\x00\x01\x00",
             b"\x00" * 64, b"\xff" * 64]
LENGTHS = [-1, 0, 1, 3, 4, 5, (16 << 20) + 1, 2**31 - 1, -2**31]


class Mischief:
    def __init__(self, fuzz):
        self.fuzz = fuzz
        self.open = []

    def step(self, dice):
        port = dice.choice([self.fuzz.world.broker] * 3 + [self.fuzz.world.nameserver])
        try:
            getattr(self, dice.choice(["half", "half", "drip", "deaf", "garbage", "lengths", "abrupt", "headers", "replica"]))(dice, port)
        except OSError:
            pass  # The broker may take no more connections.
        while len(self.open) > 40:
            self.open.pop(0).close(reset=dice.chance(50))

    def connection(self, name, port, **more):
        made = self.fuzz.net.connect(name, port, **more)
        self.open.append(made)
        return made

    def half(self, dice, port):
        data = wire.frame(310, {"b": dice.choice(self.fuzz.model.topics)}, b"h" * dice.choice([0, 100, 100_000]), 1)
        self.connection("half", port).write(data[:dice.randrange(1, len(data))])

    def drip(self, dice, port):
        slow = self.connection("slow", port)
        slow.drip = dice.choice([1, 3, 50])
        for _ in range(3):
            slow.request(34 if port == self.fuzz.world.broker else 106, {},
                         b'{"clientID":"fz-slow","producerDataSet":[],"consumerDataSet":[]}', note="slowly")

    def deaf(self, dice, port):
        if port == self.fuzz.world.broker:
            deaf = self.connection("deaf", port, reads=False)
            for _ in range(dice.choice([10, 200])):
                deaf.request(11, {
                    "consumerGroup": "fz-deaf", "topic": dice.choice(self.fuzz.model.verified_topics), "queueId": dice.randrange(4),
                    "queueOffset": 0, "maxMsgNums": 32, "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0,
                    "subscription": "*", "subVersion": 0})

    def garbage(self, dice, port):
        noise = dice.randbytes(dice.choice([8, 100, 5000]))
        self.connection("garbage", port).write(dice.choice([*GREETINGS, noise]))

    def lengths(self, dice, port):
        self.connection("lengths", port).write(struct.pack(">iI", dice.choice(LENGTHS), dice.getrandbits(32)) + dice.randbytes(20))

    def abrupt(self, dice, port):
        one = self.connection("abrupt", port)
        for _ in range(dice.choice([1, 50])):
            one.request(28 if port == self.fuzz.world.broker else 206, {})
        one.close(reset=True)

    def headers(self, dice, port):
        """Frames whose header is nearly right."""
        data = bytearray(wire.frame(14, {"consumerGroup": "fz-group-1", "topic": "Fuzz-0", "queueId": 0}, b"", 5,
                                    binary=dice.chance(60)))
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
        self.connection("headers", port).write(bytes(data) * dice.choice([1, 20]))

    def replica(self, dice, port):
        """The replication port: a slave that says impossible offsets."""
        one = self.connection("replica", self.fuzz.world.broker + 1)
        for _ in range(dice.choice([1, 5])):
            one.write(struct.pack(">q", dice.choice([0, 1, -1, 2**63 - 1, -2**63, 100_000])))
        one.write(dice.randbytes(dice.choice([0, 3])))
        one.serve = None
        one.receive = lambda: drain(one)


def drain(connection):
    try:
        if not connection.socket.recv(1 << 18):
            connection.close()
    except BlockingIOError:
        pass
    except OSError:
        connection.close()
