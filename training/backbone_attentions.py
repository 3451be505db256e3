"""Attentions of vision backbones, exactly as docs/backbones.md describes them: what the engine's are tested against
and an encoder is trained with. Each takes and gives tokens (B, R, C, W). Parameter names are the names in the files."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from models import gelu


def split(x, heads):
    """(B, R, C, W) or (B, N, W) to (B, H, N, D)."""
    return x.reshape(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


def join(x, shape):
    """(B, H, N, D) to (B, R, C, W)."""
    return x.transpose(1, 2).reshape(shape)


def softmax_attention(q, k, v, scale, bias=0):
    return (scale * q @ k.transpose(-1, -2) + bias).softmax(-1) @ v


def pad(x, step):
    rows, columns = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -columns % step, 0, -rows % step))


def windows(x, side):
    """(B, R, C, W) to (B * windows, side, side, W)."""
    b, rows, columns, width = x.shape
    x = x.reshape(b, rows // side, side, columns // side, side, width).transpose(2, 3)
    return x.reshape(-1, side, side, width)


def unwindows(x, shape):
    b, rows, columns, _ = shape
    side, width = x.shape[1], x.shape[-1]
    x = x.reshape(b, rows // side, columns // side, side, side, width).transpose(2, 3)
    return x.reshape(b, rows, columns, width)


def depthwise(width, size, bias=True):
    return nn.Conv2d(width, width, size, padding=size // 2, groups=width, bias=bias)


def on_grid(layer, x):
    """A convolution of tokens (B, R, C, W)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def pool(x, rows, columns):
    return F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), (rows, columns)).permute(0, 2, 3, 1)


def turn(x, rows, columns):
    """Rotary embedding of features (B, H, N, D): half for rows, half for columns."""
    count = x.shape[-1] // 4
    frequency = 10000.0 ** -torch.linspace(0, 1, count, device=x.device)
    row = torch.arange(rows, device=x.device).repeat_interleave(columns).float()
    column = torch.arange(columns, device=x.device).repeat(rows).float()
    angle = torch.cat((row[:, None] * frequency, column[:, None] * frequency), 1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1).flatten(-2)


class Linear(nn.Module):
    """What MALA and RALA have in common."""

    def __init__(self, width, heads, kernel=5):
        super().__init__()
        self.heads = heads
        self.qkvo = nn.Linear(width, 4 * width)
        self.local = depthwise(width, kernel)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v, gate = self.qkvo(x).chunk(4, -1)
        q, k = F.elu(split(q, self.heads)) + 1, F.elu(split(k, self.heads)) + 1
        o = join(self.attend(q, k, split(v, self.heads), *x.shape[1:3]), x.shape)
        return self.out((o + on_grid(self.local, v)) * gate)


class Mala(Linear):
    def attend(self, q, k, v, rows, columns):
        scale = q.shape[-1] ** -0.5
        z = scale * q @ k.mean(2, keepdim=True).transpose(-1, -2)
        state = scale * turn(k, rows, columns).transpose(-1, -2) @ v / v.shape[2]
        return (1 + 1 / (z + 1e-6)) * (turn(q, rows, columns) @ state) - z * v.mean(2, keepdim=True)


class Rala(Linear):
    def attend(self, q, k, v, rows, columns):
        logits = q.shape[-1] ** -0.5 * k @ q.mean(2, keepdim=True).transpose(-1, -2)
        k = k * logits.softmax(2) * k.shape[2]
        z = 1 / (q @ k.mean(2, keepdim=True).transpose(-1, -2) + 1e-6)
        return turn(q, rows, columns) @ (turn(k, rows, columns).transpose(-1, -2) @ v / v.shape[2]) * z


