#!/usr/bin/python3
"""Troupe beside PyTorch and beside the processor's limit, in turns, in one run: what ./dev bench calls.

Every row is measured in three rounds, ours and theirs in turns; a round's figure is the median over its steps without the
first three, and the best round counts. "others" is the share of a core that other processes took meanwhile: above 0.05 the
row is not to be believed.
"""
import argparse
import json
import pathlib
import random
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
import measuring  # noqa: E402
import peer  # noqa: E402
import rows  # noqa: E402


def text(size):
    """Words of made-up letters, a few of them often and most of them seldom, as in a language: what a model can't learn
    in a few steps, so that its experts stay in use."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1), k=draw.randint(1, 10)))
             for _ in range(20000)]
    drawn = draw.choices(words, [1 / (rank + 3) for rank in range(len(words))], k=size // 2)
    return "".join(word + draw.choice("     ,.\n") for word in drawn).encode()[:size]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_row(row):
    doubt = " (disturbed)" if row["others"] > measuring.DISTURBED else ""
    print(f"| {row['what']} | {number(row['troupe'])} {row['unit']} | {number(row['other'])} ({row['other_name']}) | "
          f"{row['ratio']:.2f} x | {row.get('note') or ''} | {row['others']:.2f}{doubt} |", flush=True)


def print_limit(limit):
    bfloat16 = f", {limit['bfloat16_gflops']:.0f} of bfloat16" if "bfloat16_gflops" in limit else ""
    print(f"limit: {limit['float32_gflops']:.0f} GFLOP/s of float32{bfloat16} a core, "
          f"{limit['memory_gbytes_per_second']:.1f} GB/s of memory by one core, "
          f"{limit['memory_gbytes_per_second_all_cores']:.1f} by all {limit['cores']} ({limit['instructions']})")


def results_of(setting, only):
    here = [row for row in rows.all_rows() if not only or row.name in only]
    if any(row.other_name == "PyTorch" for row in here):
        setting.kernel_times = peer.choose_kernels(setting)
        print(f"PyTorch: {setting.kernels.get('OPENBLAS_CORETYPE', 'its own choice')} of OpenBLAS's kernels is its best")
    print("| what | Troupe | beside | ratio | note | others |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    known = {}
    for row in here:
        yield measuring.measure(row, setting, known)
    for name, measured in rows.rows_elsewhere().items():
        if not only or name in only:
            yield from measured(setting)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--troupe", required=True)
    parser.add_argument("--limits", required=True)
    parser.add_argument("--only", default="", help="rows of these names, with commas between")
    parser.add_argument("--json", help="write all that was measured to this file")
    options = parser.parse_args()
    names = sorted({row.name for row in rows.all_rows()} | set(rows.rows_elsewhere()))
    only = {name for name in options.only.split(",") if name}
    if only - set(names):
        raise SystemExit(f"bench: no row is called {', '.join(sorted(only - set(names)))}: {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="troupe-bench-") as scratch:
        folder = pathlib.Path(scratch)
        data = folder / "data"
        data.write_bytes(text(1 << 20))
        limit = json.loads(measuring.execute([options.limits])[0])
        print_limit(limit)
        troupe, limits = (str(pathlib.Path(program).resolve()) for program in (options.troupe, options.limits))
        setting = measuring.Setting(troupe, limits, folder, data, limit)
        results = []
        for row in results_of(setting, only):
            print_row(row)
            results.append(row)
    if options.json:
        everything = {"limits": limit, "pytorch_kernels": setting.kernels, "pytorch_seconds": setting.kernel_times,
                      "rows": results}
        pathlib.Path(options.json).write_text(json.dumps(everything, indent=1) + "\n")


try:
    main()
except measuring.Failed as problem:
    raise SystemExit(f"bench: {problem}")
