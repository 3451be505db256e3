"""The blocks of `fovea bench model` in PyTorch: the same computation from the same sizes, as a
compiled program would write it (fused projections and concatenation where the models have them,
scaled_dot_product_attention). Weights are random, only times are compared. apps/bench/blocks.h says
which models these are.

A block is a function of a dictionary of weights and of its inputs, so that torch.compile sees one
function whatever the weights.
"""

import math

import torch
import torch.nn.functional as F

TIME_FEATURES, LATENT_CHANNELS, PATCH = 256, 4, 2


def linear(w, name, x):
    return F.linear(x, w[name], w.get(name + ".bias"))


def modulated(x, m, first):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + m[first + 1]) + m[first]


def modulation(w, name, condition, parts):
    return linear(w, name, F.silu(condition)).view(parts, -1)


def rms(x, weight):
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def rope(x, turns):
    """Pairs of neighbours of x (1, heads, tokens, head_dim) by turns (tokens, head_dim / 2, 2)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = turns.unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(2)


def attend(q, k, v):
    return merge(F.scaled_dot_product_attention(q, k, v))


def mlp(w, of, x, m):
    hidden = F.gelu(linear(w, of + "fc1", modulated(x, m, 3)), approximate="tanh")
    return x + m[5] * linear(w, of + "fc2", hidden)


def dit(w, heads, x, condition):
    m = modulation(w, "modulation", condition, 6)
    q, k, v = (split(part, heads) for part in
               linear(w, "qkv", modulated(x, m, 0)).chunk(3, dim=-1))
    return mlp(w, "", x + m[2] * linear(w, "out", attend(q, k, v)), m)


def wan(w, heads, x, text, condition):
    m = condition + w["modulation"]
    h = modulated(x, m, 0)
    q = rope(split(rms(linear(w, "q", h), w["q_norm"]), heads), w["turns"])
    k = rope(split(rms(linear(w, "k", h), w["k_norm"]), heads), w["turns"])
    x = x + m[2] * linear(w, "out", attend(q, k, split(linear(w, "v", h), heads)))
    h = F.layer_norm(x, x.shape[-1:], w["cross_norm"], w["cross_norm_bias"], eps=1e-6)
    q = split(rms(linear(w, "cross_q", h), w["cross_q_norm"]), heads)
    k = split(rms(linear(w, "cross_k", text), w["cross_k_norm"]), heads)
    o = attend(q, k, split(linear(w, "cross_v", text), heads))
    return mlp(w, "", x + linear(w, "cross_out", o), m)


def double(w, heads, x, text, condition):
    m = modulation(w, "modulation", condition, 6)
    text_m = modulation(w, "text_modulation", condition, 6)

    def normed(of, tokens, by):
        q, k, v = (split(part, heads) for part in
                   linear(w, of + "qkv", modulated(tokens, by, 0)).chunk(3, dim=-1))
        return rms(q, w[of + "q_norm"]), rms(k, w[of + "k_norm"]), v

    q, k, v = (torch.cat(pair, dim=2)
               for pair in zip(normed("", x, m), normed("text_", text, text_m)))
    o = attend(rope(q, w["turns"]), rope(k, w["turns"]), v)
    image = x.shape[1]
    x = x + m[2] * linear(w, "out", o[:, :image])
    text = text + text_m[2] * linear(w, "text_out", o[:, image:])
    return mlp(w, "", x, m), mlp(w, "text_", text, text_m)


def single(w, heads, x, condition):
    m = modulation(w, "modulation", condition, 3)
    width = x.shape[-1]
    parts = linear(w, "in", modulated(x, m, 0))
    q, k, v = (split(part, heads) for part in parts[..., :3 * width].chunk(3, dim=-1))
    o = attend(rope(rms(q, w["q_norm"]), w["turns"]), rope(rms(k, w["k_norm"]), w["turns"]), v)
    hidden = F.gelu(parts[..., 3 * width:], approximate="tanh")
    return x + m[2] * linear(w, "out", torch.cat((o, hidden), dim=-1))


def denoiser(ends, blocks, heads, latent, time, label):
    """latent (1, 4, height, width), as DiT has it."""
    condition = linear(ends, "time2", F.silu(linear(ends, "time1", time))) + label
    patches = F.pixel_unshuffle(latent, PATCH).flatten(2).transpose(1, 2)
    x = linear(ends, "patch", patches) + ends["positions"]
    for w in blocks:
        x = dit(w, heads, x, condition)
    m = modulation(ends, "final_modulation", condition, 2)
    x = linear(ends, "final", modulated(x, m, 0)).transpose(1, 2)
    rows, columns = latent.shape[2] // PATCH, latent.shape[3] // PATCH
    return F.pixel_shuffle(x.unflatten(2, (rows, columns)), PATCH)


class Random:
    def __init__(self, dtype):
        self.dtype = dtype

    def tensor(self, *shape):
        return torch.randn(shape, device="cuda", dtype=self.dtype)

    def layer(self, w, name, width_in, width_out):
        w[name] = self.tensor(width_out, width_in) / math.sqrt(width_in)
        w[name + ".bias"] = 0.1 * self.tensor(width_out)

    def norms(self, w, names, n):
        for name in names:
            w[name] = 1 + 0.1 * self.tensor(n)


def turns_of(model):
    """(tokens, head_dim / 2, 2) of the grid, then of text, which stands at position 0."""
    grid = [1] * (3 - len(model["grid"])) + model["grid"]
    positions = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid),
                               indexing="ij")
    angles = []
    for position, n in zip(positions, model["rope_axes"]):
        pairs = torch.arange(n // 2, dtype=torch.float64)
        angles.append(position.reshape(-1, 1) * model["rope_theta"] ** (-pairs / (n / 2)))
    angles = torch.cat(angles, dim=1)
    if model["kind"] != "wan":
        angles = torch.cat((angles, torch.zeros(model["text"], angles.shape[1])), dim=0)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).float().cuda()


def random_block(random, model):
    kind, hidden, head_dim = model["kind"], model["hidden"], model["head_dim"]
    width = model["heads"] * head_dim
    w = {}
    if kind == "single":
        random.layer(w, "modulation", width, 3 * width)
        random.layer(w, "in", width, 3 * width + hidden)
        random.layer(w, "out", width + hidden, width)
        random.norms(w, ("q_norm", "k_norm"), head_dim)
    for of in {"dit": ("",), "wan": ("",), "double": ("", "text_")}.get(kind, ()):
        random.layer(w, of + "fc1", width, hidden)
        random.layer(w, of + "fc2", hidden, width)
        random.layer(w, of + "out", width, width)
        if kind != "wan":
            random.layer(w, of + "modulation", width, 6 * width)
            random.layer(w, of + "qkv", width, 3 * width)
        if kind == "double":
            random.norms(w, (of + "q_norm", of + "k_norm"), head_dim)
    if kind == "wan":
        w["modulation"] = random.tensor(6, width)
        for name in ("q", "k", "v", "cross_q", "cross_k", "cross_v", "cross_out"):
            random.layer(w, name, width, width)
        random.norms(w, ("q_norm", "k_norm", "cross_q_norm", "cross_k_norm", "cross_norm"), width)
        w["cross_norm_bias"] = 0.1 * random.tensor(width)
    if kind != "dit":
        w["turns"] = turns_of(model)
    return w


def case_of(model, dtype):
    """(function, arguments) of one set of random weights and inputs."""
    random = Random(dtype)
    heads, width = model["heads"], model["heads"] * model["head_dim"]
    tokens = math.prod(model["grid"])
    if model["layers"] > 0:
        ends = {"positions": random.tensor(1, tokens, width)}
        random.layer(ends, "time1", TIME_FEATURES, width)
        random.layer(ends, "time2", width, width)
        random.layer(ends, "patch", LATENT_CHANNELS * PATCH ** 2, width)
        random.layer(ends, "final_modulation", width, 2 * width)
        random.layer(ends, "final", width, 2 * LATENT_CHANNELS * PATCH ** 2)
        blocks = [random_block(random, model) for _ in range(model["layers"])]
        latent = random.tensor(1, LATENT_CHANNELS, *(PATCH * n for n in model["grid"]))
        return denoiser, (ends, blocks, heads, latent, random.tensor(1, TIME_FEATURES),
                          random.tensor(1, width))
    w = random_block(random, model)
    image, text = random.tensor(1, tokens, width), random.tensor(1, model["text"], width)
    condition = random.tensor(6 if model["kind"] == "wan" else 1, width)
    if model["kind"] == "dit":
        return dit, (w, heads, image, condition)
    if model["kind"] == "single":
        return single, (w, heads, torch.cat((image, text), dim=1), condition)
    return {"wan": wan, "double": double}[model["kind"]], (w, heads, image, text, condition)
