"""Captions of composed scenes: the words, the templates, what is held out, and the evaluation prompts."""

import json
import os
import random
import re
import zlib

STYLES = ["3d", "noto", "flat", "blob"]
COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray"]
# Colour of each named shade (0-255) and how likely it is among the shades of its name.
SHADES = {
    "red": [("", (218, 38, 40), 5), ("dark", (140, 16, 22), 1)],
    "orange": [("", (246, 138, 26), 1)],
    "yellow": [("", (250, 216, 50), 1)],
    "green": [("", (60, 168, 75), 4), ("light", (150, 222, 150), 1), ("dark", (18, 88, 42), 1)],
    "blue": [("", (48, 104, 222), 4), ("light", (138, 194, 250), 2), ("dark", (18, 40, 118), 1)],
    "purple": [("", (142, 68, 192), 4), ("light", (196, 160, 236), 1), ("dark", (76, 28, 118), 1)],
    "pink": [("", (250, 142, 192), 1)],
    "brown": [("", (124, 78, 44), 1)],
    "black": [("", (22, 22, 25), 1)],
    "white": [("", (247, 247, 246), 1)],
    "gray": [("", (138, 139, 142), 1)],
}
BACKGROUNDS = ["plain", "gradient", "striped", "dotted", "checkered", "textured"]
RELATIONS = ["left", "right", "above", "below"]
LENGTH = 32

