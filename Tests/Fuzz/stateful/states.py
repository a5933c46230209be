"""States and what strikes them. A few spots have names of their own: a group, a topic, a queue. Requests build something up at a spot (claims,
leases, edits, timers, half messages, locks, offsets), and requests of all codes then name exactly this, with one or two numbers at a bound.

What lies at spots is in no ledger: a reset or an edit may skip or change it by right."""

import collections
import json
import time

import bodies
import codes
import values
import wire
from model import token_of
from traffic import letters

# Each spot's topic: its queues and attributes.
TOPICS = [(2, None), (2, None), (2, "+apus.mode=QUEUE"), (1, "+apus.mode=SERIAL_QUEUE"), (2, "+apus.mode=QUEUE,+apus.shard=true"),
          (2, "+apus.retry.count=2,+apus.retry.interval=1,+apus.timeout=2")]
POSTPONED = ["DELAY", "TIMER_DELAY_SEC", "TIMER_DELIVER_MS"]
# Ordinary requests that make state: later ones name what they named.
MAKES_STATE = {11, 361, 15, 34, 36, 41, 222, 200050, 200053, 401, 310, 10}


class Spot:
    """`known`: what answers have said of it, by kind. Spots are few and fixed, so that a plan of fewer steps hits the same."""

    def __init__(self, topic, group, queue, queues=4, attributes=None, client="127.0.0.1@fz-0", producer="fz-producer-0"):
        self.topic, self.group, self.queue, self.queues, self.attributes = topic, group, queue, queues, attributes
        self.client, self.producer = client, producer
        self.known = collections.defaultdict(lambda: collections.deque(maxlen=12))

    def latest(self, kind, default):
        return self.known[kind][-1] if self.known[kind] else default

    def heard(self, code, said, answer):
        """Takes from an answer what later requests may name."""
        if answer and answer.code == 0:
            try:
                self.learn(code, said, answer.fields)
            except ValueError:
                pass  # An answer to a hostile request, with its names in it.

    def learn(self, code, said, fields):
        known = self.known
        if code == 200050:
            for part in fields.get("msgOffsetInfo", "").split(";"):
                kind, _, rest = part.partition(" ")
                queue, _, offsets = rest.partition(" ")
                for offset in offsets.split(",")[-4:]:
                    known["handle"].append((f"{offset} {fields.get('popTime')} {fields.get('invisibleTime')} {fields.get('reviveQid')} "
                                            f"{kind} broker-a {queue} {offset}", offset))
                    known["offset"].append(int(offset))
            known["time"].append(int(fields.get("popTime", 0)))
        elif code in (10, 310, 320, 325, 31002):
            physical = fields.get("commitLogOffset") or str(int(fields.get("msgId", "0")[-16:] or "0", 16))
            known["physical"].append(int(physical))
            if code != 31002:
                known["key"].append(str(said.get("i") or said.get("properties")).partition("UNIQ_KEY\x01")[2].partition("\x02")[0])
            known["msgid"].append(fields.get("msgId", ""))
            offset = int(fields.get("queueOffset", 0))
            known["half" if "TRAN_MSG" in str(said.get("i")) else "offset"].append(offset)
        elif code == 14:
            known["offset"].append(int(fields.get("offset", 0)))


class Seen:
    """The model as a request sees it that names one spot: its names alone, and what answers have said of it."""

    def __init__(self, model, spot):
        self.model, self.spot = model, spot
        retried = ["%RETRY%" + spot.group, "%DLQ%" + spot.group] if spot.topic not in model.topics else []
        self.topics, self.groups = [spot.topic] * 10 + retried, [spot.group]
        self.producer_groups, self.clients, self.brokers = [spot.producer], [spot.client], ["broker-a"]

    def __getattr__(self, name):
        return getattr(self.model, name)

    def draw(self, dice, kind, default):
        return dice.choice(self.spot.known[kind]) if self.spot.known[kind] else default

    def queue(self, dice):
        return self.spot.queue

    def end_of(self, topic, queue):
        return max(self.spot.known["offset"], default=0)

    def begin(self, dice, topic, queue):
        return self.draw(dice, "offset", 0)

    def physical(self, dice):
        return self.draw(dice, "physical", 0)

    def half(self, dice):
        return self.draw(dice, "half", 0)

    def message_id(self, dice):
        return self.draw(dice, "key" if dice.chance(50) else "msgid", "7F00000100002A9F0000000000000000")

    def pop_time(self, dice):
        return self.draw(dice, "time", 0)

    def handle(self, dice, offset):
        """Of the message at this offset, when there is one."""
        handles = [text for text, of in self.spot.known["handle"] if of == offset] or [text for text, _ in self.spot.known["handle"]]
        return dice.choice(handles) if handles else None


