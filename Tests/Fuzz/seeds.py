"""Seeds for libFuzzer: seeds.py WORK GOLDEN SEED. From recorded frames, from a store of Apache's, and random damages."""

import base64
import glob
import hashlib
import os
import random
import struct
import sys

work, golden, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = random.Random(seed)


def put(target, data):
    name = hashlib.sha1(data).hexdigest()[:16]
    with open(f"{work}/{target}/{name}", "wb") as file:
        file.write(data)


for path in glob.glob("Tests/RemotingProtocolTests/Fixtures/*.tsv"):
    for line in open(path):
        data = base64.b64decode(line.split("\t")[2])
        put("frame", data)
        body = data[8 + int.from_bytes(data[5:8], "big"):]
        if body[:1] in (b"{", b"["):
            put("json", body)

for path in sorted(glob.glob(golden + "/config/*.json")):
    data = open(path, "rb").read()
    kind = 0 if "topics" in path else 1 if "subscriptionGroup" in path else 2
    put("json", data)
    put("metadata", bytes([kind, 0]) + data)
    put("metadata", bytes([kind]) + data + b"\0" + data[:-20])

log = open(golden + "/commitlog/00000000000000000000", "rb").read()
position = 0
records = []
while position + 8 <= len(log):
    total, magic = struct.unpack(">II", log[position:position + 8])
    if magic != 0xDAA320A7:
        break
    records.append(log[position:position + total])
    position += total
for record in records[:60]:
    put("format", b"\0" + record)
    properties = record[-struct.unpack(">H", record[84 + struct.unpack(">I", record[84:88])[0]:][:2])[0]:][:200]
    put("format", b"\1" + properties)
put("format", b"\0" + log[-64:])
index = open(glob.glob(golden + "/index/*")[0], "rb").read()
put("format", b"\4" + index[:40])
put("format", b"\4" + index[2060:2080])
put("format", b"\3" + open(golden + "/checkpoint", "rb").read()[:24])
put("format", b"\10" + b"00000001099511627776")
put("format", b"\10" + b"m-1800000000000")
frame = struct.pack(">IIIIqq", 0x41544D52, 0, 1, 5, 1800000000000, 7)
put("format", b"\5" + frame + b"hello\0\0\0")


def encoded(bodies):
    data = b""
    for body in bodies:
        properties = b"TAGS\1x\2"
        data += struct.pack(">IIIII", 0, 0, 0, 5, len(body)) + body + struct.pack(">H", len(properties)) + properties
    return data


put("format", b"\7" + encoded([b"one", b"", b"three"]))

# Damages: store, flags, then (file, kind, place, value) each.
for number in range(600):
    data = bytes([source.choice([0, 1, 0, 1, 0xF0]), source.randrange(16)])
    for _ in range(source.randint(1, 4)):
        data += source.randbytes(source.choice([6, 9, 13]))
    put("store", data)
for record in records[:20]:
    put("store", bytes([0x0E, source.randrange(256)]) + record[:180])

# SQL92: an expression, a 0, the properties of a message.
message = b"a\x015\x02b\x01x\x02TAGS\x01TagA\x02n\x01-2.50e1\x02"
for text in [
    "a > 5 AND b = 'x'", "a BETWEEN -1 AND 2e1 OR NOT b IN ('x', 'it''s')", "TAGS = 'TagA' AND (c IS NULL OR n <= a)",
    "b NOT CONTAINS 'y' AND TAGS IN ('TagA','B') -- so\n", "(a = 5) <> TRUE /* no */",
    "b STARTSWITH 'x' = (n ENDSWITH '1')",
]:
    put("sql", text.encode() + b"\0" + message)
