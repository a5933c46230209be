"""Verified traffic: whatever is confirmed to it goes into the ledger."""

import time
import zlib

import wire
from model import Awaited, token_of
from net import short
from world import Finding

OWN_GROUP = "verified-producer"


def letters(topic, queue, group=OWN_GROUP, props="", sysflag=0, reconsumed=0, born=None, batch=False):
    return {"a": group, "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": str(sysflag),
            "g": str(born or int(time.time() * 1000)), "h": "0", "i": props, "j": str(reconsumed), "k": "false",
            "m": "true" if batch else "false"}


class Traffic:
    """One method per kind of step; each takes its step's dice."""

    def __init__(self, fuzz):
        self.fuzz, self.model, self.net = fuzz, fuzz.model, fuzz.net
        self.committed = {}
        self.backs = {}
        self.recreated = 0
        self.raised = 0

    def ask(self, code, fields, body=b"", seconds=20, **how):
        answer = self.net.ask(self.fuzz.own, code, fields, body, seconds, **how)
        if answer is None:
            state = "the connection ended" if self.fuzz.own.closed else f"within {seconds} s"
            self.fuzz.unanswered(f"no answer to {code} {short(fields)}: {state}")
        return answer

    def body(self, dice, extra=b""):
        return self.model.token(dice).encode() + extra + b"v" * dice.choice([0, 20, 20, 200, 3000, 40_000])

    def send(self, dice):
        binary = dice.chance(30)
        for _ in range(dice.randint(1, 12)):
            topic = dice.choice(self.model.verified_topics)
            queue, body = dice.randrange(4), self.body(dice)
            epoch, step = self.model.epoch[topic], self.model.step

            def then(answer, topic=topic, queue=queue, body=body, epoch=epoch):
                if answer and answer.code == 0:
                    self.model.confirmed(topic, queue, answer.number("queueOffset"), body, epoch,
                                         int(answer.fields["msgId"][-16:], 16), message_id=answer.fields["msgId"])
                elif answer and answer.code not in (2, 14):
                    raise Finding("answer", f"step {step}: a good send was answered {answer.code} {answer.remark}")
            props = wire.properties([("UNIQ_KEY", token_of(body).decode()), ("WAIT", "true")])
            self.fuzz.own.request(310, letters(topic, queue, props=props), body, then, binary=binary)

    def batch(self, dice, code=320, squeezed=False):
        """As the official clients send them: Java by 320; C++ by 10, from 4 KiB on compressed."""
        topic, queue = dice.choice(self.model.verified_topics), dice.randrange(4)
        bodies = [self.body(dice) for _ in range(dice.choice([1, 2, 10, 60]))]
        data = wire.batch(bodies, wire.properties([("WAIT", "true")]))
        epoch = self.model.epoch[topic]
        if len(data) > 3 << 20:
            return
        fields = letters(topic, queue, batch=True)
        if code == 10:
            names = dict(a="producerGroup", b="topic", c="defaultTopic", d="defaultTopicQueueNums", e="queueId",
                         f="sysFlag", g="bornTimestamp", h="flag", i="properties", j="reconsumeTimes", k="unitMode", m="batch")
            fields = {names[key]: value for key, value in fields.items()}
            fields["batch"] = "1"
            if squeezed:
                data, fields["sysFlag"] = zlib.compress(data), "1"
        answer = self.ask(code, fields, data, language="CPP" if code == 10 else "JAVA")
        if answer.code != 0:
            raise Finding("answer", f"a batch of {len(bodies)} by {code}{' compressed' if squeezed else ''} was answered "
                          f"{answer.code} {answer.remark}")
        first = answer.number("queueOffset")
        for index, body in enumerate(bodies):
            self.model.confirmed(topic, queue, first + index, body, epoch)

    def cpp_batch(self, dice):
        self.batch(dice, code=10, squeezed=dice.chance(70))

    def await_one(self, topics, body, delay, kind, **more):
        self.model.awaited.append(Awaited(topics, body, time.time() + delay, kind, self.model.step, self.model, **more))

    def delayed(self, dice):
        """By level, or to the millisecond."""
        for _ in range(dice.randint(1, 5)):
            body, level = self.body(dice), dice.randint(1, 6)
            if dice.chance(60):
                pairs, delay, kind = [("DELAY", level)], self.fuzz.delay(level), f"delay level {level}"
            else:
                delay = dice.uniform(0.3, 3)
                pairs, kind = [("TIMER_DELAY_MS", int(delay * 1000))], "timer message"

            def then(answer, body=body, delay=delay, kind=kind):
                if answer and answer.code == 0:
                    self.await_one(["VerifiedDelay"], body, delay, kind, exact=True)
            props = wire.properties([("UNIQ_KEY", token_of(body).decode()), *pairs])
            self.fuzz.own.request(310, letters("VerifiedDelay", dice.randrange(4), props=props), body, then)

    def transactions(self, dice):
        """Alike or not: each prepared message has its own outcome."""
        alike = dice.chance(50)
        born, twin = int(time.time() * 1000), self.body(dice)
        key = dice.choice(["", "same", None])
        bodies = [twin if alike else self.body(dice) for _ in range(dice.choice([1, 3, 12, 40]))]
        answers = []
        for body in bodies:
            said = token_of(body).decode() if key is None else key
            props = wire.properties([("TRAN_MSG", "true"), ("PGROUP", OWN_GROUP), *([("UNIQ_KEY", said)] if said else [])])
            self.fuzz.own.request(310, letters("VerifiedTx", 0, props=props, sysflag=4, born=born), body, answers.append)
        self.net.until(lambda: len(answers) == len(bodies), 20)
        outcome = dice.choice(["commit", "commit", "roll back"] + ([] if alike else ["each", "check"]))
        wanted = 0
        for body, answer in zip(bodies, answers):
            if not answer or answer.code != 0:
                continue
            isCommit = outcome == "commit" or outcome == "each" and dice.chance(50)
            if outcome == "check":
                self.fuzz.to_check.add(token_of(body))
                self.await_one(["VerifiedTx"], body, 15, "transaction committed when asked")
                continue
            ended = self.ask(37, {
                "producerGroup": OWN_GROUP, "tranStateTableOffset": answer.fields["queueOffset"],
                "commitLogOffset": int(answer.fields["msgId"][-16:], 16), "commitOrRollback": 8 if isCommit else 12,
                "fromTransactionCheck": "false", "msgId": said, "transactionId": said})
            if ended.code != 0:
                raise Finding("answer", f"the outcome of a prepared message was answered {ended.code} {ended.remark}")
            if isCommit and not alike:
                self.await_one(["VerifiedTx"], body, 1, "committed transaction", exact=True)
            wanted += isCommit
            if not isCommit:
                self.model.never[token_of(body)] = ("VerifiedTx", "its transaction was rolled back", self.model.step)
        if alike and wanted:
            self.await_one(["VerifiedTx"], twin, 1, "committed transactions that look alike", exact=True, wanted=wanted)

    def send_back(self, dice, group=None, level=None, count=None):
        group = group or dice.choice(self.model.verified_groups + ["g" * dice.choice([80, 119, 120, 121, 127, 200, 250])])
        for _ in range(count or dice.randint(1, 4)):
            physical = dice.choice(self.model.recent) if self.model.recent else None
            body = self.model.bodies.get(physical)
            if body is None:
                continue
            wanted = dice.choice([0, 1, 2, 3, -1]) if level is None else level

            def then(answer, body=body, wanted=wanted):
                # A group the fuzz has given no retry queues keeps nothing.
                if answer and answer.code == 0 and group not in self.model.regrouped:
                    self.sent_back(group, body, wanted)
            self.fuzz.own.request(36, {"offset": physical, "group": group, "delayLevel": wanted, "originMsgId": "",
                                       "unitMode": "false", "maxReconsumeTimes": 16}, b"", then)

    def sent_back(self, group, body, level):
        topics = ["%RETRY%" + group, "%DLQ%" + group]
        token, due = token_of(body), time.time() + self.fuzz.delay(level or 3)
        key = (*topics, *(self.model.epoch[topic] for topic in topics), token)
        self.backs[key] = wanted = self.backs.get(key, 0) + 1
        for entry in self.model.awaited:
            if entry.topics == topics and entry.token == token:
                entry.wanted, entry.due = wanted, max(entry.due, due)
                return
        self.await_one(topics, body, due - time.time(), "message sent back", wanted=wanted)

    def raised_queues(self, dice):
        """A group's `retryQueueNums` goes up after its retry topic has been made."""
        self.raised += 1
        group = f"verified-raised-{self.raised}"
        self.send_back(dice, group, 1, 1)
        self.net.wait(0.05)
        answer = self.ask(200, {}, (
            '{"groupName":"%s","consumeEnable":true,"consumeFromMinEnable":true,"consumeBroadcastEnable":true,'
            '"retryQueueNums":%d,"retryMaxTimes":16,"brokerId":0,"whichBrokerWhenConsumeSlowly":1,'
            '"notifyConsumerIdsChangedEnable":true}' % (group, dice.choice([2, 4, 8]))).encode())
        if answer.code == 0:
            self.send_back(dice, group, 1, 12)

    def recreate(self, dice):
        """A topic is deleted and made again: what its groups had committed is forgotten, what they commit to the hole is not taken."""
        self.recreated += 1
        topic, group = f"VerifiedAgain-{dice.randrange(3)}", "verified-group-0"
        made = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}
        self.ask(17, made)
        for _ in range(dice.randint(1, 5)):
            self.one(dice, topic)
        commit = {"consumerGroup": group, "topic": topic, "queueId": 0, "commitOffset": dice.randint(1, 5)}
        if dice.chance(60):
            self.ask(15, commit)
        self.model.disturbed(topic)
        self.ask(215, {"topic": topic})
        if dice.chance(60):
            self.ask(15, commit)
        self.model.disturbed(topic)
        self.ask(17, made)
        for _ in range(dice.randint(1, 3)):
            self.one(dice, topic)
        answer = self.ask(14, {"consumerGroup": group, "topic": topic, "queueId": 0})
        if answer.code == 0 and answer.number("offset") > 0:
            raise Finding("lost", f"{topic} was deleted and made again, and {group} begins at {answer.number('offset')}: "
                          "its first messages are skipped")

    def one(self, dice, topic, size=0):
        body, epoch = self.body(dice) + b"v" * size, self.model.epoch[topic]
        answer = self.ask(310, letters(topic, 0), body, 60)
        if answer.code == 0:
            self.model.confirmed(topic, 0, answer.number("queueOffset"), body, epoch)

    def offsets(self, dice):
        """Commits of a group nobody else touches; what was said last holds."""
        group, topic, queue = dice.choice(self.model.verified_groups), dice.choice(self.model.verified_topics), dice.randrange(4)
        end = self.model.ends.get((topic, queue), 0)
        offset = dice.randint(0, end) if end else 0
        if self.ask(15, {"consumerGroup": group, "topic": topic, "queueId": queue, "commitOffset": offset}).code == 0:
            self.committed[group, topic, queue] = offset

    def check_offsets(self, killed):
        """After `kill -9` what was committed last may be gone, with it the exact value."""
        for (group, topic, queue), offset in list(self.committed.items()):
            answer = self.ask(14, {"consumerGroup": group, "topic": topic, "queueId": queue})
            if killed:
                del self.committed[group, topic, queue]
            elif answer.code != 0 or answer.number("offset") != offset:
                raise Finding("lost", f"{group} committed {offset} in {topic} {queue}, the broker says {answer.code} "
                              f"{answer.fields.get('offset')} {answer.remark}")

    def hold(self, dice):
        """A pull that waits is answered by the message it waits for."""
        queue, body = dice.randrange(4), self.body(dice)
        end = self.ask(30, {"topic": "VerifiedHold", "queueId": queue}).number("offset")
        came = []
        self.fuzz.own.request(11, {
            "consumerGroup": "verified-holder", "topic": "VerifiedHold", "queueId": queue, "queueOffset": end,
            "maxMsgNums": 32, "sysFlag": 6, "commitOffset": 0, "suspendTimeoutMillis": 15000, "subscription": "*",
            "subVersion": 0}, b"", came.append)
        epoch = self.model.epoch["VerifiedHold"]
        answer = self.ask(310, letters("VerifiedHold", queue), body)
        if answer.code != 0:
            return
        self.model.confirmed("VerifiedHold", queue, answer.number("queueOffset"), body, epoch)
        if not self.net.until(lambda: came, 10):
            raise Finding("answer", "a held pull was not answered within 10 s of the message it waits for")
        found = came[0] and came[0].code == 0 and wire.records(came[0].body)
        if came[0] and not any(record.body == body for record in found or ()):
            raise Finding("lost", f"a held pull was answered {came[0].code} {came[0].remark} without the message it waits for")
