#!/usr/bin/python3
"""Troupe beside PyTorch and beside the processor's limit, in turns, in one run: what ./dev bench calls.

Every row is measured in three rounds, ours and theirs in turns; a round's figure is the median over its steps without the
first three, and the best round counts. "others" is the share of a core that other processes took meanwhile: above 0.05 the
row is not to be believed.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS, WARM_UP = 3, 3
CORES = 2


@dataclasses.dataclass
class Setting:
    troupe: str  # the program
    limits: str  # the program that measures the processor
    folder: pathlib.Path
    data: pathlib.Path


@dataclasses.dataclass
class Round:
    value: float  # tokens a second; or seconds
    peak_mib: float
    others: float  # cores that other processes took


class Interrupted(Exception):
    pass


def busy_seconds():
    ticks = [int(word) for word in open("/proc/stat").readline().split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")


def execute(command, environment=None):
    """Output, seconds, peak MiB and the cores others took meanwhile."""
    cpu_before, own_before, begin = busy_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **(environment or {})})
    out, error = process.communicate()
    seconds = time.perf_counter() - begin
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, command))} failed:\n{error[-2000:]}")
    spent = own.ru_utime + own.ru_stime - own_before.ru_utime - own_before.ru_stime
    return out, seconds, max(0.0, busy_seconds() - cpu_before - spent) / seconds


# ---- Ours -----------------------------------------------------------------------------------------------------------


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def train(setting, config, *settings):
    run = setting.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [setting.troupe, "train", str(HERE / config), "--out", str(run), "--quiet",
               *sets([f"data.files={setting.data}", *settings])]
    _, seconds, others = execute(command)
    lines = [json.loads(line) for line in open(run / "metrics.jsonl")]
    return [line for line in lines if line["kind"] == "step"], seconds, others


def ours(config, *settings):
    def measure(setting):
        steps, _, others = train(setting, config, *settings)
        rates = [step["tokens_per_second"] for step in steps[WARM_UP:]]
        return Round(statistics.median(rates), max(step["memory_mib"] for step in steps), others)

    return measure


# ---- Theirs ---------------------------------------------------------------------------------------------------------


def theirs(*options, length, sequences, environment=None):
    def measure(setting):
        command = ["/usr/bin/python3", str(HERE / "pytorch.py"), "--data", str(setting.data), *options,
                   "--length", str(length), "--sequences", str(sequences)]
        out, _, others = execute(command, environment)
        result = json.loads(out)
        step = statistics.median(result["step_seconds"][WARM_UP:])
        return Round(length * sequences / step, result["peak_mib"], others)

    return measure


# ---- Rows -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    name: str  # of --only
    what: str
    ours: object
    theirs: object
    unit: str = "tokens/s"
    flops: float = 0  # a token, for the share of the peak
    figure: str = "value"  # or peak_mib: less is better


def moe_flops(length):
    """6 x the matrix weights that a token touches, and attention without a causal discount."""
    attention = 256 * 4 * 96 + 256 * 160 + 128 * 4 * 128 + 256 * 256
    expert = 3 * 256 * 256
    weights = 4 * attention + 3 * 256 * 1024 + 3 * (3 * expert + 256 * 16) + 256 * 256
    return 6 * weights + 6 * 4 * 4 * (96 + 64) * length


def dense_flops(layers, hidden, intermediate, length):
    return 6 * (layers * (4 * hidden * hidden + 3 * hidden * intermediate) + 256 * hidden) + 12 * layers * hidden * length


def rows():
    moe = ("moe.toml", "train.steps=14")
    long = ("moe.toml", "train.steps=7", "train.sequence_length=2048", "train.batch_sequences=2", "train.microbatches=2",
            "evaluate.tokens_max=2048")
    big = ("dense.toml", "train.steps=7", "model.num_hidden_layers=6", "model.hidden_size=384",
           "model.intermediate_size=1024", "model.num_attention_heads=6", "model.num_key_value_heads=6",
           "train.sequence_length=256", "train.microbatches=12", "evaluate.tokens_max=256")
    small_dense = ("--dense", "--hidden", "128", "--intermediate", "344", "--steps", "43")
    big_dense = ("--dense", "--layers", "6", "--hidden", "384", "--intermediate", "1024", "--heads", "6", "--steps", "7")
    peer = theirs("--steps", "9", length=256, sequences=8)
    return [
        Row("moe", "mixture of experts, float32", ours(*moe), peer, flops=moe_flops(256)),
        Row("moe", "mixture of experts, bfloat16", ours(*moe, "train.dtype=bfloat16"),
            theirs("--bfloat16", "--steps", "9", length=256, sequences=8), flops=moe_flops(256)),
        Row("dense", "dense 4 x 128, float32", ours("dense.toml"), theirs(*small_dense, length=64, sequences=12),
            flops=dense_flops(4, 128, 344, 64)),
        Row("dense", "dense 6 x 384, float32", ours(*big), theirs(*big_dense, length=256, sequences=12),
            flops=dense_flops(6, 384, 1024, 256)),
        Row("dense", "dense 6 x 384, bfloat16", ours(*big, "train.dtype=bfloat16"),
            theirs(*big_dense, "--bfloat16", length=256, sequences=12), flops=dense_flops(6, 384, 1024, 256)),
        Row("long", "mixture of experts, 2 x 2,048 tokens", ours(*long), theirs("--steps", "5", length=2048, sequences=2),
            flops=moe_flops(2048)),
        Row("memory", "peak resident memory of the first row", ours(*moe), peer, unit="MiB", figure="peak_mib"),
    ]


def best(rounds, figure):
    values = [getattr(one, figure) for one in rounds]
    return min(values) if figure == "peak_mib" else max(values)


def measure(row, setting, peak):
    pairs = []
    for number in range(ROUNDS):
        print(f"  {row.what}: round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        pairs.append((row.ours(setting), row.theirs(setting)))
    mine, other = (best([pair[side] for pair in pairs], row.figure) for side in (0, 1))
    lower = row.figure == "peak_mib"
    return {
        "name": row.name, "what": row.what, "unit": row.unit, "troupe": mine, "pytorch": other,
        "ratio": other / mine if lower else mine / other,
        "share_of_peak": row.flops * mine / peak if row.flops else None,
        "others": max(one.others for pair in pairs for one in pair),
        "rounds": [[dataclasses.asdict(one) for one in pair] for pair in pairs],
    }


def print_row(result):
    share = f"{100 * result['share_of_peak']:.0f} %" if result["share_of_peak"] else ""
    doubt = " (disturbed)" if result["others"] > 0.05 else ""
    print(f"| {result['what']} | {result['troupe']:,.0f} {result['unit']} | {result['pytorch']:,.0f} | "
          f"{result['ratio']:.2f} x | {share} | {result['others']:.2f}{doubt} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--limits", required=True)
    parser.add_argument("--only", help="rows of this name")
    parser.add_argument("--json", help="write all that was measured to this file")
    options = parser.parse_args()
    chosen = [row for row in rows() if options.only in (None, row.name)]
    if not chosen:
        raise SystemExit(f"bench: no row is called {options.only}: {', '.join(sorted({row.name for row in rows()}))}")
    with tempfile.TemporaryDirectory(prefix="troupe-bench-") as folder:
        data = pathlib.Path(folder) / "data"
        data.write_bytes(bytes(word * word * 7 // 256 % 256 for word in range(1 << 20)))
        setting = Setting(options.troupe, options.limits, pathlib.Path(folder), data)
        limits = json.loads(execute([setting.limits])[0])
        peak = limits["float32_gflops"] * 1e9 * CORES
        print(f"limit: {limits['float32_gflops']:.0f} GFLOP/s of float32 a core, "
              f"{limits['memory_gbytes_per_second']:.1f} GB/s of memory ({limits['instructions']})")
        print("| what | Troupe | PyTorch | ratio | of float32 peak | others |\n| --- | --- | --- | --- | --- | --- |")
        results = []
        for row in chosen:
            results.append(measure(row, setting, peak))
            print_row(results[-1])
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"limits": limits, "rows": results}, indent=1) + "\n")


main()
