"""Augmentations for the evaluator: what a generated picture may suffer, made without generated pictures."""

import math

import torch
import torch.nn.functional as F


def _dct_matrix(device):
    index = torch.arange(8, device=device).float()
    matrix = torch.cos((2 * index[None, :] + 1) * index[:, None] * math.pi / 16) * 0.5
    matrix[0] = math.sqrt(1 / 8)
    return matrix


def jpeg_like(x, strength):
    """Quantises 8x8 DCT blocks, coarser for higher frequencies; `strength` per picture."""
    count, channels, height, width = x.shape
    d = _dct_matrix(x.device)
    blocks = x.reshape(count, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = d @ blocks @ d.t()
    index = torch.arange(8, device=x.device).float()
    step = strength.reshape(-1, 1, 1, 1, 1, 1) * (1 + index[:, None] + index[None, :]) + 1e-4
    blocks = d.t() @ ((coefficients / step).round() * step) @ d
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(count, channels, height, width)


def warp(x, amplitude):
    """Moves pixels by a smooth random field of about `amplitude` pixels."""
    count, _, height, width = x.shape
    cells = int(torch.randint(4, 10, ()).item())
    field = torch.randn(count, 2, cells, cells, device=x.device) * (2 * amplitude / width)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3, device=x.device).expand(count, 2, 3)
    grid = F.affine_grid(identity, x.shape, align_corners=False)
    return F.grid_sample(x, grid + field, mode="bilinear", padding_mode="border", align_corners=False)


def soften(x):
    """Shrinks and enlarges again."""
    size = int(x.shape[-1] / (1.3 + 2.2 * torch.rand(()).item()))
    small = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(small, x.shape[-2:], mode="bicubic", align_corners=False)


@torch.no_grad()
def augment(x):
    """Degrades a batch; each degradation hits one random part of it, a third of the pictures stay nearly clean."""
    count = len(x)
    device = x.device
    x = x.clone()

    def part(share):
        length = max(1, int(count * share))
        start = int(torch.randint(0, count - length + 1, ()).item())
        return slice(start, start + length)

    for _ in range(2):
        chosen = part(0.3)
        x[chosen] = warp(x[chosen], 1.0 + 4.0 * torch.rand(()).item())
        chosen = part(0.3)
        x[chosen] = soften(x[chosen])
    chosen = part(0.3)
    x[chosen] = jpeg_like(x[chosen], 0.05 * torch.rand(len(x[chosen]), device=device))
    # Brightness, contrast, saturation, a slight tint.
    gain = 1 + 0.08 * torch.randn(count, 1, 1, 1, device=device)
    tint = 0.02 * torch.randn(count, 3, 1, 1, device=device)
    gray = x.mean(1, keepdim=True)
    saturation = 1 + 0.12 * torch.randn(count, 1, 1, 1, device=device)
    x = ((x - gray) * saturation + gray - 0.5) * gain + 0.5 + tint
    noise = 0.04 * torch.rand(count, 1, 1, 1, device=device) ** 2
    return (x + noise * torch.randn_like(x)).clamp(0, 1)
