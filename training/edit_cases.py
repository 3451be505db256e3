"""Writes held-out scenes with exact masks and an edit of each: what `fovea bench edit`, lens and inpaint read.

    python3 training/edit_cases.py --data .carry --out cases --count 201
    python3 training/edit_cases.py --data .carry --out cases --count 200 --kinds object    # all that inpaint reads
    python3 training/edit_cases.py --data .carry --out clips --count 60 --clips --frames 8 # for fovea bench edit alone

Kinds by turns: another object, another background colour, another style. Scenes of two objects are combinations that
were held out of training; of single objects only the composition is new. cases.json lists, for each case,

    picture   256x256, and prompt, what it says
    objects   name and mask (white: the object covers at least half of the pixel)
    edit      kind, prompt, and region, white where the picture may change: the exchanged object, or all of them for
              their style, grown by 16 pixels, as new ones have other outlines; for a background colour all but the objects

With --clips one object moves over a background colour as clips were trained on (motions.py), at 8 frames a second and
in no other way than captions say. Objects and motions, the exchanged object's too, are combinations held out of training.
A case is then

    frames    of 128x128, in their order, and prompt
    edit      kind, prompt, regions (one a frame, as above; grown by 8 pixels, the same share of a side), and path: how
              what may change moves, [x, y, size, degrees clockwise] a frame, the first three in sides of the frame

Needs numpy and Pillow, no PyTorch.
"""

import argparse
import io
import json
import math
import os
import random
import tarfile

import numpy as np
from PIL import Image, ImageFilter

from captions import COLORS, RELATIONS, SHADES, STYLES, Captioner, held_out, with_article
from motions import MAX_FRAMES, MOTIONS, PHRASES, held_out_motion, path_of

SIZE, CLIP_SIZE = 256, 128
GROW = 1 / 16  # of a side
OVERSAMPLED = 4  # pixels of moving objects, along a side
MOST = 0.95  # of a frame that may change, so that something has to stay
KINDS = ("object", "background", "style")
MOVING = [motion for motion in MOTIONS if motion != "still"]
CENTRES = {"left": ((.27, .5), (.73, .5)), "right": ((.73, .5), (.27, .5)),
           "above": ((.5, .27), (.5, .73)), "below": ((.5, .73), (.5, .27))}


class Sprites:
    def __init__(self, folder):
        self.archive = tarfile.open(os.path.join(folder, "sprites.tar"))
        self.members = {member.name: member for member in self.archive}

    def load(self, index, style):
        """256x256 RGBA; drawings of 224 pixels get a margin."""
        data = self.archive.extractfile(self.members[f"{style}/{index:03d}.webp"]).read()
        picture = Image.open(io.BytesIO(data)).convert("RGBA")
        canvas = Image.new("RGBA", (SIZE, SIZE))
        canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        return canvas


def backdrop(color, size):
    shade = next(value for name, value, _ in SHADES[color] if name == "")
    return np.broadcast_to(np.array(shade, np.float32) / 255, (size, size, 3)).copy()


def put(picture, layer):
    """The picture with an RGBA layer on it, and the layer's alpha."""
    values = np.asarray(layer, np.float32) / 255
    alpha = values[:, :, 3:]
    return values[:, :, :3] * alpha + picture * (1 - alpha), alpha[:, :, 0]


def draw(sprites, objects, style, color, places):
    """The picture and each object's visible cover in [0, 1]."""
    picture, covers = backdrop(color, SIZE), []
    for index, (x, y, size) in zip(objects, places):
        side = round(size * SIZE)
        layer = Image.new("RGBA", (SIZE, SIZE))
        layer.paste(sprites.load(index, style).resize((side, side), Image.LANCZOS),
                    (round(x * SIZE - side / 2), round(y * SIZE - side / 2)))
        picture, alpha = put(picture, layer)
        covers = [cover * (1 - alpha) for cover in covers] + [alpha]
    return picture, covers


def draw_moving(sprite, color, path):
    """Frames and the object's cover in each."""
    side, frames, covers = OVERSAMPLED * CLIP_SIZE, [], []
    for x, y, size, angle in path.astype(float):
        cos, sin = (f(math.radians(angle)) * SIZE / (size * side) for f in (math.cos, math.sin))
        middle = SIZE / 2
        layer = sprite.transform((side, side), Image.AFFINE, (cos, sin, middle - (cos * x + sin * y) * side, -sin, cos,
                                 middle - (cos * y - sin * x) * side), Image.BICUBIC)
        frame, cover = put(backdrop(color, CLIP_SIZE), layer.reduce(OVERSAMPLED))
        frames.append(frame)
        covers.append(cover)
    return frames, covers


def may_change(kind, covers):
    """Region in {0, 1}: of `covers`, of objects that change, or all of them where they stay."""
    if kind == "background":
        region = 1 - np.clip(sum(covers), 0, 1)
    else:
        union = np.max([(cover > 0).astype(np.float32) for cover in covers], axis=0)
        grow = round(GROW * len(union))
        grown = Image.fromarray((union * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * grow + 1))
        region = np.asarray(grown, np.float32) / 255
    return (region >= 0.5).astype(np.float32)


def layout(rng, relation):
    if relation is None:
        size = rng.uniform(0.5, 0.8)
        free = (1 - size) / 2 * 0.7
        return [(0.5 + rng.uniform(-free, free), 0.5 + rng.uniform(-free, free), size)]
    sizes = [rng.uniform(0.38, 0.48) for _ in range(2)]
    return [(x, y, size) for (x, y), size in zip(CENTRES[relation], sizes)]


