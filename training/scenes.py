"""Composed scenes: random descriptions (made on the CPU, in worker processes) and their pictures (drawn on the GPU).

A batch of descriptions is a dict of numpy arrays (first dimension: scene); `Renderer` turns it into pictures, the
visible cover of every object, and leaves the caption's token ids and the labels as they are.
"""

import io
import multiprocessing
import os
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor  # Pillow decodes outside the interpreter lock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from captions import BACKGROUNDS, COLORS, LENGTH, OPPOSITE, RELATIONS, SHADES, STYLES, Captioner, held_out

SIZE = 256
SLOTS = 3
LEVELS = 4  # mip levels of the sprites: 256, 128, 64, 32 pixels

# How far the second colour of a pattern may move towards white or black without changing its name.
LIGHTEN = {"red": 0.16, "orange": 0.3, "yellow": 0.5, "green": 0.3, "blue": 0.3, "purple": 0.25, "pink": 0.35,
           "brown": 0.14, "black": 0.14, "white": 0.0, "gray": 0.16}
DARKEN = {"red": 0.22, "orange": 0.06, "yellow": 0.08, "green": 0.3, "blue": 0.3, "purple": 0.3, "pink": 0.1,
          "brown": 0.3, "black": 0.0, "white": 0.1, "gray": 0.16}
CENTRES = {"left": ((.27, .5), (.73, .5)), "right": ((.73, .5), (.27, .5)),
           "above": ((.5, .27), (.5, .73)), "below": ((.5, .73), (.5, .27))}
TRIPLES = [((.5, .27), (.26, .72), (.74, .72)), ((.26, .28), (.74, .28), (.5, .73)),
           ((.19, .5), (.5, .5), (.81, .5)), ((.25, .25), (.5, .5), (.75, .75)), ((.75, .25), (.5, .5), (.25, .75))]


# Per mode: weights of one, two and three objects, and how often a caption of two says how they stand. Where relations
# are to be learnt they must be seen often: in "default", which the measurements use, 26 of 100 captions state one.
MIXTURES = {"default": ((45, 40, 15), 0.65), "wide": ((45, 40, 15), 0.65), "relations": ((32, 55, 13), 0.85)}


