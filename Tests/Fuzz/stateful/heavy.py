"""Steps that are rare and large: what one stranger may hold, ask or leave unfinished. `scale` 1 is what stopped a broker."""

import json
import socket
import struct
import time

import wire
from net import STRANGER


def pulls(fuzz, connection, count, topic, queue, suspend=20000):
    fields = {"consumerGroup": "fz-holders", "topic": topic, "queueId": queue, "queueOffset": 0, "maxMsgNums": 32,
              "sysFlag": 6, "commitOffset": 0, "suspendTimeoutMillis": suspend, "subscription": "*", "subVersion": 0}
    answer = fuzz.net.ask(connection, 30, {"topic": topic, "queueId": queue})
    fields["queueOffset"] = answer.fields.get("offset", 0) if answer else 0
    template = wire.frame(11, fields, opaque=1_000_000_000)
    connection.history.append((time.strftime("%H:%M:%S"), f"{count} pulls held in {topic} {queue}"))
    for start in range(0, count, 500):
        connection.write(b"".join(template.replace(b"1000000000", b"%d" % (1_000_000_000 + index))
                                  for index in range(start, min(count, start + 500))))
        fuzz.net.poll(0)


def settled(fuzz, seconds):
    """Until the broker has read what was written, and a moment for what it does then."""
    fuzz.net.until(lambda: not any(each.outbox for each in fuzz.net.all if each.reads and not each.drip), 30)
    fuzz.net.wait(seconds)


