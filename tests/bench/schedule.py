"""The schedule that emerges beside those that are planned: what build/release/simulation_test prints in virtual time, as
rows. The same on every machine."""
import pathlib
import re

from measuring import execute


def printed(setting, case):
    out, _ = execute([str(pathlib.Path(setting.troupe).parent / "simulation_test"), case])
    return out


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