class SceneSampler:
    """Random scene descriptions. mode "wide" (for the evaluator) varies sizes, angles and styles more; "relations" (for
    the generator) has more pairs, and more captions that say how they stand."""

    def __init__(self, folder, seed, mode="default", only=None):
        self.captioner = Captioner(folder)
        self.rng = random.Random(seed)
        self.mode, self.only = mode, only  # only: "single" or "pairs", for measurements
        self.weights, self.stated = MIXTURES[mode]
        self.ids = range(len(self.captioner.objects))
        self.style_ids = [self.captioner.in_style[style] for style in STYLES]

    def style(self, mentioned):
        weights = (40, 25, 20, 15) if mentioned else (60, 16, 14, 10)
        return self.rng.choices(range(4), weights)[0]

    def color(self, mentioned):
        rng = self.rng
        if mentioned:
            name = rng.choice(COLORS)
            pattern = rng.choices(range(6), (40, 20, 11, 9, 9, 11))[0]
        elif rng.random() < 0.75:
            # Nothing said: mostly calm and bright, so that the default look is clean.
            name = rng.choices(("white", "gray", "blue", "pink", "yellow"), (60, 10, 14, 8, 8))[0]
            pattern = rng.choices((0, 1), (60, 40))[0]
        else:
            name, pattern = rng.choice(COLORS), rng.choices(range(6), (40, 20, 10, 10, 10, 10))[0]
        shade, base, _ = rng.choices(SHADES[name], [weight for _, _, weight in SHADES[name]])[0]
        gain = rng.gauss(1.0, 0.025)
        base = [min(1.0, max(0.0, value / 255 * gain + rng.gauss(0, 0.014))) for value in base]
        amount = rng.uniform(0.45, 1.0)
        if rng.random() * (LIGHTEN[name] + DARKEN[name]) < LIGHTEN[name]:
            second = [v + (1 - v) * LIGHTEN[name] * amount for v in base]
        else:
            second = [v * (1 - DARKEN[name] * amount) for v in base]
        return name, shade, pattern, base, second

    def layout(self, count):
        """(relation or None, [(centre x, centre y, size)])."""
        rng, wide = self.rng, self.mode == "wide"
        if count == 1:
            size = rng.uniform(0.3, 0.95) if wide else rng.uniform(0.5, 0.9)
            free = (1 - size) / 2 * 0.7
            return None, [(0.5 + rng.uniform(-free, free), 0.5 + rng.uniform(-free, free), size)]
        if count == 2:
            relation = rng.choice(RELATIONS)
            sizes = [rng.uniform(0.3, 0.52) if wide else rng.uniform(0.38, 0.5) for _ in range(2)]
            across = relation in ("left", "right")
            places = []
            for (x, y), size in zip(CENTRES[relation], sizes):
                along, beside = rng.gauss(0, 0.018), rng.uniform(-0.13, 0.13)
                places.append((x + (along if across else beside), y + (beside if across else along), size))
            return relation, places
        size = rng.uniform(0.24, 0.42) if wide else rng.uniform(0.3, 0.38)
        centres = rng.sample(rng.choice(TRIPLES), 3)
        return None, [(x + rng.gauss(0, 0.015), y + rng.gauss(0, 0.015), size * rng.uniform(0.9, 1.1))
                      for x, y in centres]

    def labels(self, tokens, objects, names, stated):
        """Per token, which object it names (-1: none) and on which side that object stands.

        Sides: 0 where the caption does not say it, else 1 + the index of the object's relation to the other one.
        """
        nouns, sides = [-1] * LENGTH, [0] * LENGTH
        relations = (stated, OPPOSITE[stated]) if stated else (None,) * len(objects)
        for thing, span, side in zip(objects, self.captioner.spans(tokens, names), relations):
            if span:
                nouns[slice(*span)] = [thing] * (span[1] - span[0])
                sides[slice(*span)] = [1 + RELATIONS.index(side) if side else 0] * (span[1] - span[0])
        return nouns, sides

    def scene(self):
        rng = self.rng
        count = {"single": 1, "pairs": 2}.get(self.only) or rng.choices((1, 2, 3), self.weights)[0]
        say_style, say_color = rng.random() < 0.55, rng.random() < 0.72
        style = self.style(say_style)
        mixed = count > 1 and rng.random() < 0.12
        while True:
            styles = [self.style(True) if mixed else style for _ in range(count)]
            objects = rng.sample(self.ids, count)
            if not all(o in self.style_ids[s] for o, s in zip(objects, styles)):
                continue
            relation, places = self.layout(count)
            name, shade, pattern, base, second = self.color(say_color)
            if count != 2 or not held_out(*(self.captioner.objects[o] for o in objects), name, relation):
                break
        phrase = self.captioner.background(name, shade, BACKGROUNDS[pattern], rng) if say_color else None
        same = len(set(styles)) == 1
        stated = relation if rng.random() < self.stated else None
        text, names = self.captioner.caption(objects, stated, STYLES[styles[0]] if say_style and same else None,
                                             phrase, rng)
        tokens = self.captioner.tokenize(text)
        nouns, sides = self.labels(tokens, objects, names, stated)
        turn = 15 if self.mode == "wide" else 5
        pad = SLOTS - count
        return {
            "sprite": [o * len(STYLES) + s for o, s in zip(objects, styles)] + [-1] * pad,
            "object": objects + [-1] * pad,
            "place": [(x, y, s, rng.gauss(0, turn / 2)) for x, y, s in places] + [(.5, .5, .5, 0.)] * pad,
            "style": styles[0] if same else -1,
            "color": COLORS.index(name),
            "relation": RELATIONS.index(relation) if relation else -1,
            "pattern": pattern,
            "colors": base + second,
            "shape": [rng.random() for _ in range(4)],
            "tokens": tokens,
            "nouns": nouns,
            "sides": sides,
        }, text

    def batch(self, count, captions=False):
        scenes = [self.scene() for _ in range(count)]
        result = {}
        for key in scenes[0][0]:
            floats = key in ("place", "colors", "shape")
            result[key] = np.array([scene[key] for scene, _ in scenes], dtype=np.float32 if floats else np.int16)
        if captions:
            result["captions"] = [text for _, text in scenes]
        return result


def _work(queue, make_sampler, seed, count):
    sampler = make_sampler(seed)
    while True:
        queue.put(sampler.batch(count))


