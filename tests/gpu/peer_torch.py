#!/usr/bin/env python3
"""The model of configs/moe_0b85.toml and its training step in PyTorch, as PyTorch does it best: what a run of Troupe on a
GPU is compared with.

Weights that products read are bfloat16 copies of float32 masters; gradients of all microbatches are summed in float32;
AdamW is fused. Tokens go to their experts sorted, none dropped, in grouped products. Which attention and which form of
the grouped product are quickest is tried first. The last line printed is one JSON object.

  peer_torch.py CONFIG [--hardware FILE] [--compile] [--steps N]
  peer_torch.py CONFIG --flops        floating-point operations of a trained token, as `troupe plan` tells them
  peer_torch.py CONFIG --tiny         a few small layers, to see whether it runs; on a processor too
"""
import argparse
import contextlib
import json
import math
import statistics
import time

try:
    import tomllib
except ImportError:  # before Python 3.11
    import tomli as tomllib


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--hardware", help="file with bfloat16_gflops, for MFU")
    parser.add_argument("--steps", type=int, default=4, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0, help="no further step after these; 0: no limit")
    parser.add_argument("--compile", action="store_true", help="each layer and the head through torch.compile")
    parser.add_argument("--flops", action="store_true", help="only the operations of a trained token")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


class Shape:
    """What the configuration says, under short names."""

    def __init__(self, path, tiny):
        with open(path, "rb") as file:
            config = tomllib.load(file)
        m, t = config["model"], config["train"]
        self.vocabulary, self.width, self.layers = m["vocab_size"], m["hidden_size"], m["num_hidden_layers"]
        self.dense, self.dense_layers = m["intermediate_size"], m.get("first_k_dense_replace", 1)
        self.expert, self.experts = m["moe_intermediate_size"], m["n_routed_experts"]
        self.chosen, self.shared = m["num_experts_per_tok"], m.get("n_shared_experts", 1)
        self.heads, self.rank = m["num_attention_heads"], m["kv_lora_rank"]
        self.nope, self.rope, self.value = m["qk_nope_head_dim"], m["qk_rope_head_dim"], m["v_head_dim"]
        self.tied, self.epsilon = m.get("tie_word_embeddings", False), m.get("rms_norm_eps", 1e-6)
        self.theta, self.scaling = m.get("rope_theta", 10000.0), m.get("routed_scaling_factor", 1.0)
        self.length, self.microbatches = t["sequence_length"], t["microbatches"]
        self.sequences = t["batch_sequences"] // t["microbatches"]
        self.rate, self.decay, self.clip = t["learning_rate"], t.get("weight_decay", 0.1), t.get("clip_norm", 1.0)
        self.betas = (t.get("beta1", 0.9), t.get("beta2", 0.95))
        self.adam_epsilon, self.bias_rate = t.get("epsilon", 1e-8), t.get("bias_update_rate", 1e-3)
        if m.get("q_lora_rank", 0) or m.get("num_nextn_predict_layers", 0):
            raise SystemExit(f"{path}: queries of full rank and no multi-token prediction, or this is another model")
        if tiny:
            self.vocabulary, self.width, self.layers, self.dense, self.expert = 256, 64, 3, 128, 32
            self.experts, self.chosen, self.heads, self.rank = 8, 2, 2, 32
            self.nope, self.rope, self.value, self.length = 32, 16, 32, 64
            self.sequences, self.microbatches = 2, 2

    def tokens(self):
        return self.length * self.sequences * self.microbatches

    def flops(self):
        """Of a trained token: 6 x the matrix weights that it touches, and attention without a causal discount."""
        qk = self.nope + self.rope
        attention = self.width * (self.heads * qk + self.rank + self.rope)
        attention += self.rank * self.heads * (self.nope + self.value) + self.heads * self.value * self.width
        sparse = 3 * self.width * self.expert * (self.chosen + self.shared) + self.width * self.experts
        dense = 3 * self.width * self.dense
        weights = self.layers * attention + self.dense_layers * dense + (self.layers - self.dense_layers) * sparse
        weights += self.vocabulary * self.width
        return 6 * weights + 6 * self.layers * self.heads * (qk + self.value) * self.length


args = options()
shape = Shape(args.config, args.tiny)
if args.flops:
    print(json.dumps({"flops_per_token": shape.flops()}))
    raise SystemExit

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

ON_GPU = torch.cuda.is_available()
PLACE = torch.device("cuda" if ON_GPU else "cpu")
HALF = torch.bfloat16
if not ON_GPU and not args.tiny:
    raise SystemExit("no GPU is there; --tiny runs on a processor")


