"""Composed scenes with exact masks for the segmentation model: descriptions and pictures are made on the device.

A batch has B clips of T frames (a picture: T = 1) with S slots for objects; later slots lie in front. Drawing reads no
values back from the device, so that it runs ahead of training.
"""

import math
import os

import torch
import torch.nn.functional as F

from augment import jpeg_like, soften
from captions import STYLES
from scenes import SIZE, Renderer

HERE = os.path.dirname(os.path.abspath(__file__))
SLOTS = 6
MARGIN = 4
# Where the mip levels of a sprite lie on its canvas: (y, x) of 256, 128, 64 and 32 pixels.
PLACES = ((MARGIN, MARGIN), (256 + 2 * MARGIN, MARGIN), (256 + 2 * MARGIN, 128 + 2 * MARGIN),
          (320 + 3 * MARGIN, 128 + 2 * MARGIN))
CANVAS = (256 + 128 + 3 * MARGIN, 256 + 2 * MARGIN)
SEEN_AREA = 0.004  # of the picture: less is no object to ask for
SEEN_SHARE = 0.3   # of the object


def read_held_out(objects):
    """(name of the style, ids of the objects) that are never trained on, from segment_held_out.txt."""
    with open(os.path.join(HERE, "segment_held_out.txt"), encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    style, names = lines[0], [name.strip() for line in lines[1:] for name in line.split(";") if name.strip()]
    missing = [name for name in names if name not in objects]
    if style not in STYLES or missing:
        raise SystemExit(f"segment_held_out.txt: no such style or objects: {style} {missing}")
    return style, {objects.index(name) for name in names}


def choose_rows(concepts, kind, limit=None):
    """Sprites (object * styles + style) of a kind of scenes: train, objects (held out), style (held out)."""
    style, held = read_held_out(concepts["objects"])
    rows = []
    for name in STYLES:
        for index in concepts["in_style"][name]:
            if limit is not None and index >= limit:
                continue
            if (index in held) == (kind == "objects") and (name == style) == (kind == "style"):
                rows.append(index * len(STYLES) + STYLES.index(name))
    return sorted(rows)


def transform(x, y, size, angle, aspect, flip):
    """Matrices (…, 2, 3) from places of the picture, in [-1, 1], to places of the sprite. x, y in [0, 1]."""
    cos, sin = angle.cos() / size, angle.sin() / size
    dx, dy = 2 * x - 1, 2 * y - 1
    first = torch.stack((cos, sin, -cos * dx - sin * dy), -1) * (flip / aspect)[..., None]
    second = torch.stack((-sin, cos, sin * dx - cos * dy), -1) * aspect[..., None]
    return torch.stack((first, second), -2)


class Sprites:
    """All sprites with their mip levels on one canvas each, premultiplied: one call draws sprites of any size."""

    def __init__(self, folder, device, limit=None):
        renderer = Renderer(folder, device, limit)
        self.device, self.patterns = renderer.device, renderer
        rows = len(renderer.levels[0])
        self.canvas = torch.zeros(rows, 4, *CANVAS, dtype=renderer.dtype, device=self.device)
        for (y, x), level in zip(PLACES, renderer.levels):
            side = level.shape[-1]
            self.canvas[:, :, y:y + side, x:x + side] = level
        self.soft = F.pad(renderer.levels[3][:, 3:], (MARGIN,) * 4)
        renderer.levels = None
        self.offset = torch.tensor([[x, y] for y, x in PLACES], device=self.device).float()
        self.scale = torch.tensor([2.0 / CANVAS[1], 2.0 / CANVAS[0]], device=self.device)

    def draw(self, number, theta, size):
        """Premultiplied (N, 4, SIZE, SIZE) of sprites `number` (-1: none), with their own places (N, SIZE, SIZE, 2)."""
        count = len(number)
        local = F.affine_grid(theta, (count, 4, SIZE, SIZE), align_corners=False)
        level = (-torch.log2(size)).round().clamp(0, len(PLACES) - 1).long()
        side = (SIZE / 2.0 ** level)[:, None, None, None]
        pixel = ((local + 1) / 2 * side).clamp(min=-2)
        pixel = torch.minimum(pixel, side + 2) + self.offset[level][:, None, None, :]
        source = self.canvas[number.clamp(min=0)].float()
        layer = F.grid_sample(source, pixel * self.scale - 1, mode="bilinear", padding_mode="zeros",
                              align_corners=False)
        return layer * (number >= 0).float()[:, None, None, None], local

    def shadow(self, number, theta):
        """Blurred alpha (N, 1, SIZE, SIZE)."""
        grid = F.affine_grid(theta, (len(number), 1, SIZE, SIZE), align_corners=False) * (32 / (32 + 2 * MARGIN))
        soft = F.grid_sample(self.soft[number.clamp(min=0)].float(), grid, mode="bilinear", padding_mode="zeros",
                             align_corners=False)
        return soft * (number >= 0).float()[:, None, None, None]


def resize(x, size=SIZE, mode="bicubic"):
    return F.interpolate(x, (size, size), mode=mode, align_corners=False)


class Backgrounds:
    """A bank of backgrounds (K, 3, SIZE, SIZE), part of which is drawn anew now and then."""

    def __init__(self, sprites, rows, count):
        self.sprites, self.device = sprites, sprites.device
        self.rows = torch.tensor(rows, device=self.device)
        self.bank = torch.cat([self.make(min(40, count)) for _ in range(-(-count // 40))])[:count]
        self.next = 0

    def renew(self, count=10):
        fresh = self.make(count)
        begin = self.next % max(1, len(self.bank) - len(fresh) + 1)
        self.bank[begin:begin + len(fresh)] = fresh[:len(self.bank)]
        self.next += len(fresh)

    def rand(self, *shape):
        return torch.rand(*shape, device=self.device)

    def randn(self, *shape):
        return torch.randn(*shape, device=self.device)

    def colors(self, n, k):
        """k colours (n, k, 3) that go together: around one, or free."""
        base, free = self.rand(n, 1, 3), self.rand(n, k, 3)
        near = base + 0.22 * self.randn(n, k, 3)
        gray = free.mean(-1, keepdim=True) + 0.05 * self.randn(n, k, 3)
        kind = self.rand(n, 1, 1)
        return torch.where(kind < 0.45, near, torch.where(kind < 0.7, free, gray)).clamp(0, 1)

    def octaves(self, n, channels, steep):
        """Noise of several scales (n, channels, SIZE, SIZE), amplitude falling with `steep` (n)."""
        total = torch.zeros(n, channels, SIZE, SIZE, device=self.device)
        for octave, cells in enumerate((3, 6, 12, 24, 48, 96, 192)):
            weight = torch.exp(-steep * octave)[:, None, None, None]
            total += weight * resize(self.randn(n, channels, cells, cells))
        return total / total.flatten(1).std(1)[:, None, None, None].clamp(min=1e-3)

    def warp(self, x, amplitude):
        cells = 6
        field = resize(self.randn(len(x), 2, cells, cells) * amplitude).permute(0, 2, 3, 1)
        grid = F.affine_grid(torch.eye(2, 3, device=self.device).expand(len(x), 2, 3), x.shape, align_corners=False)
        return F.grid_sample(x, grid + field, mode="bilinear", padding_mode="reflection", align_corners=False)

    def palette(self, value, colors):
        """Colours (n, 3, H, W) of values in [0, 1] along a path of three colours."""
        value = value.clamp(0, 1)
        a, b, c = [color[:, :, None, None] for color in colors.unbind(1)]
        return torch.where(value < 0.5, a + (b - a) * 2 * value, b + (c - b) * (2 * value - 1))

    def clouds(self, n):
        value = self.warp(0.5 + 0.3 * self.octaves(n, 1, 0.25 + 0.9 * self.rand(n)), 0.12)
        return self.palette(value, self.colors(n, 3)) + 0.03 * self.octaves(n, 3, 0.2 + 0.5 * self.rand(n))

    def spectral(self, n):
        """Pictures with the spectrum of photographs, colours mixed at random."""
        axis = torch.fft.fftfreq(SIZE, device=self.device)
        radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt().clamp(min=1 / SIZE)
        power = radius[None, None] ** -(0.9 + 0.9 * self.rand(n))[:, None, None, None]
        noise = torch.fft.ifft2(torch.fft.fft2(self.randn(n, 3, SIZE, SIZE)) * power).real
        noise = noise / noise.flatten(1).std(1)[:, None, None, None].clamp(min=1e-6)
        mix = torch.einsum("nij,njhw->nihw", 0.5 * self.randn(n, 3, 3) + 0.7, noise)
        return self.rand(n, 3, 1, 1) * 0.6 + 0.2 + 0.12 * mix

    def collage(self, n):
        """Blurred, warped sprites over each other: what lies out of focus behind things."""
        picture = self.clouds(n)
        rows = self.rows
        for _ in range(9):
            number = rows[torch.randint(0, len(rows), (n,), device=self.device)]
            size = 0.3 * 6.0 ** self.rand(n)
            theta = transform(self.rand(n), self.rand(n), size, 2 * math.pi * self.rand(n), torch.ones_like(size),
                              torch.ones_like(size))
            layer, _ = self.sprites.draw(number, theta, size.clamp(max=1))
            picture = layer[:, :3] + picture * (1 - layer[:, 3:])
        quarter = max(1, n // 4)
        parts = [resize(F.avg_pool2d(part, 8 << min(index, 2)))
                 for index, part in enumerate(self.warp(picture, 0.1).split(quarter))]
        return torch.cat(parts)

    def mosaic(self, n):
        """Areas with straight edges, each with its own colour and grain."""
        cells = 24
        axis = (torch.arange(SIZE, device=self.device).float() + 0.5) / SIZE
        seeds, stretch = self.rand(n, cells, 2), 0.3 + self.rand(n, 1, 1, 1)
        distance = ((axis[None, None, :, None] - seeds[:, :, 0, None, None]).abs() * stretch
                    + (axis[None, None, None, :] - seeds[:, :, 1, None, None]).abs())
        cell = distance.argmin(1)
        colors = self.colors(n, cells)
        picture = torch.gather(colors, 1, cell.flatten(1)[..., None].expand(-1, -1, 3)).transpose(1, 2)
        grain = self.octaves(n, 1, 0.1 + 0.5 * self.rand(n)) * 0.09 * self.rand(n, 1, 1, 1)
        return self.warp(picture.reshape(n, 3, SIZE, SIZE) + grain, 0.05)

    def pattern(self, n):
        """The backgrounds that the picture models know: plain, gradient, stripes, dots, checks, texture."""
        kind = torch.randint(0, 6, (n,), device=self.device)
        return self.sprites.patterns.background(kind, self.colors(n, 2).flatten(1), self.rand(n, 4))

    @torch.no_grad()
    def make(self, count):
        n = -(-count // 5)
        kinds = [self.clouds, self.spectral, self.collage, self.mosaic, self.pattern]
        pictures = torch.cat([kind(n) for kind in kinds])
        # Half of them are two: floor and wall, sky and ground.
        order = torch.randperm(len(pictures), device=self.device)
        other = pictures[order]
        line = 0.3 + 0.4 * self.rand(len(pictures), 1, 1, 1) + 0.05 * resize(self.randn(len(pictures), 1, 4, 4))
        axis = (torch.arange(SIZE, device=self.device).float() + 0.5) / SIZE
        below = ((axis[None, None, :, None] - line) * 100).clamp(0, 1)
        below = below * (self.rand(len(pictures), 1, 1, 1) < 0.35).float()
        pictures = pictures * (1 - below) + other * below
        return (pictures.clamp(0, 1) * 255).round().byte()[order][:count]


class SceneMaker:
    """Random scenes of sprites `rows`. speed: movement a frame, as a share of the frame."""

    def __init__(self, sprites, rows, backgrounds=1024, background_rows=None):
        self.sprites, self.device = sprites, sprites.device
        self.rows = torch.tensor(rows, device=self.device)
        self.backgrounds = Backgrounds(sprites, background_rows or rows, backgrounds)
        self.counts = torch.tensor([1] * 5 + [2] * 7 + [3] * 7 + [4] * 6 + [5] * 4 + [6] * 3)
        kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=self.device) / 16
        self.kernel = (kernel[:, None] * kernel[None, :])[None, None].expand(3, 1, 5, 5).contiguous()

    def rand(self, *shape):
        return torch.rand(*shape, device=self.device)

    def randn(self, *shape):
        return torch.randn(*shape, device=self.device)

    def uniform(self, low, high, *shape):
        return low + (high - low) * self.rand(*shape)

    def describe(self, b, frames=1, speed=0.06):
        """Descriptions: first dimension clip, of the paths then frame, of what belongs to objects then slot."""
        s, device = SLOTS, self.device
        # Known on the CPU and sorted, so that a slot is drawn only into the first scenes, which have it.
        count = self.counts[torch.randint(0, len(self.counts), (b,))] * (torch.rand(b) >= 0.03)
        count = count.sort(descending=True)[0]
        having = [int((count > slot).sum()) for slot in range(s)]
        count = count.to(device)
        there = torch.arange(s, device=device)[None] < count[:, None]
        number = self.rows[torch.randint(0, len(self.rows), (b, s), device=device)]
        number = torch.where(self.rand(b, s) < 0.06, number[:, :1], number)  # the same thing twice
        number = torch.where(there, number, torch.full_like(number, -1))

        most = 1.0 - 0.1 * count.clamp(max=5).float()[:, None]
        size = 0.15 * (most / 0.15) ** self.rand(b, s)
        ordered = size.sort(1, descending=True)[0]  # the large ones behind
        size = torch.where(self.rand(b, 1) < 0.5, ordered, size)
        free = 0.5 - 0.4 * size
        centre = torch.stack([0.5 + free * (2 * self.rand(b, s) - 1) for _ in range(2)], -1)
        # Some stand before the one made before them.
        near = centre.roll(1, 1) + 0.45 * size.roll(1, 1)[..., None] * (2 * self.rand(b, s, 2) - 1)
        first = torch.arange(s, device=device)[None, :, None] == 0
        centre = torch.where((self.rand(b, s, 1) < 0.4) & ~first, near.clamp(0.08, 0.92), centre)
        angle = torch.where(self.rand(b, s) < 0.25, math.pi * (2 * self.rand(b, s) - 1), 0.2 * self.randn(b, s))

        step = (torch.arange(frames, device=device).float() - (frames - 1) / 2)[None, :, None]
        rate = speed * (0.2 + 1.6 * self.rand(b, 1, 1))
        course = rate[..., None] * self.randn(b, 1, s, 2) * step[..., None]
        sway = 1.5 * rate[..., None] * self.randn(b, 1, s, 2) * torch.sin(step[..., None] * 0.9
                                                                           + 6 * self.rand(b, 1, s, 2))
        x_y = centre[:, None] + (course + sway if frames > 1 else 0)
        x_y = 1 - ((x_y % 2) - 1).abs()  # turns round at the frame's edge
        x_y = torch.where(self.rand(b, 1, s, 1) < 0.7, 0.06 + 0.88 * x_y, x_y)
        turn = angle[:, None] + 2.5 * rate * self.randn(b, 1, s) * step
        sizes = size[:, None] * torch.exp((rate * self.randn(b, 1, s) * step).clamp(-0.5, 0.5))
        aspect = torch.exp(0.1 * self.randn(b, s))
        flip = torch.where(self.rand(b, s) < 0.5, 1.0, -1.0)
        theta = transform(x_y[..., 0], x_y[..., 1], sizes, turn, aspect[:, None].expand_as(turn),
                          flip[:, None].expand_as(turn))

        gray = torch.full((3, 3), 1 / 3, device=device)
        eye = torch.eye(3, device=device)
        saturation = (1 + 0.3 * self.randn(b, s, 1, 1)).clamp(0.2, 1.8)
        strong = (self.rand(b, s, 1, 1) < 0.12).float()
        mixing = eye * saturation + gray * (1 - saturation) + (0.04 + 0.25 * strong) * self.randn(b, s, 3, 3)
        gain = torch.exp(0.2 * self.randn(b, s, 1, 1))

        zoom = self.uniform(0.45, 1.0, b, 1) * torch.where(self.rand(b, 1) < 0.5, 1.0, -1.0)
        spin = torch.where(self.rand(b, 1) < 0.5, torch.zeros(b, 1, device=device), 0.4 * self.randn(b, 1))
        drift = (0.4 * rate[:, :, 0, None] * self.randn(b, 1, 2) * step * (self.rand(b, 1, 1) < 0.5).float()
                 + 0.4 * (2 * self.rand(b, 1, 2) - 1))
        one = zoom.abs().expand(b, frames)
        ground = torch.stack((torch.stack((zoom * spin.cos() + 0 * one, spin.sin() * one, drift[..., 0]), -1),
                              torch.stack((-spin.sin() * zoom + 0 * one, spin.cos() * one, drift[..., 1]), -1)), -2)
        return {"having": having, "number": number, "theta": theta, "size": sizes, "mixing": mixing * gain,
                "shade": 0.25 * self.randn(b, s, 2), "ground": ground,
                "shadow": torch.cat((0.06 * self.randn(b, s, 2),
                                     0.55 * self.rand(b, s, 1) * (self.rand(b, s, 1) < 0.4).float()), -1),
                "picture": torch.randint(0, len(self.backgrounds.bank), (b, 2), device=device),
                "front": self.rand(b) < 0.12, "front_noise": self.randn(b, 1, 7, 7)}

    def background(self, scene, which, frames):
        source = self.backgrounds.bank[scene["picture"][:, which]].float() / 255
        source = source[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 1)
        grid = F.affine_grid(scene["ground"].flatten(0, 1), source.shape, align_corners=False)
        return F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @torch.no_grad()
    def draw(self, scene):
        """Pictures (B T, 3, SIZE, SIZE) before degrade(), visible alpha of the slots (B T, S, SIZE, SIZE), and their
        whole area as a share of the picture (B T, S)."""
        b, frames = scene["theta"].shape[:2]

        def per_frame(x):
            return x[:, None].expand(-1, frames, *x.shape[1:]).flatten(0, 1)

        picture = self.background(scene, 0, frames)
        visible = torch.zeros(b * frames, SLOTS, SIZE, SIZE, dtype=self.sprites.canvas.dtype, device=self.device)
        area = torch.zeros(b * frames, SLOTS, device=self.device)
        for slot in range(SLOTS):
            n = scene["having"][slot] * frames
            if n == 0:
                break
            number, theta = per_frame(scene["number"][:, slot])[:n], scene["theta"][:, :, slot].flatten(0, 1)[:n]
            layer, local = self.sprites.draw(number, theta, scene["size"][:, :, slot].flatten()[:n].clamp(max=1))
            alpha = layer[:, 3:]
            color = torch.einsum("nij,njhw->nihw", per_frame(scene["mixing"][:, slot])[:n], layer[:, :3])
            shades = per_frame(scene["shade"][:, slot])[:n, None, None]
            shade = 1 + (local.clamp(-1, 1) * shades).sum(-1)[:, None]
            color = torch.minimum((color * shade).clamp(min=0), alpha)
            dark = per_frame(scene["shadow"][:, slot])[:n]
            moved = theta.clone()
            moved[:, :, 2] -= (theta[:, :, :2] * dark[:, None, :2]).sum(-1)
            behind = picture[:n] * (1 - dark[:, 2, None, None, None] * self.sprites.shadow(number, moved))
            picture[:n] = color + behind * (1 - alpha)
            visible[:n, :slot] *= (1 - alpha).to(visible.dtype)
            visible[:n, slot] = alpha[:, 0].to(visible.dtype)
            area[:n, slot] = alpha.mean((1, 2, 3))
        front = (3 * (resize(scene["front_noise"]) - 1.2) * 8).clamp(0, 1) * scene["front"].float()[:, None, None, None]
        front = per_frame(front)
        picture = picture * (1 - front) + self.background(scene, 1, frames) * front
        visible *= (1 - front).to(visible.dtype)
        return picture, visible, area

    @torch.no_grad()
    def degrade(self, x, frames=1, strength=1.0):
        """Light, colour, softness, block quantisation and noise. Frames of a clip suffer alike."""
        clips, device = len(x) // frames, self.device

        def of_clips(value):
            return value.repeat_interleave(frames, 0)

        axis = torch.linspace(-1, 1, SIZE, device=device)
        slope = of_clips(strength * 0.18 * self.randn(clips, 2))[:, :, None, None]
        corner = of_clips(strength * 0.35 * self.rand(clips) * (self.rand(clips) < 0.4).float())[:, None, None]
        light = 1 + slope[:, 0] * axis[None, :, None] + slope[:, 1] * axis[None, None, :]
        light = light - corner * (axis[None, :, None] ** 2 + axis[None, None, :] ** 2) / 2
        x = x * light[:, None]
        gray = x.mean(1, keepdim=True)
        saturation = (1 + strength * 0.3 * self.randn(clips, 1, 1, 1)).clamp(0, 2)
        saturation = torch.where(self.rand(clips, 1, 1, 1) < 0.05, torch.zeros_like(saturation), saturation)
        contrast = 1 + strength * 0.2 * self.randn(clips, 1, 1, 1).clamp(-2, 2)
        tint = strength * 0.06 * self.randn(clips, 3, 1, 1)
        x = (gray + (x - gray) * of_clips(saturation) - 0.5) * of_clips(contrast) + 0.5 + of_clips(tint)
        x = x.clamp(0, 1)

        def part(share):
            length = max(1, int(clips * share)) * frames
            begin = int(torch.randint(0, len(x) // frames - length // frames + 1, ()).item()) * frames
            return slice(begin, begin + length)

        for _ in range(2):
            chosen = part(0.15)
            x[chosen] = soften(x[chosen])
        chosen = part(0.25)
        x[chosen] = F.conv2d(F.pad(x[chosen], (2, 2, 2, 2), mode="replicate"), self.kernel, groups=3)
        chosen = part(0.35)
        amount = of_clips(strength * 0.07 * self.rand(clips) ** 1.5)[chosen]
        x[chosen] = jpeg_like(x[chosen], amount)
        grain = of_clips(strength * 0.08 * self.rand(clips, 1, 1, 1) ** 3)
        return (x + grain * torch.randn_like(x)).clamp(0, 1)

    def look_closer(self, picture, visible, valid, share):
        """A `share` of the pictures as a closer look shows them: a window around an object, enlarged. Returns pictures,
        visible alpha and which slots can be asked for."""
        n, device = len(picture), self.device
        weight = visible.float().flatten(2).sum(2)
        index = torch.arange(SIZE, device=device).float()
        alpha = visible.float()
        centre = torch.stack([(alpha.sum(axis) * index).sum(2) / weight.clamp(min=1) for axis in (2, 3)], -1)
        extent = torch.stack([((alpha.sum(axis) * (index - centre[..., k, None]) ** 2).sum(2)
                               / weight.clamp(min=1)).sqrt() for k, axis in enumerate((2, 3))], -1).amax(-1)
        slot = (valid.float() * self.rand(n, SLOTS)).argmax(1)[:, None]
        # A thing's sides are about 3.5 times the deviation of its pixels; windows are 1.2 to 3 times as large.
        side = 3.5 * extent.gather(1, slot)[:, 0] * 1.2 * 2.5 ** self.rand(n) / SIZE
        chosen = (self.rand(n) < share) & valid.any(1) & (side < 0.9)
        side = torch.where(chosen, side.clamp(min=0.16), torch.ones_like(side))
        middle = centre.gather(1, slot[..., None].expand(-1, 1, 2))[:, 0] / SIZE + 0.25 * side[:, None] * (self.rand(n, 2) - 0.5)
        middle = 2 * torch.minimum(torch.maximum(middle, side[:, None] / 2), 1 - side[:, None] / 2) - 1
        zero = torch.zeros_like(side)
        theta = torch.stack((torch.stack((side, zero, middle[:, 0]), -1), torch.stack((zero, side, middle[:, 1]), -1)), 1)
        grid = F.affine_grid(theta, picture.shape, align_corners=False)
        closer = [F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="border", align_corners=False)
                  for x in (picture, alpha)]
        before, after = alpha.mean((2, 3)), closer[1].mean((2, 3))
        still = (after > SEEN_AREA) & (after * (side * side)[:, None] > SEEN_SHARE * before)
        return closer[0], closer[1].to(visible.dtype), valid & still

    @torch.no_grad()
    def batch(self, b, frames=1, speed=0.06, strength=1.0, closer=0.0):
        """One batch: pictures (B, T, 3, SIZE, SIZE), visible alpha (B, T, S, SIZE, SIZE), which slots can be asked for
        (B, T, S), objects' ids (B, S; -1: none). A share `closer` of single pictures shows a part of its scene."""
        scene = self.describe(b, frames, speed)
        picture, visible, area = self.draw(scene)
        picture = self.degrade(picture, frames, strength)
        seen = visible.float().mean((2, 3))
        valid = (seen > SEEN_AREA) & (seen > SEEN_SHARE * area)
        if closer > 0 and frames == 1:
            picture, visible, valid = self.look_closer(picture, visible, valid, closer)
        number = scene["number"]
        objects = torch.where(number >= 0, torch.div(number, len(STYLES), rounding_mode="floor"), number)
        shape = (b, frames)
        return picture.unflatten(0, shape), visible.unflatten(0, shape), valid.unflatten(0, shape), objects


def preview(folder, path, limit=None):
    """Draws 24 scenes, and beside each its masks in colours, and 6 clips of 4 frames; to look at."""
    import json
    import time
    from scenes import save_sheet
    torch.manual_seed(5)
    with open(os.path.join(folder, "concepts.json"), encoding="utf-8") as file:
        rows = choose_rows(json.load(file), "train", limit)
    maker = SceneMaker(Sprites(folder, "cpu", limit), rows, 80)
    save_sheet(path + "_backgrounds.png", maker.backgrounds.bank[:48].float() / 255, 8, 128)
    colors = torch.tensor([[1, .2, .2], [.2, 1, .2], [.3, .3, 1], [1, 1, .2], [1, .2, 1], [.2, 1, 1]])
    for name, b, frames in (("_scenes.png", 24, 1), ("_clips.png", 6, 4)):
        begin = time.time()
        picture, visible, valid, _ = maker.batch(b, frames)
        print(f"{b} clips of {frames} frames in {time.time() - begin:.1f} s")
        shown = visible.float() * (0.35 + 0.65 * valid[..., None, None].float())
        masks = torch.einsum("btshw,sc->btchw", shown, colors)
        save_sheet(path + name, torch.stack((picture, masks), 2).flatten(0, 2), 8, 160)


if __name__ == "__main__":
    import sys
    preview(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
