#!/usr/bin/env bash
# The official C++ client's heartbeat has the tag itself, read as a number, where Java's has the tag's hash code.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: in Java's heartbeats (HEART_BEAT, 34) `codeSet` has each tag's String.hashCode; brokers filter by it without
# reading a message. Here it is 12 for the tag '12', 7 for '7x' and 0 for each word, as often as there are words;
# `tagsSet` is right. Enums, which Java writes as names, are numbers, the position in Java's declaration: consumeType
# 0 CONSUME_ACTIVELY, 1 CONSUME_PASSIVELY; messageModel 0 BROADCASTING, 1 CLUSTERING; consumeFromWhere 0
# CONSUME_FROM_LAST_OFFSET. subVersion, a number in Java, is text. What is empty is left out (`subscriptionDataSet`,
# `producerDataSet`), and `unitMode` always.
# For a broker: make the codes from `tagsSet`; with those sent, a consumer of words gets nothing. Take both forms of
# an enum: who expects names and falls back to a default turns a broadcasting group into a clustering one.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import json
import os
import time
from remoting_stub import Stub
from rocketmq.client import PullConsumer, PushConsumer
from rocketmq.ffi import MessageModel

stub = Stub("Beats").start()
readers = [
    PullConsumer("pulling"), PushConsumer("broadcasting", message_model=MessageModel.BROADCASTING),
    PushConsumer("clustering"),
]
for reader in readers:
    reader.set_namesrv_addr(stub.address)
    if isinstance(reader, PushConsumer):
        reader.subscribe("Beats", lambda message: True, "12 || 7x || TagA || TagB")
    reader.start()
groups = []
for _ in range(350):
    beats = [json.loads(frame.body) for frame in stub.of(34)]
    beat = max(beats, default={}, key=lambda beat: len(beat["consumerDataSet"]))
    groups = beat.get("consumerDataSet", [])
    if len(groups) == 3:
        break
    time.sleep(0.1)
seen = {}
for group in groups:
    enums = [group[name] for name in ("consumeType", "messageModel", "consumeFromWhere")]
    entry = {entry["topic"]: entry for entry in group.get("subscriptionDataSet", [])}.get("Beats", {})
    seen[group["groupName"]] = enums, entry.get("tagsSet"), entry.get("codeSet"), type(entry.get("subVersion")).__name__
    print("%s: consumeType, messageModel, consumeFromWhere %s; tags %s, codes %s, subVersion %s" % (
        group["groupName"], *seen[group["groupName"]]))
tags, codes = ["12", "7x", "TagA", "TagB"], [12, 7, 0, 0]
holds = seen == {
    "clustering": ([1, 1, 0], tags, codes, "str"), "broadcasting": ([1, 0, 0], tags, codes, "str"),
    "pulling": ([0, 1, 0], None, None, "NoneType"),
} and set(beat) == {"clientID", "consumerDataSet"} and "unitMode" not in str(beat)
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
