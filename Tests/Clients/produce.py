"""Sends what standard input says, one JSON object a line, and prints one record for each message that was answered.

    produce.py --name-server ADDRESS --mode sync|async|oneway|orderly|oneway-orderly|batch [--group G] [--retry SECONDS]

Input:  {"n": 1, "topic": "T", "body": "text" | "size": 100 (generated, seed n), "tags": "", "keys": "", "order": 3,
         "delay": 1 (level), "properties": {"NAME": "value"}}
Output: {"n": 1, "ok": true, "offset": 7, "id": "…", "sha256": "…"} or {"n": 1, "ok": false, "error": "…"}; with "at", the
monotonic time in seconds, for synchronous sends.
One-way sends are reported when they have left. --retry sends a failed message again until it is acknowledged.
"""

import argparse
import ctypes
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
# The client asks for the routes of its topics 10 ms after its start, then every 30 s, and puts what it heard in the place
# of what it had; a send that holds the old one in that moment (a weak pointer) fails with "No route info of this topic".
time.sleep(0.1)
under_way = threading.Semaphore(64)
started = 0
answered = 0
changed = threading.Condition()
# The client takes over neither a message nor its callbacks: they must live until the end.
kept = []


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
        global answered
        emit(answer)
        under_way.release()
        with changed:
            answered += 1
            changed.notify()

    under_way.acquire()
    producer.send_async(
        message,
        lambda result: done({"n": record["n"], "ok": True, "offset": result.offset, "id": result.msg_id,
                             "sha256": digest}),
        lambda error: done({"n": record["n"], "ok": False, "error": str(error)}))
    kept.append(message)


def send_batch(records):
    messages = [message_of(record)[0] for record in records]
    result = producer.send_batch(messages)
    emit({"n": records[0]["n"], "count": len(records), "ok": True, "offset": result.offset, "id": result.msg_id})


emit({"ready": True})
batch = []
for line in sys.stdin:
    record = json.loads(line)
    if options.mode == "async":
        started += 1
        send_async(record)
        continue
    if options.mode == "batch":
        batch.append(record)
        if len(batch) == options.batch:
            send_batch(batch)
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
    answer["at"] = time.monotonic()
    emit(answer)
if batch:
    send_batch(batch)
deadline = time.monotonic() + 10
with changed:
    while answered < started and time.monotonic() < deadline:
        changed.wait(0.1)
if options.mode.startswith("oneway"):
    time.sleep(0.5)
producer.shutdown()
leave(0)
