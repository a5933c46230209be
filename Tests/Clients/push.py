"""A push consumer that prints every message it gets as one JSON object a line, until standard input closes.

    push.py --name-server ADDRESS --topic T --group G [--tags EXPRESSION] [--orderly] [--broadcasting]
            [--fail-first N] [--delay MILLISECONDS] [--from first|last]

Prints {"ready": true} once it runs, {"stopped": true} after a clean shutdown (offsets committed).
--fail-first: the first N deliveries are answered RECONSUME_LATER (and printed with "failed": true).
"""

import argparse
import sys
import threading
import time

from official import MessageModel, PushConsumer, ctypes, describe, dll, emit, leave, quiet

options = argparse.ArgumentParser()
options.add_argument("--name-server", required=True)
options.add_argument("--topic", required=True)
options.add_argument("--group", required=True)
options.add_argument("--tags", default="*")
options.add_argument("--instance", default="")
options.add_argument("--threads", type=int, default=4)
options.add_argument("--orderly", action="store_true")
options.add_argument("--broadcasting", action="store_true")
options.add_argument("--fail-first", type=int, default=0)
options.add_argument("--delay", type=float, default=0)
options.add_argument("--from", dest="where", choices=["first", "last"])
options = options.parse_args()

to_fail = options.fail_first
gate = threading.Lock()


def take(message):
    global to_fail
    record = describe(message)
    with gate:
        fails = to_fail > 0
        if fails:
            to_fail -= 1
            record["failed"] = True
    record["at"] = time.time()
    emit(record)
    if options.delay:
        time.sleep(options.delay / 1000)
    return not fails


model = MessageModel.BROADCASTING if options.broadcasting else MessageModel.CLUSTERING
consumer = PushConsumer(options.group, orderly=options.orderly, message_model=model)
quiet(consumer._handle, "PushConsumer")
consumer.set_namesrv_addr(options.name_server)
consumer.set_thread_count(options.threads)
# One message a callback: otherwise one failure sends back messages that were never shown.
consumer.set_message_batch_max_size(1)
if options.where:
    # Not in its C interface: the handle is the C++ object itself (DefaultMQPushConsumer, enum ConsumeFromWhere).
    where = dll._ZN8rocketmq21DefaultMQPushConsumer19setConsumeFromWhereENS_16ConsumeFromWhereE
    where.argtypes = [ctypes.c_void_p, ctypes.c_int]
    where(consumer._handle, {"last": 0, "first": 4}[options.where])
if options.instance:
    consumer.set_instance_name(options.instance)


def callback(message):
    if not take(message):
        raise RuntimeError("told to fail")


consumer.subscribe(options.topic, callback, options.tags)
consumer.start()
emit({"ready": True})
sys.stdin.read()
consumer.shutdown()
emit({"stopped": True})
leave(0)
