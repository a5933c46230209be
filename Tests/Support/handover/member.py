"""A push consumer as RocketMQ's Java client is one, in the order it does things: what it says when it takes, drops and leaves queues.

An orderly member of 4.9 unlocks a queue it drops 20 s later if it has messages of it left; one of 5.x as soon as it works on none of them."""

import json
import random

import wire


class Queue:
    """A queue a member owns (ProcessQueue)."""

    def __init__(self, queue, offset):
        self.queue, self.next, self.offset = queue, offset, offset
        self.waiting = []
        self.working = 0
        self.unfinished = set()
        self.dropped = False
        # What `offset` it has said to the broker last.
        self.said = None


class Member:
    """`work`: seconds a message takes at most. Times in seconds; everything on the scenario's one loop."""

    REBALANCE, HEARTBEAT, PERSIST, RELOCK, UNLOCK_DELAY, CONSUME_LOCK = 20, 30, 5, 20, 20, 1
    SUSPEND = 15000

    def __init__(self, scenario, name, group, orderly, work):
        self.scenario, self.name, self.group, self.orderly, self.work = scenario, name, group, orderly, work
        self.client = f"127.0.0.1@{name}"
        self.queues = {}
        self.running = True
        self.rebalancing, self.again = False, False
        self.dice = random.Random(name)
        self.is49 = self.dice.random() < 0.3

    def start(self):
        self.link = self.scenario.net.connect(self.name, self.scenario.world.broker)
        self.link.serve = self.told
        body = json.dumps({"clientID": self.client, "producerDataSet": [], "consumerDataSet": [{
            "groupName": self.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": False, "subscriptionDataSet": [{
                "topic": self.scenario.topic, "subString": "*", "tagsSet": [], "codeSet": [], "subVersion": 1,
                "classFilterMode": False, "expressionType": "TAG"}]}]}).encode()
        self.heartbeat = body
        self.ask(34, {}, body, lambda answer: self.rebalance())
        self.every(self.HEARTBEAT, lambda: self.ask(34, {}, self.heartbeat))
        self.every(self.REBALANCE, self.rebalance)
        self.every(self.PERSIST, lambda: [self.persist(queue) for queue in self.queues.values()])
        if self.orderly:
            self.every(self.RELOCK, self.relock)

    def every(self, seconds, act):
        def again():
            if self.running:
                act()
                self.scenario.after(seconds, again)
        self.scenario.after(seconds, again)

    def ask(self, code, fields, body=b"", then=None, **how):
        if not self.link.closed:
            self.link.request(code, fields, body, then or (lambda answer: None), **how)

    def oneway(self, code, fields, body=b""):
        self.ask(code, fields, body, flag=wire.ONEWAY)

    def told(self, connection, request):
        if request.code == 40 and self.running:
            self.scenario.note(self, "is told of a change")
            self.rebalance()

    def place(self, queue):
        return {"consumerGroup": self.group, "topic": self.scenario.topic, "queueId": queue}

    def lock_body(self, queues):
        return json.dumps({"consumerGroup": self.group, "clientId": self.client, "mqSet": [
            {"topic": self.scenario.topic, "brokerName": "broker-a", "queueId": queue} for queue in queues]}).encode()

    # Rebalancing

    def rebalance(self):
        """Not twice at a time; who is told meanwhile looks again."""
        if self.rebalancing:
            self.again = True
            return
        self.rebalancing, self.again = True, False
        self.ask(38, {"consumerGroup": self.group}, b"", self.members)

    def members(self, answer):
        self.rebalancing = False
        if self.again:
            self.scenario.after(0, self.rebalance)
        if not self.running or not answer or answer.code != 0:
            return
        everybody = sorted(answer.json()["consumerIdList"])
        mine = averagely(list(range(self.scenario.queues)), self.client, everybody)
        self.scenario.note(self, f"of {len(everybody)} members is to have {mine}")
        for queue in [each for number, each in self.queues.items() if number not in mine]:
            self.drop(queue)
        for number in mine:
            if number not in self.queues:
                self.take(number)

    def take(self, number):
        if not self.orderly:
            return self.begin(number)

        def locked(answer):
            if answer and answer.code == 0 and any(each["queueId"] == number for each in answer.json()["lockOKMQSet"]):
                self.begin(number)
            else:
                self.scenario.note(self, f"is refused the lock of {number}")
        self.ask(41, {}, self.lock_body([number]), locked)

    def begin(self, number):
        asked = self.scenario.now()

        def known(answer):
            if not self.running or number in self.queues or not answer:
                return
            offset = answer.number("offset") if answer.code == 0 else 0
            self.scenario.taken(self, number, offset, asked)
            self.queues[number] = Queue(number, offset)
            self.pull(self.queues[number])
        self.ask(14, self.place(number), b"", known)

    def relock(self):
        self.ask(41, {}, self.lock_body(list(self.queues)))

    def drop(self, queue):
        queue.dropped = True
        self.persist(queue)
        if not self.orderly:
            self.queues.pop(queue.queue, None)
            self.scenario.note(self, f"drops {queue.queue} at {queue.offset}")
            return
        # The consuming thread's lock is waited for a second; then again at the next rebalance.
        end = self.scenario.now() + self.CONSUME_LOCK

        def give():
            if queue.working and self.scenario.now() < end:
                self.scenario.after(0.01, give)
            elif not queue.working and self.queues.get(queue.queue) is queue:
                del self.queues[queue.queue]
                delay = self.UNLOCK_DELAY if queue.waiting and self.is49 else 0
                self.scenario.note(self, f"drops {queue.queue} at {queue.offset}" + (f", unlocks it in {delay} s" if delay else ""))
                self.scenario.after(delay, lambda: self.oneway(42, {}, self.lock_body([queue.queue])))
        give()

    # Consuming

    def persist(self, queue):
        if queue.offset != queue.said or queue.dropped:
            queue.said = queue.offset
            self.scenario.committed(queue.queue, queue.offset)
            self.oneway(15, {**self.place(queue.queue), "commitOffset": queue.offset})

    def pull(self, queue):
        if not self.running or queue.dropped:
            return
        if len(queue.waiting) > 500:
            return self.scenario.after(0.05, lambda: self.pull(queue))

        def came(answer):
            if not self.running or queue.dropped or not answer:
                return
            if answer.code == 0:
                for record in wire.records(answer.body):
                    if record.offset >= queue.next:
                        queue.waiting.append(record)
                        queue.unfinished.add(record.offset)
                        queue.next = record.offset + 1
                self.work_on(queue)
                self.pull(queue)
            elif answer.code in (19, 20, 21):
                queue.next = answer.number("nextBeginOffset")
                self.pull(queue)
            else:
                self.scenario.after(3, lambda: self.pull(queue))
        self.ask(11, {**self.place(queue.queue), "queueOffset": queue.next, "maxMsgNums": 32, "sysFlag": 6, "commitOffset": 0,
                      "suspendTimeoutMillis": self.SUSPEND, "subscription": "*", "subVersion": 1}, b"", came)

    def work_on(self, queue):
        """Orderly one by one, otherwise as many as there are threads."""
        while queue.waiting and not queue.dropped and self.running and queue.working < (1 if self.orderly else 20):
            record = queue.waiting.pop(0)
            queue.working += 1
            self.scenario.delivered(self.name, record.body, queue.queue)
            self.scenario.after(self.dice.random() * self.work, lambda record=record: self.done(queue, record))

    def done(self, queue, record):
        queue.working -= 1
        queue.unfinished.discard(record.offset)
        if queue.dropped or not self.running:
            return
        queue.offset = min(queue.unfinished) if queue.unfinished else queue.next
        self.scenario.finished(record.body)
        self.work_on(queue)

    # Leaving

    def leave(self):
        """As DefaultMQPushConsumerImpl.shutdown: locks first, then offsets, then the group."""
        self.running = False
        self.scenario.note(self, "leaves")

        def rest():
            for queue in self.queues.values():
                self.persist(queue)
            self.ask(35, {"clientID": self.client, "consumerGroup": self.group}, b"", lambda answer: self.link.close())
        if self.orderly and self.queues:
            # The answer is waited for; then some milliseconds of its own.
            self.ask(42, {}, self.lock_body(list(self.queues)), lambda answer: self.scenario.after(self.dice.random() * 0.02, rest))
        else:
            rest()

    def kill(self):
        self.running = False
        self.scenario.note(self, "is killed")
        self.link.close(reset=True)


def averagely(queues, client, members):
    """AllocateMessageQueueAveragely."""
    if client not in members:
        return []
    index, count, rest = members.index(client), len(members), len(queues) % len(members)
    size = 1 if len(queues) <= count else len(queues) // count + (1 if index < rest else 0)
    start = index * size if index < rest else index * size + rest
    return queues[start:start + size]
