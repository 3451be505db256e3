"""Composed clips: random descriptions (on the CPU) and their frames (on the GPU), with the parts of scenes.py.

A batch of descriptions is a dict of numpy arrays, first dimension clip; all clips of a batch have equally many frames.
"""

import io
import json
import os
import random
import tarfile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from captions import BACKGROUNDS, COLORS, LENGTH, RELATIONS, STYLE_PHRASES, STYLES, with_article
from motions import (CROSSINGS, FPS, MAX_FRAMES, MOTIONS, OPPOSITE_WAY, WEIGHTS, held_out_motion, pair_caption,
                     path_of, phrase_of, straight)
from scenes import BatchStream, SceneSampler

OBJECTS = 2  # most objects of a clip
ANIMATED_SHARE = 0.25  # of the clips with one object: an animated drawing
PAIR_SHARE, CROSS_SHARE = 0.14, 0.08
NOTO = STYLES.index("noto")


def read_animations(folder):
    with open(os.path.join(folder, "animations.json"), encoding="utf-8") as file:
        return json.load(file)


class ClipSampler:
    """Random descriptions of clips of `frames` frames.

    `wanted`, evaluation entries (captions.py, motions.py), makes single clips of exactly these objects, motions,
    colours and styles, one after the other; held-out combinations are drawn only then.
    """

    def __init__(self, folder, seed, frames, wanted=None):
        self.frames, self.wanted, self.next_wanted = frames, wanted, 0
        self.scenes = SceneSampler(folder, seed)
        self.captioner, self.rng = self.scenes.captioner, random.Random(seed)
        self.animations = read_animations(folder)["animations"]
        self.of_object = {entry["object"]: i for i, entry in enumerate(self.animations) if entry["object"] >= 0}

    def animated_frames(self, index):
        """Numbers of the atlas' frames that an animated drawing shows."""
        entry = self.animations[index]
        count = entry["frames"]
        if entry["loop"]:
            numbers = (self.rng.randrange(count) + np.arange(self.frames)) % count
        else:
            numbers = np.minimum(self.rng.randint(0, max(0, count - self.frames)) + np.arange(self.frames), count - 1)
        return index * MAX_FRAMES + numbers

    def choose(self, motions, style):
        """An object for each motion, different ones, none held out; the style must have them."""
        rng = self.rng
        while True:
            objects = rng.sample(self.scenes.ids, len(motions))
            if all(o in self.scenes.style_ids[style] and not held_out_motion(self.captioner.objects[o], m)
                   for o, m in zip(objects, motions)):
                return objects

    def single(self, say_style):
        rng = self.rng
        motion = rng.choices(MOTIONS, WEIGHTS)[0]
        path, kind = path_of(rng, motion, self.frames)
        style = self.scenes.style(say_style)
        (thing,) = self.choose([motion], style)
        told = rng.random() > (0.5 if motion == "still" else 0.05)
        phrase = phrase_of(motion, kind, rng) if told else ""
        return [(thing, style, None, path, phrase, motion if told else None, None)], None

    def animated(self):
        """One animated drawing that stays (most), or moves as well."""
        rng = self.rng
        while True:
            index = rng.randrange(len(self.animations))
            entry = self.animations[index]
            motion = "still" if rng.random() < 0.7 else rng.choices(MOTIONS[:-1], WEIGHTS[:-1])[0]
            if motion == "still" or not held_out_motion(entry["name"], motion):
                break
        path, kind = path_of(rng, motion, self.frames)
        verb = rng.choice(entry["verbs"]) if rng.random() < 0.8 else rng.choice(("animated", "moving", ""))
        told = motion != "still" and rng.random() < 0.95
        phrase = " ".join(part for part in (verb, rng.choice(("", "and")) if verb and told else "",
                                            phrase_of(motion, kind, rng) if told else "") if part)
        return [(entry["object"], NOTO, self.animated_frames(index), path, phrase, motion if told else None,
                 entry["name"] if entry["object"] < 0 else None)], None

    def pair(self, say_style):
        """Two objects side by side or one above the other, each with a motion of its own."""
        rng, style = self.rng, self.scenes.style(say_style)
        relation, places = self.scenes.layout(2)
        lanes = ("left", "right") if relation in ("above", "below") else ("up", "down", "bounce")
        motions = [rng.choice(lanes) if rng.random() < 0.6 else
                   rng.choice(("still", "clockwise", "counterclockwise", "grow", "shrink")) for _ in range(2)]
        things = []
        for thing, motion, (x, y, size) in zip(self.choose(motions, style), motions, places):
            path, kind = path_of(rng, motion, self.frames, size * 1.1, (x, y))
            frames = None
            if style == NOTO and thing in self.of_object and rng.random() < 0.3:
                frames = self.animated_frames(self.of_object[thing])
            told = rng.random() > (0.5 if motion == "still" else 0.05)
            phrase = phrase_of(motion, kind, rng) if told else ""
            things.append((thing, style, frames, path, phrase, motion if told else None, None))
        return things, relation

    def cross(self, say_style):
        """Two objects that pass each other."""
        rng, style = self.rng, self.scenes.style(say_style)
        first = rng.choice(("left", "right", "left", "right", "up", "down"))
        motions = (first, OPPOSITE_WAY[first])
        explicit = rng.random() < 0.4
        things = []
        for thing, motion in zip(self.choose(motions, style), motions):
            size, across = rng.uniform(0.44, 0.56), 0.5 + rng.uniform(-0.12, 0.12)
            path, _ = straight(rng, motion, self.frames, size, across)
            axis = 0 if motion in ("left", "right") else 1
            far = np.linspace(0.4 * size, 1 - 0.4 * size, self.frames)
            path[:, axis] = far if motion in ("right", "down") else far[::-1]
            things.append((thing, style, None, path, phrase_of(motion, None, rng) if explicit else "",
                           motion if explicit else None, None))
        return things, None

    def clip(self):
        rng = self.rng
        entry, draw = None, rng.random()
        say_style, say_color = rng.random() < 0.5, rng.random() < 0.72
        if self.wanted:
            entry = self.wanted[self.next_wanted % len(self.wanted)]
            self.next_wanted += 1
            thing = self.captioner.objects.index(entry["objects"][0])
            style = STYLES.index(entry["style"]) if entry["style"] else self.scenes.style(False)
            while thing not in self.scenes.style_ids[style]:
                style = self.scenes.style(False)
            path, _ = path_of(rng, entry["motion"], self.frames)
            things, relation, crossing = [(thing, style, None, path, "", entry["motion"], None)], None, False
        else:
            crossing = draw < CROSS_SHARE
            if crossing:
                things, relation = self.cross(say_style)
            elif draw < CROSS_SHARE + PAIR_SHARE:
                things, relation = self.pair(say_style)
            elif rng.random() < ANIMATED_SHARE:
                things, relation = self.animated()
            else:
                things, relation = self.single(say_style)
        name, shade, pattern, base, second = self.scenes.color(say_color)
        while entry and name != entry["color"]:
            name, shade, pattern, base, second = self.scenes.color(True)

        stated = relation if relation and rng.random() < 0.5 else None
        style = things[0][1]
        if entry:
            text, bare = entry["prompt"], entry["objects"]
        else:
            bare = [special or self.captioner.name(thing, rng) for thing, *_, special in things]
            names = [with_article(b, rng.random()) for b in bare]
            phrases = [thing[4] for thing in things]
            if len(things) == 1:
                text = f"{names[0]} {phrases[0]}".strip()
            elif crossing and not phrases[0]:
                text = rng.choice(CROSSINGS).format(*names)
            else:
                text = pair_caption(names, phrases, stated, rng)
            tail = self.captioner.background(name, shade, BACKGROUNDS[pattern], rng) if say_color else ""
            say = rng.choice(STYLE_PHRASES).format(STYLES[style]) if say_style else None
            if say:
                text = f"{text}, {say}{tail}" if rng.random() < 0.5 else f"{text}{tail}, {say}"
            else:
                text += tail
        tokens = self.captioner.tokenize(text)
        objects = [thing[0] for thing in things]
        _, sides = self.scenes.labels(tokens, objects, bare, stated)
        moves = [0] * LENGTH
        for thing, span in zip(things, self.captioner.spans(tokens, bare)):
            if span and thing[5]:
                moves[slice(*span)] = [1 + MOTIONS.index(thing[5])] * (span[1] - span[0])

        pad = OBJECTS - len(things)
        none = np.full(self.frames, -1)
        drift = rng.uniform(0.01, 0.04) if rng.random() < 0.25 else 0.0
        way = rng.uniform(0, 2 * np.pi)
        light = rng.uniform(0.005, 0.02) if rng.random() < 0.2 else 0.0
        return {
            "sprite": [thing[0] * len(STYLES) + thing[1] if thing[2] is None else -1 for thing in things] + [-1] * pad,
            "animated": [none if thing[2] is None else thing[2] for thing in things] + [none] * pad,
            "path": [thing[3] for thing in things] + [np.full((self.frames, 4), 0.5)] * pad,
            "object": objects + [-1] * pad,
            "motion": MOTIONS.index(things[0][5]) if things[0][5] else -1,
            "pattern": pattern,
            "colors": base + second,
            "shape": [rng.random() for _ in range(4)],
            "drift": [drift * np.cos(way), drift * np.sin(way)],
            "light": [light, rng.uniform(0.3, 1.0), rng.random()],
            "grain": rng.uniform(0.004, 0.012) if rng.random() < 0.25 else 0.0,
            "tokens": tokens,
            "sides": sides,
            "moves": moves,
        }, text

    def batch(self, count, captions=False):
        clips = [self.clip() for _ in range(count)]
        floats = ("path", "colors", "shape", "drift", "light", "grain")
        result = {key: np.array([clip[key] for clip, _ in clips], np.float32 if key in floats else np.int16)
                  for key in clips[0][0]}
        if captions:
            result["captions"] = [text for _, text in clips]
        return result