def synchronize():
    if ON_GPU:
        torch.cuda.synchronize()


# ---- Attention ------------------------------------------------------------------------------------------------------

def plain_attention(q, k, v, scale):
    future = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool, device=q.device).triu(1)
    scores = ((q * scale) @ k.transpose(-1, -2)).float().masked_fill(future, -math.inf)
    return F.softmax(scores, dim=-1).type_as(v) @ v


def fused_attention(q, k, v, scale):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


def padded_attention(q, k, v, scale):
    """For kernels that want values as wide as keys."""
    wide = F.pad(v, (0, k.size(-1) - v.size(-1)))
    return F.scaled_dot_product_attention(q, k, wide, is_causal=True, scale=scale)[..., : v.size(-1)]


def attention_forms():
    """Name to a function and the backends that it may use."""
    if not ON_GPU:
        return {"plain": (plain_attention, None)}
    from torch.nn.attention import SDPBackend

    return {"cudnn": (fused_attention, SDPBackend.CUDNN_ATTENTION),
            "efficient": (fused_attention, SDPBackend.EFFICIENT_ATTENTION),
            "flash, values padded": (padded_attention, SDPBackend.FLASH_ATTENTION),
            "cudnn, values padded": (padded_attention, SDPBackend.CUDNN_ATTENTION)}


def backend_of(backend):
    if backend is None:
        return contextlib.nullcontext()
    from torch.nn.attention import sdpa_kernel

    return sdpa_kernel(backend)


def seconds_of(run, repeats=5):
    """The median, behind a run that is not counted."""
    times = []
    for _ in range(repeats + 1):
        synchronize()
        begin = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def choose_attention():
    def tensor(width):
        return torch.randn(shape.sequences, shape.heads, shape.length, width, device=PLACE, dtype=HALF, requires_grad=True)

    q, k, v = tensor(shape.nope + shape.rope), tensor(shape.nope + shape.rope), tensor(shape.value)
    slope = torch.randn(shape.sequences, shape.heads, shape.length, shape.value, device=PLACE, dtype=HALF)
    seconds = {}
    forms = attention_forms()
    for name, (form, backend) in forms.items():
        try:
            with backend_of(backend):
                seconds[name] = seconds_of(lambda form=form: form(q, k, v, q.size(-1) ** -0.5).backward(slope))
        except RuntimeError as problem:
            print(f"attention {name}: {str(problem).splitlines()[0]}", flush=True)
    if not seconds:
        raise SystemExit("no form of attention runs here")
    best = min(seconds, key=seconds.get)
    told = ", ".join(f"{name} {1000 * s:.2f} ms" for name, s in seconds.items())
    print(f"attention, forward and backward of a layer: {told}", flush=True)
    return best, *forms[best]


# ---- Grouped products -----------------------------------------------------------------------------------------------

def looped_products(x, w, counts, ends):
    """x: (rows sorted by expert, K), w: (experts, N, K) -> (rows, N)."""
    return torch.cat([rows @ w[e].t() for e, rows in enumerate(x.split(counts.tolist()))])


# Since PyTorch 2.10, and before under another name.
GROUPED = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def grouped_products(x, w, counts, ends):
    return GROUPED(x, w.transpose(-2, -1), offs=ends)


def try_products(form, rows_of_each):
    """Largest relative error of result and slopes against the loop in float32."""
    counts = torch.tensor(rows_of_each, device=PLACE)
    ends = counts.cumsum(0).to(torch.int32)
    x = torch.randn(int(counts.sum()), shape.width, device=PLACE)
    w = torch.randn(len(rows_of_each), shape.expert, shape.width, device=PLACE) / math.sqrt(shape.width)
    results = []
    for run, dtype in ((looped_products, torch.float32), (form, HALF)):
        a, b = (t.to(HALF).to(dtype).detach().requires_grad_() for t in (x, w))
        y = run(a, b, counts, ends)
        y.backward(torch.ones_like(y))
        results.append([t.float() for t in (y, a.grad, b.grad)])
    return max(float((mine - right).norm() / right.norm()) for right, mine in zip(*results))


