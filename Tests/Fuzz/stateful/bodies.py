"""Request bodies, and how they are spoilt."""

import base64
import json
import zlib

import values
import wire


def _value(kind, dice, model, mode, said=None):
    return values.draw(kind, dice, model, mode, said or {})


def _number(kind, dice, model, mode, said=None):
    # Not all numbers of a body at once.
    if mode == "bound" and dice.chance(50):
        mode = "valid"
    text = _value(kind, dice, model, mode, said)
    try:
        return int(text)
    except ValueError:
        return text


def _queues(dice, model, mode):
    return [{"topic": _value("topic", dice, model, mode), "brokerName": dice.choice(["broker-a", "broker-a", "x"]),
             "queueId": _number("queue", dice, model, mode)} for _ in range(dice.choice([0, 1, 4, 4, 300]))]


def _subscription(dice, model, mode):
    expression = _value("expression", dice, model, mode)
    return {"topic": _value("topic", dice, model, mode), "subString": expression, "tagsSet": [], "codeSet": [],
            "subVersion": _number("time", dice, model, mode), "classFilterMode": False,
            "expressionType": _value("exptype", dice, model, "valid")}


def heartbeat(dice, model, mode):
    return {"clientID": _value("client", dice, model, mode),
            "producerDataSet": [{"groupName": _value("pgroup", dice, model, mode)} for _ in range(dice.randrange(3))],
            "consumerDataSet": [{
                "groupName": _value("group", dice, model, mode),
                "consumeType": dice.choice(["CONSUME_PASSIVELY", "CONSUME_ACTIVELY"]),
                "messageModel": dice.choice(["CLUSTERING", "CLUSTERING", "BROADCASTING"]),
                "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "unitMode": dice.chance(5),
                "subscriptionDataSet": [_subscription(dice, model, mode) for _ in range(dice.choice([1, 1, 2, 40]))],
            } for _ in range(dice.choice([0, 1, 1, 3, 50]))]}


def lock(dice, model, mode):
    return {"consumerGroup": _value("group", dice, model, mode), "clientId": _value("client", dice, model, mode),
            "onlyThisBroker": False, "mqSet": _queues(dice, model, mode)}


def group_config(dice, model, mode):
    return {"groupName": _value("group", dice, model, mode), "consumeEnable": True, "consumeFromMinEnable": True,
            "consumeBroadcastEnable": True, "retryQueueNums": _number("queues", dice, model, mode),
            "retryMaxTimes": _number("some", dice, model, mode), "brokerId": 0, "whichBrokerWhenConsumeSlowly": 1,
            "notifyConsumerIdsChangedEnable": dice.chance(80)}


def group_list(dice, model, mode):
    return {"groupConfigList": [group_config(dice, model, mode) for _ in range(dice.choice([0, 1, 3]))]}