def held_pulls(fuzz, dice, scale):
    """Many pulls wait in one queue, and a message comes."""
    count = int(12_000 * scale)
    connections = [fuzz.net.connect(f"holder-{index}", fuzz.world.broker) for index in range(2)]
    for connection in connections:
        pulls(fuzz, connection, count // 2, "FuzzHold", 0)
    settled(fuzz, 1)
    fuzz.traffic.one(dice, "FuzzHold")
    settled(fuzz, 1)
    for connection in connections:
        connection.close()
    settled(fuzz, 1)


def closing_pulls(fuzz, dice, scale):
    """A connection with very many held pulls ends."""
    connection = fuzz.net.connect("holder", fuzz.world.broker)
    pulls(fuzz, connection, int(16_000 * scale), "FuzzHold", 0)
    settled(fuzz, 1.5)
    connection.close(reset=dice.chance(50))
    settled(fuzz, 2)


def many_groups(fuzz, dice, scale):
    """Heartbeats that name very many groups."""
    connection = fuzz.net.connect("groups", fuzz.world.broker)
    count = int(40_000 * scale)
    body = json.dumps({"clientID": "fz-many", "producerDataSet": [], "consumerDataSet": [{
        "groupName": f"fz-many-{fuzz.model.step}-{index}", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": [], "unitMode": False}
        for index in range(count)]}).encode()
    for _ in range(3):
        connection.request(34, {}, body, lambda answer: None, note=f"heartbeat of {count} groups")
    settled(fuzz, 4)
    connection.close()
    settled(fuzz, 1)


def many_topics(fuzz, dice, scale):
    """One client makes topics as fast as it can."""
    connection = fuzz.net.connect("topics", fuzz.world.broker)
    count = int(2_000 * scale)
    for index in range(count):
        connection.request(17, {
            "topic": f"FuzzMany-{fuzz.model.step}-{index}", "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1,
            "perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}, b"", lambda answer: None)
    fuzz.net.until(lambda: not connection.pending or connection.closed, 60)
    connection.close()


def many_offsets(fuzz, dice, scale):
    """Commits for names that do not exist, and the flushes of the table they may have grown."""
    connection = fuzz.net.connect("offsets", fuzz.world.broker)
    frame = wire.frame(15, {
        "consumerGroup": "fz-none-0000000", "topic": f"FuzzNone-{fuzz.model.step:06}-0000000", "queueId": 0, "commitOffset": 1},
        flag=wire.ONEWAY)
    count = int(500_000 * scale)
    connection.history.append((time.strftime("%H:%M:%S"), f"{count} commits for names that do not exist"))
    for start in range(0, count, 4000):
        connection.write(b"".join(frame.replace(b"0000000", b"%07d" % index) for index in range(start, start + 4000)))
        fuzz.net.until(lambda: len(connection.outbox) < 4 << 20 or connection.closed, 30)
    settled(fuzz, 8)
    connection.close()


def big_answers(fuzz, dice, scale):
    """Many large messages have one key; clients that read nothing ask for all of them."""
    body = b"B" * ((4 << 20) - 100)
    for _ in range(int(32 * scale)):
        answer = fuzz.traffic.ask(310, {
            "a": "fz", "b": "FuzzBig", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0",
            "i": wire.properties([("KEYS", "big")]), "j": "0"}, body, 60)
        if answer.code != 0:
            break
    deaf = [fuzz.net.connect(f"deaf-{index}", fuzz.world.broker, reads=False) for index in range(int(10 * scale) + 1)]
    for connection in deaf:
        for _ in range(2):
            connection.request(12, {"topic": "FuzzBig", "key": "big", "maxNum": 64, "beginTimestamp": 0,
                                    "endTimestamp": int(time.time() * 1000) + 1000})
    settled(fuzz, 3)
    for connection in deaf:
        connection.close(reset=True)
    settled(fuzz, 1)


def shared_topics(fuzz, dice, scale):
    """Very many brokers have the same topics, and each replaces them."""
    connection = fuzz.net.connect("brokers", fuzz.world.nameserver)
    topics = int(2_000 * scale)
    for turn in range(2):
        table = {f"fz-shared-{turn}-{index}": {
            "topicName": f"fz-shared-{turn}-{index}", "readQueueNums": 4, "writeQueueNums": 4, "perm": 6, "order": False,
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0} for index in range(topics)}
        body = json.dumps({"topicConfigSerializeWrapper": {
            "topicConfigTable": table, "dataVersion": {"counter": turn + 1, "timestamp": turn + 1, "stateVersion": 0}},
            "filterServerList": []}).encode()
        for index in range(int(100 * scale)):
            fields = {"brokerName": f"fz-shared-{index}", "brokerAddr": f"10.0.0.{index}:1", "clusterName": "fz-cluster",
                      "haServerAddr": "10.0.0.1:2", "brokerId": 0, "compressed": "false", "bodyCrc32": 0}
            connection.request(103, fields, body, lambda answer: None, note=f"register {fields['brokerName']} turn {turn}")
            fuzz.net.until(lambda: len(connection.outbox) < 1 << 20 or connection.closed, 30)
        fuzz.net.until(lambda: not connection.pending or connection.closed, 60)
    connection.close()
    settled(fuzz, 1)


def unfinished_frames(fuzz, dice, scale):
    """Frames of 16 MiB that lack their last byte."""
    port = dice.choice([fuzz.world.broker, fuzz.world.nameserver])
    size = (16 << 20) - 16
    piece = struct.pack(">iI", size, 0x10) + b"0" * (size - 5)
    open_ones = []
    for _ in range(int(64 * scale)):
        try:
            each = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(STRANGER, 0))
        except OSError:
            break
        open_ones.append(each)
        each.setblocking(False)
        view, end = memoryview(piece), time.monotonic() + 2
        while view and time.monotonic() < end:
            try:
                view = view[each.send(view[:1 << 20]):]
                end = time.monotonic() + 2
            except BlockingIOError:
                fuzz.net.poll(0.005)
            except OSError:
                break
        fuzz.watch.look()
        if time.monotonic() >= end and len(open_ones) > 8 and len(view) > 1 << 20:
            break
    fuzz.net.wait(1)
    # Whoever else sends something large is served all the same.
    fuzz.traffic.one(dice, "Verified-0", 100_000)
    for each in open_ones:
        each.close()
    fuzz.net.wait(0.5)


ALL = [held_pulls, closing_pulls, many_groups, many_topics, many_offsets, big_answers, shared_topics, unfinished_frames]