# Phrases per relation; {} are the two objects in order.
RELATION_PHRASES = {
    "left": ["{} left of {}", "{} to the left of {}", "{} on the left of {}"],
    "right": ["{} right of {}", "{} to the right of {}", "{} on the right of {}"],
    "above": ["{} above {}", "{} above {}", "{} over {}"],
    "below": ["{} below {}", "{} below {}", "{} under {}"],
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
PATTERN_WORDS = {"plain": ["plain", "solid"], "gradient": ["gradient"], "striped": ["striped", "stripes"],
                 "dotted": ["dotted", "polka dot"], "checkered": ["checkered", "checkerboard"],
                 "textured": ["textured", "noisy"]}
STYLE_PHRASES = ["{} style", "{} style", "in {} style", "{} emoji", "{}"]
OTHER_WORDS = "a an the and with next to beside picture of emoji on in grey backdrop background style light dark dots " \
              "checks noise under over side by"


def words_of(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def template_words():
    words = set(words_of(OTHER_WORDS)) | set(STYLES) | set(COLORS) | set(RELATIONS)
    for phrases in list(RELATION_PHRASES.values()) + list(PATTERN_WORDS.values()) + [STYLE_PHRASES]:
        for phrase in phrases:
            words |= set(words_of(phrase))
    return words


def held_out(first, second, color, relation):
    """True for the tenth of the (pair, background colour, relation) combinations that is never trained on.

    `relation` is that of `first` to `second`; both ways of saying the same thing give the same answer.
    """
    if first > second:
        first, second, relation = second, first, OPPOSITE[relation]
    return zlib.crc32(f"{first}|{second}|{color}|{relation}".encode()) % 10 == 0


def with_article(name, choice):
    """`name` with an article; names that look like plurals get none."""
    plural = name.endswith("s") and not name.endswith(("ss", "us", "is"))
    if choice < 0.15 or plural:
        return name
    if choice < 0.22:
        return "the " + name
    return ("an " if name[0] in "aeiou" and not name.startswith(("uni", "ufo")) else "a ") + name


class Captioner:
    """Names, aliases and vocabulary of a data folder, and captions made from them."""

    def __init__(self, folder):
        with open(os.path.join(folder, "concepts.json"), encoding="utf-8") as file:
            self.concepts = json.load(file)
        with open(os.path.join(folder, "vocabulary.txt"), encoding="utf-8") as file:
            self.words = file.read().split("\n")[:-1]
        self.ids = {word: index for index, word in enumerate(self.words)}
        self.objects = self.concepts["objects"]
        self.aliases = self.concepts["aliases"]
        self.in_style = {style: set(ids) for style, ids in self.concepts["in_style"].items()}

    def tokenize(self, text):
        """Token ids as docs/model-format.md says, padded to LENGTH."""
        ids = []
        for word in words_of(text):
            for form in (word, word[:-1] if word.endswith("s") else "", word[:-2] if word.endswith("es") else ""):
                if form in self.ids:
                    ids.append(self.ids[form])
                    break
        ids = ids[:LENGTH]
        return ids + [0] * (LENGTH - len(ids))

    def name(self, index, rng):
        """The object's name or another word for it, without an article."""
        name = self.objects[index]
        others = self.aliases.get(name)
        if others and rng.random() < 0.2:
            name = rng.choice(others)
        return name

    def spans(self, tokens, names):
        """(first, last + 1) of each name's words in the token ids, or None where a name was cut off.

        Names come in the order of the caption and before its background, so the first place after the one before is it.
        """
        result, begin = [], 0
        for name in names:
            ids = [i for i in self.tokenize(name) if i]
            places = [k for k in range(begin, len(tokens) - len(ids) + 1) if tokens[k:k + len(ids)] == ids]
            result.append((places[0], places[0] + len(ids)) if ids and places else None)
            begin = result[-1][1] if result[-1] else begin
        return result

    def background(self, color, shade, pattern, rng):
        """A phrase such as "on a light blue striped background" or ", yellow background"."""
        word = "grey" if color == "gray" and rng.random() < 0.3 else color
        if shade and rng.random() < 0.8:
            word = shade + " " + word
        say_pattern = rng.random() < (0.3 if pattern == "plain" else 0.8)
        pattern_word = rng.choice(PATTERN_WORDS[pattern]) if say_pattern else ""
        if pattern_word == "stripes":
            phrase = f"{word} background with stripes"
        else:
            phrase = " ".join(part for part in (word, pattern_word, "background") if part)
        if rng.random() < 0.65:
            return " on " + with_article(phrase, 0.3 if rng.random() < 0.85 else 0.0)
        return ", " + phrase

    def caption(self, objects, relation, style, background, rng):
        """(caption of objects (ids), their names in it without articles).

        `relation` of the first object to the second, `style` and `background` may be None.
        """
        bare, names = [], []
        for index in objects:
            bare.append(self.name(index, rng))
            names.append(with_article(bare[-1], rng.random()))
        if len(names) == 2:
            if relation:
                text = rng.choice(RELATION_PHRASES[relation]).format(*names)
            else:
                text = rng.choice(["{} and {}", "{} and {}", "{} with {}", "{} next to {}", "{}, {}"]).format(*names)
        elif len(names) == 3:
            text = "{}, {} and {}".format(*names)
        else:
            text = names[0] if rng.random() < 0.92 else "picture of " + names[0]
        tail = background or ""
        if style:
            phrase = rng.choice(STYLE_PHRASES).format(style)
            where = rng.random()
            if where < 0.12 and len(names) == 1:
                text = f"{style} {' '.join(text.split()[1:])}" if text.startswith(("a ", "an ")) else f"{style} {text}"
            elif where < 0.5:
                text, tail = f"{text}, {phrase}", tail
            else:
                tail = f"{tail}, {phrase}"
        return text + tail, bare


def write_evaluation_prompts(captioner, out, count=300, seed=2024):
    """Writes eval_single.jsonl and eval_pairs.jsonl: prompts with what the picture must show."""
    rng = random.Random(seed)
    objects = captioner.objects
    everything = list(range(len(objects)))

    def style_for(ids):
        choices = [s for s in ("3d", "3d", "noto", "flat", "blob") if all(i in captioner.in_style[s] for i in ids)]
        return rng.choice(choices) if rng.random() < 0.6 else None

    def prompt(text, color, style):
        if color:
            text += f" on {with_article(color, 0.5)} background"
        return text + (f", {style} style" if style else "")

    def named(index):
        return with_article(objects[index], 0.5)

    singles, pairs, order = [], [], []
    while len(singles) < count:
        if not order:
            order = rng.sample(everything, len(everything))
        index = order.pop()
        color = rng.choice([c for c in COLORS if c not in objects[index]]) if rng.random() < 0.8 else None
        style = style_for([index])
        singles.append({"prompt": prompt(named(index), color, style), "objects": [objects[index]], "color": color,
                        "relation": None, "style": style})
    while len(pairs) < count:
        first, second = rng.sample(everything, 2)
        color, relation = rng.choice(COLORS), rng.choice(RELATIONS)
        if not held_out(objects[first], objects[second], color, relation):
            continue
        style = style_for([first, second])
        text = RELATION_PHRASES[relation][0].format(named(first), named(second))
        pairs.append({"prompt": prompt(text, color, style), "objects": [objects[first], objects[second]],
                      "color": color, "relation": relation, "style": style})
    for name, entries in (("eval_single.jsonl", singles), ("eval_pairs.jsonl", pairs)):
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
