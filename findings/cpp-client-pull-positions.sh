#!/usr/bin/env bash
# Pull consumers of one process share their positions across groups, and lose the rest of a batch on `break`.
#
# Package: rocketmq 0.4.4 (PyPI; Python over librocketmq.so of rocketmq-client-cpp 2.0.0).
# Seen: PullConsumer.pull keeps its positions in a table of the class, by topic and queue number alone. A second group
# in the process gets nothing of what the first has read. With two brokers of five messages each, the second one's
# queue is read from the sixth on. The position moves when an answer comes, before the messages are handed out: leave
# the loop after two of five, and the other three are gone. Each process begins at 0: the client asks for no offset
# (code 14) and commits none (15).
# For a broker: consumerProgress has no offset for such a group, though it reads. Take that neither for a dead group
# nor for a backlog; the queueOffset of its last PULL_MESSAGE (11) is the only trace.
source "$(dirname "$0")/lib/client.bash"
with_client <<'PYTHON'
import json
import os
from remoting_stub import Stub, record
from rocketmq.client import PullConsumer


class Cluster(Stub):
    """The topic Payments has a queue 0 on a second broker too."""

    def answer(self, frame):
        self.topic = frame.fields.get("topic", self.topic)
        answer = super().answer(frame)
        if frame.code == 105 and self.topic == "Payments":
            route = json.loads(answer[2])
            route["brokerDatas"].append(dict(route["brokerDatas"][0], brokerName="two", brokerAddrs={"0": two.address}))
            route["queueDatas"].append(dict(route["queueDatas"][0], brokerName="two"))
            return 0, {}, json.dumps(route).encode()
        return answer


def pull(group, topic, most=99):
    if group not in consumers:
        consumers[group] = PullConsumer(group)
        consumers[group].set_namesrv_addr(one.address)
        consumers[group].start()
    bodies = []
    for message in consumers[group].pull(topic):
        bodies.append(message.body.decode())
        if len(bodies) == most:
            break
    return bodies


consumers, one, two = {}, Cluster("Orders").start(), Stub("Payments").start()
for stub, name in ((one, "one"), (two, "two")):
    stub.messages = [record("Orders", b"%s-%d" % (name.encode(), number), number, b"KEYS\1k\2") for number in range(5)]
first, second, other = pull("a", "Orders", 2), pull("a", "Orders"), pull("b", "Orders")
print("group a, left after two of five: %s, then %s" % (first, second))
print("group b, new, same process: %s" % other)
both = pull("c", "Payments")
print("two brokers, five messages each: %s" % both)
pulls = [(frame.fields["consumerGroup"], frame.fields["queueOffset"]) for frame in one.of(11)]
asked = [pull for pull in pulls if pull[0] in "ab"]
offsets = one.of(14, 15) + two.of(14, 15)
print("PULL_MESSAGE of a and b: %s; QUERY and UPDATE_CONSUMER_OFFSET: %d" % (asked, len(offsets)))
holds = (len(first), second, other, len(both), len({body[:3] for body in both})) == (2, [], [], 5, 1)
holds &= asked == [("a", "0"), ("a", "5"), ("b", "5")] and not offsets
print("as described" if holds else "CHANGED", flush=True)
os._exit(0 if holds else 1)
PYTHON
