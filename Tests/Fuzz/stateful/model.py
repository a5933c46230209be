"""What the fuzzer knows: live objects to name, and the ledger of everything the broker has confirmed."""

import collections
import hashlib
import time


def digest(body):
    return hashlib.blake2b(body, digest_size=12).digest()


def token_of(body):
    """The unique beginning of a body."""
    return bytes(body[:64]).split(b";")[0]


class Placed:
    """Confirmed at this place."""

    __slots__ = ("topic", "queue", "offset", "digest", "epoch", "step", "size")

    def __init__(self, topic, queue, offset, body, epoch, step):
        self.topic, self.queue, self.offset, self.epoch, self.step = topic, queue, offset, epoch, step
        self.digest, self.size = digest(body), len(body)


class Awaited:
    """Confirmed, to appear in its topic once it is due. `kind` names the way; `wanted` how often."""

    __slots__ = ("topics", "token", "due", "kind", "wanted", "epochs", "step", "kills", "exact", "late")

    def __init__(self, topics, body, due, kind, step, model, wanted=1, exact=False):
        self.topics, self.token, self.due, self.kind, self.wanted = topics, token_of(body), due, kind, wanted
        self.epochs = [model.epoch[topic] for topic in topics]
        self.step, self.kills, self.exact = step, model.kills, exact
        # How late the machine was when it was confirmed: what is added until it is looked for is no delay of the broker's.
        self.late = model.late()


class Model:
    def __init__(self, seed, absolute_escape):
        self.seed = seed
        self.absolute_escape = absolute_escape
        self.verified_topics = [f"Verified-{index}" for index in range(3)]
        self.own_topics = self.verified_topics + ["VerifiedDelay", "VerifiedTx", "VerifiedHold"]
        self.fuzz_topics = [f"Fuzz-{index}" for index in range(8)]
        self.topics = self.own_topics[:3] + self.fuzz_topics + ["%RETRY%fz-group-1", "%DLQ%fz-group-1"]
        self.verified_groups = [f"verified-group-{index}" for index in range(3)]
        self.groups = [f"fz-group-{index}" for index in range(6)] + ["g" * 119]
        self.producer_groups = [f"fz-producer-{index}" for index in range(4)]
        self.clients = [f"127.0.0.1@fz-{index}" for index in range(8)]
        self.brokers = [f"fz-broker-{index}" for index in range(12)]
        self.addresses = [f"127.0.0.1:{1000 + index}" for index in range(80)]
        self.system = ["TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC",
                       "rmq_sys_wheel_timer", "OFFSET_MOVED_EVENT", "SELF_TEST_TOPIC", "CID_RMQ_SYS_TRANS",
                       "TRANS_CHECK_MAX_TIME_TOPIC", "BenchmarkTest", "broker-a", "DefaultCluster"]
        # Real, and not for destructive requests.
        self.protected = set(self.own_topics) | set(self.verified_groups) | set(self.system) | {"broker-a"}
        self.epoch = collections.Counter()
        self.reshaped = set()
        self.regrouped = set()
        # Topics no message of which is in the ledger (`states.py`).
        self.unkept = set()
        self.kills = 0
        # Seconds the machine has been late by now.
        self.late = lambda: 0.0
        self.placed = []
        self.awaited = []
        self.never = {}
        self.ends = {}
        # Physical offset → body of plain confirmed messages; and those with an odd field, which are drawn more often.
        self.bodies = {}
        self.recent = collections.deque(maxlen=60)
        self.odd = collections.deque(maxlen=12)
        self.ids = collections.deque(maxlen=30)
        self.step = 0
        self.tokens = 0

    def token(self, dice):
        self.tokens += 1
        return f"{self.seed}.{self.step}.{self.tokens};"

    def end_of(self, topic, queue):
        try:
            return self.ends.get((topic, int(queue)), 0)
        except (TypeError, ValueError):
            return 0

    def queue(self, dice):
        return dice.randrange(4)

    def begin(self, dice, topic, queue):
        return max(0, self.end_of(topic, queue) - dice.randrange(6))

    def half(self, dice):
        return dice.choice([0, 1, 3, 16])

    def pop_time(self, dice):
        return int(time.time() * 1000) - dice.choice([0, 5, 1000])

    def handle(self, dice, offset):
        """None is known."""

    def physical(self, dice):
        pool = self.odd if self.odd and dice.chance(40) else self.recent
        return dice.choice(pool) if pool else 0

    def message_id(self, dice):
        return dice.choice(self.ids) if self.ids else "7F00000100002A9F0000000000000000"

    def confirmed(self, topic, queue, offset, body, epoch, physical=None, odd=False, message_id=None):
        if epoch == self.epoch[topic]:
            self.placed.append(Placed(topic, queue, offset, body, epoch, self.step))
            self.ends[topic, queue] = max(self.ends.get((topic, queue), 0), offset + 1)
        if physical is not None:
            (self.odd if odd else self.recent).append(physical)
            if len(self.bodies) > 20_000:
                self.bodies.clear()
            self.bodies[physical] = body
        if message_id:
            self.ids.append(message_id)

    def disturbed(self, topic):
        """What was in this topic is not expected any more."""
        self.epoch[topic] += 1
        for key in [key for key in self.ends if key[0] == topic]:
            del self.ends[key]
