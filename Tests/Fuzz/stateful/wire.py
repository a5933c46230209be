"""RocketMQ's remoting protocol and record layout, written from the protocol's description: shares nothing with the judged code."""

import json
import struct
import zlib

LANGUAGES = ["JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST"]
JSON, BINARY = 0, 1
ONEWAY = 2
RESPONSE = 1


def raw(value):
    """Text as bytes; hostile bytes travel in text as surrogates."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def frame(code, fields, body=b"", opaque=0, flag=0, version=409, language="JAVA", binary=False, remark=None):
    """A whole frame. Codes that do not fit the binary header's 16 bits travel in JSON."""
    if binary and -32768 <= code <= 32767:
        ext = bytearray()
        for name, value in fields.items():
            name, value = raw(name), raw(value)
            ext += struct.pack(">h", min(len(name), 32767)) + name[:32767] + struct.pack(">i", len(value)) + value
        text = raw(remark or "")
        head = struct.pack(">hBhiii", code, LANGUAGES.index(language), version & 0x7FFF, opaque, flag, len(text))
        header = head + text + struct.pack(">i", len(ext)) + bytes(ext)
        kind = BINARY
    else:
        said = {"code": code, "language": language, "version": version, "opaque": opaque, "flag": flag,
                "serializeTypeCurrentRPC": "JSON", "extFields": {name: str(value) for name, value in fields.items()}}
        if remark is not None:
            said["remark"] = remark
        header = json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogateescape")
        kind = JSON
    return struct.pack(">iI", 4 + len(header) + len(body), kind << 24 | len(header)) + header + body


class Answer:
    """A frame that came in."""

    __slots__ = ("code", "flag", "opaque", "remark", "fields", "body")

    def __init__(self, code, flag, opaque, remark, fields, body):
        self.code, self.flag, self.opaque = code, flag, opaque
        self.remark, self.fields, self.body = remark or "", fields, body

    def number(self, name):
        return int(self.fields[name])

    def json(self):
        return loads(self.body)


def parse(data):
    """Answer of the bytes behind a frame's length word."""
    word = struct.unpack_from(">I", data)[0]
    size = word & 0xFFFFFF
    header, body = data[4:4 + size], data[4 + size:]
    if word >> 24 == JSON:
        said = json.loads(header.decode("utf-8", "replace"))
        return Answer(said["code"], said.get("flag", 0), said["opaque"], said.get("remark"),
                      said.get("extFields") or {}, body)
    code, _, _, opaque, flag, count = struct.unpack_from(">hBhiii", header)
    remark = header[17:17 + count].decode("utf-8", "replace")
    at, fields = 21 + count, {}
    end = at + struct.unpack_from(">i", header, 17 + count)[0]
    while at < end:
        count = struct.unpack_from(">h", header, at)[0]
        name = header[at + 2:at + 2 + count].decode("utf-8", "replace")
        at += 2 + count
        count = struct.unpack_from(">i", header, at)[0]
        fields[name] = header[at + 4:at + 4 + count].decode("utf-8", "replace")
        at += 4 + count
    return Answer(code, flag, opaque, remark, fields, body)


def loads(data):
    """The JSON fastjson writes: number keys and object keys are taken as text."""
    text = data.decode("utf-8", "replace") if isinstance(data, (bytes, bytearray)) else data
    try:
        return json.loads(text)
    except ValueError:
        value, end = _value(text, 0)
        return value


def _blank(text, at):
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _value(text, at):
    at = _blank(text, at)
    if text[at] == "{":
        fields, at = {}, _blank(text, at + 1)
        while text[at] != "}":
            start = at
            key, at = _value(text, at)
            if not isinstance(key, str):
                key = text[start:at]
            at = _blank(text, at)
            value, at = _value(text, at + 1)
            fields[key] = value
            at = _blank(text, at)
            if text[at] == ",":
                at = _blank(text, at + 1)
        return fields, at + 1
    if text[at] == "[":
        items, at = [], _blank(text, at + 1)
        while text[at] != "]":
            value, at = _value(text, at)
            items.append(value)
            at = _blank(text, at)
            if text[at] == ",":
                at = _blank(text, at + 1)
        return items, at + 1
    return json.JSONDecoder().raw_decode(text, at)


class Record:
    """A message as it is stored."""

    __slots__ = ("queue", "offset", "physical", "flag", "sysflag", "topic", "body", "properties", "reconsumed", "intact")


def records(data):
    """The records of a pull's answer."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, magic = struct.unpack_from(">iI", data, at)
        if size <= 0 or at + size > len(data):
            raise ValueError(f"a record of {size} bytes at {at} of {len(data)}")
        record = Record()
        crc, record.queue, record.flag, record.offset, record.physical, record.sysflag = struct.unpack_from(
            ">IiiqqI", data, at + 8)
        here = at + 8 + 32 + 8 + (20 if record.sysflag & 0x10 else 8) + 8 + (20 if record.sysflag & 0x20 else 8)
        record.reconsumed, _, count = struct.unpack_from(">iqi", data, here)
        here += 16
        record.body = bytes(data[here:here + count])
        record.intact = zlib.crc32(record.body) & 0x7FFFFFFF == crc & 0x7FFFFFFF
        here += count
        if magic == 0xDAA320A7:
            count = data[here]
            here += 1
        else:
            count = struct.unpack_from(">h", data, here)[0]
            here += 2
        record.topic = data[here:here + count].decode("utf-8", "replace")
        here += count
        count = struct.unpack_from(">H", data, here)[0]
        record.properties = bytes(data[here + 2:here + 2 + count])
        found.append(record)
        at += size
    return found


def properties(pairs):
    return "".join(f"{name}\x01{value}\x02" for name, value in pairs)


def batch(bodies, text=""):
    """The body of a batch (320): each message without topic, host and time."""
    said, out = raw(text), bytearray()
    for body in bodies:
        size = 20 + len(body) + 2 + len(said)
        out += struct.pack(">iiIii", size, 0, zlib.crc32(body) & 0x7FFFFFFF, 0, len(body))
        out += body + struct.pack(">h", len(said)) + said
    return bytes(out)
