#!/usr/bin/env bash
# Producers in two languages put one message group into two queues, so that FIFO order between them is gone.
#
# Packages (PyPI): rocketmq-python-client 5.1.2 (official, gRPC), and siphash24 1.9 for the rule of the Java client.
# Seen: the Java client (rocketmq-clients, PublishingLoadBalancer.takeMessageQueueByMessageGroup) takes SipHash-2-4
# of the group modulo the number of queues. The Python client takes SHA-256 modulo that number. With eight queues
# they agree for about one group in eight, as by chance. Each client alone keeps the order of its groups.
# For a gateway: the queue a FIFO message names is the client's opinion. A service that promises order within a group,
# whatever language its producers are written in, must choose the queue from the group itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check rocketmq-python-client==5.1.2 siphash24==1.9
HOME=$folder "$folder/env/bin/python" - <<'PYTHON'
import sys

import siphash24
from rocketmq.grpc_protocol import Permission, definition_pb2
from rocketmq.v5.client.balancer.queue_selector import QueueSelector
from rocketmq.v5.model.topic_route import TopicRouteData

QUEUES = 8


def route():
    queues = []
    for number in range(QUEUES):
        queue = definition_pb2.MessageQueue(id=number, permission=Permission.READ_WRITE)
        queue.topic.name = "Orders"
        queue.broker.name = "broker-a"
        queue.broker.endpoints.scheme = definition_pb2.AddressScheme.IPv4
        queue.broker.endpoints.addresses.add(host="127.0.0.1", port=8081)
        queues.append(queue)
    return TopicRouteData(queues)


def java(group):
    """Guava's Hashing.sipHash24() has the key 00 01 … 0F; asLong reads the least significant byte first."""
    hash = int.from_bytes(siphash24.siphash24(group.encode(), key=bytes(range(16))).digest(), "little", signed=True)
    return hash % QUEUES


# The test vector of the SipHash paper: 15 bytes 00 … 0E.
vector = siphash24.siphash24(bytes(range(15)), key=bytes(range(16))).digest()
assert int.from_bytes(vector, "little") == 0xA129CA6149BE45E5
selector = QueueSelector.producer_queue_selector(route())
groups = ["order-%d" % number for number in range(1000)]
pairs = [(java(group), selector.select_queue_by_hash_key(group).message_queue0().id) for group in groups]
same = sum(1 for one, other in pairs if one == other)
for group, (one, other) in list(zip(groups, pairs))[:4]:
    print("%s: Java's rule queue %d, Python queue %d" % (group, one, other))
print("%d of %d groups in the same of %d queues" % (same, len(groups), QUEUES))
holds = 60 < same < 250 and len({other for _, other in pairs}) == QUEUES
print("as described" if holds else "CHANGED")
sys.exit(0 if holds else 1)
PYTHON
