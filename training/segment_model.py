"""The promptable segmentation model, exactly as docs/model-format.md describes it.

An encoder of pictures, run once for a picture, and a small decoder, run for every prompt. Shapes: B pictures or
prompts, N = rows x columns tokens of 8 x 8 pixels, W width.
"""

import contextlib
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import backbone_attentions
from models import EPS, RMSNorm, apply_rope, attention, gelu, merge_heads, neighborhood_mask, rope_table, split_heads

SEGMENT_CONFIG = {"type": "segment", "size": 256, "width": 160, "heads": 5, "layers": 8, "hidden": 368,
                  "stem": [24, 48], "window": 7, "global_layers": [2, 5, 7], "rope_axes": [0, 16, 16],
                  "rope_theta": 100.0, "text_width": 192, "match_width": 96, "decoder_layers": 2, "decoder_width": 80,
                  "decoder_hidden": 320, "memory_layers": 2, "memory_hidden": 160, "upscale": [48, 24], "masks": 4}
TILE, SPAN = 8, 16  # queries of a side of a tile, and keys of a side of what such a tile sees
POSITIVE, NEGATIVE, CORNER_FIRST, CORNER_LAST = range(4)  # rows of `prompt.types`
FIRST, RECENT = range(2)  # rows of `prompt.memory`


def layer_norm(width):
    return nn.LayerNorm(width, eps=EPS)


def positions(points, width):
    """Sines and cosines (..., W) of points (..., 2) = (x, y) in [0, 1]; W / 4 frequencies of 1/4 to 64 periods."""
    count = width // 4
    frequency = 0.25 * 2.0 ** (8.0 * torch.arange(count, device=points.device).float() / (count - 1))
    angle = 2 * math.pi * points.float()[..., None] * frequency  # (..., 2, W / 4)
    return torch.cat((angle.sin(), angle.cos()), -1).flatten(-2)


def grid_positions(rows, columns, width, device):
    """positions() of the centres of tokens, (N, W)."""
    y = (torch.arange(rows, device=device).float() + 0.5) / rows
    x = (torch.arange(columns, device=device).float() + 0.5) / columns
    points = torch.stack((x[None].expand(rows, columns), y[:, None].expand(rows, columns)), -1)
    return positions(points.flatten(0, 1), width)


