"""A message between actors of two processes beside the same bytes between two of UCX's own benchmark (ucx_perftest).

In turns, in one run, on the same transport, each process pinned to a core of its own; the median of each round, and the
best of the rounds.
"""
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import time

from measuring import ROUNDS, Failed, Watch, execute

CORES = (0, 1)
HEADER = 256
KIB, MIB = 1 << 10, 1 << 20
# How UCX is told what Troupe tells it: the same for both.
WAYS = {"shared memory": ("shm", "", {"UCX_TLS": "shm,self"}),
        "tcp": ("tcp", "lo", {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"})}


@dataclasses.dataclass
class Trial:
    what: str
    tensor: int = 0
    rounds: int = 1000
    outstanding: int = 1
    tensors: int = 1  # different ones


LATENCIES = [Trial("header of 256 bytes", 0, 50_000), Trial("64 KiB tensor", 64 * KIB, 10_000),
             Trial("1 MiB tensor", MIB, 2_000), Trial("16 MiB tensor", 16 * MIB, 100)]
# UCX's benchmark sends one buffer again and again into one other: its source stays in the reader's cache.
BANDWIDTHS = [Trial("1 MiB tensor, 16 times under way", MIB, 4_000, outstanding=16),
              Trial("16 different tensors of 1 MiB under way", MIB, 4_000, outstanding=16, tensors=16)]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ours(program, way, trial):
    tls, interface, _ = WAYS[way]
    command = [program, "--tls", tls, *(["--interface", interface] if interface else []), "--bytes", trial.tensor,
               "--header", HEADER, "--rounds", trial.rounds, "--warm-up", max(20, trial.rounds // 10), "--outstanding",
               trial.outstanding, "--tensors", trial.tensors, "--first-core", CORES[0], "--second-core", CORES[1]]
    result = json.loads(execute([str(word) for word in command])[0])
    return result["mbytes_per_second" if trial.outstanding > 1 else "half_round_trip_us"]


def raw(way, trial):
    port = str(free_port())
    environment = {**os.environ, **WAYS[way][2]}
    test = ["-t", "ucp_am_bw", "-O", str(trial.outstanding)] if trial.outstanding > 1 else ["-t", "ucp_am_lat"]
    test += ["-s", str(trial.tensor or HEADER), "-n", str(trial.rounds), "-w", str(max(20, trial.rounds // 10)), "-f", "-v"]
    server = subprocess.Popen(["taskset", "-c", str(CORES[0]), "ucx_perftest", "-p", port], env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):  # until it listens
            time.sleep(0.05)
            client = subprocess.run(["taskset", "-c", str(CORES[1]), "ucx_perftest", "127.0.0.1", "-p", port, *test],
                                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            lines = [line for line in client.stdout.splitlines() if line.strip()[:1].isdigit()]
            if client.returncode == 0 and lines:
                break
        else:
            raise Failed(f"ucx_perftest does not start: {client.stderr[-500:]}")
    finally:
        server.terminate()
        server.wait()
    # iterations, median latency, average latency, overall latency, average bandwidth, overall bandwidth, ...
    fields = lines[-1].split(",")
    return float(fields[5]) if trial.outstanding > 1 else float(fields[1])


def transports(way):
    """Which of its transports UCX takes for this way."""
    told = subprocess.run(["ucx_info", "-e", "-u", "aw", "-D", "net" if way == "tcp" else "shm"], text=True,
                          env={**os.environ, **WAYS[way][2]}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    lanes = [line.split("->")[0].split(":")[2].split()[0] for line in told.splitlines() if "lane[" in line]
    return ", ".join(lane.split("/")[0] for lane in lanes)


def measure(program, way, trial):
    bandwidth = trial.outstanding > 1
    pairs, shares = [], []
    for _ in range(ROUNDS):
        watch = Watch()
        pairs.append((ours(program, way, trial), raw(way, trial)))
        shares.append(watch())
    mine, other = ((max if bandwidth else min)(pair[side] for pair in pairs) for side in (0, 1))
    what = f"{way}, {trial.what}" + ("" if bandwidth else ", half a round trip")
    return {"name": "messages", "what": what, "unit": "MB/s" if bandwidth else "us", "troupe": mine, "other": other,
            "other_name": "ucx_perftest " + ("ucp_am_bw" if bandwidth else "ucp_am_lat"),
            "ratio": mine / other, "note": f"UCX lanes: {transports(way)}; rounds "
            + " ".join(f"{a:.2f}/{b:.2f}" for a, b in pairs), "others": max(shares)}


def rows(setting):
    program = pathlib.Path(setting.troupe).parent / "messages_bench"
    for way in WAYS:
        for trial in [*LATENCIES, *BANDWIDTHS]:
            yield measure(program, way, trial)
