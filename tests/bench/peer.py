"""PyTorch's side of the bench, and how it gets its best: the OpenBLAS kernels and the OpenMP wait policy that are fastest
here, tried once. Debian's OpenBLAS picks generic kernels on processors that it doesn't know; others it would pick may be
wrong on this one, so each is checked first."""
import contextlib
import json
import statistics
import subprocess
import sys
import time

from measuring import HERE, WARM_UP, Failed, Round, execute, say

KERNELS = (None, "Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids")  # of OpenBLAS; None: its own choice
POLICIES = (None, "active", "passive")  # of OpenMP
ERROR_MAX = 1e-5  # of a product's element, times what its terms add up to; float32 rounds at 6e-8


def pytorch(setting, *options, environment=None):
    command = ["/usr/bin/python3", str(HERE / "pytorch.py"), "--data", str(setting.data), *map(str, options)]
    out, others = execute(command, {**setting.kernels, **(environment or {})}, setting.spinner)
    return json.loads(out), others


def step_seconds(setting, *options, environment=None):
    result, others = pytorch(setting, *options, environment=environment)
    seconds = result["step_seconds"]
    return statistics.median(seconds[min(WARM_UP, len(seconds) - 1):]), result, others


def tokens_a_second(*options, length, sequences):
    def measure(setting):
        seconds, result, others = step_seconds(setting, *options, "--length", length, "--sequences", sequences,
                                               environment=setting.parallel if setting.spinner else None)
        return Round(length * sequences / seconds, others, result["peak_mib"])

    return measure


def decode(sequences, tokens):
    def measure(setting):
        result, others = pytorch(setting, "--decode", tokens, "--length", 256, "--sequences", sequences)
        return Round(result["tokens_per_second"], others)

    return measure


def rollout(sequences, mean_share):
    """A batch of prompts decoded with a cache until the longest answer is done, as Hugging Face's generate() does: what
    counts are the tokens of the answers, on average this share of the longest."""

    def measure(setting):
        result, others = pytorch(setting, "--decode", 256, "--length", 8, "--sequences", sequences)
        return Round(result["tokens_per_second"] * mean_share, others)

    return measure


def first_step(*options):
    """Milliseconds of a script that makes one step, from the command to its end less its clearing up."""

    def measure(setting):
        begin = time.time()
        result, others = pytorch(setting, "--steps", "1", *options)
        return Round(1000 * (result["first_step_at"] - begin), others)

    return measure


# ---- Its best -------------------------------------------------------------------------------------------------------


def environment_of(kernels):
    return {"OPENBLAS_CORETYPE": kernels} if kernels else {}


def choose_kernels(setting):
    """The environment whose kernels are right and take the least time for a step of the first row."""
    times = {}
    for kernels in KERNELS:
        try:
            checked, _ = pytorch(setting, "--check", environment=environment_of(kernels))
            if checked["error"] > ERROR_MAX:
                say(f"OpenBLAS {kernels or 'own choice'}: wrong by {checked['error']:.1g}, not used")
                continue
            result, _ = pytorch(setting, "--steps", "3", environment=environment_of(kernels))
            times[kernels] = min(result["step_seconds"])
            say(f"OpenBLAS {kernels or 'own choice'}: {times[kernels]:.2f} s a step")
        except Failed:  # an instruction that this processor lacks
            say(f"OpenBLAS {kernels}: does not run here")
    if not times:
        raise SystemExit("bench: PyTorch does not run with any kernels of OpenBLAS")
    setting.kernels = environment_of(min(times, key=times.get))
    return times


@contextlib.contextmanager
def one_core_taken(setting):
    """A process at normal priority that never sleeps, free to run anywhere; it ends with this one, however that ends."""
    spin = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n  for _ in range(100000): pass"
    process = subprocess.Popen([sys.executable, "-c", spin])
    setting.spinner = process.pid
    try:
        if not setting.parallel:
            choose_policy(setting)
        yield
    finally:
        setting.spinner = 0
        process.kill()
        process.wait()


def choose_policy(setting):
    times = {}
    for policy in POLICIES:
        environment = {"OMP_WAIT_POLICY": policy} if policy else {}
        times[policy], _, _ = step_seconds(setting, "--steps", "2", environment=environment)
        say(f"OMP_WAIT_POLICY {policy or 'not set'}: {times[policy]:.2f} s a step beside a busy process")
    best = min(times, key=times.get)
    setting.parallel = {"OMP_WAIT_POLICY": best} if best else {}
    print(f"PyTorch beside a busy process: OMP_WAIT_POLICY {best or 'not set'} is its best")