def starts(length):
    return [min(max(begin - (SPAN - TILE) // 2, 0), length - SPAN) for begin in range(0, length, TILE)]


def tile_mask(rows, columns, window):
    """neighborhood_mask() of tiles of queries and what they see: (tiles, TILE^2, SPAN^2)."""
    full = neighborhood_mask(rows, columns, window).reshape(rows, columns, rows, columns)
    parts = []
    for i, y in enumerate(starts(rows)):
        for j, x in enumerate(starts(columns)):
            part = full[TILE * i:TILE * (i + 1), TILE * j:TILE * (j + 1), y:y + SPAN, x:x + SPAN]
            parts.append(part.reshape(TILE * TILE, SPAN * SPAN))
    return torch.stack(parts)


def neighborhood_attention(q, k, v, rows, columns, mask):
    """Attention of (B, H, N, D) where mask (H * tiles, TILE^2, SPAN^2) is; the same as with neighborhood_mask()."""
    batch, heads, _, size = q.shape
    down, across = rows // TILE, columns // TILE

    def windows(x):
        x = x.reshape(batch, heads, rows, columns, size)
        x = torch.stack([x[:, :, y:y + SPAN] for y in starts(rows)], 2)
        x = torch.stack([x[:, :, :, :, c:c + SPAN] for c in starts(columns)], 3)
        return x.reshape(batch, heads * down * across, SPAN * SPAN, size)

    q = q.reshape(batch, heads, down, TILE, across, TILE, size).transpose(3, 4)
    q = q.reshape(batch, heads * down * across, TILE * TILE, size)
    o = attention(q, windows(k), windows(v), mask[None])
    o = o.reshape(batch, heads, down, across, TILE, TILE, size).transpose(3, 4)
    return o.reshape(batch, heads, rows * columns, size)


class Block(nn.Module):
    """With attention of its own, dense or where its mask is, or the one that `chosen` names."""

    def __init__(self, width, heads, hidden, chosen=None):
        super().__init__()
        self.heads = heads
        self.norm1 = layer_norm(width)
        if chosen is None:
            self.qkv = nn.Linear(width, 3 * width)
            self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
            self.out = nn.Linear(width, width)
        else:
            self.attention = backbone_attentions.build(chosen, width, heads)
        self.norm2 = layer_norm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def attend(self, h, cos, sin, shape, mask, tiled):
        q, k, v = split_heads(self.qkv(h), 3, self.heads)
        q, k = apply_rope(self.q_norm(q), cos, sin).to(v.dtype), apply_rope(self.k_norm(k), cos, sin).to(v.dtype)
        o = neighborhood_attention(q, k, v, *shape, mask) if tiled else attention(q, k, v, mask)
        return self.out(merge_heads(o))

    def forward(self, x, cos, sin, shape, mask, tiled):
        h = self.norm1(x)
        if hasattr(self, "attention"):
            x = x + self.attention(h.unflatten(1, shape)).flatten(1, 2)
        else:
            x = x + self.attend(h, cos, sin, shape, mask, tiled)
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class Attention(nn.Module):
    """Attention between two sets of tokens, in `inner` dimensions."""

    def __init__(self, width, inner, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, q, k, v, seen=None):
        (q,) = split_heads(self.q(q), 1, self.heads)
        (k,) = split_heads(self.k(k), 1, self.heads)
        (v,) = split_heads(self.v(v), 1, self.heads)
        if seen is None:
            return self.out(merge_heads(attention(q, k, v)))
        # Few keys: written out, since the fused kernels do not take masks of such widths.
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~seen[:, None, None, :], float("-inf"))
        return self.out(merge_heads(scores.softmax(-1).to(v.dtype) @ v))


class TwoWay(nn.Module):
    """Tokens among themselves, tokens to picture, tokens alone, picture to tokens."""

    def __init__(self, width, inner, heads, hidden):
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm4 = (layer_norm(width) for _ in range(4))
        self.picture_norm1, self.picture_norm2 = layer_norm(width), layer_norm(width)
        self.self_attention = Attention(width, width, heads)
        self.to_picture = Attention(width, inner, heads)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.to_tokens = Attention(width, inner, heads)

    def forward(self, t, x, t0, place, seen):
        h = self.norm1(t)
        t = t + self.self_attention(h + t0, h + t0, h, seen)
        y = self.picture_norm1(x)
        t = t + self.to_picture(self.norm2(t) + t0, y + place, y)
        t = t + self.fc2(gelu(self.fc1(self.norm3(t))))
        h = self.norm4(t)
        x = x + self.to_tokens(self.picture_norm2(x) + place, h + t0, h, seen)
        return t, x


class Memory(nn.Module):
    """What a frame's tokens take from earlier frames and their masks."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1 = layer_norm(width)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.norm2 = layer_norm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, m, cos, sin):
        (q,) = split_heads(self.q(self.norm1(x)), 1, self.heads)
        k, v = split_heads(self.kv(m), 2, self.heads)
        frames = m.shape[1] // x.shape[1]
        q = apply_rope(self.q_norm(q), cos, sin).to(v.dtype)
        k = apply_rope(self.k_norm(k), cos.repeat(frames, 1), sin.repeat(frames, 1)).to(v.dtype)
        x = x + self.out(merge_heads(attention(q, k, v)))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class Mlp(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(x)))


class Match(nn.Module):
    """Where tokens and texts meet."""

    def __init__(self, width, text_width, inner):
        super().__init__()
        self.picture, self.text = nn.Linear(width, inner), nn.Linear(text_width, inner)


class Prompt(nn.Module):
    """Embeddings of points' types, of the decoder's own tokens (scores, then masks) and of what else is given."""

    def __init__(self, width, masks):
        super().__init__()
        self.types = nn.Parameter(0.5 * torch.randn(4, width))
        self.outputs = nn.Parameter(0.5 * torch.randn(1 + masks, width))
        self.matched = nn.Parameter(0.1 * torch.randn(width))
        self.no_mask = nn.Parameter(torch.zeros(width))
        self.memory = nn.Parameter(torch.zeros(2, width))


def unpatch(x, rows, columns):
    """(B, rows * columns, 4 C) to (B, 2 rows * 2 columns, C): element c * 4 + dy * 2 + dx of each token."""
    batch = x.shape[0]
    x = x.reshape(batch, rows, columns, -1, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 4 * rows * columns, -1)


def spread(x, shared):
    """x (B, N, C) plus `shared` (F, N, C), each of whose entries goes to B / F entries of x."""
    return (x.reshape(len(shared), -1, *x.shape[1:]) + shared[:, None].to(x.dtype)).flatten(0, 1)


class Segmenter(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width, heads, (fine, middle), masks = config["width"], config["heads"], config["stem"], config["masks"]
        conv = lambda a, b, stride: nn.Conv2d(a, b, 3, stride=stride, padding=1)
        self.stem = nn.ModuleList([conv(3, fine, 2), conv(fine, fine, 1), conv(fine, middle, 2),
                                   conv(middle, middle, 1), conv(middle, width, 2)])
        chosen = config.get("attentions") or [None] * config["layers"]
        self.blocks = nn.ModuleList([Block(width, heads, config["hidden"], entry) for entry in chosen])
        self.norm = layer_norm(width)

        self.text = Mlp(config["text_width"], width, width)
        self.match = Match(width, config["text_width"], config["match_width"])
        self.mask = Mlp(16, width // 2, width)  # of 4 x 4 values of a mask given with the prompt
        self.prompt = Prompt(width, masks)
        self.memory_mask = Mlp(16, width // 2, width)
        self.memory = nn.ModuleList([Memory(width, heads, config["memory_hidden"])
                                     for _ in range(config["memory_layers"])])
        self.decoder = nn.ModuleList([TwoWay(width, config["decoder_width"], heads, config["decoder_hidden"])
                                      for _ in range(config["decoder_layers"])])
        self.last_norm, self.picture_norm, self.out_norm = (layer_norm(width) for _ in range(3))
        self.last = Attention(width, config["decoder_width"], heads)
        first, second = config["upscale"]
        self.up1, self.up2 = nn.Linear(width, 4 * first), nn.Linear(first, 4 * second)
        self.skip1, self.skip2 = nn.Linear(middle, first), nn.Linear(fine, second)
        self.refine = nn.Conv2d(second, second, 3, padding=1)
        self.hyper = nn.ModuleList([Mlp(width, width // 2, second) for _ in range(masks)])
        self.score = Mlp(width, width, masks + 1)
        self._grids, self._block, self._decode = {}, None, None

    def grid(self, rows, columns, device):
        """Rotary tables, the neighborhood's mask, whether that is of tiles, and positions of tokens."""
        key = (rows, columns)
        if key not in self._grids or self._grids[key][0].device != device:
            config = self.config
            cos, sin = rope_table(rows, columns, config["rope_axes"], config["rope_theta"])
            whole = rows % TILE == 0 and columns % TILE == 0 and min(rows, columns) >= SPAN
            tiled = config["window"] <= SPAN - TILE and whole
            if tiled:
                mask = tile_mask(rows, columns, config["window"]).repeat(config["heads"], 1, 1)
            else:
                mask = neighborhood_mask(rows, columns, config["window"])
            self._grids[key] = (cos.to(device), sin.to(device), mask.to(device), tiled,
                                grid_positions(rows, columns, config["width"], device))
        return self._grids[key]

    def compile_parts(self):
        """Runs the encoder's blocks and the decoder through torch.compile from now on."""
        from torch._dynamo import config as dynamo  # not in versions without torch.compile
        for name, value in (("inline_inbuilt_nn_modules", True), ("cache_size_limit", 64), ("recompile_limit", 64)):
            if hasattr(dynamo, name):
                setattr(dynamo, name, value)
        self._block = torch.compile(Block.forward, dynamic=False)
        self._decode = torch.compile(Segmenter.decode_at, dynamic=False)

    def drop_compiled(self):
        self._block = self._decode = None

    @contextlib.contextmanager
    def plain_decoder(self):
        """Without the compiled decoder, for shapes that are a small part of the work."""
        kept, self._decode = self._decode, None
        yield
        self._decode = kept

    def encode(self, picture, record=None):
        """Features of RGB pictures (B, 3, H, W) in [0, 1]: tokens (B, N, W) and the stem's (B, C, H / 4, W / 4), (B, C,
        H / 2, W / 2), all of them flattened to tokens. `record`, a list, collects the state after each block."""
        skips, x = [], picture * 2 - 1
        for index, convolution in enumerate(self.stem):
            x = convolution(x)
            if index + 1 < len(self.stem):
                x = gelu(x)
            if index % 2:
                skips.append(x.flatten(2).transpose(1, 2))
        rows, columns = x.shape[-2:]
        cos, sin, mask, tiled, _ = self.grid(rows, columns, x.device)
        x = x.flatten(2).transpose(1, 2)
        for index, block in enumerate(self.blocks):
            seen = (None, False) if index in self.config["global_layers"] else (mask, tiled)
            run = self._block if self._block is not None else Block.forward
            x = run(block, x, cos, sin, (rows, columns), *seen)
            if record is not None:
                record.append(x)
        return self.norm(x).to(x.dtype), self.skip1(skips[1]), self.skip2(skips[0])

    def similarity(self, features, text):
        """How much tokens (B, N, W) look like texts (B or 1, K, text width): (B, N, K); 0: as much as like nothing."""
        words = self.match.text(text)
        return self.match.picture(features) @ words.transpose(1, 2) / math.sqrt(words.shape[-1])

    def point_tokens(self, points, types):
        """Tokens (B, K, W) of points (B, K, 2) = (x, y) in [0, 1] and their types (B, K)."""
        return positions(points, self.config["width"]) + self.prompt.types[types]

    def mask_patches(self, logits, rows, columns):
        """Masks' logits (B, 4 rows, 4 columns), limited to +-8, as (B, N, 16): tokens' 4 x 4 values."""
        x = 8 * torch.tanh(logits / 8) / 8
        x = x.reshape(len(x), rows, 4, columns, 4).permute(0, 1, 3, 2, 4)
        return x.reshape(len(x), rows * columns, 16)

    def remember(self, features, logits, shape, kind):
        """Memory tokens (B, N, W) of a frame's features and its object's mask (B, 4 rows, 4 columns), logits."""
        mask = self.memory_mask(self.mask_patches(logits, *shape))
        return features + mask + self.prompt.memory[kind].to(features.dtype)

    def recall(self, features, memory, shape):
        """Features of a frame after a look at memory tokens (B, M N, W)."""
        cos, sin = self.grid(*shape, features.device)[:2]
        for layer in self.memory:
            features = layer(features, memory, cos, sin)
        return features

    def decode(self, features, skips, tokens, seen, text, said, earlier, given, shape):
        """Logits of masks (B, masks, 4 rows, 4 columns) and raw scores (B, masks + 1): IoU of each, something there.

        tokens (B, K, W) of points and corners, `seen` (B, K) which of them count, text (B, text width) with `said` (B)
        where there is one, earlier (B, 4 rows, 4 columns) logits of an earlier answer with `given` (B) where there is.
        features (F, N, W) and skips (F', ...): of pictures that have B / F and B / F' prompts each, in this order.
        """
        place = self.grid(*shape, features.device)[4]
        run = self._decode if self._decode is not None else Segmenter.decode_at
        return run(self, features, *skips, tokens, seen, text, said, earlier, given, shape, place)

    def decode_at(self, features, skip1, skip2, tokens, seen, text, said, earlier, given, shape, place):
        (rows, columns), batch = shape, len(tokens)
        similarity = self.similarity(features, text.reshape(len(features), -1, text.shape[-1]))
        similarity = 4 * torch.tanh(similarity / 4).transpose(1, 2).reshape(batch, -1, 1)
        mask = self.mask(self.mask_patches(earlier, rows, columns))
        kind = mask.dtype
        x = (torch.where(given[:, None, None], mask, self.prompt.no_mask.to(kind))
             + said[:, None, None] * similarity.to(kind) * self.prompt.matched.to(kind))
        x = spread(x, features)
        outputs = len(self.prompt.outputs)
        t = torch.cat((self.prompt.outputs.expand(batch, -1, -1), self.text(text)[:, None].float(), tokens.float()), 1)
        always = torch.ones(batch, outputs, dtype=torch.bool, device=x.device)
        seen = torch.cat((always, said[:, None], seen), 1)
        t0 = t
        for layer in self.decoder:
            t, x = layer(t, x, t0, place, seen)
        x = self.picture_norm(x)
        t = t + self.last(self.last_norm(t) + t0, x + place, x)
        t = self.out_norm(t)
        y = gelu(spread(unpatch(self.up1(x), rows, columns), skip1))
        y = gelu(spread(unpatch(self.up2(y), 2 * rows, 2 * columns), skip2))
        y = y.transpose(1, 2).reshape(batch, -1, 4 * rows, 4 * columns)
        y = gelu(self.refine(y) + y).flatten(2)
        h = torch.stack([mlp(t[:, 1 + index]) for index, mlp in enumerate(self.hyper)], 1)
        logits = (h.to(y.dtype) @ y).reshape(batch, -1, 4 * rows, 4 * columns)
        return logits, self.score(t[:, 0])