class States:
    """The step `state`: something is built up at a spot, and struck. Each maker is one method; it takes its dice and how to ask."""

    def __init__(self, fuzz):
        self.fuzz, self.model = fuzz, fuzz.model
        self.spots = [Spot(f"FuzzState-{index}", f"fz-state-{index}", index % queues, queues, attributes,
                           f"127.0.0.1@fz-state-{index}", f"fz-state-producer-{index}")
                      for index, (queues, attributes) in enumerate(TOPICS)]
        # The names of the last ordinary requests that made state.
        self.named = collections.deque(maxlen=6)
        names = {spot.topic for spot in self.spots} | {kind + spot.group for spot in self.spots for kind in ("%RETRY%", "%DLQ%")}
        self.model.unkept |= names
        self.model.regrouped |= {spot.group for spot in self.spots}

    def spot(self, dice, code=None):
        """Whose names a request takes. An edit changes by right what lies in topics that are in the ledger."""
        if self.named and code != 31002 and dice.chance(35):
            return dice.choice(self.named)
        return dice.choice(self.spots)

    def named_by(self, code, said):
        """The names an ordinary request was sent for that makes state: taken as it is sent, so that the moment of its answer does not matter."""
        topic, group = said.get("topic") or said.get("b"), said.get("consumerGroup") or said.get("group")
        if code not in MAKES_STATE or not (topic or group):
            return None
        try:
            queue = int(said.get("queueId") or said.get("e") or 0)
        except ValueError:
            queue = 0
        for found in self.named:
            if topic in (None, found.topic) and group in (None, found.group) and queue == found.queue:
                return found
        self.named.append(Spot(topic or self.model.fuzz_topics[0], group or self.model.groups[0], queue))
        return self.named[-1]

    def step(self, dice):
        at = dice.of("spot").randrange(len(self.spots))
        spot = self.spots[at]
        # Makers have one connection, which may be a member of the group; what strikes comes from any.
        maker = dice.of("maker").randrange(5)
        if dice.chance(70):
            self.prepare(spot, maker)
        made = dice.sample(MAKERS, dice.choice([1, 1, 2, 3]))
        self.messages(spot, maker, dice.of("messages"))
        for index, make in enumerate(made):
            make(self, spot, maker, dice.of(index))
        for index in range(dice.choice([3, 6, 12])):
            own = dice.of(f"strike {index}")
            self.fuzz.one(codes.strike(own.of("code")), own.of("request"), own, spot)
            if dice.chance(20):
                self.claims(spot, maker, own.of("look"))
        # Whoever looks next meets what was left.
        dice.choice([States.claims, States.batch, States.offset])(self, spot, maker, dice.of("end"))

    def ask(self, spot, maker, code, said, body=b"", waits=True):
        """None when nothing came: a hostile request may have ended the connection."""
        try:
            connection = self.fuzz.connection_of("b", maker)
        except OSError:
            return None

        def then(answer):
            spot.heard(code, said, answer)
            if answer:
                self.fuzz.counts["states" if answer.code == 0 else "no states"] += 1
        if not waits:
            return connection.request(code, said, body, then)
        answer = self.fuzz.net.ask(connection, code, said, body, 5)
        then(answer)
        return answer

    def begin(self):
        for maker, spot in enumerate(self.spots):
            self.prepare(spot, maker % 5)

    def prepare(self, spot, maker):
        """The spot as it is meant to be, whatever has become of it."""
        said = {"topic": spot.topic, "defaultTopic": "TBW102", "readQueueNums": spot.queues, "writeQueueNums": spot.queues, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}
        if spot.attributes:
            said["attributes"] = spot.attributes
        answer = self.ask(spot, maker, 17, said)
        if answer and answer.code != 0:
            # What has become of it cannot become this again.
            self.ask(spot, maker, 215, {"topic": spot.topic})
            self.ask(spot, maker, 17, said)
        self.ask(spot, maker, 200, {}, (
            '{"groupName":"%s","consumeEnable":true,"consumeFromMinEnable":true,"consumeBroadcastEnable":true,"retryQueueNums":1,'
            '"retryMaxTimes":3,"brokerId":0,"whichBrokerWhenConsumeSlowly":1,"notifyConsumerIdsChangedEnable":true}' % spot.group).encode())

    # Makers

    def message(self, spot, maker, dice, *pairs, sysflag=0, waits=True):
        body = self.model.token(dice).encode() + b"s" * dice.choice([0, 20, 3000])
        said = [("UNIQ_KEY", token_of(body).decode()), ("WAIT", "true"), ("__SHARDINGKEY", "k"), *pairs]
        return self.ask(spot, maker, 310, letters(spot.topic, spot.queue, spot.producer, wire.properties(said), sysflag), body, waits)

    def messages(self, spot, maker, dice):
        for index in range(dice.choice([1, 2, 4])):
            self.message(spot, maker, dice.of(index), ("TAGS", "a"))

    def pop(self, spot, maker, dice, waits=True, **more):
        poll = 0 if waits else 15_000
        return self.ask(spot, maker, 200050, {
            "consumerGroup": spot.group, "topic": spot.topic, "queueId": dice.choice([-1, spot.queue, spot.queue]),
            "maxMsgNums": dice.choice([1, 2, 32]), "invisibleTime": dice.choice([0, 300, 60_000, 60_000, -1]), "pollTime": poll,
            "bornTime": int(time.time() * 1000), "initMode": dice.choice([0, 0, 1]), **more}, waits=waits)

    def claims(self, spot, maker, dice):
        self.pop(spot, maker, dice, order="false")

    def batch(self, spot, maker, dice):
        """Of an ordered group; asked for again now and then."""
        attempt = f"attempt-{dice.randrange(3)}"
        for _ in range(dice.choice([1, 1, 2])):
            self.pop(spot, maker, dice, order="true", attemptId=attempt)

    def held_pop(self, spot, maker, dice):
        self.pop(spot, maker, dice, waits=False, order=dice.choice(["true", "false"]))

    def held_question(self, spot, maker, dice):
        self.ask(spot, maker, 200054, {"consumerGroup": spot.group, "topic": spot.topic, "queueId": spot.queue, "pollTime": 15_000,
                                       "bornTime": int(time.time() * 1000)}, waits=False)

    def popped(self, spot, maker, dice):
        """What is in hand is renewed, given back, failed or done."""
        self.claims(spot, maker, dice.of("pop"))
        for handle, offset in list(spot.known["handle"])[-dice.choice([1, 2]):]:
            said = {"consumerGroup": spot.group, "topic": spot.topic, "queueId": handle.split()[6], "offset": offset, "extraInfo": handle}
            if dice.chance(50):
                self.ask(spot, maker, 200051, said)
            else:
                self.ask(spot, maker, 200053, {**said, "invisibleTime": dice.choice([0, 500, 60_000, -1])})

    def member(self, spot, maker, dice):
        self.ask(spot, maker, 34, {}, json.dumps({
            "clientID": spot.client, "producerDataSet": [{"groupName": spot.producer}], "consumerDataSet": [{
                "groupName": spot.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": dice.choice(["CLUSTERING", "BROADCASTING"]),
                "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "unitMode": False, "subscriptionDataSet": [{
                    "topic": spot.topic, "subString": "*", "tagsSet": [], "codeSet": [], "subVersion": 1, "classFilterMode": False,
                    "expressionType": "TAG"}]}]}).encode())

    def offset(self, spot, maker, dice):
        self.ask(spot, maker, 15, {"consumerGroup": spot.group, "topic": spot.topic, "queueId": spot.queue,
                                   "commitOffset": dice.choice(spot.known["offset"] or [0])})
        self.ask(spot, maker, 14, {"consumerGroup": spot.group, "topic": spot.topic, "queueId": spot.queue})

    def pull(self, spot, maker, dice, suspend=0):
        """With what the client has consumed so far."""
        offsets = spot.known["offset"] or [0]
        self.ask(spot, maker, 11, {
            "consumerGroup": spot.group, "topic": spot.topic, "queueId": spot.queue, "maxMsgNums": 32, "sysFlag": 7 if suspend else 5,
            "queueOffset": max(offsets) + 1 if suspend else dice.choice(offsets), "commitOffset": dice.choice(offsets),
            "suspendTimeoutMillis": suspend, "subscription": "*", "subVersion": 0}, waits=not suspend)

    def held_pull(self, spot, maker, dice):
        self.pull(spot, maker, dice, 15_000)

    def postponed(self, spot, maker, dice):
        name = dice.choice(POSTPONED)
        delay = dice.choice([1, 2, 5])
        self.message(spot, maker, dice, (name, str(int(time.time() * 1000) + delay * 1000 if name == "TIMER_DELIVER_MS" else delay)))

    def half(self, spot, maker, dice):
        answer = self.message(spot, maker, dice, ("TRAN_MSG", "true"), ("PGROUP", spot.producer), sysflag=4)
        if answer and answer.code == 0 and dice.chance(40):
            self.ask(spot, maker, 37, {
                "producerGroup": spot.producer, "tranStateTableOffset": spot.latest("half", 0),
                "commitLogOffset": spot.latest("physical", 0), "commitOrRollback": dice.choice([0, 8, 12]),
                "fromTransactionCheck": "false", "msgId": spot.latest("key", ""), "transactionId": ""})

    def edited(self, spot, maker, dice):
        """At its place, or by its producer's ID wherever it waits."""
        place = {"queueId": spot.queue, "queueOffset": spot.latest("offset", 0)} if dice.chance(50) else {"msgId": spot.latest("key", "")}
        operation = dice.choice(["edit", "edit", "cancel", "reschedule", "retries", "resend", "delete"])
        said = {"topic": spot.topic, **place, "operation": operation, "by": "x"}
        said |= {"edit": {"hasBody": "true", "tags": "b"}, "retries": {"retries": 1},
                 "reschedule": {"deliverAt": int(time.time() * 1000) + 2000}}.get(operation, {})
        self.ask(spot, maker, 31002, said, b"edited" if operation == "edit" else b"")

    def locked(self, spot, maker, dice):
        self.ask(spot, maker, 41, {}, json.dumps({
            "consumerGroup": spot.group, "clientId": spot.client, "onlyThisBroker": False,
            "mqSet": [{"topic": spot.topic, "brokerName": "broker-a", "queueId": spot.queue}]}).encode())

    def request_mode(self, spot, maker, dice):
        self.ask(spot, maker, 401, {}, json.dumps({"topic": spot.topic, "consumerGroup": spot.group, "mode": dice.choice(["PULL", "POP"]),
                                                   "popShareQueueNum": dice.choice([0, 1, 2])}).encode())

    def sent_back(self, spot, maker, dice):
        self.ask(spot, maker, 36, {"offset": spot.latest("physical", 0), "group": spot.group, "delayLevel": dice.choice([0, 1, 2, -1]),
                                   "originMsgId": "", "unitMode": "false", "maxReconsumeTimes": 3})


