#!/usr/bin/python3
"""The models of moe.toml and dense.toml in PyTorch, written as its users write them: what ./dev bench compares with.

Prints one JSON line: the time of every step and the peak of resident memory; with --decode N, tokens a second of greedy
decoding with a cache instead; with --check, how wrong the products of this BLAS are.
"""
import argparse
import contextlib
import json
import math
import os
import resource
import time


def options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", help="a file of bytes")
    p.add_argument("--dense", action="store_true", help="no experts, plain attention")
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--intermediate", type=int, default=1024)
    p.add_argument("--expert", type=int, default=256, help="width of an expert")
    p.add_argument("--experts", type=int, default=16)
    p.add_argument("--chosen", type=int, default=2, help="experts that see a token")
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--kv-rank", type=int, default=128, help="of the latent that keys and values are made from")
    p.add_argument("--nope", type=int, default=64, help="width of a head without rotation")
    p.add_argument("--rope", type=int, default=32, help="width of a head with rotation")
    p.add_argument("--value", type=int, default=64, help="width of a head's values")
    p.add_argument("--length", type=int, default=256)
    p.add_argument("--sequences", type=int, default=8)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--seconds", type=float, default=20, help="no further step after these, if there were six")
    p.add_argument("--bfloat16", action="store_true")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--decode", type=int, default=0, help="tokens to generate for each sequence, no training")
    p.add_argument("--check", action="store_true", help="only the products' errors")
    return p.parse_args()


args = options()
os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when torch is loaded
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

KV_RANK, NOPE, ROPE, VALUE = args.kv_rank, args.nope, args.rope, args.value


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).type_as(x) * self.weight


def angles(width):
    rates = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
    table = torch.outer(torch.arange(args.length + args.decode).float(), rates).repeat(1, 2)
    return table.cos(), table.sin()


def rotate(x, table, begin):
    cos, sin = (t[begin : begin + x.size(-2)] for t in table)
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def attend(q, k, v):
    """(batch, heads, tokens, width); the queries are the last of the keys' positions."""
    new, all_ = q.size(-2), k.size(-2)
    if new == 1 and q.size(0) >= 16:  # many matrices with one row each are no work for a BLAS
        scores = (k * (q / math.sqrt(q.size(-1)))).sum(-1, keepdim=True)
        return (F.softmax(scores.float(), dim=-2).type_as(v) * v).sum(-2, keepdim=True).transpose(1, 2).flatten(2)
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.size(-1))
    if new > 1:
        future = torch.ones(new, all_, dtype=torch.bool).triu(1 + all_ - new)
        scores = scores.masked_fill(future, float("-inf"))
    mixed = F.softmax(scores.float(), dim=-1).type_as(v) @ v
    return mixed.transpose(1, 2).flatten(2)


class Cache:
    """Keys and values of a layer, in memory taken once."""

    def __init__(self):
        self.filled = 0

    def add(self, k, v):
        if not self.filled:
            self.k, self.v = (x.new_empty(*x.shape[:2], args.length + args.decode, x.size(-1)) for x in (k, v))
        begin, self.filled = self.filled, self.filled + k.size(-2)
        for whole, new in ((self.k, k), (self.v, v)):
            whole[:, :, begin : self.filled] = new
        return self.k[:, :, : self.filled], self.v[:, :, : self.filled]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = args.hidden // args.heads
        self.q, self.k, self.v, self.out = (linear(args.hidden, args.hidden) for _ in range(4))
        self.table = angles(self.width)

    def forward(self, x, cache):
        q, k, v = (f(x).unflatten(-1, (args.heads, self.width)).transpose(1, 2) for f in (self.q, self.k, self.v))
        begin = cache.filled if cache else 0
        q, k = rotate(q, self.table, begin), rotate(k, self.table, begin)
        if cache:
            k, v = cache.add(k, v)
        return self.out(attend(q, k, v))


class LatentAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = linear(args.hidden, args.heads * (NOPE + ROPE))
        self.kv_a = linear(args.hidden, KV_RANK + ROPE)
        self.kv_norm = Norm(KV_RANK)
        self.kv_b = linear(KV_RANK, args.heads * (NOPE + VALUE))
        self.out = linear(args.heads * VALUE, args.hidden)
        self.table = angles(ROPE)

    def forward(self, x, cache):
        begin = cache.filled if cache else 0
        q_nope, q_rope = self.q(x).unflatten(-1, (args.heads, -1)).transpose(1, 2).split([NOPE, ROPE], -1)
        latent, k_rope = self.kv_a(x).split([KV_RANK, ROPE], -1)
        k_nope, v = self.kv_b(self.kv_norm(latent)).unflatten(-1, (args.heads, -1)).transpose(1, 2).split([NOPE, VALUE], -1)
        k_rope = rotate(k_rope.unsqueeze(1), self.table, begin)
        q = torch.cat([q_nope, rotate(q_rope, self.table, begin).type_as(q_nope)], -1)
        k = torch.cat([k_nope, k_rope.type_as(k_nope).expand(-1, args.heads, -1, -1)], -1)
        if cache:
            k, v = cache.add(k, v)
        return self.out(attend(q, k, v))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate, self.up, self.down = linear(args.hidden, width), linear(args.hidden, width), linear(width, args.hidden)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = linear(args.hidden, args.experts)
        self.experts = nn.ModuleList(FeedForward(args.expert) for _ in range(args.experts))
        self.shared = FeedForward(args.expert)
        self.register_buffer("bias", torch.zeros(args.experts))
        self.register_buffer("load", torch.zeros(args.experts))

    def forward(self, x):
        rows = x.flatten(0, -2)
        scores = torch.sigmoid(F.linear(rows.float(), self.router.weight.float()))
        chosen = (scores.detach() + self.bias).topk(args.chosen, dim=-1).indices
        weights = scores.gather(1, chosen)
        weights = weights / weights.sum(-1, keepdim=True)
        self.load += torch.bincount(chosen.flatten(), minlength=args.experts)
        total = torch.zeros(rows.shape, dtype=torch.float32)
        used = range(args.experts) if len(rows) >= args.experts else sorted(set(chosen.flatten().tolist()))
        for number in used:
            row, place = torch.where(chosen == number)
            if len(row):
                total.index_add_(0, row, self.experts[number](rows[row]).float() * weights[row, place, None])
        return (total.type_as(x) + self.shared(rows)).view_as(x)

    def balance(self):
        self.bias += 1e-3 * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Layer(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.attention_norm, self.norm = Norm(args.hidden), Norm(args.hidden)
        self.attention = Attention() if args.dense else LatentAttention()
        dense = args.dense or number == 0
        self.feed_forward = FeedForward(args.intermediate) if dense else Experts()

    def forward(self, x, cache):
        x = x + self.attention(self.attention_norm(x), cache)
        return x + self.feed_forward(self.norm(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, args.hidden)
        self.layers = nn.ModuleList(Layer(number) for number in range(args.layers))
        self.norm, self.head = Norm(args.hidden), linear(args.hidden, 256)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.5 / math.sqrt(weight.size(1)))

    def forward(self, tokens, caches=None):
        x = self.embedding(tokens)
        for number, layer in enumerate(self.layers):
            x = layer(x, caches[number] if caches else None)
        return self.head(self.norm(x))


def precision():
    return torch.autocast("cpu", dtype=torch.bfloat16) if args.bfloat16 else contextlib.nullcontext()


def train(model, data):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    seconds, first_step_at = [], 0
    for _ in range(args.steps):
        begin = time.perf_counter()
        starts = torch.randint(len(data) - args.length - 1, (args.sequences, 1))
        window = data[starts + torch.arange(args.length + 1)]
        with precision():
            logits = model(window[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for layer in model.layers:
            if isinstance(layer.feed_forward, Experts):
                layer.feed_forward.balance()
        seconds.append(time.perf_counter() - begin)
        first_step_at = first_step_at or time.time()
        if sum(seconds) > args.seconds and len(seconds) >= 6:
            break
    return {"step_seconds": seconds, "first_step_at": first_step_at, "loss": float(loss)}


@torch.no_grad()
def decode(model, data):
    caches = [Cache() for _ in model.layers]
    prompt = data[: args.sequences * args.length].view(args.sequences, args.length)
    token = model(prompt, caches)[:, -1:].argmax(-1)
    begin = time.perf_counter()
    for _ in range(args.decode):
        token = model(token, caches)[:, -1:].argmax(-1)
    return {"tokens_per_second": args.decode * args.sequences / (time.perf_counter() - begin)}


def product_error():
    """The largest error of an element, over what the sizes of its terms add up to; sums without a BLAS are right."""
    worst = 0.0
    for rows, inner, columns in ((1, 256, 512), (17, 300, 130), (256, 512, 256), (2048, 256, 1024)):
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        some = torch.randperm(rows)[:16]
        terms = a[some].double().unsqueeze(2) * b.double()
        right, size = terms.sum(1), terms.abs().sum(1)
        for product in (a @ b, (b.t() @ a.t()).t(), a.t().contiguous().t() @ b, a @ b.t().contiguous().t()):
            error = float(((product[some].double() - right).abs() / size).max())
            worst = max(worst, error if error == error else math.inf)
    return {"error": worst}


def main():
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    if args.check:
        return print(json.dumps(product_error()))
    with open(args.data, "rb") as file:
        data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).long()
    model = Model()
    result = decode(model.eval(), data) if args.decode else train(model, data)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


main()