class BatchStream:
    """Batches of `count` from processes that each have a sampler of their own, make_sampler(seed); without `workers`
    from one here."""

    def __init__(self, make_sampler, count, seed, workers):
        self.count, self.queue, self.processes = count, None, []
        if workers == 0:
            self.sampler = make_sampler(seed)
            return
        context = multiprocessing.get_context("fork")
        self.queue = context.Queue(maxsize=24)
        for index in range(workers):
            self.processes.append(context.Process(
                target=_work, args=(self.queue, make_sampler, seed * 1000 + index, count), daemon=True))
            self.processes[-1].start()

    def next(self):
        return self.queue.get(timeout=120) if self.queue else self.sampler.batch(self.count)

    def close(self):
        for process in self.processes:
            process.terminate()


class SceneStream(BatchStream):
    """Endless batches of descriptions from worker processes; make it before CUDA is touched (it forks)."""

    def __init__(self, folder, count, seed=0, mode="default", workers=4, only=None):
        super().__init__(lambda seed: SceneSampler(folder, seed, mode, only), count, seed, workers)


def _decode(item):
    """Sprite bytes to a 256x256 RGBA array; drawings of 224 pixels get a margin."""
    key, data = item
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return key, np.array(canvas)


class Renderer:
    """Draws batches of descriptions. Sprites live on the device with their mip levels, premultiplied."""

    def __init__(self, folder, device, limit=None):
        items = []
        with tarfile.open(os.path.join(folder, "sprites.tar")) as archive:
            for member in archive:
                style, name = member.name.split("/")
                index = int(name.split(".")[0])
                if limit is None or index < limit:
                    items.append((index * len(STYLES) + STYLES.index(style), archive.extractfile(member).read()))
        self.device = torch.device(device)
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        rows = max(key for key, _ in items) + 1
        atlas = np.zeros((rows, SIZE, SIZE, 4), np.uint8)
        with ThreadPoolExecutor(min(16, os.cpu_count())) as executor:
            for key, pixels in executor.map(_decode, items):
                atlas[key] = pixels
        self.levels = [torch.empty(rows, 4, SIZE >> level, SIZE >> level, dtype=self.dtype, device=self.device)
                       for level in range(LEVELS)]
        for begin in range(0, rows, 64):
            part = torch.from_numpy(atlas[begin:begin + 64]).to(self.device).permute(0, 3, 1, 2).float() / 255
            part[:, :3] *= part[:, 3:]
            for level in self.levels:
                level[begin:begin + 64] = part.to(self.dtype)
                part = F.avg_pool2d(part, 2)
        axis = (torch.arange(SIZE, device=self.device) + 0.5) / SIZE
        self.y, self.x = axis[:, None].expand(SIZE, SIZE), axis[None, :].expand(SIZE, SIZE)

    def layer(self, sprite, place):
        """Premultiplied RGBA (B, 4, 256, 256) of one object slot."""
        out = torch.zeros(len(sprite), 4, SIZE, SIZE, device=self.device)
        angle = place[:, 3] * (np.pi / 180)
        size = place[:, 2]
        dx, dy = 2 * place[:, 0] - 1, 2 * place[:, 1] - 1
        cos, sin = angle.cos() / size, angle.sin() / size
        theta = torch.stack((torch.stack((cos, sin, -cos * dx - sin * dy), 1),
                             torch.stack((-sin, cos, sin * dx - cos * dy), 1)), 1)
        level = (-torch.log2(size)).round().clamp(0, LEVELS - 1).long()
        level = torch.where(sprite >= 0, level, torch.full_like(level, -1))
        for index in range(LEVELS):
            chosen = (level == index).nonzero().squeeze(1)
            if len(chosen):
                grid = F.affine_grid(theta[chosen], (len(chosen), 4, SIZE, SIZE), align_corners=False)
                source = self.levels[index][sprite[chosen].long()]
                out[chosen] = F.grid_sample(source.float(), grid, mode="bilinear", padding_mode="zeros",
                                            align_corners=False)
        return out

    def background(self, pattern, colors, shape):
        """Pictures (B, 3, 256, 256) of two colours mixed by a pattern; `shape` holds its random parameters."""
        count = len(pattern)
        x, y = self.x[None], self.y[None]
        a, b, c, d = [shape[:, i, None, None] for i in range(4)]
        mix = torch.zeros(count, SIZE, SIZE, device=self.device)

        def fill(index, function):
            chosen = (pattern == index).nonzero().squeeze(1)
            if len(chosen):
                mix[chosen] = function(*[t[chosen] for t in (a, b, c, d)])

        def edge(wave, sharpness):
            return (wave * sharpness + 0.5).clamp(0, 1)

        def gradient(a, b, c, d):
            linear = torch.where(a < 0.33, x.expand(len(a), SIZE, SIZE), y.expand(len(a), SIZE, SIZE))
            radial = (((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt() / 0.707).expand(len(a), SIZE, SIZE)
            value = torch.where(a < 0.66, linear, radial)
            return torch.where(b < 0.5, value, 1 - value)

        def stripes(a, b, c, d):
            angle = (b * 4).floor() * (np.pi / 4)
            frequency = 4 + 5 * a
            phase = (x * angle.cos() + y * angle.sin()) * frequency + c
            return edge(torch.sin(2 * np.pi * phase), 256 / (2 * np.pi * frequency) / 2)

        def dots(a, b, c, d):
            frequency = 5 + 6 * a
            u, v = (x * frequency + b) % 1 - 0.5, (y * frequency + c) % 1 - 0.5
            return edge(0.22 + 0.12 * d - (u * u + v * v).sqrt(), 256 / frequency / 2)

        def checks(a, b, c, d):
            frequency = 2 + 4 * a
            wave = torch.sin(2 * np.pi * (x * frequency + b)) * torch.sin(2 * np.pi * (y * frequency + c))
            return edge(wave, 256 / (2 * np.pi * frequency) / 2)

        def texture(a, b, c, d):
            total = torch.zeros(len(a), 1, SIZE, SIZE, device=self.device)
            for cells, weight in ((6, 0.5), (14, 0.35), (32, 0.15)):
                noise = torch.randn(len(a), 1, cells, cells, device=self.device)
                total += weight * F.interpolate(noise, (SIZE, SIZE), mode="bicubic", align_corners=False)
            return (0.5 + 0.6 * total[:, 0]).clamp(0, 1)

        for index, function in enumerate((None, gradient, stripes, dots, checks, texture)):
            if function:
                fill(index, function)
        first, second = colors[:, :3, None, None], colors[:, 3:, None, None]
        return first + (second - first) * mix[:, None]

    @torch.no_grad()
    def draw(self, batch, cover=False):
        """Pictures in [0, 1] (B, 3, 256, 256), with cover also the visible alpha (B, 3 slots, 256, 256)."""
        device = {key: torch.from_numpy(batch[key]).to(self.device, non_blocking=True)
                  for key in ("sprite", "place", "pattern", "colors", "shape")}
        picture = self.background(device["pattern"], device["colors"], device["shape"])
        visible = []
        for slot in range(SLOTS):
            layer = self.layer(device["sprite"][:, slot], device["place"][:, slot])
            alpha = layer[:, 3:]
            picture = layer[:, :3] + picture * (1 - alpha)
            if cover:
                visible = [v * (1 - alpha[:, 0]) for v in visible] + [alpha[:, 0]]
        picture = picture.clamp(0, 1)
        return (picture, torch.stack(visible, 1)) if cover else picture


def save_sheet(path, pictures, columns, size=128):
    """Writes (N, 3, H, W) pictures in [0, 1] as one contact sheet."""
    pictures = F.interpolate(pictures.float().cpu().clamp(0, 1), (size, size), mode="area")
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (size + 2), columns * (size + 2), 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * (size + 2), index % columns * (size + 2)
        sheet[y:y + size, x:x + size] = (picture.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    Image.fromarray(sheet).save(path, optimize=True)


def preview(folder, path):
    """Draws 48 scenes and prints their captions, to look at."""
    sampler, renderer = SceneSampler(folder, 5), Renderer(folder, "cpu")
    batch = sampler.batch(48, captions=True)
    save_sheet(path, renderer.draw(batch), 8, 160)
    for index, text in enumerate(batch["captions"]):
        print(index // 8, index % 8, text)


if __name__ == "__main__":
    import sys
    preview(sys.argv[1], sys.argv[2])