class ClipStream(BatchStream):
    """Endless batches of `count` descriptions from worker processes; make it before CUDA is touched (it forks)."""

    def __init__(self, folder, frames, count, seed, workers):
        super().__init__(lambda seed: ClipSampler(folder, seed, frames), count, seed, workers)


class ClipRenderer:
    """Draws the frames of clips. `scenes` is the pictures' Renderer, whose sprites and backgrounds it uses."""

    def __init__(self, folder, scenes):
        self.scenes, self.device = scenes, scenes.device
        note = read_animations(folder)
        self.size, columns = note["size"], note["columns"]
        atlas = np.zeros((MAX_FRAMES * len(note["animations"]), self.size, self.size, 4), np.uint8)
        with tarfile.open(os.path.join(folder, "animations.tar")) as archive:
            for member in archive:
                index = int(member.name.split(".")[0])
                pixels = np.array(Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGBA"))
                for k in range(note["animations"][index]["frames"]):
                    y, x = k // columns * self.size, k % columns * self.size
                    atlas[index * MAX_FRAMES + k] = pixels[y:y + self.size, x:x + self.size]
        self.levels = [torch.empty(len(atlas), 4, self.size >> level, self.size >> level, dtype=scenes.dtype,
                                   device=self.device) for level in range(3)]
        for begin in range(0, len(atlas), 96):
            part = torch.from_numpy(atlas[begin:begin + 96]).to(self.device).permute(0, 3, 1, 2).float() / 255
            part[:, :3] *= part[:, 3:]
            for level in self.levels:
                level[begin:begin + 96] = part.to(scenes.dtype)
                part = F.avg_pool2d(part, 2)

    def layer(self, out, levels, number, place, size):
        """Draws premultiplied sprites `number` (-1: none) at `place` (N, 4) into `out` (N, 4, size, size)."""
        angle, side = place[:, 3] * (np.pi / 180), place[:, 2]
        dx, dy = 2 * place[:, 0] - 1, 2 * place[:, 1] - 1
        cos, sin = angle.cos() / side, angle.sin() / side
        theta = torch.stack((torch.stack((cos, sin, -cos * dx - sin * dy), 1),
                             torch.stack((-sin, cos, sin * dx - cos * dy), 1)), 1)
        level = torch.log2(levels[0].shape[-1] / (side * size)).round().clamp(0, len(levels) - 1).long()
        level = torch.where(number >= 0, level, torch.full_like(level, -1))
        for index, source in enumerate(levels):
            chosen = (level == index).nonzero().squeeze(1)
            if len(chosen):
                grid = F.affine_grid(theta[chosen], (len(chosen), 4, size, size), align_corners=False)
                out[chosen] = F.grid_sample(source[number[chosen]].float(), grid, mode="bilinear",
                                            padding_mode="zeros", align_corners=False)

    def background(self, batch, frames, size):
        """(B, T, 3, size, size): the pictures' backgrounds, drifting where they do."""
        still = self.scenes.background(batch["pattern"], batch["colors"], batch["shape"])
        still = F.interpolate(still, (size, size), mode="area")
        clips = still[:, None].expand(-1, frames, -1, -1, -1).contiguous()
        moving = (batch["drift"].abs().sum(1) > 0).nonzero().squeeze(1)
        if len(moving):
            seconds = torch.arange(frames, device=self.device) / FPS
            theta = torch.zeros(len(moving), frames, 2, 3, device=self.device)
            theta[..., 0, 0] = theta[..., 1, 1] = 1
            theta[..., 2] = 2 * batch["drift"][moving][:, None] * seconds[None, :, None]
            source = clips[moving].flatten(0, 1)
            grid = F.affine_grid(theta.flatten(0, 1), source.shape, align_corners=False)
            clips[moving] = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection",
                                          align_corners=False).unflatten(0, (len(moving), frames))
        return clips

    @torch.no_grad()
    def draw(self, batch, size, cover=False):
        """Frames in [0, 1] (B, T, 3, size, size), with cover also the objects' alpha (B, T, size, size)."""
        keys = ("sprite", "animated", "path", "pattern", "colors", "shape", "drift", "light", "grain")
        batch = {key: torch.from_numpy(batch[key]).to(self.device, non_blocking=True) for key in keys}
        count, _, frames = batch["animated"].shape
        clips = self.background(batch, frames, size).flatten(0, 1)
        covered = torch.zeros(len(clips), size, size, device=self.device)
        for slot in range(OBJECTS):
            place = batch["path"][:, slot].flatten(0, 1)
            layer = torch.zeros(len(clips), 4, size, size, device=self.device)
            number = batch["sprite"][:, slot].long().repeat_interleave(frames)
            self.layer(layer, self.scenes.levels, number, place, size)
            self.layer(layer, self.levels, batch["animated"][:, slot].long().flatten(), place, size)
            clips = layer[:, :3] + clips * (1 - layer[:, 3:])
            covered = torch.maximum(covered, layer[:, 3])
        clips = clips.unflatten(0, (count, frames))
        strength, rate, phase = [part[:, None] for part in batch["light"].unbind(1)]
        seconds = torch.arange(frames, device=self.device)[None] / FPS
        clips = clips * (1 + strength * torch.sin(2 * np.pi * (rate * seconds + phase)))[..., None, None, None]
        clips = (clips + batch["grain"][:, None, None, None, None] * torch.randn_like(clips)).clamp(0, 1)
        return (clips, covered.unflatten(0, (count, frames))) if cover else clips


