"""Troupe's side of the bench: a way to measure each thing, given a configuration beside this file and its changes."""
import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import time

from measuring import HERE, WARM_UP, Failed, Round, Watch, execute

COLD_SECONDS_MAX = 120


def configured(setting, config, settings):
    sets = [f"data.files={setting.data}", *settings]
    return [str(HERE / config), *(word for one in sets for word in ("--set", one))]


def train(setting, config, *settings, run="run"):
    """The lines of the run's steps, and what others took."""
    folder = setting.folder / run
    shutil.rmtree(folder, ignore_errors=True)
    _, others = execute([setting.troupe, "train", *configured(setting, config, settings), "--out", str(folder), "--quiet"],
                        spinner=setting.spinner)
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    return [line for line in lines if line["kind"] == "step"], others


def tokens_a_second(config, *settings):
    def measure(setting):
        steps, others = train(setting, config, *settings)
        rates = [step["tokens_per_second"] for step in steps[WARM_UP:]]
        return Round(statistics.median(rates), others, max(step["memory_mib"] for step in steps))

    return measure


def tokens_a_second_by_arrival(config, *settings):
    """Of the build that adds weight gradients in the order in which they arrive."""
    measure = tokens_a_second(config, *settings)
    return lambda setting: measure(dataclasses.replace(
        setting, troupe=str(pathlib.Path(setting.troupe).parent.parent / "arrival" / "troupe")))


def decode(sequences, tokens):
    def measure(setting):
        out, others = execute([setting.troupe, "profile", *configured(setting, "moe.toml", ()), "--decode", str(sequences),
                               "--context", "256", "--tokens", str(tokens)])
        return Round(float(re.search(r"([\d.]+) tokens/s", out)[1]), others)

    return measure


# Fresh weights write almost any byte, so that an answer ends by chance: lengths are unequal, a few short, a few the most.
ROLLOUT = ("kind=grpo", "task.names=reverse", "train.steps=2", "train.sequence_length=280", "train.microbatches=64",
           "train.gradient_lanes=1", "train.batch_sequences=64", "grpo.group_size=1", "grpo.completion_max=256",
           "evaluate.problems=0", "layout.slots=2")


def rollout(sequences, *settings):
    """Sampled tokens a second, with so many sequences decoded together; how unequal they are is the note."""

    def measure(setting):
        folder = setting.folder / "rollout"
        shutil.rmtree(folder, ignore_errors=True)
        sets = (*ROLLOUT, f"generate.sequences_max={sequences}", *settings)
        _, others = execute([setting.troupe, "train", *configured(setting, "moe.toml", sets), "--out", str(folder),
                             "--quiet"])
        lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
        rollouts = [line for line in lines if line["kind"] == "rollout"]
        rates = [line["answers"] * line["length_mean"] / line["seconds"] for line in rollouts]
        spent = [line for line in lines if line["kind"] == "bill"][-1]["thread_seconds"]
        total = sum(spent.values())
        shares = ", ".join(f"{name} {100 * spent[name] / total:.0f} %" for name in
                           ("rollout", "scoring", "useful", "rollout tail", "messages", "narrow", "waiting")
                           if spent[name] > 0.005 * total)
        lengths = rollouts[-1]
        return Round(statistics.median(rates), others, None,
                     f"mean length {lengths['length_mean']:.0f} of {lengths['length_max']:.0f}; time: {shares}")

    return measure


def first_step(config):
    """Milliseconds from the command to the first step that is written down."""

    def measure(setting):
        folder = setting.folder / "cold"
        shutil.rmtree(folder, ignore_errors=True)
        command = [setting.troupe, "train", *configured(setting, config, ()), "--out", str(folder), "--quiet"]
        metrics, watch = folder / "metrics.jsonl", Watch()
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (metrics.exists() and '"kind":"step"' in metrics.read_text()):
            if process.poll() is not None or time.perf_counter() - begin > COLD_SECONDS_MAX:
                process.kill()
                raise Failed(f"no first step: {process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.001)
        seconds = time.perf_counter() - begin
        process.kill()
        process.wait()
        return Round(1000 * seconds, watch())

    return measure


# ---- A hot expert ---------------------------------------------------------------------------------------------------

# Nothing moves while it is measured: the weights stay as good as where they are, and so does the routing.
MEASURED = ("train.steps=14", "train.learning_rate=1e-9", "train.bias_update_rate=0")


def prepare_routing(setting):
    """Two folders to start from: experts balanced by their bias, and the same with one that every token is sent to."""
    balanced, hot = setting.folder / "balanced", setting.folder / "hot"
    if hot.exists():
        return
    begin = ()
    for rate in ("0.01", "0.002"):
        train(setting, "moe.toml", "train.steps=25", "train.learning_rate=1e-9", f"train.bias_update_rate={rate}", *begin,
              run=f"biased-{rate}")
        checkpoint = max((setting.folder / f"biased-{rate}" / "checkpoints").iterdir())
        begin = (f"train.start_from={checkpoint}",)
    for folder in (balanced, hot):
        shutil.copytree(checkpoint, folder)
        (folder / "manifest.json").unlink()
    prefer_first_expert(hot / "model.safetensors")


def prefer_first_expert(path):
    """The router's scores are between 0 and 1: with 100 added, expert 0 of each layer is among every token's two."""
    with open(path, "r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        for name, tensor in header.items():
            if name.endswith("e_score_correction_bias"):
                file.seek(8 + size + tensor["data_offsets"][0])
                file.write(struct.pack("<f", 100.0))


def planned_mib(setting, *settings):
    out, _ = execute([setting.troupe, "plan", *configured(setting, "moe.toml", settings)])
    return float(re.search(r"peak (\d+) MiB", out)[1])


def routed(kind):
    """Milliseconds a step from the folder of this kind."""

    def measure(setting):
        prepare_routing(setting)
        settings = (*MEASURED, f"train.start_from={setting.folder / kind}")
        steps, others = train(setting, "moe.toml", *settings)
        load = statistics.median(max(step["load_max_over_mean"]) for step in steps[WARM_UP:])
        peak = max(step["memory_mib"] for step in steps)
        note = f"busiest expert {load:.1f} times the mean"
        if kind == "hot":
            note += f", {peak:.0f} of {planned_mib(setting, *settings):.0f} planned MiB"
        seconds = statistics.median(step["step_seconds"] for step in steps[WARM_UP:])
        return Round(1000 * seconds, others, peak, note)

    return measure
