"""Writes held-out scenes with exact masks and an edit of each: what `fovea bench edit`, lens and inpaint read.

    python3 training/edit_cases.py --data .carry --out cases --count 201
    python3 training/edit_cases.py --data .carry --out cases --count 200 --kinds object    # all that inpaint reads

Kinds by turns: another object, another background colour, another style. Scenes of two objects are combinations that
were held out of training; of single objects only the composition is new. cases.json lists, for each case,

    picture   256x256, and prompt, what it says
    objects   name and mask (white: the object covers at least half of the pixel)
    edit      kind, prompt, and region, white where the picture may change: the exchanged object, or all of them for
              their style, grown by 16 pixels, as new ones have other outlines; for a background colour all but the objects

Needs numpy and Pillow, no PyTorch.
"""

import argparse
import io
import json
import os
import random
import tarfile

import numpy as np
from PIL import Image, ImageFilter

from captions import COLORS, RELATIONS, SHADES, STYLES, Captioner, held_out, with_article

SIZE = 256
GROW = 16
KINDS = ("object", "background", "style")
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


def draw(sprites, objects, style, color, places):
    """The picture and each object's visible cover in [0, 1]."""
    shade = next(value for name, value, _ in SHADES[color] if name == "")
    picture = np.broadcast_to(np.array(shade, np.float32) / 255, (SIZE, SIZE, 3)).copy()
    covers = []
    for index, (x, y, size) in zip(objects, places):
        side = round(size * SIZE)
        layer = Image.new("RGBA", (SIZE, SIZE))
        layer.paste(sprites.load(index, style).resize((side, side), Image.LANCZOS),
                    (round(x * SIZE - side / 2), round(y * SIZE - side / 2)))
        values = np.asarray(layer, np.float32) / 255
        alpha = values[:, :, 3:]
        picture = values[:, :, :3] * alpha + picture * (1 - alpha)
        covers = [cover * (1 - alpha[:, :, 0]) for cover in covers] + [alpha[:, :, 0]]
    return picture, covers


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

    def case(self, number, kind):
        rng = self.rng
        while True:
            objects, relation, color, style = self.scene()
            asked, changed = (list(objects), relation, color, style), range(len(objects))
            if kind == "object":
                place = rng.randrange(len(objects))
                other = rng.choice([i for i in self.drawn_in(style) if i not in objects])
                asked[0][place], changed = other, [place]
            elif kind == "background":
                asked = objects, relation, rng.choice([c for c in COLORS if c != color]), style
            else:
                styles = [s for s in STYLES if s != style and all(i in self.captioner.in_style[s] for i in objects)]
                if not styles:
                    continue
                asked = objects, relation, color, rng.choice(styles)
            break
        picture, covers = draw(self.sprites, objects, style, color, layout(rng, relation))
        name = f"{number:03d}"
        masks = [(cover >= 0.5).astype(np.float32) for cover in covers]
        if kind == "background":
            region = 1 - np.clip(sum(covers), 0, 1)
        else:
            union = np.max([(covers[i] > 0).astype(np.float32) for i in changed], axis=0)
            grown = Image.fromarray((union * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * GROW + 1))
            region = np.asarray(grown, np.float32) / 255
        return {"picture": self.save(f"{name}.png", picture),
                "prompt": self.prompt(objects, relation, color, style),
                "objects": [{"name": self.captioner.objects[index], "mask": self.save(f"{name}-{i}.png", mask)}
                            for i, (index, mask) in enumerate(zip(objects, masks))],
                "edit": {"kind": kind, "prompt": self.prompt(*asked),
                         "region": self.save(f"{name}-region.png", (region >= 0.5).astype(np.float32))}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=".carry")
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=201)
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    cases = Cases(options.data, options.out, options.seed)
    kinds = options.kinds
    listed = [cases.case(number, kinds[number % len(kinds)]) for number in range(options.count)]
    with open(os.path.join(options.out, "cases.json"), "w", encoding="utf-8") as file:
        json.dump({"cases": listed}, file, indent=1)


if __name__ == "__main__":
    main()
