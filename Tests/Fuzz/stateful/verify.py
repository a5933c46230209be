"""Reads everything back and compares it with what was confirmed."""

import time

from model import digest, token_of
from net import short
from world import Finding
import wire


class Verifier:
    def __init__(self, world, net, model):
        self.world, self.net, self.model = world, net, model
        self.connection = None
        # (topic, queue) → next offset to read, {offset: digest}; topic → {token: count}.
        self.read = {}
        self.tokens = {}
        self.epochs = {}

    def ask(self, code, fields, body=b"", seconds=30):
        if not self.connection or self.connection.closed:
            try:
                self.connection = self.net.connect("verifier", self.world.broker)
            except OSError as error:
                raise Finding("start", f"the broker takes no connection: {error}")
        answer = self.net.ask(self.connection, code, fields, body, seconds)
        if answer is None:
            raise Finding("answer", f"no answer to {code} {short(fields)} within {seconds} s")
        return answer

    def forget(self):
        """After a restart all is read again."""
        self.read.clear()
        self.tokens.clear()
        self.connection = None

    def table(self):
        answer = self.ask(21, {})
        if answer.code != 0:
            raise Finding("answer", f"21 is answered {answer.code} {answer.remark}")
        return answer.json()["topicConfigTable"]

    def queue(self, topic, queue):
        """Reads a queue to its end; every record must be where it belongs."""
        key = (topic, queue)
        at, known = self.read.get(key, (None, {}))
        if at is None:
            answer = self.ask(31, {"topic": topic, "queueId": queue})
            if answer.code != 0:
                return None
            at = answer.number("offset")
        tokens = self.tokens.setdefault(topic, {})
        while True:
            answer = self.ask(11, {
                "consumerGroup": "verified-reader", "topic": topic, "queueId": queue, "queueOffset": at, "maxMsgNums": 32,
                "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": "*", "subVersion": 0})
            if answer.code in (19, 21):
                wanted = int(answer.fields.get("nextBeginOffset", at))
                if answer.code == 21 and wanted > at:
                    at = wanted
                    continue
                break
            if answer.code == 20:
                wanted = answer.number("nextBeginOffset")
                if wanted <= at:
                    break
                at = wanted
                continue
            if answer.code != 0:
                return None
            try:
                found = wire.records(answer.body)
            except (ValueError, IndexError) as error:
                raise Finding("foreign", f"{ascii(topic)} {queue} at {at}: no records in a pull's answer: {error}")
            for record in found:
                where = f"{ascii(topic)} queue {queue} offset {at}"
                if (record.topic, record.queue) != (topic, queue):
                    raise Finding("foreign", f"{where} holds a message of {ascii(record.topic)} queue {record.queue}: "
                                  f"{short(record.body, 60)}")
                if record.offset < at:
                    raise Finding("foreign", f"{where} holds the message of offset {record.offset}")
                if not record.intact:
                    raise Finding("foreign", f"{where}: the body is not what its checksum says: {short(record.body, 60)}")
                known[record.offset] = digest(record.body)
                token = token_of(record.body)
                tokens[token] = tokens.get(token, 0) + 1
                at = record.offset + 1
            if not found:
                break
        self.read[key] = (at, known)
        return known

    def topic(self, topic, config):
        if self.epochs.get(topic) != self.model.epoch[topic]:
            self.epochs[topic] = self.model.epoch[topic]
            self.tokens.pop(topic, None)
            for key in [key for key in self.read if key[0] == topic]:
                del self.read[key]
        count = config["readQueueNums"]
        return {queue: self.queue(topic, queue) for queue in range(min(count, 64))}

    def verify(self, final=False):
        # What is due by now must be there; reading it back may take long.
        now = time.time()
        table = self.table()
        placed = {}
        model = self.model
        model.placed = [entry for entry in model.placed if entry.epoch == model.epoch[entry.topic]]
        for entry in model.placed:
            placed.setdefault(entry.topic, []).append(entry)
        wanted = set(placed) | {topic for entry in model.awaited for topic in entry.topics} | set(model.own_topics)
        for topic in sorted(set(table) | wanted, key=ascii):
            if topic not in table:
                if topic in placed and topic not in model.reshaped:
                    raise Finding("lost", f"topic {ascii(topic)} is gone, and {len(placed[topic])} confirmed messages with it")
                continue
            if topic not in wanted and len(table) > 200:
                continue
            queues = self.topic(topic, table[topic])
            for entry in placed.get(topic, ()):
                if entry.epoch != model.epoch[topic]:
                    continue
                known = queues.get(entry.queue)
                if known is None and topic in model.reshaped:
                    continue
                if known is None or known.get(entry.offset) != entry.digest:
                    have = "which nobody can read" if known is None else (
                        "another message is there" if entry.offset in known else f"of {len(known)} messages none is there")
                    raise Finding("lost", f"{ascii(topic)} queue {entry.queue} offset {entry.offset}, {entry.size} bytes, "
                                  f"confirmed by step {entry.step}: {have}")
        self.awaited(table, final, now)

    def awaited(self, table, final, now):
        """What is due must have come; what comes must have been wanted."""
        model, kept = self.model, []
        for entry in model.awaited:
            if any(model.epoch[topic] != epoch for topic, epoch in zip(entry.topics, entry.epochs)):
                continue
            if model.reshaped.intersection(entry.topics):
                continue
            count = sum(self.tokens.get(topic, {}).get(entry.token, 0) for topic in entry.topics)
            what = f"{entry.kind} {ascii(entry.token)} for {short(entry.topics, 200)}, confirmed by step {entry.step},"
            if entry.exact and count > entry.wanted and entry.kills == model.kills:
                raise Finding("twice", f"{what} came {count} times instead of {entry.wanted}")
            if count >= entry.wanted:
                if not final and entry.exact:
                    kept.append(entry)
                continue
            # Its client answered none of the checks (`transactionCheckMax`, 15) because the machine let it, which is this process, stand.
            if (entry.kind == "transaction committed when asked" and model.late() - entry.late > 10
                    and self.tokens.get("TRANS_CHECK_MAX_TIME_TOPIC", {}).get(entry.token)):
                continue
            if entry.due + 10 + model.late() - entry.late < now:
                there = [topic for topic in entry.topics if topic in table]
                raise Finding("lost", f"{what} was due {now - entry.due:.0f} s ago and came {count} of {entry.wanted} times"
                              + (f" (readable: {[table[topic]['readQueueNums'] for topic in there]} queues)" if there else ""))
            kept.append(entry)
        model.awaited = kept
        for token, (topic, why, step) in model.never.items():
            if self.tokens.get(topic, {}).get(token):
                raise Finding("twice", f"{ascii(token)} is in {topic} although {why} (step {step})")

    def owed(self):
        """Seconds until everything confirmed is due."""
        return max([entry.due for entry in self.model.awaited] + [0]) - time.time()

    def routes(self, nameserver):
        """The verified topics are routed to their broker."""
        for topic in self.model.own_topics:
            answer = self.net.ask(nameserver, 105, {"topic": topic})
            if answer is None or answer.code != 0:
                raise Finding("lost", f"the name server knows no route of {topic}: {answer and answer.remark}")
            if not any(data["brokerName"] == "broker-a" for data in answer.json()["queueDatas"]):
                raise Finding("lost", f"{topic} is not routed to broker-a: {short(answer.body)}")
