"""How ./dev bench measures: a command's time, memory and how much of the cores others took; rounds, ours and theirs in
turns, of which the best median counts."""
import dataclasses
import os
import pathlib
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS, WARM_UP = 3, 3
TICKS_OF_ERROR = 2
DISTURBED = 0.05  # cores that others took: above it a row is not to be believed


@dataclasses.dataclass
class Setting:
    troupe: str  # the program
    limits: str  # the program that measures the processor
    folder: pathlib.Path  # scratch
    data: pathlib.Path  # a file of bytes
    limit: dict  # what the processor can do
    kernel_times: dict = dataclasses.field(default_factory=dict)  # of PyTorch with each, seconds a step
    kernels: dict = dataclasses.field(default_factory=dict)  # environment with which PyTorch is fastest here
    parallel: dict = dataclasses.field(default_factory=dict)  # the same beside a process that takes a core
    spinner: int = 0  # pid of that process while it runs


@dataclasses.dataclass
class Round:
    value: float
    others: float  # cores that other processes took
    peak_mib: float = 0
    note: str = ""


class Failed(Exception):
    pass


def cores():
    return len(os.sched_getaffinity(0))


def busy_seconds():
    ticks = [int(word) for word in open("/proc/stat").readline().split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")


def seconds_of(pid):
    """Of a process that runs: what it computed so far."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watch:
    """What others take between its making and the call."""

    def __init__(self, spinner=0):
        self.spinner = spinner
        self.before, self.begin = self.taken(), time.perf_counter()

    def taken(self):
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return busy_seconds() - sum(one.ru_utime + one.ru_stime for one in own) - (
            seconds_of(self.spinner) if self.spinner else 0)

    def __call__(self):
        error = TICKS_OF_ERROR / os.sysconf("SC_CLK_TCK")  # the kernel counts in ticks
        return max(0.0, self.taken() - self.before - error) / (time.perf_counter() - self.begin)


def execute(command, environment=None, spinner=0):
    """Output, and the cores others took meanwhile."""
    watch = Watch(spinner)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **(environment or {})})
    out, error = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{error[-2000:]}")
    return out, watch()


@dataclasses.dataclass
class Row:
    name: str  # of --only
    what: str
    unit: str
    ours: object  # setting -> Round
    theirs: object
    other_name: str = "PyTorch"
    lower: bool = False  # less is better
    figure: str = "value"  # or peak_mib
    flops: float = 0  # a token, for the share of the peak
    around: object = None  # a context in which all rounds run: setting -> context manager
    runs: str = ""  # rows with the same word here are the same runs, looked at for another figure
    ratio: object = None  # (ours, theirs) -> ratio; without it: how many times better ours is


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def rounds_of(row, setting, known):
    if row.runs in known:
        return known[row.runs]
    pairs = []
    for number in range(ROUNDS):
        say(f"{row.what}: round {number + 1} of {ROUNDS}")
        pairs.append((row.ours(setting), row.theirs(setting)))
    if row.runs:
        known[row.runs] = pairs
    return pairs


def measure(row, setting, known):
    if row.around:
        with row.around(setting):
            pairs = rounds_of(row, setting, known)
    else:
        pairs = rounds_of(row, setting, known)
    better = min if row.lower else max
    mine, other = (better((pair[side] for pair in pairs), key=lambda one: getattr(one, row.figure)) for side in (0, 1))
    ours, theirs = getattr(mine, row.figure), getattr(other, row.figure)
    ratio = row.ratio(ours, theirs) if row.ratio else theirs / ours if row.lower else ours / theirs
    notes = [mine.note, other.note]
    share = None
    if row.flops:
        share = row.flops * ours / (setting.limit["float32_gflops"] * 1e9 * cores())
        notes.append(f"{100 * share:.0f} % of the float32 peak")
    return {
        "name": row.name, "what": row.what, "unit": row.unit, "troupe": ours, "other": theirs,
        "other_name": row.other_name, "ratio": ratio, "note": "; ".join(note for note in notes if note),
        "share_of_peak": share, "others": max(one.others for pair in pairs for one in pair),
        "rounds": [[dataclasses.asdict(one) for one in pair] for pair in pairs],
    }