MAKERS = [States.claims, States.claims, States.batch, States.held_pop, States.held_question, States.popped, States.popped, States.member,
          States.offset, States.pull, States.held_pull, States.postponed, States.half, States.edited, States.locked, States.request_mode,
          States.sent_back]


def fit(said, at_bound, dice):
    """An edit whose fields belong together: one way to name its message, one operation, and the fields at a bound among them."""
    ways = [["offset"], ["msgId"], ["queueId", "queueOffset"]]
    way = dice.choice([each for each in ways if at_bound and set(each) & set(at_bound)] or ways)
    # Field → operation that has it, and a value for when it is missing.
    parts = {"deliverAt": ("reschedule", int(time.time() * 1000) + 2000), "retries": ("retries", 1), "properties": ("edit", None),
             "tags": ("edit", "b"), "keys": ("edit", None), "hasBody": ("edit", None)}
    operation = next((parts[name][0] for name in parts if name in at_bound), said.get("operation"))
    kept = {name: value for name, value in said.items()
            if (name not in sum(ways, []) or name in way) and (name not in parts or parts[name][0] == operation)}
    if "properties" in kept and "properties" not in at_bound:
        kept["properties"] = wire.properties([("edited", "1")])
    needed = {name: value for name, (of, value) in parts.items() if of == operation and value is not None}
    return {"topic": said.get("topic", ""), **needed, **kept, "operation": operation, "by": "x"}


def bounded(code, dice):
    """The fields of a request that stand at a bound: one or two of those that have numbers, seldom none."""
    numbers = [name for name, kind, _ in code.fields if kind in values.NUMBERS] + ["body"] * (code.body in bodies.NUMBERS)
    return set(dice.sample(numbers, min(len(numbers), dice.choice([0, 1, 1, 1, 1, 2, 2]))))
