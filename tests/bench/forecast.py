"""Is a forecast what comes? `troupe rehearse` before, `troupe train` after, of configurations and layouts over links whose
delay and bandwidth are set ([link]). A rehearsal's step and the median of the real run's, without the first three; the
most that each node is said to hold, and what it held (the bill's memory_mib). Rounds of both in turns, the median of each.
"""
import json
import pathlib
import shutil
import statistics

from measuring import HERE, ROUNDS, WARM_UP, execute, say

STEPS = 40
CONFIGS = HERE.parent.parent / "configs"
TWO = ("layout.nodes=2", "device.threads=1")
STAGES, SHARDS, REPLICAS = ("layout.stages=2",), ("layout.expert_shards=2",), ("layout.replicas=2",)
BYTES = object()  # the setting's text

# name, configuration, changes
CASES = [
    ("quickstart, 2 threads", CONFIGS / "quickstart.toml", ()),
    ("quickstart, 1 thread", CONFIGS / "quickstart.toml", ("device.threads=1",)),
    ("quickstart in bfloat16", CONFIGS / "quickstart.toml", ("train.dtype=bfloat16",)),
    ("quickstart, 2 stages", CONFIGS / "quickstart.toml", (*TWO, *STAGES)),
    ("quickstart, 2 replicas, 2 ms", CONFIGS / "quickstart.toml", (*TWO, *REPLICAS, "link.delay_ms=2")),
    ("quickstart, 2 shards, 0.2 Gbit/s", CONFIGS / "quickstart.toml", (*TWO, *SHARDS, "link.gbits_per_second=0.2")),
    ("shakespeare, 2 threads", CONFIGS / "shakespeare.toml", (BYTES,)),
    ("shakespeare, 2 shards, 2 ms", CONFIGS / "shakespeare.toml", (BYTES, *TWO, *SHARDS, "link.delay_ms=2")),
    ("shakespeare, 4 nodes, 2 stages x 2 shards, 5 ms, 1 Gbit/s", CONFIGS / "shakespeare.toml",
     (BYTES, "layout.nodes=4", "device.threads=1", *STAGES, *SHARDS, "link.delay_ms=5", "link.gbits_per_second=1")),
    ("12 M experts, 2 threads", HERE / "moe.toml", (BYTES,)),
    ("12 M experts, 2 stages, 5 ms, 1 Gbit/s", HERE / "moe.toml",
     (BYTES, *TWO, *STAGES, "link.delay_ms=5", "link.gbits_per_second=1")),
    ("12 M experts, 2 shards, 1 ms, 0.5 Gbit/s, bfloat16", HERE / "moe.toml",
     (BYTES, *TWO, *SHARDS, "link.delay_ms=1", "link.gbits_per_second=0.5", "layout.slots=4", "train.dtype=bfloat16")),
    ("12 M experts, 2 replicas x 2 shards, 1 Gbit/s", HERE / "moe.toml",
     (BYTES, *TWO, *REPLICAS, *SHARDS, "train.gradient_lanes=2", "link.gbits_per_second=1")),
    ("quickstart, 4 nodes, 4 replicas, 3 ms", CONFIGS / "quickstart.toml",
     ("layout.nodes=4", "device.threads=1", "layout.replicas=4", "link.delay_ms=3")),
    ("12 M experts, 4 nodes, 2 replicas x 2 shards, one slot, 1 ms", HERE / "moe.toml",
     (BYTES, "layout.nodes=4", "device.threads=1", *REPLICAS, *SHARDS, "layout.slots=1", "train.gradient_lanes=2",
      "link.delay_ms=1")),
    ("dense, 2 stages, 1 ms", HERE / "dense.toml", (BYTES, *TWO, *STAGES, "link.delay_ms=1")),
]


def command(setting, verb, config, changes):
    sets = [f"data.files={setting.data}" if one is BYTES else one for one in changes]
    sets += [f"train.steps={STEPS}", "evaluate.every_steps=0"]
    return [setting.troupe, verb, str(config), *(word for one in sets for word in ("--set", one))]


def rehearsed(setting, config, changes):
    out, others = execute([*command(setting, "rehearse", config, changes), "--json"])
    told = json.loads(out)
    return told["step_seconds"], [node["peak_mib"] for node in told["nodes"]], others


def trained(setting, config, changes):
    folder = pathlib.Path(setting.folder) / "forecast"
    shutil.rmtree(folder, ignore_errors=True)
    _, others = execute([*command(setting, "train", config, changes), "--out", str(folder), "--quiet"])
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    steps = [line["step_seconds"] for line in lines if line["kind"] == "step"][WARM_UP:]
    return statistics.median(steps), [line for line in lines if line["kind"] == "bill"][-1]["memory_mib"], others


def rows(setting):
    for name, config, changes in CASES:
        say(f"a forecast of {name}")
        told, came, others = [], [], 0
        for _ in range(ROUNDS):
            for one, into in ((rehearsed, told), (trained, came)):
                step, memory, taken = one(setting, config, changes)
                into.append((step, memory))
                others = max(others, taken)
        forecast, real = (1000 * statistics.median(step for step, _ in side) for side in (told, came))
        # Of each node the least that was foretold beside the most that it took: never under.
        share = [min(memory[node] for _, memory in told) / max(memory[node] for _, memory in came)
                 for node in range(len(came[0][1]))]
        note = "memory foretold / held: " + ", ".join(f"{one:.3f}" for one in share)
        yield {"name": "forecast", "what": name, "unit": "ms a step", "troupe": forecast, "other": real,
               "other_name": "the run", "ratio": forecast / real, "note": note, "others": others}
