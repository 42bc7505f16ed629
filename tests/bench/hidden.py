"""Does communication hide itself? The same training over a link whose delay and bandwidth are set ([link]), between two
real processes of one compute thread each, beside the same without delay and beside one microbatch in flight.

Two layouts of moe.toml, 8 microbatches, recovery.copies = 0 (nobody keeps copies, so no gradients travel for them):
  stages   2 stages, one a node; the experts of a stage live on the other's node, so rows cross too
  experts  1 stage; the experts of every layer on two nodes
Rounds of all runs in turns; a run's figure is the median of its steps without the first three, and the best round counts.
"""
import statistics

import ours
from measuring import ROUNDS, WARM_UP, say

STEPS = 10

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


def step_ms(setting, settings):
    """Median milliseconds of a step, and what others took."""
    fixed = ("layout.nodes=2", "device.threads=1", "recovery.copies=0", "data.held_out=0.0", f"train.steps={STEPS}")
    steps, others = ours.train(setting, "moe.toml", *fixed, *settings, run="hidden")
    return 1000 * statistics.median(step["step_seconds"] for step in steps[WARM_UP:]), others


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
        best, others = {}, 0
        for number in range(ROUNDS):
            say(f"a step of {title}: round {number + 1} of {ROUNDS}")
            for link, slots in RUNS:
                ms, taken = step_ms(setting, [*layout, *slots, *LINKS[link]])
                best[link, slots] = min(ms, best.get((link, slots), ms))
                others = max(others, taken)
        yield from layout_rows(title, best, others)