class Flow(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        q, k = q.sigmoid(), k.sigmoid()

        def flow(a, b, weight=1):  # what a's tokens get of b's
            return a @ (weight * b).sum(2, keepdim=True).transpose(-1, -2)

        incoming, outgoing = 1 / (flow(q, k) + 1e-6), 1 / (flow(k, q) + 1e-6)
        allocation = flow(q, k, outgoing).sigmoid()
        competition = flow(k, q, incoming).clamp(-1, 1).softmax(2) * k.shape[2]
        o = (q * incoming) @ (k.transpose(-1, -2) @ (v * competition)) * allocation
        return self.out(join(o, x.shape))


class HiLo(nn.Module):
    def __init__(self, width, heads, window=2, low_share=0.9):
        super().__init__()
        size = width // heads
        self.window, self.size, self.low_heads = window, size, int(heads * low_share)
        self.high_heads = heads - self.low_heads
        low, high = self.low_heads * size, self.high_heads * size
        if low:
            self.low = nn.ModuleDict({"q": nn.Linear(width, low), "kv": nn.Linear(width, 2 * low),
                                      "out": nn.Linear(low, low)})
        if high:
            self.high = nn.ModuleDict({"qkv": nn.Linear(width, 3 * high), "out": nn.Linear(high, high)})

    def forward(self, x):
        whole, parts = pad(x, self.window), []
        scale = self.size ** -0.5
        if self.high_heads:
            q, k, v = self.high["qkv"](windows(whole, self.window)).chunk(3, -1)
            o = softmax_attention(*(split(part, self.high_heads) for part in (q, k, v)), scale)
            o = unwindows(join(o, q.shape), whole.shape)[:, :x.shape[1], :x.shape[2]]
            parts.append(self.high["out"](o))
        if self.low_heads:
            q = self.low["q"](x)
            means = pool(whole, whole.shape[1] // self.window, whole.shape[2] // self.window)
            k, v = self.low["kv"](means).chunk(2, -1)
            o = softmax_attention(*(split(part, self.low_heads) for part in (q, k, v)), scale)
            parts.append(self.low["out"](join(o, q.shape)))
        return torch.cat(parts, -1)


class BiFormer(nn.Module):
    def __init__(self, width, heads, regions=7, keep=4, kernel=5):
        super().__init__()
        self.heads, self.regions, self.keep = heads, regions, keep
        self.qkv = nn.Linear(width, 3 * width)
        self.local = depthwise(width, kernel)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        whole = pad(x, self.regions)
        b, rows, columns, width = whole.shape
        n = self.regions
        q, k, v = self.qkv(whole).chunk(3, -1)
        local = on_grid(self.local, v)

        def region(t):  # (B, regions, tokens, W)
            t = t.reshape(b, n, rows // n, n, columns // n, width).transpose(2, 3)
            return t.reshape(b, n * n, -1, width)

        q, k, v = region(q), region(k), region(v)
        affinity = q.mean(2) @ k.mean(2).transpose(1, 2)
        chosen = affinity.topk(self.keep, -1).indices  # (B, regions, keep)
        batch = torch.arange(b, device=x.device)[:, None, None]
        k, v = k[batch, chosen].flatten(2, 3), v[batch, chosen].flatten(2, 3)

        def heads(t):
            return t.reshape(*t.shape[:3], self.heads, -1).transpose(2, 3)

        o = softmax_attention(heads(q), heads(k), heads(v), width ** -0.5).transpose(2, 3)
        o = o.reshape(b, n, n, rows // n, columns // n, width).transpose(2, 3).reshape(whole.shape)
        return self.out((o + local)[:, :x.shape[1], :x.shape[2]])


class Relative(nn.Module):
    def __init__(self, span, size):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(span, size) * size ** -0.5)
        self.columns = nn.Parameter(torch.randn(span, size) * size ** -0.5)


class Halo(nn.Module):
    def __init__(self, width, heads, block=8, halo=3):
        super().__init__()
        self.heads, self.block, self.halo = heads, block, halo
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.relative = Relative(2 * (block + 2 * halo) - 1, width // heads)

    def forward(self, x):
        block, halo, side = self.block, self.halo, self.block + 2 * self.halo
        b, rows, columns, width = x.shape
        whole = pad(x, block)
        q = split(windows(self.q(whole), block), self.heads)
        kv = self.kv(x)
        below, right = whole.shape[1] - rows, whole.shape[2] - columns
        kv = F.pad(kv, (0, 0, halo, halo + right, halo, halo + below))
        kv = kv.unfold(1, side, block).unfold(2, side, block)  # (B, down, across, 2 W, side, side)
        kv = kv.permute(0, 1, 2, 4, 5, 3).reshape(-1, side * side, 2 * width)
        k, v = (split(part, self.heads) for part in kv.chunk(2, -1))
        # Entry key - query + side - 1 of the tables, with places of queries in their block.
        key, query = torch.arange(side), torch.arange(block)
        entry = key[None] - query[:, None] + side - 1  # (block, side)
        grid = q.reshape(*q.shape[:2], block, block, -1)
        by_row = torch.einsum("nhyxd,yjd->nhyxj", grid, self.relative.rows[entry])
        by_column = torch.einsum("nhyxd,xjd->nhyxj", grid, self.relative.columns[entry])
        bias = (by_row[..., :, None] + by_column[..., None, :]).reshape(*q.shape[:3], -1)
        o = softmax_attention(q, k, v, q.shape[-1] ** -0.5, bias)
        o = unwindows(join(o, (-1, block, block, width)), whole.shape)
        return self.out(o[:, :rows, :columns])


class Focal(nn.Module):
    def __init__(self, width, heads, levels=3, window=3):
        super().__init__()
        self.input = nn.Linear(width, 2 * width + levels + 1)
        self.levels = nn.ModuleList([depthwise(width, window + 2 * i, bias=False) for i in range(levels)])
        self.modulator, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        width = x.shape[-1]
        q, context, gates = self.input(x).split((width, width, len(self.levels) + 1), -1)
        total = 0
        for i, level in enumerate(self.levels):
            context = gelu(on_grid(level, context))
            total = total + gates[..., i:i + 1] * context
        total = total + gates[..., -1:] * gelu(context.mean((1, 2), keepdim=True))
        return self.out(q * self.modulator(total))


class Cascaded(nn.Module):
    def __init__(self, width, heads, window=7, key_dim=16, kernels=None):
        super().__init__()
        self.window, self.key_dim, size = window, key_dim, width // heads
        kernels = kernels or [5] * heads
        self.qkv = nn.ModuleList([nn.Linear(size, 2 * key_dim + size) for _ in range(heads)])
        self.local = nn.ModuleList([depthwise(key_dim, kernel) for kernel in kernels])
        self.biases = nn.Parameter(torch.zeros(heads, window * window))
        self.out = nn.Linear(width, width)
        place = torch.arange(window * window)
        row, column = place // window, place % window
        distance = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x):
        whole = pad(x, self.window)
        shares = windows(whole, self.window).chunk(len(self.qkv), -1)
        outputs = []
        for i, share in enumerate(shares):
            own = share if i == 0 else outputs[-1] + share
            q, k, v = self.qkv[i](own).split((self.key_dim, self.key_dim, share.shape[-1]), -1)
            q = on_grid(self.local[i], q)
            o = softmax_attention(split(q, 1), split(k, 1), split(v, 1), self.key_dim ** -0.5,
                                  self.biases[i][self.distance])
            outputs.append(join(o, share.shape))
        y = unwindows(torch.cat(outputs, -1), whole.shape)[:, :x.shape[1], :x.shape[2]]
        return self.out(y.relu())


class Tables(nn.Module):
    def __init__(self, heads, small, large):
        super().__init__()
        self.small = nn.Parameter(torch.zeros(heads, 2 * small - 1, 2 * small - 1))
        self.large = nn.Parameter(torch.zeros(heads, 2 * large - 1, 2 * large - 1))


class ContMix(nn.Module):
    def __init__(self, width, heads, kernel=7, small=5, pooled=7):
        super().__init__()
        self.heads, self.sides, self.pooled = heads, (small, kernel), pooled
        self.query, self.key = nn.Linear(width, width // 2), nn.Linear(width, width // 2)
        self.kernels = nn.Linear(pooled * pooled, small * small + kernel * kernel)
        self.relative = Tables(heads, small, kernel)
        self.local = depthwise(width, kernel)
        self.mixed, self.gate, self.out = (nn.Linear(width, width) for _ in range(3))

    def mix(self, logits, v, side, table):
        """Of logits (B, H, N, taps) and values (B, R, C, H, D), windows slid back inside."""
        rows, columns = v.shape[1:3]
        tap = torch.arange(side, device=v.device)

        def places(extent):  # (extent, side)
            here = torch.arange(extent, device=v.device)
            return (here - side // 2).clamp(0, extent - side)[:, None] + tap

        down, across = places(rows), places(columns)
        y = down - torch.arange(rows, device=v.device)[:, None] + side - 1
        x = across - torch.arange(columns, device=v.device)[:, None] + side - 1
        bias = table[:, y[:, None, :, None], x[None, :, None, :]]  # (H, R, C, side, side)
        weights = (logits + bias.reshape(self.heads, rows * columns, -1)).softmax(-1)
        seen = v[:, down[:, None, :, None], across[None, :, None, :]]  # (B, R, C, side, side, H, D)
        seen = seen.flatten(3, 4).flatten(1, 2)  # (B, N, taps, H, D)
        return torch.einsum("bhnt,bnthd->bnhd", weights, seen).reshape(*v.shape[:3], -1)

    def forward(self, x):
        b, rows, columns, width = x.shape
        small, large = self.sides
        q = split(self.query(x), self.heads)
        k = split(self.key(pool(x, self.pooled, self.pooled)), self.heads)
        affinity = (width // self.heads) ** -0.5 * q @ k.transpose(-1, -2)
        logits = self.kernels(affinity).split((small * small, large * large), -1)
        values = x.reshape(b, rows, columns, 2, self.heads, -1)
        mixed = torch.cat((self.mix(logits[0], values[..., 0, :, :], small, self.relative.small),
                           self.mix(logits[1], values[..., 1, :, :], large, self.relative.large)), -1)
        y = self.mixed(mixed) + on_grid(self.local, x)
        return self.out(y * F.silu(self.gate(x)))


class AttentiveProbe(nn.Module):
    """Efficient Probing: (B, N, W) to (B, out)."""

    def __init__(self, width, queries, out):
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.value = nn.Linear(width, out)

    def forward(self, x):
        weights = (self.queries @ x.transpose(1, 2) / math.sqrt(x.shape[-1])).softmax(-1)
        slices = self.value(x).reshape(*x.shape[:2], len(self.queries), -1)
        return torch.einsum("bmn,bnmd->bmd", weights, slices).flatten(1)


ATTENTIONS = {"biformer": BiFormer, "cascaded": Cascaded, "contmix": ContMix, "flow": Flow, "focal": Focal,
              "halo": Halo, "hilo": HiLo, "mala": Mala, "rala": Rala}


def build(config, width, heads):
    """The attention that an entry of a config's "attentions" names: a name, or an object with "name" and options."""
    options = {"name": config} if isinstance(config, str) else dict(config)
    return ATTENTIONS[options.pop("name")](width, heads, **options)
