"""The official C++ client, loaded so that it can be used from scripts: what its Python wrapper lacks, and its oddities.

* It logs to $HOME/logs and keeps broadcasting offsets in $HOME: HOME must be a folder of its own (set by the caller).
* Message bodies come back as C strings: test bodies must contain no NUL byte.
* Its threads may crash while the interpreter takes itself down: scripts end with `leave`, never by falling off the end.
"""

import ctypes
import hashlib
import json
import os
import random
import sys
import threading

if os.environ.get("HOME", "/root") in ("/root", "/"):
    sys.exit("set HOME to a folder of this run: the client writes its logs and offsets there")

from rocketmq.client import Message, PullConsumer, Producer, PushConsumer, RecvMessage  # noqa: E402
from rocketmq.exceptions import RocketMQException, ffi_check  # noqa: E402
from rocketmq.ffi import MessageModel, _CLogLevel, dll  # noqa: E402

__all__ = [
    "Message", "MessageModel", "Producer", "PullConsumer", "PushConsumer", "RecvMessage", "RocketMQException",
    "ctypes", "describe", "dll", "emit", "ffi_check", "generated", "leave", "quiet",
]

dll.SetProducerCompressMsgBodyOverHowmuch.argtypes = [ctypes.c_void_p, ctypes.c_int]
dll.SetProducerInstanceName.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

_output = threading.Lock()


def emit(record):
    """One JSON object on a line of standard output, whole even when threads write at once."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    with _output:
        sys.stdout.write(line)
        sys.stdout.flush()


def leave(code=0):
    """Ends the process at once: the client's own threads are not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def quiet(handle, kind):
    """Only errors into the client's log."""
    getattr(dll, "Set%sLogLevel" % kind)(handle, getattr(_CLogLevel, os.environ.get("OFFICIAL_LOG", "ERROR")))


def generated(size, seed):
    """`size` bytes without NUL that hardly compress, the same for the same seed."""
    source = random.Random(seed).randbytes(size)
    return source.replace(b"\0", b"\1")


def describe(message):
    """A received message as a record: short bodies as text, all bodies by their hash."""
    body = message.body or b""
    record = {
        "topic": message.topic,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "tags": (message.tags or b"").decode(),
        "keys": (message.keys or b"").decode(),
        "queue": message.queue_id,
        "offset": message.queue_offset,
        "position": message.commit_log_offset,
        "reconsumed": message.reconsume_times,
        "id": message.id,
    }
    if len(body) <= 1024:
        record["body"] = body.decode("utf-8", "replace")
    return record