class Cases:
    def __init__(self, folder, out, seed):
        self.captioner, self.sprites, self.out = Captioner(folder), Sprites(folder), out
        self.rng = random.Random(seed)

    def drawn_in(self, style):
        return sorted(self.captioner.in_style[style])

    def prompt(self, objects, relation, color, style):
        names = [with_article(self.captioner.objects[index], 0.5) for index in objects]
        text = f"{names[0]} {relation} {'of ' if relation in ('left', 'right') else ''}{names[1]}" if relation else names[0]
        return f"{text} on {with_article(color, 0.5)} background, {style} style"

    def scene(self):
        rng, names = self.rng, self.captioner.objects
        while True:
            style, color = rng.choice(STYLES), rng.choice(COLORS)
            relation = rng.choice(RELATIONS) if rng.random() < 0.5 else None
            objects = rng.sample(self.drawn_in(style), 2 if relation else 1)
            if any(color in names[index] for index in objects):
                continue
            if relation is None or held_out(names[objects[0]], names[objects[1]], color, relation):
                return objects, relation, color, style

    def save(self, name, values):
        Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)).save(os.path.join(self.out, name))
        return name

    def change(self, kind, scene, others, colors):
        """What is asked for instead of `scene` (objects, colour, style), and the places of the objects that change.

        `others` and `colors` are what may be put in place of those. None: there is nothing."""
        rng, (objects, color, style) = self.rng, scene
        asked, changed = list(objects), range(len(objects))
        if kind == "object":
            place = rng.randrange(len(objects))
            if not others:
                return None
            asked[place], changed = rng.choice(others), [place]
        elif kind == "background":
            color = rng.choice(colors)
        else:
            styles = [s for s in STYLES if s != style and all(i in self.captioner.in_style[s] for i in objects)]
            if not styles:
                return None
            style = rng.choice(styles)
        return (asked, color, style), changed

    def case(self, number, kind):
        rng, change = self.rng, None
        while change is None:
            objects, relation, color, style = self.scene()
            change = self.change(kind, (objects, color, style), [i for i in self.drawn_in(style) if i not in objects],
                                 [c for c in COLORS if c != color])
        (others, other_color, other_style), changed = change
        picture, covers = draw(self.sprites, objects, style, color, layout(rng, relation))
        name = f"{number:03d}"
        masks = [(cover >= 0.5).astype(np.float32) for cover in covers]
        region = may_change(kind, [covers[i] for i in changed])
        return {"picture": self.save(f"{name}.png", picture),
                "prompt": self.prompt(objects, relation, color, style),
                "objects": [{"name": self.captioner.objects[index], "mask": self.save(f"{name}-{i}.png", mask)}
                            for i, (index, mask) in enumerate(zip(objects, masks))],
                "edit": {"kind": kind, "prompt": self.prompt(others, relation, other_color, other_style),
                         "region": self.save(f"{name}-region.png", region)}}

    def clip(self, number, kind, frames):
        rng, names = self.rng, self.captioner.objects
        regions = None
        while regions is None or max(region.mean() for region in regions) > MOST:
            style, color, motion = rng.choice(STYLES), rng.choice(COLORS), rng.choice(MOVING)
            new = [i for i in self.drawn_in(style) if held_out_motion(names[i], motion) and color not in names[i]]
            if not new:
                continue
            thing = rng.choice(new)
            change = self.change(kind, ([thing], color, style), [i for i in new if i != thing],
                                 [c for c in COLORS if c != color and c not in names[thing]])
            if change is None:
                continue
            path, _ = path_of(rng, motion, frames)
            pictures, covers = draw_moving(self.sprites.load(thing, style), color, path)
            regions = [may_change(kind, [cover]) for cover in covers]
        (others, other_color, other_style), _ = change
        if kind == "background":  # which is at rest
            path = np.broadcast_to(np.float32((0.5, 0.5, 1, 0)), path.shape)
        name = f"{number:03d}"

        def prompt(index, color, style):
            return (f"{with_article(names[index], 0.5)} {PHRASES[motion][0]} on {with_article(color, 0.5)} background, "
                    f"{style} style")

        return {"frames": [self.save(f"{name}-{i:02d}.png", frame) for i, frame in enumerate(pictures)],
                "prompt": prompt(thing, color, style),
                "edit": {"kind": kind, "prompt": prompt(others[0], other_color, other_style),
                         "regions": [self.save(f"{name}-{i:02d}-region.png", region)
                                     for i, region in enumerate(regions)],
                         "path": [[round(float(value), 5) for value in place] for place in path]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=".carry")
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=201)
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--clips", action="store_true", help="cases whose picture moves")
    parser.add_argument("--frames", type=int, default=8, help=f"of clips, 2 to {MAX_FRAMES}; the model learnt 8 and more")
    options = parser.parse_args()
    if not 2 <= options.frames <= MAX_FRAMES:
        parser.error(f"--frames {options.frames} found, expected 2 to {MAX_FRAMES}")
    os.makedirs(options.out, exist_ok=True)
    cases = Cases(options.data, options.out, options.seed)
    listed = []
    for number in range(options.count):
        kind = options.kinds[number % len(options.kinds)]
        listed.append(cases.clip(number, kind, options.frames) if options.clips else cases.case(number, kind))
    with open(os.path.join(options.out, "cases.json"), "w", encoding="utf-8") as file:
        json.dump({"cases": listed}, file, indent=1)


if __name__ == "__main__":
    main()
