#!/usr/bin/python3
"""Does communication hide itself? The same training over a link whose delay and bandwidth are set ([link]), between two
real processes of one compute thread each, beside the same without delay and beside one microbatch in flight.

Two layouts of moe.toml, 8 microbatches, recovery.copies = 0 (nobody keeps copies, so no gradients travel for them):
  stages   2 stages, one a node; the experts of a stage live on the other's node, so rows cross too
  experts  1 stage; the experts of every layer on two nodes
Rounds of all runs in turns; a run's figure is the median of its steps without the first three, and the best round counts.
By itself: python3 tests/bench/hidden.py --troupe build/release/troupe [--json FILE]
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import tempfile
import types

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS, WARM_UP, STEPS = 3, 3, 10

LAYOUTS = {"stages": ("2 stages", ["layout.stages=2"]), "experts": ("2 expert shards", ["layout.expert_shards=2"])}
MANY, ONE = ("layout.slots=8", "layout.chunk_credits=8"), ("layout.slots=1",)
LINKS = {
    "no delay": [],
    "1 ms": ["link.delay_ms=1"],
    "5 ms": ["link.delay_ms=5"],
    "20 ms": ["link.delay_ms=20"],
    "1 Gbit/s": ["link.gbits_per_second=1"],
}
RUNS = [(link, MANY) for link in LINKS] + [("no delay", ONE), ("5 ms", ONE)]


def busy_seconds():
    ticks = [int(word) for word in open("/proc/stat").readline().split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")


def spent_seconds():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def step_ms(setting, settings):
    """Median milliseconds of a step."""
    run = pathlib.Path(setting.folder) / "hidden"
    shutil.rmtree(run, ignore_errors=True)
    fixed = [f"data.files={setting.data}", "layout.nodes=2", "device.threads=1", "recovery.copies=0", "data.held_out=0.0",
             f"train.steps={STEPS}"]
    command = [str(setting.troupe), "train", str(HERE / "moe.toml"), "--out", str(run), "--quiet",
               *(word for one in [*fixed, *settings] for word in ("--set", one))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in open(run / "metrics.jsonl")]
    return 1000 * statistics.median([line["step_seconds"] for line in lines if line["kind"] == "step"][WARM_UP:])


def row(what, mine, other, other_name, note, others):
    return {"name": "hidden", "what": what, "unit": "ms", "troupe": mine, "other": other, "other_name": other_name,
            "ratio": mine / other, "note": note, "others": others}


def layout_rows(title, best, others):
    free, slow, slow_free = best["no delay", MANY], best["5 ms", ONE], best["no delay", ONE]
    for link in list(LINKS)[1:]:
        note = f"one microbatch in flight: {slow / free:.2f} x" if link == "5 ms" else ""
        yield row(f"a step of {title} over a link of {link}", best[link, MANY], free, "no delay", note, others)
    yield row(f"a step of {title}, one microbatch in flight, 5 ms", slow, slow_free, "one in flight, no delay",
              f"{slow / free:.2f} x of eight in flight without delay", others)


def rows(setting):
    for title, layout in LAYOUTS.values():
        best = {}
        busy, spent, begin = busy_seconds(), spent_seconds(), os.times().elapsed
        for _ in range(ROUNDS):
            for link, slots in RUNS:
                ms = step_ms(setting, [*layout, *slots, *LINKS[link]])
                best[link, slots] = min(ms, best.get((link, slots), ms))
        taken = busy_seconds() - busy - (spent_seconds() - spent)
        yield from layout_rows(title, best, max(0.0, taken) / (os.times().elapsed - begin))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="troupe-bench-") as scratch:
        folder = pathlib.Path(scratch)
        (folder / "data").write_bytes(bytes(word * word * 7 // 256 % 256 for word in range(1 << 20)))
        setting = types.SimpleNamespace(troupe=options.troupe, limits=None, folder=folder, data=folder / "data")
        print("| what | ms | beside | ratio | note | others |\n| --- | --- | --- | --- | --- | --- |")
        results = []
        for one in rows(setting):
            results.append(one)
            print(f"| {one['what']} | {one['troupe']:.1f} | {one['other']:.1f} ({one['other_name']}) | "
                  f"{one['ratio']:.3f} x | {one['note']} | {one['others']:.2f} |", flush=True)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
