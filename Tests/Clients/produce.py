"""Sends what standard input says, one JSON object a line, and prints one record for each message that was answered.

    produce.py --name-server ADDRESS --mode sync|async|oneway|orderly|oneway-orderly|batch [--group G] [--retry SECONDS]

Input:  {"n": 1, "topic": "T", "body": "text" | "size": 100 (generated, seed n), "tags": "", "keys": "", "order": 3,
         "delay": 1 (level), "properties": {"NAME": "value"}}
Output: {"n": 1, "ok": true, "offset": 7, "id": "…", "sha256": "…"} or {"n": 1, "ok": false, "error": "…"}
One-way sends are reported when they have left. --retry sends a failed message again until it is acknowledged.
"""

import argparse
import hashlib
import json
import sys
import threading
import time

from official import Message, Producer, RocketMQException, dll, emit, generated, leave, quiet

options = argparse.ArgumentParser()
options.add_argument("--name-server", required=True)
options.add_argument("--mode", default="sync")
options.add_argument("--group", default="OFFICIAL_PRODUCER")
options.add_argument("--timeout", type=int, default=3000, help="milliseconds a send may take")
options.add_argument("--max-size", type=int, default=8 << 20, help="the client's own limit")
options.add_argument("--no-compression", action="store_true")
options.add_argument("--retry", type=float, default=0, help="seconds to go on trying a failed message")
options.add_argument("--batch", type=int, default=16)
options = options.parse_args()

producer = Producer(options.group, timeout=options.timeout, max_message_size=options.max_size)
quiet(producer._handle, "Producer")
producer.set_namesrv_addr(options.name_server)
if options.no_compression:
    dll.SetProducerCompressMsgBodyOverHowmuch(producer._handle, 1 << 30)
producer.start()
outstanding = threading.Semaphore(64)
all_started = 0
all_answered = 0
changed = threading.Condition()


def message_of(record):
    message = Message(record["topic"])
    body = record["body"].encode() if "body" in record else generated(record["size"], record["n"])
    # SetByteMessageBody, not the wrapper's SetMessageBody: the latter takes a C string.
    dll.SetByteMessageBody(message, body, len(body))
    if record.get("tags"):
        message.set_tags(record["tags"])
    if record.get("keys"):
        message.set_keys(record["keys"])
    if record.get("delay"):
        message.set_delay_time_level(record["delay"])
    for name, value in (record.get("properties") or {}).items():
        message.set_property(name, value)
    return message, hashlib.sha256(body).hexdigest()


def modulo(queues, message, argument):
    import ctypes
    return ctypes.cast(argument, ctypes.POINTER(ctypes.c_int))[0] % queues


def send(record):
    message, digest = message_of(record)
    if options.mode == "oneway":
        producer.send_oneway(message)
        return {"n": record["n"], "ok": True, "sha256": digest}
    if options.mode == "oneway-orderly":
        producer.send_oneway_orderly(message, record["order"], modulo)
        return {"n": record["n"], "ok": True, "sha256": digest}
    if options.mode == "orderly":
        result = producer.send_orderly(message, record["order"], 3, modulo)
    else:
        result = producer.send_sync(message)
    return {
        "n": record["n"], "ok": True, "status": int(result.status), "offset": result.offset, "id": result.msg_id,
        "sha256": digest,
    }


def send_async(record):
    message, digest = message_of(record)

    def done(answer):
        global all_answered
        emit(answer)
        outstanding.release()
        with changed:
            all_answered += 1
            changed.notify()

    outstanding.acquire()
    producer.send_async(
        message,
        lambda result: done({"n": record["n"], "ok": True, "offset": result.offset, "id": result.msg_id,
                             "sha256": digest}),
        lambda error: done({"n": record["n"], "ok": False, "error": str(error)}))
    # The client owns neither message nor callbacks: keep the message until the end.
    kept.append(message)


kept = []
emit({"ready": True})
batch = []
for line in sys.stdin:
    record = json.loads(line)
    if options.mode == "async":
        all_started += 1
        send_async(record)
        continue
    if options.mode == "batch":
        batch.append(record)
        if len(batch) < options.batch:
            continue
        messages = [message_of(one)[0] for one in batch]
        result = producer.send_batch(messages)
        emit({"n": batch[0]["n"], "count": len(batch), "ok": True, "offset": result.offset, "id": result.msg_id})
        batch = []
        continue
    give_up = time.monotonic() + options.retry
    while True:
        try:
            answer = send(record)
        except RocketMQException as error:
            answer = {"n": record["n"], "ok": False, "error": str(error)}
        if answer["ok"] or time.monotonic() >= give_up:
            break
        emit({"n": record["n"], "retry": answer["error"]})
        time.sleep(0.02)
    emit(answer)
if batch:
    result = producer.send_batch([message_of(one)[0] for one in batch])
    emit({"n": batch[0]["n"], "count": len(batch), "ok": True, "offset": result.offset, "id": result.msg_id})
deadline = time.monotonic() + 10
with changed:
    while all_answered < all_started and time.monotonic() < deadline:
        changed.wait(0.1)
if options.mode.startswith("oneway"):
    time.sleep(0.5)
producer.shutdown()
leave(0)
