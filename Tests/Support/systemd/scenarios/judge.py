"""What became of messages over a series of events.

    judge.py EVENTS CONSUMED REFERENCE SENDERS…

EVENTS has one line per event: name, milliseconds allowed, begin and end in monotonic seconds. CONSUMED has the body of every stored message, a line
each. SENDERS are what sender.py and produce.py print. Prints figures, and fails when an acknowledged message is missing, a
send failed for good (around a kill it may), or the longest gap between acknowledged sends around an event is longer than allowed.
REFERENCE is what sender.py prints that sent to an instance nobody touched, at the same time on the same machine: by its own longest
gap around the event, which is the machine's doing, the others' may be longer.
"""

import json
import sys

events = [line.split() for line in open(sys.argv[1])]
consumed = [line.rstrip("\n") for line in open(sys.argv[2])]
stored = set(consumed)
bad = 0


def times_of(path):
    records = [json.loads(line) for line in open(path) if '"ok"' in line]
    return sorted(record["at"] for record in records if record["ok"])


def longest_gap(times, begin, end):
    gaps = [
        (after - before) * 1000 for before, after in zip(times, times[1:])
        if after >= float(begin) and before <= float(end) + 1]
    return max(gaps), len(gaps)


reference = times_of(sys.argv[3])


def name_of(path):
    return path.rsplit("/", 1)[-1]


for path in sys.argv[4:]:
    records = [json.loads(line) for line in open(path) if '"ok"' in line]
    for record in records:
        record.setdefault("body", f"official-{record.get('n')}")
    acknowledged = [record for record in records if record["ok"]]
    # Nobody promises a client without patience that a killed platform is back within its three seconds.
    killed = [float(begin) for name, _, begin, _ in events if name.endswith("killed")]
    failed = [record for record in records if not record["ok"] and not any(0 < record["at"] - begin < 10 for begin in killed)]
    missing = [record["body"] for record in acknowledged if record["body"] not in stored]
    retried = sum(record.get("attempts", 1) > 1 for record in acknowledged)
    times = sorted(record["at"] for record in acknowledged)
    print(f"  ({name_of(path)}: {len(acknowledged)} acknowledged, {retried} after a retry, {len(failed)} failed, {len(missing)} missing)")
    if failed or missing or len(acknowledged) < 100:
        print(failed[:3], missing[:3])
        bad = 1
    for name, allowed, begin, end in events:
        gap, count = longest_gap(times, begin, end)
        idle, _ = longest_gap(reference, begin, end)
        print(f"  ({name_of(path)}: {name}: longest gap between acknowledged sends {gap:.0f} ms, {count} sends around it; "
              f"allowed {allowed} and what the machine did to the untouched instance meanwhile, {idle:.0f} ms)")
        bad = bad or gap > float(allowed) + idle
print(f"  ({len(consumed)} messages stored, {len(consumed) - len(stored)} of them twice)")
sys.exit(bad)
