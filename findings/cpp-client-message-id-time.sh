#!/usr/bin/env bash
# The time inside a message id of the official C++ client cannot be read by RocketMQ's tools: its bytes are reversed.
#
# Package: rocketmq 0.4.4 (PyPI; carries librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: an id (UNIQ_KEY) has RocketMQ's 32 hexadecimal digits, but address, time and counter in the machine's byte
# order: 127.0.0.1 is 0100007F instead of 7F000001, and the counter of the first message is 0100. Java's
# MessageClientIDSetter.getNearlyTimeFromID reads bytes 10 to 13, most significant first, as milliseconds since the
# month's first day. In three ids made 1.5 s apart these numbers lie days apart and do not grow; read from the least
# significant byte on, the bytes before them grow by the time that passed.
# For a broker: mqadmin's query by unique key (QUERY_MESSAGE with a begin time) starts at the time it reads, minus 13
# hours. For a C++ client's message that is any day of two months: if it is later than the real one, the message is
# "not found". A unique key names one message: the begin time of such a query must not hide it.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import os
import time
from remoting_stub import Stub
from rocketmq.client import Message, Producer

stub = Stub("Ids").start()
producer = Producer("writers")
producer.set_namesrv_addr(stub.address)
producer.start()
ids, born = [], []
for _ in range(3):
    message = Message("Ids")
    message.set_body("x")
    ids.append(bytes.fromhex(producer.send_sync(message).msg_id))
    born.append(int(stub.of(10)[-1].fields["bornTimestamp"]))
    time.sleep(1.5)
as_java = [int.from_bytes(id[10:14], "big") for id in ids]
reversed_ = [int.from_bytes(id[8:14], "little") >> 16 for id in ids]
for id, java, little in zip(ids, as_java, reversed_):
    print("id %s: address %s, counter %s, time as Java reads it %d ms (day %.1f), reversed %d ms" % (
        id.hex().upper(), ".".join(map(str, id[:4])), id[14:].hex(), java, 1 + java / 86400000, little))
passed = [later - born[0] for later in born]
holds = all(id[:4] == bytes([1, 0, 0, 127]) for id in ids) and [id[14:].hex() for id in ids] == ["0100", "0200", "0300"]
holds &= any(abs((java - as_java[0]) - wanted) > 60_000 for java, wanted in zip(as_java, passed))
holds &= all(abs((little - reversed_[0]) - wanted) < 100 for little, wanted in zip(reversed_, passed))
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
