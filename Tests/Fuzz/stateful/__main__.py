"""Stateful fuzzer of a whole platform; see Tests/Fuzz/README.md."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import plan
import selftest
from fuzz import Fuzz
from world import Finding, Starved, workspace

sys.setrecursionlimit(30_000)


def arguments():
    parser = argparse.ArgumentParser(prog="run-stateful")
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("seed", nargs="?", default=os.environ.get("APUS_SEED") or str(time.time_ns() // 1_000_000 % 10**9))
    parser.add_argument("--bin", default=os.environ.get("APUS_BIN_DIR", ".build/release"), help="folder of the programs")
    parser.add_argument("--focus", choices=sorted(plan.FOCUS), help="one kind of request more often")
    parser.add_argument("--only", metavar="KIND,…", help="steps of these kinds only, such as transactions, code:103 or heavy:held_pulls")
    parser.add_argument("--except", dest="passed", default="(?!)", help="a pattern of findings to pass over: for development only")
    parser.add_argument("--stall", type=float, default=1.0, help="seconds a cheap request may take")
    parser.add_argument("--memory", type=int, default=512, help="MiB of anonymous memory a worker may have")
    parser.add_argument("--scale", type=float, default=1.0, help="of the heavy steps")
    parser.add_argument("--dir", help="where the data lies; memory when there is room")
    parser.add_argument("--keep", default=".build/fuzz", help="where a finding is kept")
    parser.add_argument("--replay", metavar="PLAN", help="a finding's plan.json again")
    parser.add_argument("--minimise", metavar="PLAN", help="leave out of a plan what its finding does not need")
    parser.add_argument("--self-test", action="store_true", help="whether a blocked loop is found, and a starved one is not")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def run_era(options, seed, settings, rounds, base):
    """Carries out rounds; returns (finding or None, rounds carried out, fuzz)."""
    fuzz = Fuzz(os.path.abspath(options.bin), base, seed, settings, options)
    done = []
    try:
        fuzz.begin()
        for each in rounds:
            done.append(each)
            for step in each["steps"]:
                guarded(options, fuzz, lambda: fuzz.perform(step))
            guarded(options, fuzz, lambda: fuzz.end_round(each["end"]))
            fuzz.say(f"round {each['round']} {each['end']}: {fuzz.counts} peak MiB "
                     f"{ {kind: used >> 20 for kind, used in fuzz.watch.peak.items()} } longest {fuzz.watch.longest}")
        while not guarded(options, fuzz, fuzz.final):
            pass
        return None, done, fuzz
    except Finding as finding:
        return finding, done, fuzz
    finally:
        fuzz.abandon()


def guarded(options, fuzz, act):
    """False when the machine starved a worker meanwhile: then the act was broken off, and the platform serves again."""
    try:
        excepting(options, fuzz, act)
        return True
    except Starved as starved:
        print(f"  starved: {starved}", flush=True)
        guarded(options, fuzz, lambda: fuzz.revive(starved))
        return False


def excepting(options, fuzz, act):
    """Findings of kinds that are passed over are told, and the run goes on where it can."""
    try:
        act()
    except Finding as finding:
        if finding.kind in ("answer", "start"):
            fuzz.look_for_ends()
        if not re.search(options.passed, str(finding)):
            raise
        fuzz.say(f"passed over: {str(finding)[:300]}")
        if finding.kind in ("worker", "start"):
            raise
        if finding.kind in ("lost", "twice", "foreign"):
            fuzz.model.placed.clear()
            fuzz.model.awaited.clear()
    except OSError as error:
        # A connection refused or reset in the middle of a step: if nobody is there, the watch says who.
        fuzz.look_for_ends()
        if fuzz.own.closed:
            fuzz.reconnect()
        fuzz.say(f"{error}")


def lazily(seed, options, first, end):
    for number in range(first, first + plan.ROUNDS):
        if time.monotonic() > end:
            return
        yield plan.round_of(seed, number, options)


def keep(options, seed, finding, rounds, settings, fuzz):
    folder = os.path.join(options.keep, f"stateful-{seed}-{finding.kind}")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "plan.json"), "w") as file:
        json.dump({"seed": seed, "kind": finding.kind, "focus": options.focus, "settings": settings, "rounds": rounds}, file)
    with open(os.path.join(folder, "finding"), "w") as file:
        file.write("\n".join([str(finding), "", *fuzz.history()]) + "\n")
    subprocess.run(["cp", "-a", "--sparse=always", fuzz.world.base, os.path.join(folder, "world")], check=False)
    return folder


def tell(options, seed, finding, rounds, settings, fuzz, began):
    folder = keep(options, seed, finding, rounds, settings, fuzz)
    print(f"FINDING {finding}")
    print(f"seed {seed}, after {time.monotonic() - began:.0f} s, round {rounds[-1]['round'] if rounds else 'none'}, "
          f"{fuzz.counts['steps']} steps, {fuzz.counts['requests']} requests; settings {settings}")
    for line in fuzz.history():
        print(line[:400])
    print(f"kept in {folder}; again: Tests/Fuzz/run-stateful --bin {options.bin} --replay {folder}/plan.json "
          f"(--minimise makes the plan smaller)")
    # Last, where whoever reads the end of a log sees it.
    print(f"stateful fuzzing found, with seed {seed}: {str(finding)[:1000]}")


def fuzz_for(options):
    began, era = time.monotonic(), 0
    end = began + options.seconds
    totals = {}
    print(f"stateful fuzzing of {options.bin} for {options.seconds:.0f} s, seed {options.seed}"
          + (f", focus {options.focus}" if options.focus else ""), flush=True)
    while time.monotonic() < end or era == 0:
        settings = plan.settings(options.seed, era)
        base = workspace(options.dir)
        try:
            finding, rounds, fuzz = run_era(
                options, options.seed, settings, lazily(options.seed, options, era * plan.ROUNDS, end), base)
            if finding:
                tell(options, options.seed, finding, rounds, settings, fuzz, began)
                return 1
        finally:
            shutil.rmtree(base, ignore_errors=True)
        for key, value in fuzz.counts.items():
            totals[key] = totals.get(key, 0) + value
        for key, value in fuzz.watch.peak.items():
            totals[f"{key} MiB"] = max(totals.get(f"{key} MiB", 0), value >> 20)
        for key, value in fuzz.watch.longest.items():
            totals[f"{key} longest ms"] = max(totals.get(f"{key} longest ms", 0), int(value * 1000))
        era += 1
    print(f"nothing found in {time.monotonic() - began:.0f} s (seed {options.seed}): "
          + ", ".join(f"{value} {key}" for key, value in totals.items()))
    return 0


def replay(options, said, quiet=False):
    base = workspace(options.dir)
    options.focus = said.get("focus")
    try:
        finding, rounds, fuzz = run_era(options, said["seed"], said["settings"], said["rounds"], base)
        if finding and not quiet:
            tell(options, said["seed"], finding, rounds, said["settings"], fuzz, time.monotonic())
        return finding
    finally:
        shutil.rmtree(base, ignore_errors=True)


def minimise(options, path):
    """Rounds first, then steps: a part is left out when the same kind of finding comes without it."""
    with open(path) as file:
        said = json.load(file)

    def fails(rounds):
        finding = replay(options, {**said, "rounds": rounds}, quiet=True)
        print(f"{len(rounds)} rounds, {sum(len(each['steps']) for each in rounds)} steps: {str(finding)[:150]}", flush=True)
        return finding is not None and finding.kind == said["kind"]
    rounds = said["rounds"]
    if not fails(rounds):
        print("the plan finds nothing any more: its finding depends on the moment", file=sys.stderr)
        return 1
    index = 0
    while len(rounds) > 1 and index < len(rounds):
        fewer = rounds[:index] + rounds[index + 1:]
        if fails(fewer):
            rounds = fewer
        else:
            index += 1
    for number, each in enumerate(rounds):
        size = max(1, len(each["steps"]) // 2)
        while size:
            at = 0
            while at < len(each["steps"]):
                fewer = {**each, "steps": each["steps"][:at] + each["steps"][at + size:]}
                if fails(rounds[:number] + [fewer] + rounds[number + 1:]):
                    rounds = rounds[:number] + [fewer] + rounds[number + 1:]
                    each = fewer
                else:
                    at += size
            size //= 2
    small = path.removesuffix(".json") + ".small.json"
    with open(small, "w") as file:
        json.dump({**said, "rounds": rounds}, file)
    print(f"{sum(len(each['steps']) for each in rounds)} steps are left in {small}")
    return 0


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.self_test:
        return selftest.run(options)
    if options.minimise:
        return minimise(options, options.minimise)
    if options.replay:
        with open(options.replay) as file:
            return 1 if replay(options, json.load(file)) else 0
    return fuzz_for(options)


sys.exit(main())
