"""A plan: settings and rounds of steps, all drawn from the seed; a round does not depend on what an earlier one found."""

import heavy
from values import Dice

KINDS = {"request": 60, "burst": 2, "send": 9, "batch": 2, "cpp_batch": 1, "delayed": 3, "transactions": 3, "send_back": 4,
         "raised_queues": 0.5, "recreate": 1.5, "offsets": 3, "hold": 2, "mischief": 5, "state": 10}
FOCUS = {
    "names": {"request": 80, "send": 10, "delayed": 1, "mischief": 1, "state": 5},
    "numbers": {"request": 80, "send": 10, "send_back": 2, "state": 25},
    "load": {"request": 10, "send": 10, "hold": 2, "transactions": 1},
    "delivery": {"request": 5, "send": 10, "batch": 3, "cpp_batch": 2, "delayed": 5, "transactions": 8, "send_back": 10,
                 "raised_queues": 3, "recreate": 6, "offsets": 3, "hold": 2, "state": 2},
}
ENDS = {"go on": 40, "time passes": 6, "stop": 15, "stop under load": 8, "kill broker-store": 14, "kill nameserver": 5, "kill platform": 10,
        "kill filter": 1.5, "kill replication": 1.5}
STEPS = 150
# Rounds a platform lives before the next one begins with an empty folder.
ROUNDS = 25


def settings(seed, era):
    dice = Dice(f"{seed}:settings:{era}")
    said = {
        "messageDelayLevel": "1s 2s 1s 3s 2s 1s", "mappedFileSizeCommitLog": dice.choice([32 << 20, 64 << 20]),
        "flushDiskType": dice.choice(["ASYNC_FLUSH", "ASYNC_FLUSH", "SYNC_FLUSH"]), "transactionTimeOut": 3000,
        "transactionCheckInterval": 3000, "flushConsumerOffsetInterval": 2000,
        "enabledAppendPropCRC": dice.choice(["true", "false"]), "recordSumEnable": dice.choice(["true", "true", "false"])}
    # An empty messageDelayLevel, which 4edf2a4 took and lost delayed messages by, is refused at the start now.
    return said


def round_of(seed, number, options):
    """Round `number` of a run."""
    dice = Dice(f"{seed}:round:{number}")
    if options.only:
        kinds = options.only.split(",")
        return {"round": number, "end": "go on" if len(kinds) == 1 else dice.choices(list(ENDS), list(ENDS.values()))[0],
                "steps": [{"n": number * 1000 + index, "kind": dice.choice(kinds), "scale": options.scale}
                          for index in range(2 if options.only.startswith("heavy:") else 40)]}
    focus = options.focus
    weights = FOCUS.get(focus, KINDS)
    kinds = dice.choices(list(weights), list(weights.values()), k=40 if focus == "load" else STEPS)
    steps = [{"n": number * 1000 + index, "kind": kind} for index, kind in enumerate(kinds)]
    if focus == "load" or dice.chance(25):
        # Each seed has them in an order of its own.
        order = Dice(f"{seed}:heavy").sample(heavy.ALL, len(heavy.ALL))
        one = order[number % len(order)] if focus == "load" else dice.choice(order)
        size = 1 if focus == "load" else dice.choice([0.1, 0.3, 0.3, 1])
        steps.insert(dice.randrange(len(steps)), {
            "n": number * 1000 + 999, "kind": "heavy:" + one.__name__, "scale": size * options.scale})
    return {"round": number, "steps": steps, "end": dice.choices(list(ENDS), list(ENDS.values()))[0]}
