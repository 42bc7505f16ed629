#!/usr/bin/python3
"""The schedule that emerges beside those that are planned: what build/release/simulation_test prints in virtual time, as
rows. The same on every machine. By itself: python3 tests/bench/schedule.py --troupe build/release/troupe [--json FILE]"""
import argparse
import json
import pathlib
import re
import subprocess
import types


def printed(setting, case):
    program = pathlib.Path(setting.troupe).resolve().parent / "simulation_test"
    if not program.exists():
        raise SystemExit(f"bench: {program} is missing; ./dev build makes it")
    done = subprocess.run([str(program), case], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"bench: {program} {case!r} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def bubbles(setting):
    line = re.compile(r"^ *(\d+) +(\d+) +(\d+) +(-?[\d.]+) +(\d+) \| +(\d+) +(\d+) +(\d+) *$", re.MULTILINE)
    for found in line.findall(printed(setting, "bubbles of the emergent schedule")):
        stages, microbatches, held, _, peak, one, zero, dual = (int(float(word)) for word in found)
        bubble = float(found[3])
        yield {
            "name": "schedule", "what": f"bubble of {stages} stages, {microbatches} microbatches, at most {held} held",
            "unit": "units", "troupe": bubble, "other": zero, "other_name": "ZB1P", "ratio": bubble / zero,
            "note": f"1F1B {one}, DualPipe {dual} with the parameters twice; {peak} held at the most", "others": 0.0,
        }


def exposed(setting):
    line = re.compile(r"^ *(\d+) +(\d+) +(\d+) +(\d+) +(-?[\d.]+)% ", re.MULTILINE)
    for found in line.findall(printed(setting, "share of expert dispatch that is exposed")):
        microbatches, held, share = int(found[0]), int(found[1]), float(found[4])
        yield {
            "name": "schedule", "what": f"dispatch of half the compute's time, exposed: {microbatches} microbatches, {held} held",
            "unit": "%", "troupe": share, "other": 100, "other_name": "all of it", "ratio": share / 100, "note": "",
            "others": 0.0,
        }


def rows(setting):
    yield from bubbles(setting)
    yield from exposed(setting)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    print("| what | Troupe | beside | ratio | note |\n| --- | --- | --- | --- | --- |")
    results = []
    for row in rows(types.SimpleNamespace(troupe=options.troupe)):
        results.append(row)
        print(f"| {row['what']} | {row['troupe']:g} {row['unit']} | {row['other']} ({row['other_name']}) | "
              f"{row['ratio']:.2f} x | {row['note']} |", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
