"""The default models, exactly as docs/model-format.md describes them. Parameter names are the names in the files."""

import contextlib
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

AUTOENCODER_CONFIG = {"type": "autoencoder", "latent_channels": 12}
TEXT_CONFIG = {"type": "text", "vocabulary": 0, "width": 192, "heads": 4, "layers": 2, "length": 32}
DIT_CONFIG = {"type": "dit", "width": 256, "heads": 4, "layers": 8, "hidden": 832, "text_width": 192,
              "latent_channels": 12, "patch": 2, "rope_axes": [16, 24, 24], "rope_theta": 100.0, "window": 7,
              "global_layers": [2, 5, 7], "size": 256}
CLIP_CONFIG = {"frames": 16, "fps": 8, "clip_size": 128, "frame_range": [8, 24],
               "clip_shift": 3}  # more keys once clips are trained
EVALUATOR_CONFIG = {"type": "evaluator", "width": 160, "heads": 5, "layers": 4, "stem": [24, 48, 96, 160],
                    "size": 256, "rope_axes": [0, 16, 16], "rope_theta": 100.0, "objects": 0, "colors": [],
                    "styles": []}

EPS = 1e-6


# ---------------------------------------------------------------- shared parts

def attention(q, k, v, mask=None):
    """Softmax attention of (B, H, N, D) tensors; `mask` is boolean, true where a key is seen."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)
        return (y * self.weight.float()).to(x.dtype)


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def gelu(x):
    return F.gelu(x, approximate="tanh")


def rope_table(rows, columns, axes, theta, frames=1):
    """cos and sin of the rotary angles of `frames` x rows x columns tokens, each (frames * rows * columns, D / 2)."""
    time = torch.arange(frames).repeat_interleave(rows * columns).float()
    row = torch.arange(rows).repeat_interleave(columns).repeat(frames).float()
    column = torch.arange(columns).repeat(frames * rows).float()
    parts = []
    for size, position in zip(axes, (time, row, column)):
        half = size // 2
        if half:
            frequency = theta ** (-torch.arange(half).float() / half)
            parts.append(position[:, None] * frequency[None, :])
    angle = torch.cat(parts, 1)
    return angle.cos(), angle.sin()


def apply_rope(x, cos, sin):
    """Rotates neighbouring pairs of the last dimension of (B, H, N, D)."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def neighborhood_mask(rows, columns, window):
    """Boolean (N, N) mask of NATTEN's clamped rule: near an edge the window moves inwards, it never shrinks."""
    def axis(length):
        size = min(window, length)
        index = torch.arange(length)
        start = (index - size // 2).clamp(0, length - size)
        return (index[None, :] >= start[:, None]) & (index[None, :] < start[:, None] + size)
    vertical, horizontal = axis(rows), axis(columns)
    mask = vertical[:, None, :, None] & horizontal[None, :, None, :]
    return mask.reshape(rows * columns, rows * columns)


def split_heads(x, parts, heads):
    """(B, N, parts * W) to `parts` tensors (B, H, N, D)."""
    batch, count, _ = x.shape
    return x.reshape(batch, count, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x):
    return x.transpose(1, 2).flatten(2)


# ---------------------------------------------------------------- autoencoder (TAESD family)

def conv3(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Block(nn.Module):
    def __init__(self, width, pool=False):
        super().__init__()
        self.conv = nn.Sequential(conv3(width, width), nn.ReLU(), conv3(width, width), nn.ReLU(), conv3(width, width))
        if pool:
            self.pool = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(4, width, eps=1e-5),
                                      nn.ReLU(), nn.Conv2d(width, width, 1, bias=False))
        else:
            self.pool = None

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def make_encoder(channels, width=64):
    down = lambda: conv3(width, width, stride=2, bias=False)
    return nn.Sequential(
        conv3(3, width), Block(width), down(), Block(width), Block(width), Block(width),
        down(), Block(width), Block(width), Block(width), down(),
        Block(width, True), Block(width, True), Block(width, True), conv3(width, channels))


def make_decoder(channels, width=64):
    up = lambda: nn.Upsample(scale_factor=2, mode="nearest")
    plain = lambda: conv3(width, width, bias=False)
    return nn.Sequential(
        Clamp(), conv3(channels, width), nn.ReLU(), Block(width, True), Block(width, True), Block(width, True),
        up(), plain(), Block(width), Block(width), Block(width), up(), plain(), Block(width), Block(width),
        Block(width), up(), plain(), Block(width), conv3(width, 3))


class Autoencoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels = config["latent_channels"]
        self.encoder = make_encoder(channels)
        self.decoder = make_decoder(channels)
        # Statistics of the latents; they go into the file's config, not among its tensors.
        self.register_buffer("latent_mean", torch.tensor(config.get("latent_mean", [0.0] * channels)))
        self.register_buffer("latent_std", torch.tensor(config.get("latent_std", [1.0] * channels)))

    def normalise(self, latent):
        return (latent - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def denormalise(self, z):
        return z * self.latent_std[:, None, None] + self.latent_mean[:, None, None]


# ---------------------------------------------------------------- text encoder

class TextBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = split_heads(self.qkv(self.norm1(x)), 3, self.heads)
        x = x + self.out(merge_heads(attention(q, k, v)))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class TextEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config["width"]
        self.token = nn.Embedding(config["vocabulary"], width)
        self.position = nn.Embedding(config["length"], width)
        self.blocks = nn.ModuleList([TextBlock(width, config["heads"]) for _ in range(config["layers"])])
        self.norm = nn.LayerNorm(width, eps=EPS)
        # Positions as loud as words: with a fifth of it the encoder treated captions as bags of words, and which of two
        # objects a relation puts where never reached its states.
        nn.init.normal_(self.token.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.5)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


# ---------------------------------------------------------------- diffusion transformer

class DitBlock(nn.Module):
    def __init__(self, width, heads, hidden, text_width):
        super().__init__()
        self.heads = heads
        size = width // heads
        self.table = nn.Parameter(torch.zeros(6, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = RMSNorm(size), RMSNorm(size)
        self.out = nn.Linear(width, width)
        self.cross_norm = RMSNorm(width)
        self.cross_q = nn.Linear(width, width)
        self.cross_kv = nn.Linear(text_width, 2 * width)
        self.cross_q_norm, self.cross_k_norm = RMSNorm(size), RMSNorm(size)
        self.cross_out = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x, text, m, cos, sin, mask):
        # m is (B, 6, W).
        shift1, scale1, gate1, shift2, scale2, gate2 = [t[:, None] for t in (m + self.table).unbind(1)]
        h = layer_norm(x) * (1 + scale1) + shift1
        q, k, v = split_heads(self.qkv(h), 3, self.heads)
        q, k = apply_rope(self.q_norm(q), cos, sin), apply_rope(self.k_norm(k), cos, sin)
        x = x + gate1 * self.out(merge_heads(attention(q.to(v.dtype), k.to(v.dtype), v, mask)))
        (q,) = split_heads(self.cross_q(self.cross_norm(x)), 1, self.heads)
        k, v = split_heads(self.cross_kv(text), 2, self.heads)
        q, k = self.cross_q_norm(q), self.cross_k_norm(k)
        x = x + self.cross_out(merge_heads(attention(q.to(v.dtype), k.to(v.dtype), v)))
        h = layer_norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.fc2(gelu(self.fc1(h)))


class FinalLayer(nn.Linear):
    """Linear layer with the table of its shift and scale beside it (`dit.final.table`)."""

    def __init__(self, width, outputs):
        super().__init__(width, outputs)
        self.table = nn.Parameter(torch.zeros(2, width))


class TimeMlp(nn.Module):
    def __init__(self, inputs, width):
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x):
        return self.fc2(F.silu(self.fc1(x)))


def time_features(t, count=128):
    frequency = torch.exp(-math.log(10000.0) * torch.arange(count, device=t.device).float() / count)
    angle = 1000.0 * t.float()[:, None] * frequency[None, :]
    return torch.cat((angle.cos(), angle.sin()), 1)


class Dit(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width, patch = config["width"], config["latent_channels"] * config["patch"] ** 2
        self.patch = nn.Linear(patch, width)
        self.time = TimeMlp(256, width)
        self.pool = nn.Linear(config["text_width"], width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList([DitBlock(width, config["heads"], config["hidden"], config["text_width"])
                                     for _ in range(config["layers"])])
        self.final = FinalLayer(width, patch)
        self._grids, self._block = {}, None
        # Gates and the output start at zero, so that the network starts as the identity.
        for tensor in (self.modulation.weight, self.modulation.bias, self.final.weight, self.final.bias):
            nn.init.zeros_(tensor)
        for block in self.blocks:
            nn.init.zeros_(block.cross_out.weight)
            nn.init.zeros_(block.cross_out.bias)

    def grid(self, frames, rows, columns, device):
        """Rotary tables and, for a single frame, neighborhood mask of a grid of tokens, kept between calls."""
        key = (frames, rows, columns)
        if key not in self._grids or self._grids[key][0].device != device:
            cos, sin = rope_table(rows, columns, self.config["rope_axes"], self.config["rope_theta"], frames)
            mask = neighborhood_mask(rows, columns, self.config["window"]).to(device) if frames == 1 else None
            self._grids[key] = (cos.to(device), sin.to(device), mask)
        return self._grids[key]

    def compile_blocks(self):
        """Runs blocks through torch.compile from now on: one program for all layers, one more for each shape."""
        from torch._dynamo import config as dynamo  # not in versions without torch.compile
        for name, value in (("inline_inbuilt_nn_modules", True), ("cache_size_limit", 64), ("recompile_limit", 64)):
            if hasattr(dynamo, name):
                setattr(dynamo, name, value)
        self._block = torch.compile(DitBlock.forward, dynamic=False)

    def drop_compiled(self):
        self._block = None

    @contextlib.contextmanager
    def plain_blocks(self):
        """Without torch.compile, for shapes that are seen once."""
        kept, self._block = self._block, None
        yield
        self._block = kept

    def patchify(self, z):
        batch, channels, height, width = z.shape
        x = z.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch, (height // 2) * (width // 2), channels * 4)

    def unpatchify(self, x, height, width):
        batch = x.shape[0]
        x = x.reshape(batch, height // 2, width // 2, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(batch, -1, height, width)

    def condition(self, t, text):
        c = self.time(time_features(t)) + self.pool(text.mean(1))
        m = self.modulation(F.silu(c)).reshape(c.shape[0], 6, -1)
        return c, m

    def forward(self, z, t, text, record=None):
        """Velocity for latents z at times t (B): pictures (B, C, h, w), or clips (B, T, h, w, C) and then in that shape.

        `record`, a list, collects the state after each block.
        """
        if z.dim() == 5:
            batch, frames = z.shape[:2]
            pictures = z.permute(0, 1, 4, 2, 3).flatten(0, 1)
        else:
            batch, frames, pictures = z.shape[0], 1, z
        height, width = pictures.shape[-2:]
        cos, sin, mask = self.grid(frames, height // 2, width // 2, z.device)
        c, m = self.condition(t, text)
        x = self.patch(self.patchify(pictures).reshape(batch, frames * (height // 2) * (width // 2), -1))
        for index, block in enumerate(self.blocks):
            seen = None if index in self.config["global_layers"] else mask
            x = self._block(block, x, text, m, cos, sin, seen) if self._block else block(x, text, m, cos, sin, seen)
            if record is not None:
                record.append(x)
        shift, scale = (self.final.table + c[:, None]).unbind(1)
        x = self.final(layer_norm(x) * (1 + scale[:, None]) + shift[:, None])
        if z.dim() == 4:
            return self.unpatchify(x, height, width)
        x = self.unpatchify(x.unflatten(1, (frames, -1)).flatten(0, 1), height, width)
        return x.unflatten(0, (batch, frames)).permute(0, 1, 3, 4, 2)


# ---------------------------------------------------------------- evaluator

class EvaluatorBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x, cos, sin):
        q, k, v = split_heads(self.qkv(self.norm1(x)), 3, self.heads)
        q, k = apply_rope(self.q_norm(q), cos, sin), apply_rope(self.k_norm(k), cos, sin)
        x = x + self.out(merge_heads(attention(q.to(v.dtype), k.to(v.dtype), v)))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class Evaluator(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width, sizes = config["width"], [3] + list(config["stem"])
        self.stem = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(sizes, sizes[1:])])
        self.blocks = nn.ModuleList([EvaluatorBlock(width, config["heads"]) for _ in range(config["layers"])])
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.objects = nn.Linear(width, config["objects"] + 1)
        self.color = nn.Linear(width, len(config["colors"]))
        self.style = nn.Linear(width, len(config["styles"]))
        self._grids = {}

    def grid(self, rows, columns, device):
        key = (rows, columns)
        if key not in self._grids or self._grids[key][0].device != device:
            cos, sin = rope_table(rows, columns, self.config["rope_axes"], self.config["rope_theta"])
            self._grids[key] = (cos.to(device), sin.to(device))
        return self._grids[key]

    def forward(self, picture):
        """Token logits (B, N, K + 1), colour logits and style logits of RGB pictures in [0, 1] of the config's size."""
        x = picture * 2 - 1
        for index, convolution in enumerate(self.stem):
            x = convolution(x)
            if index + 1 < len(self.stem):
                x = F.relu(x)
        cos, sin = self.grid(x.shape[-2], x.shape[-1], x.device)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.norm(x)
        mean = x.mean(1)
        return self.objects(x), self.color(mean), self.style(mean)


def parameter_count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def file_tensors(model, prefix, dtype=torch.float16):
    """The model's parameters under the names of the file, as `dtype`."""
    return {prefix + name: tensor.detach().to(dtype) for name, tensor in model.named_parameters()}
