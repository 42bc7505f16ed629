"""What looking costs: tokens a second of moe.toml with a journal beside without, and watched beside unwatched: by a page
that hears the stream and asks for the timeline as the browser's does, and by `troupe inspect --once` every second.

Runs in turns, PAIRS of each; a run's figure is the median of its steps without the first three, a row's the median of the
pairs' ratios. All share the cores of one machine with the training, so what the inspector computes counts as well.
"""
import json
import re
import shutil
import statistics
import subprocess
import threading
import time
import urllib.request

from measuring import HERE, WARM_UP, Failed, Watch, say

PAIRS, STEPS = 7, 40
LAYOUTS = {"one process": (), "two nodes": ("layout.nodes=2", "device.threads=1", "layout.expert_shards=2")}


def page_of(web):
    found = re.search(r"is at (http://[^/]+)/", web.stdout.readline())
    if not found:
        raise Failed("the page has no address")
    return found[1]


def hear(base, over):
    """As the page does: the stream of views, and the timeline of the last seconds now and then."""
    try:
        with urllib.request.urlopen(base + "/api/stream?limit=50", timeout=10) as stream:
            for line in stream:
                if over.is_set():
                    return
                if not line.startswith(b"data:"):
                    continue
                now_us = json.loads(line[5:])["now_us"]
                urllib.request.urlopen(f"{base}/api/timeline?from_us={now_us - 2000000}&to_us={now_us}&limit=20000",
                                       timeout=10).read()
    except OSError:
        pass  # the server ends with the run


class Page:
    def __init__(self, setting, folder):
        self.web = subprocess.Popen([setting.troupe, "inspect", str(folder), "--web", "--port", "0"], text=True,
                                    stdout=subprocess.PIPE)
        self.over = threading.Event()
        self.thread = threading.Thread(target=hear, args=(page_of(self.web), self.over))
        self.thread.start()

    def end(self):
        self.over.set()
        self.web.kill()
        self.web.communicate()
        self.thread.join()


class Looks:
    def __init__(self, setting, folder):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, args=([setting.troupe, "inspect", str(folder), "--json"],))
        self.thread.start()

    def look(self, command):
        while not self.over.wait(1):
            subprocess.run(command, stdout=subprocess.DEVNULL, check=False)

    def end(self):
        self.over.set()
        self.thread.join()


def tokens_a_second(setting, settings, watcher):
    folder = setting.folder / "watched"
    shutil.rmtree(folder, ignore_errors=True)
    words = [f"data.files={setting.data}", f"train.steps={STEPS}", "data.held_out=0.0", *settings]
    command = [setting.troupe, "train", str(HERE / "moe.toml"), *(w for one in words for w in ("--set", one)), "--out",
               str(folder), "--quiet"]
    watch, process = Watch(), subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics, looking = folder / "metrics.jsonl", None
    while watcher and process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 0):
        time.sleep(0.005)
    if watcher:
        looking = watcher(setting, folder)
    error = process.communicate()[1]
    if looking:
        looking.end()
    if process.returncode != 0:
        raise Failed(error.decode()[-2000:])
    steps = [line for line in map(json.loads, open(metrics)) if line["kind"] == "step"]
    return statistics.median(step["tokens_per_second"] for step in steps[WARM_UP:]), watch()


def rows(setting):
    for layout, settings in LAYOUTS.items():
        for what, mine, other in (("with a journal", ((), None), (("inspect.journal_mib=0",), None)),
                                  ("watched by a page", ((), Page), ((), None)),
                                  ("looked at every second", ((), Looks), ((), None))):
            ratios, rates, others = [], [], 0
            for pair in range(PAIRS):
                say(f"{layout}, {what}: pair {pair + 1} of {PAIRS}")
                both = [tokens_a_second(setting, (*settings, *more), watcher) for more, watcher in (mine, other)]
                ratios.append(both[0][0] / both[1][0])
                rates.append([rate for rate, _ in both])
                others = max(others, both[1][1])
            best = [max(rate[i] for rate in rates) for i in range(2)]
            spread = f"{statistics.median(ratios):.3f}, the median of {PAIRS} pairs ({min(ratios):.3f} to {max(ratios):.3f})"
            yield {"name": "watched", "what": f"{layout}, {what}", "unit": "tokens/s", "troupe": best[0],
                   "other": best[1], "other_name": "without", "ratio": statistics.median(ratios), "note": spread,
                   "others": others}
