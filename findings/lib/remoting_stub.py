"""A name server and broker on loopback, as little of RocketMQ's remoting protocol as a client needs to send and to consume.

Written from the protocol's description alone and shares nothing with Apus. `Stub().start()` serves both roles on one
port; `frames` holds each request as it came, `peer` is the newest connection. `messages` is what a pull of queue 0
answers, from offset 0.
"""

import json
import socket
import struct
import threading
import time
import zlib


class Frame:
    def __init__(self, header, body):
        self.header, self.body = header, body
        self.code = header["code"]
        self.fields = header.get("extFields") or {}


def record(topic, body, offset, properties, born=1700000000000):
    """A stored message as a pull answers it (MessageDecoder's layout, IPv4 hosts)."""
    host = socket.inet_aton("127.0.0.1") + struct.pack(">i", 1)
    tail = (
        struct.pack(">iiqqiq", 0, 0, offset, offset * 1000, 0, born) + host + struct.pack(">q", born) + host
        + struct.pack(">iq", 0, 0) + struct.pack(">i", len(body)) + body
        + bytes([len(topic)]) + topic.encode() + struct.pack(">h", len(properties)) + properties
    )
    return struct.pack(">iiI", 12 + len(tail), -626843481, zlib.crc32(body) & 0x7FFFFFFF) + tail


class Stub:
    def __init__(self, topic, queues=1):
        self.topic, self.queues = topic, queues
        self.frames, self.messages = [], []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]

    def start(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def of(self, *codes):
        with self.lock:
            return [frame for frame in self.frames if frame.code in codes]

    def wait_for(self, code, count=1, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.of(code)
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise SystemExit("the client sent no request %d within %d s" % (code, seconds))

    def _accept(self):
        while True:
            self.peer, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(self.peer,), daemon=True).start()

    def _serve(self, peer):
        stream = peer.makefile("rb")
        sending = threading.Lock()
        while True:
            size = stream.read(8)
            if len(size) < 8:
                return
            total, head = struct.unpack(">ii", size)
            rest = stream.read(total - 4)
            head &= 0xFFFFFF
            frame = Frame(json.loads(rest[:head]), rest[head:])
            with self.lock:
                self.frames.append(frame)
            if frame.header["flag"] & 3:
                continue
            answer = self.answer(frame)
            if answer is not None:
                threading.Thread(target=self._reply, args=(peer, sending, frame, answer), daemon=True).start()

    @staticmethod
    def _reply(peer, sending, frame, answer):
        code, fields, body, delay = (tuple(answer) + (0,))[:4]
        time.sleep(delay)
        header = json.dumps({
            "code": code, "language": "JAVA", "version": 399, "opaque": frame.header["opaque"], "flag": 1,
            "serializeTypeCurrentRPC": "JSON", "extFields": fields,
        }).encode()
        with sending:
            try:
                peer.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
            except OSError:
                pass

    def answer(self, frame):
        """(code, extFields, body[, seconds to wait]); None: no answer."""
        code, fields = frame.code, frame.fields
        if code == 105:
            return 0, {}, json.dumps({
                "brokerDatas": [{"brokerAddrs": {"0": self.address}, "brokerName": "stub", "cluster": "stub"}],
                "queueDatas": [{
                    "brokerName": "stub", "perm": 6, "readQueueNums": self.queues, "writeQueueNums": self.queues,
                    "topicSynFlag": 0}],
                "filterServerTable": {},
            }).encode()
        if code in (10, 310, 320):
            return 0, {"msgId": "7F0000010000000100000000000000%02d" % 0, "queueId": "0", "queueOffset": "0"}, b""
        if code == 38:
            clients = {json.loads(f.body)["clientID"] for f in self.of(34)}
            return 0, {}, json.dumps({"consumerIdList": sorted(clients)}).encode()
        if code in (14, 29, 30, 31):
            return 0, {"offset": "0"}, b""
        if code == 41:
            return 0, {}, json.dumps({"lockOKMQSet": json.loads(frame.body)["mqSet"]}).encode()
        if code == 11:
            here = fields["topic"] == self.topic and int(fields["queueId"]) == 0
            found = self.messages[int(fields["queueOffset"]):] if here else []
            span = {"minOffset": "0", "maxOffset": str(len(self.messages)), "suggestWhichBrokerId": "0"}
            if found:
                return 0, dict(span, nextBeginOffset=str(len(self.messages))), b"".join(found)
            return 19, dict(span, nextBeginOffset=fields["queueOffset"]), b"", 2
        return 0, {}, b""