def topic_config(dice, model, mode):
    return {"topicName": _value("topic", dice, model, mode), "readQueueNums": _number("queues", dice, model, mode),
            "writeQueueNums": _number("queues", dice, model, mode), "perm": _number("perm", dice, model, mode),
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": _number("zero", dice, model, mode), "order": False}


def topic_list(dice, model, mode):
    return {"topicConfigList": [topic_config(dice, model, mode) for _ in range(dice.choice([0, 1, 3]))]}


def registration(dice, model, mode):
    table = {}
    for _ in range(dice.choice([0, 1, 5, 60])):
        config = topic_config(dice, model, mode)
        table[str(config["topicName"])] = config
    return {"topicConfigSerializeWrapper": {
        "topicConfigTable": table,
        "dataVersion": {"counter": _number("long", dice, model, mode), "timestamp": _number("time", dice, model, mode),
                        "stateVersion": 0}},
        "filterServerList": [_value("address", dice, model, mode)] if dice.chance(10) else []}


def route(dice, model, mode):
    return {"brokerDatas": [], "filterServerTable": {}, "queueDatas": [{
        "brokerName": _value("broker", dice, model, mode), "perm": _number("perm", dice, model, mode),
        "readQueueNums": _number("queues", dice, model, mode), "topicSysFlag": 0,
        "writeQueueNums": _number("queues", dice, model, mode)} for _ in range(dice.choice([0, 1, 3]))]}


def version(dice, model, mode):
    return {"counter": _number("long", dice, model, mode), "timestamp": _number("time", dice, model, mode)}


def client_check(dice, model, mode):
    return {"clientId": _value("client", dice, model, mode), "group": _value("group", dice, model, mode),
            "namespace": "", "subscriptionData": _subscription(dice, model, mode)}


def assignment(dice, model, mode):
    return {"topic": _value("topic", dice, model, mode), "consumerGroup": _value("group", dice, model, mode),
            "clientId": _value("client", dice, model, mode), "strategyName": "AVG", "messageModel": "CLUSTERING"}


def mode_request(dice, model, mode):
    return {"topic": _value("topic", dice, model, mode), "consumerGroup": _value("group", dice, model, mode),
            "mode": dice.choice(["PULL", "POP"]), "popShareQueueNum": _number("count", dice, model, mode)}


def acks(dice, model, mode):
    """Acknowledgements of several pops; `b` are the bits of offsets from `so` on."""
    entries = []
    for _ in range(dice.choice([1, 3])):
        bits = bytes(dice.randrange(256) for _ in range(dice.choice([1, 2, 8])))
        entries.append({"c": _value("group", dice, model, mode), "t": _value("topic", dice, model, mode),
                        "so": _number("begin", dice, model, mode), "q": _number("queue", dice, model, mode), "rq": 0,
                        "pt": _number("poptime", dice, model, mode), "it": _number("suspend", dice, model, mode),
                        "r": dice.choice(["0", "0", "1", "2"] if mode in ("valid", "bound") else ["0", "3", ""]),
                        "b": base64.b64encode(bits).decode() if mode in ("valid", "bound") or dice.chance(50) else "?"})
    return {"brokerName": _value("broker", dice, model, mode), "acks": entries}


def _line(key, value):
    return f"{key}={value}\n".encode("utf-8", "surrogateescape")


def broker_settings(dice, model, mode):
    """Valid ones are harmless: what the verified traffic needs is left alone."""
    if mode == "valid":
        return _line(*dice.choice([("maxTransferCountOnMessageInMemory", "64"), ("traceOn", "true"),
                                   ("defaultTopicQueueNums", "4"), ("longPollingEnable", "true")]))
    return _line(*dice.choice([
        ("brokerPermission", "9"), ("deleteWhen", "25"), ("deleteWhen", "x"), ("defaultTopicQueueNums", "-1"),
        ("flushIntervalCommitLog", "-5"), ("maxMessageSize", "-1"), ("fileReservedTime", "-1"), ("unknownKey", "1"),
        ("messageDelayLevel", "x y"), ("transactionTimeOut", "-1"), ("waitTimeMillsInSendQueue", "9" * 30),
        ("mappedFileSizeCommitLog", "1"), ("storePathRootDir", "../../../escape"), ("rocketmqHome", "/tmp"),
        ("flushConsumerOffsetInterval", str(2**63 - 1)), ("transactionCheckMax", str(2**63 - 1)), ("a\x00b", "\x00")]))


def nameserver_settings(dice, model, mode):
    if mode == "valid":
        return _line(*dice.choice([("orderMessageEnable", "true"), ("unknown", "1")]))
    return _line(*dice.choice([("kvConfigPath", "../../../escape"), ("listenPort", "x"), ("scanNotActiveBrokerInterval",
                 str(2**63 - 1)), ("rocketmqHome", "/tmp"), ("orderMessageEnable", "maybe"), ("x", "y" * 100_000)]))


def message(dice, model, mode):
    size = dice.choice([0, 10, 10, 100, 100, 4000, 30000] if mode in ("valid", "bound") else [0, 1, 100_000, 4 << 20, (4 << 20) + 1])
    return model.token(dice).encode() + b"." * size


def messages(dice, model, mode):
    bodies = [model.token(dice).encode() + b"%d;" % index for index in range(dice.choice([1, 2, 10, 100]))]
    return wire.batch(bodies, wire.properties([("UNIQ_KEY", model.token(dice))]))


# Those that have numbers, and those that name a group, a topic or a client.
NUMBERS = {"lock", "group_config", "group_list", "topic_config", "topic_list", "mode_request", "acks", "heartbeat", "client_check"}
NAMES = NUMBERS | {"assignment"}


def none(dice, model, mode):
    return b""


def draw(kind, dice, model, mode):
    """The bytes; spoilt as a whole now and then when hostile."""
    spoils = mode == "hostile" and dice.chance(60)
    made = globals()[kind](dice, model, mode)
    if not isinstance(made, bytes):
        if spoils and dice.chance(50):
            made = spoil(made, dice.of("spoil"))
        made = json.dumps(made, ensure_ascii=dice.chance(50)).encode("utf-8", "surrogateescape")
    if spoils:
        made = bruise(made, dice.of("bruise"))
    return made


def spoil(value, dice):
    """One place of a JSON value becomes something else."""
    if isinstance(value, dict) and value and not dice.chance(20):
        key = dice.choice(sorted(value, key=ascii))
        if dice.chance(25):
            return {other: value[other] for other in value if other != key}
        return {**value, key: spoil(value[key], dice)}
    if isinstance(value, list) and value and not dice.chance(20):
        index = dice.randrange(len(value))
        return value[:index] + [spoil(value[index], dice)] + value[index + 1:]
    deep = []
    for _ in range(dice.choice([10, 200, 5000])):
        deep = [deep]
    return dice.choice([None, -1, 2**63, 1e300, "", "x" * 5000, [], {}, [None] * 2000, True, deep if dice.chance(20) else 0])


def bruise(data, dice):
    kind = dice.randrange(5)
    if kind == 0:
        return data[:dice.randrange(len(data) + 1)]
    if kind == 1 and data:
        data = bytearray(data)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data)
    if kind == 2:
        return data + data[-100:]
    if kind == 3:
        return zlib.compress(data)
    return b""