def choose_products():
    """The first form that runs and is right, with runs of any length, an empty one too."""
    forms = {"grouped": grouped_products, "loop": looped_products} if ON_GPU else {"loop": looped_products}
    for name, form in forms.items():
        try:
            error = try_products(form, [300, 0, 17, 1, 450, 64, 5, 133])
            if error < 0.02:
                return name, form
            print(f"products {name}: off by {error:.3g}", flush=True)
        except (RuntimeError, AttributeError, TypeError) as problem:
            print(f"products {name}: {str(problem).splitlines()[0]}", flush=True)
    raise SystemExit("no form of the experts' products is right here")


# ---- The model ------------------------------------------------------------------------------------------------------

class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.weight.stays_wide = True

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + shape.epsilon) * self.weight).to(HALF)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotation():
    """cosine and sine of (position, pair)."""
    rates = shape.theta ** (-torch.arange(0, shape.rope, 2).float() / shape.rope)
    angles = torch.outer(torch.arange(shape.length).float(), rates)
    return angles.cos().to(PLACE), angles.sin().to(PLACE)


def rotate(x, cosine, sine):
    """Pairs (2i, 2i + 1) of the last dimension; positions are the one before it."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.q = linear(shape.width, shape.heads * (shape.nope + shape.rope))
        self.kv_a = linear(shape.width, shape.rank + shape.rope)
        self.kv_norm = Norm(shape.rank)
        self.kv_b = linear(shape.rank, shape.heads * (shape.nope + shape.value))
        self.out = linear(shape.heads * shape.value, shape.width)

    def forward(self, x, cosine, sine):
        q, q_rope = self.q(x).unflatten(-1, (shape.heads, -1)).transpose(1, 2).split([shape.nope, shape.rope], -1)
        latent, k_rope = self.kv_a(x).split([shape.rank, shape.rope], -1)
        k, v = self.kv_b(self.kv_norm(latent)).unflatten(-1, (shape.heads, -1)).transpose(1, 2).split(
            [shape.nope, shape.value], -1)
        k_rope = rotate(k_rope.unsqueeze(1), cosine, sine).expand(-1, shape.heads, -1, -1)
        q = torch.cat([q, rotate(q_rope, cosine, sine)], -1)
        k = torch.cat([k, k_rope], -1)
        mixed = self.attend(q, k, v, (shape.nope + shape.rope) ** -0.5)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate_up, self.down = linear(shape.width, 2 * width), linear(width, shape.width)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Experts(nn.Module):
    def __init__(self, products):
        super().__init__()
        self.products = products
        self.router = nn.Parameter(torch.empty(shape.experts, shape.width))
        self.router.stays_wide = True
        self.gate_up = nn.Parameter(torch.empty(shape.experts, 2 * shape.expert, shape.width))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.width, shape.expert))
        self.shared = FeedForward(shape.expert * shape.shared) if shape.shared else None
        self.register_buffer("bias", torch.zeros(shape.experts))
        self.register_buffer("load", torch.zeros(shape.experts))

    def forward(self, x):
        rows = x.flatten(0, -2)
        scores = torch.sigmoid(F.linear(rows.float(), self.router))
        chosen = (scores.detach() + self.bias).topk(shape.chosen, dim=-1).indices
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * shape.scaling
        flat = chosen.flatten()
        counts = torch.zeros(shape.experts, dtype=torch.int64, device=x.device).scatter_add_(0, flat, torch.ones_like(flat))
        self.load += counts
        order = flat.argsort(stable=True)
        ends = counts.cumsum(0).to(torch.int32)
        gate, up = self.products(rows[order // shape.chosen], self.gate_up, counts, ends).chunk(2, -1)
        answers = self.products(F.silu(gate) * up, self.down, counts, ends)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        total = (answers[back].unflatten(0, (-1, shape.chosen)) * weights.unsqueeze(-1)).sum(1)
        if self.shared is not None:
            total = total + self.shared(rows)
        return total.view(x.shape)

    def balance(self):
        self.bias += shape.bias_rate * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Layer(nn.Module):
    """The residual stream is float32, as Troupe's."""

    def __init__(self, number, attend, products):
        super().__init__()
        self.attention_norm, self.norm, self.attention = Norm(shape.width), Norm(shape.width), Attention(attend)
        self.feed_forward = FeedForward(shape.dense) if number < shape.dense_layers else Experts(products)

    def forward(self, x, cosine, sine):
        x = x + self.attention(self.attention_norm(x), cosine, sine)
        return x + self.feed_forward(self.norm(x))


