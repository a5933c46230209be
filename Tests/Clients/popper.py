"""A consumer that pops, as a process of its own, which a test may kill: popper.py HOST:PORT TOPIC GROUP NAME [--think MS]
[--hold N] [--fail BODY] [--poll MS]. Prints `got BODY ATTEMPT QUEUE OFFSET` for each message, `done BODY` when its acknowledgement
was confirmed, `failed BODY` when its failure was. It thinks so long before it acknowledges. With --hold it keeps the Nth message and
does nothing any more. Connects again when the broker is away. No library: RocketMQ's remoting frames with JSON headers."""
import argparse, json, socket, struct, sys, time

parser = argparse.ArgumentParser()
for name in ("broker", "topic", "group", "name"):
    parser.add_argument(name)
parser.add_argument("--think", type=int, default=0)
parser.add_argument("--hold", type=int, default=0)
parser.add_argument("--fail", default="")
parser.add_argument("--poll", type=int, default=2000)
options = parser.parse_args()


class Broker:
    def __init__(self):
        host, port = options.broker.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.opaque = 0
        self.beat()

    def beat(self):
        consumer = {"groupName": options.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
                    "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": [], "unitMode": False}
        body = {"clientID": options.name, "consumerDataSet": [consumer], "producerDataSet": []}
        self.ask(34, {}, json.dumps(body).encode())

    def ask(self, code, fields, body=b""):
        self.opaque += 1
        header = json.dumps({"code": code, "language": "PYTHON", "version": 401, "opaque": self.opaque, "flag": 0,
                             "serializeTypeCurrentRPC": "JSON", "extFields": fields}).encode()
        self.socket.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
        while True:
            length, mark = struct.unpack(">ii", self.read(8))
            rest = self.read(length - 4)
            answer = json.loads(rest[:mark & 0xFFFFFF])
            if answer.get("flag", 0) & 1 and answer["opaque"] == self.opaque:
                return answer, rest[mark & 0xFFFFFF:]

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the broker has closed")
            data += part
        return data

    def pop(self):
        answer, body = self.ask(200050, {
            "consumerGroup": options.group, "topic": options.topic, "queueId": "-1", "maxMsgNums": "1",
            "invisibleTime": "-1", "pollTime": str(options.poll), "bornTime": "0", "initMode": "0", "expType": "TAG",
            "exp": "*", "order": "false"})
        if answer["code"] != 0:
            return None
        fields = answer["extFields"]
        queue, attempt = struct.unpack_from(">i", body, 12)[0], 0
        offset = struct.unpack_from(">q", body, 20)[0]
        # Size, magic, CRC, queue, flag, offset, position, system flag, born time, born host, stored time, store host.
        attempt = struct.unpack_from(">i", body, 72)[0]
        size = struct.unpack_from(">i", body, 84)[0]
        start = fields["startOffsetInfo"].split(" ")[2]
        handle = " ".join([start, fields["popTime"], fields["invisibleTime"], fields["reviveQid"], "0", "broker-a",
                           str(queue), str(offset)])
        return body[88:88 + size].decode(), attempt, queue, offset, handle

    def report(self, code, message, more):
        fields = {"consumerGroup": options.group, "topic": options.topic, "queueId": str(message[2]),
                  "offset": str(message[3]), "extraInfo": message[4]}
        fields.update(more)
        return self.ask(code, fields)[0]["code"] == 0


def say(*words):
    print(*words, flush=True)


broker, count, beaten = None, 0, 0.0
while True:
    try:
        if broker is None:
            broker, beaten = Broker(), time.monotonic()
        if time.monotonic() - beaten > 20:
            broker.beat()
            beaten = time.monotonic()
        message = broker.pop()
        if message is None:
            continue
        count += 1
        say("got", message[0], message[1], message[2], message[3])
        if count == options.hold:
            time.sleep(3600)
        time.sleep(options.think / 1000)
        if message[0] == options.fail:
            if broker.report(200053, message, {"invisibleTime": "-1", "reason": "as asked"}):
                say("failed", message[0])
        elif broker.report(200051, message, {}):
            say("done", message[0])
    except OSError:
        broker = None
        time.sleep(0.02)