def save_strips(path, clips, shown=8, size=96, columns=1, quality=88):
    """Writes clips (N, T, 3, H, W) in [0, 1] as rows of `shown` frames each, `columns` clips side by side."""
    pick = torch.linspace(0, clips.shape[1] - 1, shown).round().long()
    frames = clips[:, pick].flatten(0, 1).float().cpu().clamp(0, 1)
    frames = F.interpolate(frames, (size, size), mode="area").unflatten(0, (len(clips), shown))
    rows = -(-len(clips) // columns)
    sheet = np.full((rows * (size + 3), columns * (shown * size + 8), 3), 255, np.uint8)
    for index, clip in enumerate(frames):
        y, x = index // columns * (size + 3), index % columns * (shown * size + 8)
        row = clip.permute(2, 0, 3, 1).reshape(size, shown * size, 3)
        sheet[y:y + size, x:x + shown * size] = (row.numpy() * 255 + 0.5).astype(np.uint8)
    Image.fromarray(sheet).save(path, quality=quality)


def preview(folder, path):
    """Draws 24 clips and prints their captions, to look at."""
    from scenes import Renderer
    sampler = ClipSampler(folder, 5, 16)
    renderer = ClipRenderer(folder, Renderer(folder, "cpu"))
    batch = sampler.batch(24, captions=True)
    save_strips(path, renderer.draw(batch, 128), columns=2)
    for index, text in enumerate(batch["captions"]):
        print(index // 2, index % 2, text)


if __name__ == "__main__":
    import sys
    preview(sys.argv[1], sys.argv[2])
