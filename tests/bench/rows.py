"""The rows of ./dev bench. A model stands twice: in moe.toml or dense.toml with these changes, and as options of
pytorch.py."""
import importlib

import ours
import peer
from measuring import HERE, Row

# Rows measured by programs of their own: a file NAME.py here with `rows(setting)`, which gives dicts with name, what,
# unit, troupe, other, other_name, ratio, note and others.
ELSEWHERE = ("messages", "hidden", "schedule", "watched", "forecast")


def moe_flops(length):
    """6 x the matrix weights that a token touches, and attention without a causal discount."""
    attention = 256 * 4 * 96 + 256 * 160 + 128 * 4 * 128 + 256 * 256
    expert = 3 * 256 * 256
    weights = 4 * attention + 3 * 256 * 1024 + 3 * (3 * expert + 256 * 16) + 256 * 256
    return 6 * weights + 6 * 4 * 4 * (96 + 64) * length


def dense_flops(layers, hidden, intermediate, length):
    return 6 * (layers * (4 * hidden * hidden + 3 * hidden * intermediate) + 256 * hidden) + 12 * layers * hidden * length


def training_rows():
    moe = ("moe.toml", "train.steps=14")
    long = ("moe.toml", "train.steps=7", "train.sequence_length=2048", "train.batch_sequences=2", "train.microbatches=2",
            "evaluate.tokens_max=2048")
    big = ("dense.toml", "train.steps=7", "model.num_hidden_layers=6", "model.hidden_size=384",
           "model.intermediate_size=1024", "model.num_attention_heads=6", "model.num_key_value_heads=6",
           "train.sequence_length=256", "train.microbatches=12", "evaluate.tokens_max=256")
    spread = ("train.gradient_lanes=2", "layout.nodes=2", "layout.replicas=2", "layout.expert_shards=2",
              "recovery.copies=0", "layout.slots=4")
    small_dense = ("--dense", "--hidden", "128", "--intermediate", "344", "--steps", "43")
    big_dense = ("--dense", "--layers", "6", "--hidden", "384", "--intermediate", "1024", "--heads", "6", "--steps", "7")
    first = dict(ours=ours.tokens_a_second(*moe), theirs=peer.tokens_a_second("--steps", "9", length=256, sequences=8),
                 runs="first row")

    def row(name, what, mine, other, **more):
        return Row(name, what, "tokens/s", ours.tokens_a_second(*mine), other, **more)

    return [
        Row("moe", "mixture of experts, float32", "tokens/s", **first, flops=moe_flops(256)),
        row("moe", "mixture of experts, bfloat16", (*moe, "train.dtype=bfloat16"),
            peer.tokens_a_second("--bfloat16", "--steps", "9", length=256, sequences=8), flops=moe_flops(256)),
        row("dense", "dense 4 x 128, float32", ("dense.toml",),
            peer.tokens_a_second(*small_dense, length=64, sequences=12), flops=dense_flops(4, 128, 344, 64)),
        row("dense", "dense 6 x 384, float32", big, peer.tokens_a_second(*big_dense, length=256, sequences=12),
            flops=dense_flops(6, 384, 1024, 256)),
        row("dense", "dense 6 x 384, bfloat16", (*big, "train.dtype=bfloat16"),
            peer.tokens_a_second(*big_dense, "--bfloat16", length=256, sequences=12), flops=dense_flops(6, 384, 1024, 256)),
        row("long", "mixture of experts, 2 x 2,048 tokens", long,
            peer.tokens_a_second("--steps", "5", length=2048, sequences=2), flops=moe_flops(2048)),
        row("busy", "mixture of experts beside a busy process", moe,
            peer.tokens_a_second("--steps", "7", "--seconds", "40", length=256, sequences=8), around=peer.one_core_taken),
        Row("memory", "peak resident memory of the first row", "MiB", **first, figure="peak_mib", lower=True),
        Row("scaling", "mixture of experts, 2 compute threads beside 1", "tokens/s",
            ours.tokens_a_second(*moe, "device.threads=2"), ours.tokens_a_second(*moe, "device.threads=1"),
            other_name="1 thread"),
        row("order", "mixture of experts, sums in strict order", moe, ours.tokens_a_second_by_arrival(*moe),
            other_name="in order of arrival"),
        row("order", "the same on 2 nodes: 2 replicas, 2 expert shards", (*moe, *spread),
            ours.tokens_a_second_by_arrival(*moe, *spread), other_name="in order of arrival"),
    ]


def other_rows():
    # The shakespeare configuration's sizes; a query's rank is left out there.
    shakespeare = ("--hidden", "128", "--intermediate", "384", "--expert", "96", "--experts", "8", "--kv-rank", "48",
                   "--nope", "32", "--rope", "16", "--value", "32", "--length", "128", "--sequences", "16")
    return [
        Row("hot-expert", "a step with one expert chosen by every token", "ms", ours.routed("hot"), ours.routed("balanced"),
            other_name="balanced", lower=True, ratio=lambda hot, balanced: hot / balanced),
        Row("decode", "greedy decoding, 1 sequence", "tokens/s", ours.decode(1, 256), peer.decode(1, 256)),
        Row("decode", "greedy decoding, 64 sequences", "tokens/s", ours.decode(64, 64), peer.decode(64, 64)),
        Row("rollout", "rollout, 64 sequences of unequal length", "tokens/s", ours.rollout(64), peer.rollout(64, 0.7)),
        Row("rollout", "the same", "tokens/s", ours.rollout(64), ours.rollout(1, "train.batch_sequences=8",
                                                                          "train.microbatches=8", "train.steps=1"),
            other_name="one at a time"),
        Row("cold-start", "command to first step, shakespeare", "ms", ours.first_step("../../configs/shakespeare.toml"),
            peer.first_step(*shakespeare), lower=True),
    ]


def all_rows():
    return training_rows() + other_rows()


def rows_elsewhere():
    """Name to a function of the setting that measures and gives its rows."""
    return {name: importlib.import_module(name).rows for name in ELSEWHERE if (HERE / f"{name}.py").exists()}