class Model(nn.Module):
    def __init__(self, attend, products):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(number, attend, products) for number in range(shape.layers))
        self.norm = Norm(shape.width)
        self.head = None if shape.tied else linear(shape.width, shape.vocabulary)

    def forward(self, tokens, targets, cosine, sine):
        x = self.embedding(tokens).float()
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.loss(x, targets)

    def loss(self, x, targets):
        head = self.embedding.weight if self.head is None else self.head.weight
        return F.cross_entropy(F.linear(self.norm(x), head).flatten(0, 1).float(), targets.flatten(), reduction="sum")


def build(attend, products):
    """The model on its device; float32 but for what products read."""
    model = Model(attend, products).to(PLACE)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            small = name.endswith(("embedding.weight", "router"))
            nn.init.normal_(weight, std=0.02 if small else 0.5 / math.sqrt(weight.size(-1)))
    return model


class Learner:
    """float32 masters, their gradients summed over microbatches in float32, and a fused AdamW."""

    def __init__(self, model):
        self.model, self.pairs, groups = model, [], ([], [])
        for weight in model.parameters():
            master = nn.Parameter(weight.detach().clone().float())
            master.grad = torch.zeros_like(master)
            if not getattr(weight, "stays_wide", False):
                weight.data = weight.data.to(HALF)
            self.pairs.append((weight, master))
            groups[0 if weight.dim() > 1 else 1].append(master)
            if hasattr(weight, "register_post_accumulate_grad_hook"):
                weight.register_post_accumulate_grad_hook(lambda w, master=master: self.take(w, master))
        self.hooked = hasattr(torch.Tensor, "register_post_accumulate_grad_hook")
        fused = {"fused": True} if ON_GPU else {}
        self.optimizer = torch.optim.AdamW(
            [{"params": groups[0], "weight_decay": shape.decay}, {"params": groups[1], "weight_decay": 0.0}],
            lr=shape.rate, betas=shape.betas, eps=shape.adam_epsilon, **fused)

    def take(self, weight, master):
        master.grad.add_(weight.grad)
        weight.grad = None

    def backward(self, loss):
        loss.backward()
        if not self.hooked:
            for weight, master in self.pairs:
                self.take(weight, master)

    def step(self):
        masters = [master for _, master in self.pairs]
        nn.utils.clip_grad_norm_(masters, shape.clip)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_zero_([master.grad for master in masters])
            for weight, master in self.pairs:
                weight.copy_(master)


def train(model, learner, limits):
    data = torch.randint(shape.vocabulary, (shape.microbatches, shape.sequences, shape.length + 1), device=PLACE)
    cosine, sine = rotation()
    targets_count = shape.microbatches * shape.sequences * shape.length
    seconds, losses, begun = [], [], time.perf_counter()
    for step in range(limits.warm_up + limits.steps):
        synchronize()
        begin = time.perf_counter()
        total = torch.zeros((), device=PLACE)
        for tokens in data:
            loss = model(tokens[:, :-1], tokens[:, 1:], cosine, sine) / targets_count
            learner.backward(loss)
            total += loss.detach()
        learner.step()
        for layer in model.layers:
            if isinstance(layer.feed_forward, Experts):
                layer.feed_forward.balance()
        losses.append(float(total))
        synchronize()
        took = time.perf_counter() - begin
        print(f"step {step}: loss {losses[-1]:.4f}, {took:.3f} s, {shape.tokens() / took:,.0f} tokens/s", flush=True)
        if step >= limits.warm_up:
            seconds.append(took)
        if limits.seconds and seconds and time.perf_counter() - begun > limits.seconds:
            break
    return seconds, losses


def peak_gflops(path):
    if not path:
        return 0.0
    with open(path, "rb") as file:
        return tomllib.load(file)["bfloat16_gflops"]


def main():
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")  # the router's product
    attention, attend, backend = choose_attention()
    products, multiply = choose_products()
    model = build(attend, multiply)
    parameters = sum(weight.numel() for weight in model.parameters())
    learner = Learner(model)
    if args.compile:
        for layer in model.layers:
            layer.compile()
        model.loss = torch.compile(model.loss)
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    with backend_of(backend):
        seconds, losses = train(model, learner, args)
    rate = shape.tokens() / statistics.median(seconds)
    peak = peak_gflops(args.hardware)
    print(json.dumps({
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if ON_GPU else "cpu",
        "compiled": args.compile, "attention": attention, "products": products, "parameters": parameters,
        "flops_per_token": shape.flops(), "tokens_per_second": rate, "step_seconds": seconds,
        "mfu": shape.flops() * rate / (peak * 1e9) if peak else None,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else None, "losses": losses}))


main()
