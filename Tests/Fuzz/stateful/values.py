"""Values for header fields: valid ones name live objects of the model, near ones stand beside them, hostile ones are what peers should never send."""

import random
import time

import wire

INT32 = [0, 1, -1, 2**31 - 1, -2**31, 2**31 - 2]
INT64 = [-1, 2**63 - 1, 2**63 - 1, -2**63, 2**63 - 1000, 2**62, 2**31, 2**32, 10**15]
NO_NUMBER = ["", " ", "abc", "1.5", "1e3", "0x10", "+5", "-", "--1", "NaN", "true", "9" * 40, str(2**63), str(2**64),
             "１２", "1\n", "\x00", "7 "]
FORGED = "FORGED"
# What is stored or calculated with is struck with these (mode `bound`): numbers that parse, at the ends of their types and of what fits into
# fewer bits.
BOUNDS32 = [-1, -1, 0, 1, 2**31 - 1, -2**31, -2, 2**15, 2**16, 2**30]
BOUNDS64 = [-1, -1, 0, 1, 2**63 - 1, -2**63, 2**63 - 2, -2, 2**31 - 1, 2**31, -2**31, 2**32, 2**55, 2**55 - 1, 2**56, 2**62]


class Dice(random.Random):
    """All chances of one step; `of` gives a field its own, so that one field's draw never moves another's."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name

    def of(self, field):
        return Dice(f"{self.name}/{field}")

    def chance(self, percent):
        return self.random() * 100 < percent


def hostile_name(dice, model):
    """A topic's, group's, broker's or client's name."""
    topic, group = dice.choice(model.topics), dice.choice(model.groups)
    queue = dice.randrange(4)
    kind = dice.randrange(22)
    length = dice.choice([119, 120, 121, 127, 128, 200, 249, 255, 256, 1000, 32766, 32767, 32768, 70000])
    return [
        lambda: f"x/../{topic}", lambda: f"x/../{topic}/{queue}", lambda: f"../../../../{dice.choice('abc')}-escape",
        lambda: model.absolute_escape + dice.choice(["", "/x"]), lambda: "..", lambda: ".", lambda: "a/b",
        lambda: "../" * dice.randint(1, 6) + "escape", lambda: f"{group}/../../{topic}",
        lambda: f"{group}\n{FORGED} 00:00:00.000 supervisor     broker-store-0: stopped", lambda: "\x1b[31mred\x1b[0m",
        lambda: f"a\r{FORGED}\x08\x07", lambda: "", lambda: " ", lambda: "g" * length, lambda: "ü" * (length // 2),
        lambda: "%RETRY%" + group, lambda: "%DLQ%" + dice.choice(["", group, "%RETRY%" + group]),
        lambda: "nul\x00byte", lambda: "\udcff\udcfe" + group, lambda: group + dice.choice(["@", "#", "=", ":", ",", " "]),
        lambda: dice.choice(model.system),
    ][kind]()


def near_name(dice, name):
    return dice.choice([name + "x", name[:-1], name.upper(), name + "-" + str(dice.randrange(30)), name + " ",
                        name.ljust(dice.choice([118, 119, 120, 121, 126, 127, 128, 255]), "n")])


def integer(valid, edges):
    def draw(dice, model, mode, said):
        value = valid(dice, model, said)
        if mode == "valid":
            return str(value)
        if mode == "near":
            return str(dice.choice([value + 1, value - 1, *edges]))
        if mode == "bound":
            return str(dice.choice([value + 1, value - 1, *(BOUNDS64 if edges is INT64 else BOUNDS32)]))
        return dice.choice(NO_NUMBER + [str(each) for each in edges] * 2)
    draw.isNumber = True
    return draw


def name(valid):
    def draw(dice, model, mode, said):
        value = valid(dice, model, said)
        if mode in ("valid", "bound"):
            return value
        return near_name(dice, value) if mode == "near" else hostile_name(dice, model)
    return draw


def text(*values):
    def draw(dice, model, mode, said):
        if mode == "hostile":
            return hostile_name(dice, model)
        return dice.choice(values)
    return draw


def now(dice, model, said):
    return int(time.time() * 1000) - dice.choice([0, 0, 5, 1000, 86_400_000])


def queue_end(dice, model, said):
    return model.end_of(said.get("topic") or said.get("b"), said.get("queueId"))


def properties(dice, model, mode, said):
    pairs = [("UNIQ_KEY", model.token(dice)), ("WAIT", "true")]
    if dice.chance(30):
        pairs.append(("TAGS", dice.choice(["a", "b", "c"])))
    if dice.chance(20):
        pairs.append(("KEYS", dice.choice(["k1", "k2 k3"])))
    if dice.chance(15):
        pairs.append(("DELAY", str(dice.randint(1, 6))))
    elif dice.chance(6):
        pairs.append((dice.choice(["TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS"]), ""))
        delay = dice.randint(1, 3)
        pairs[-1] = (pairs[-1][0], str({"TIMER_DELAY_SEC": delay, "TIMER_DELAY_MS": delay * 700}.get(
            pairs[-1][0], int(time.time() * 1000) + delay * 900)))
    if mode == "valid":
        return wire.properties(pairs)
    if mode == "bound":
        numbers = ["DELAY", "TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS", "RECONSUME_TIME", "TRAN_PREPARED_QUEUE_OFFSET",
                   "TRANSACTION_CHECK_TIMES", "CHECK_IMMUNITY_TIME_IN_SECONDS", "INNER_NUM", "REAL_QID", "TIMER_ROLL_TIMES", "1ST_POP_TIME"]
        half = [("TRAN_MSG", "true")] if dice.chance(20) else []
        return wire.properties(pairs + half + [(dice.choice(numbers), str(dice.choice(BOUNDS64)))])
    if mode == "near":
        extra = dice.choice([
            ("DELAY", str(dice.choice([0, 7, 18, 19, 100, -1, 2**31 - 1, 2**31]))), ("TRAN_MSG", "true"),
            ("TIMER_DELAY_SEC", str(dice.choice(INT64))), ("TIMER_DELIVER_MS", str(dice.choice(INT64))),
            ("TIMER_DELAY_MS", str(dice.choice(INT64))), ("UNIQ_KEY", "same"), ("KEYS", "k " * 200),
            ("pad", "p" * (dice.choice([32767, 32700, 32640, 32600, 32500, 32000]) - len(wire.properties(pairs)) - 6
                           - dice.randrange(60))),
            ("WAIT", "maybe"), ("REAL_TOPIC", dice.choice(model.topics)), ("REAL_QID", "-1"), ("PGROUP", "p"),
            ("RETRY_TOPIC", hostile_name(dice, model)), ("ORIGIN_MESSAGE_ID", "x"), ("RECONSUME_TIME", "99999999999"),
            ("CLUSTER", "c"), ("INNER_NUM", "-1"), ("MAX_OFFSET", "x"), ("TRANSACTION_CHECK_TIMES", "99999999999"),
            ("TRAN_PREPARED_QUEUE_OFFSET", str(dice.choice(INT64))), ("CHECK_IMMUNITY_TIME_IN_SECONDS", "9" * 18)])
        return wire.properties(pairs + [extra])
    kind = dice.randrange(7)
    if kind == 0:
        return wire.properties(pairs + [("DELAY", dice.choice(["abc", "3x", "", "1,2", " 3", "1\n"]))])
    if kind == 1:
        return wire.properties(pairs + [("big", "b" * dice.choice([32768, 40000, 65535, 65536, 300000]))])
    if kind == 2:
        return "\x01\x02\x01\x01\x02\x02"
    if kind == 3:
        return wire.properties([("", ""), (hostile_name(dice, model)[:200], hostile_name(dice, model)[:200])])
    if kind == 4:
        return wire.properties(pairs + [("REAL_TOPIC", hostile_name(dice, model)[:500]), ("DELAY", "1")])
    if kind == 5:
        return "no separators at all"
    return wire.properties([(f"p{index}", "v") for index in range(3000)])


def physical(dice, model, said):
    return model.physical(dice)


def handle(dice, model, mode, said):
    """Of a popped message: start, pop time, invisible time, revive queue, kind, broker, queue, offset."""
    if mode == "hostile" and dice.chance(50):
        return hostile_name(dice, model)
    offset = said.get("offset", dice.randrange(6))
    parts = [offset, now(dice, model, said), dice.choice([0, 200, 60_000]), dice.choice([0, 0, 7, 999]), dice.choice([0, 0, 0, 1, 2]),
             dice.choice(model.brokers), said.get("queueId", 0), offset]
    known = model.handle(dice, offset)
    if known:
        parts = known.split(" ")
    if mode == "bound":
        parts[dice.choice([0, 1, 2, 3, 6, 7])] = dice.choice(BOUNDS64)
    elif mode != "valid":
        parts[dice.randrange(len(parts))] = dice.choice([-1, 2**31, 2**63 - 1, -2**63, "", "x"])
    return " ".join(map(str, parts))


SQL = ["a > 1", "a IS NOT NULL AND b = 'x'", "a BETWEEN 1 AND 2", "((((", "a = 'x' OR " * 40 + "b = 1", ""]


def message_id(dice, model, mode, said):
    if mode == "hostile":
        return hostile_name(dice, model)
    if mode == "bound":
        return "7F00000100002A9F%016X" % (dice.choice(BOUNDS64) & 2**64 - 1)
    return model.message_id(dice)


TYPES = {
    "topic": name(lambda dice, model, said: dice.choice(model.topics)),
    "group": name(lambda dice, model, said: dice.choice(model.groups)),
    "pgroup": name(lambda dice, model, said: dice.choice(model.producer_groups)),
    "client": name(lambda dice, model, said: dice.choice(model.clients)),
    "broker": name(lambda dice, model, said: dice.choice(model.brokers)),
    "cluster": name(lambda dice, model, said: dice.choice(["DefaultCluster", "fz-cluster"])),
    "address": name(lambda dice, model, said: dice.choice(model.addresses)),
    "default": name(lambda dice, model, said: "TBW102"),
    "queue": integer(lambda dice, model, said: model.queue(dice), [-1, 4, 8, 16, 65536, *INT32]),
    "offset": integer(queue_end, INT64),
    "begin": integer(lambda dice, model, said: model.begin(dice, said.get("topic") or said.get("b"), said.get("queueId")), INT64),
    "half": integer(lambda dice, model, said: model.half(dice), INT64),
    "physical": integer(physical, INT64),
    "count": integer(lambda dice, model, said: dice.choice([0, 1, 3, 16]), INT32),
    "some": integer(lambda dice, model, said: dice.choice([1, 8, 32]), INT32),
    "queues": integer(lambda dice, model, said: dice.choice([1, 2, 4, 8]), [0, -1, 65536, 10**6, 2**31 - 1]),
    "perm": integer(lambda dice, model, said: dice.choice([6, 6, 6, 4, 2]), [0, 7, 9, -1, 2**31 - 1]),
    "level": integer(lambda dice, model, said: dice.choice([0, 0, 1, 2, 3, -1]), [18, 19, 100, *INT32]),
    "sysflag": integer(lambda dice, model, said: 0, [1, 2, 4, 8, 12, 16, 32, 48, 0x700, *INT32]),
    "pullflag": integer(lambda dice, model, said: dice.choice([0, 2, 4, 6, 6, 7]), [8, 16, 31, *INT32]),
    "int": integer(lambda dice, model, said: dice.randrange(100), INT32),
    "long": integer(lambda dice, model, said: dice.randrange(100_000), INT64),
    "zero": integer(lambda dice, model, said: 0, INT64),
    "time": integer(now, INT64),
    "born": integer(lambda dice, model, said: int(time.time() * 1000) - dice.choice([0, 0, 0, 5, 1000]), INT64),
    "poptime": integer(lambda dice, model, said: model.pop_time(dice), INT64),
    "first": integer(lambda dice, model, said: dice.choice([0, 0, 1]), INT32),
    "suspend": integer(lambda dice, model, said: dice.choice([0, 200, 1500, 15000]), INT64),
    "timeout": integer(lambda dice, model, said: 120_000, INT64),
    "outcome": integer(lambda dice, model, said: dice.choice([0, 8, 12]), INT32),
    "bool": text("true", "false"),
    "operation": text("edit", "cancel", "reschedule", "retries", "resend", "delete"),
    "namespace": text("ORDER_TOPIC_CONFIG", "NAMESPACE_ORDER_TOPIC_CONFIG", "fz"),
    "attempt": text("attempt-0", "attempt-1", "attempt-2"),
    "key": text("k1", "k2", "same"),
    "value": text("v", "a:1;b:2", "x" * 3000),
    "expression": text("*", "a", "a || b", *SQL),
    "exptype": text("TAG", "SQL92"),
    "filter": text("SINGLE_TAG", "MULTI_TAG"),
    "stats": text("TOPIC_PUT_NUMS", "GROUP_GET_NUMS", "SNDBCK_PUT_NUMS"),
    "attributes": text("+message.type=DELAY", "-a", "+a=b,+c"),
    "handle": handle,
    "text": text("x", "extra info 0 1 2"),
    "props": properties,
    "msgid": message_id,
}
# Those that have a bound.
NUMBERS = {kind for kind, draw in TYPES.items() if hasattr(draw, "isNumber")} | {"handle", "props", "msgid"}


def draw(kind, dice, model, mode, said):
    return TYPES[kind](dice, model, mode, said)
