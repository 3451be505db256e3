"""Motions of composed clips: their words, what is held out, paths of objects, captions and evaluation prompts.

A place is (x, y, size, angle in degrees, clockwise positive), x, y and size in units of the frame's side; a path holds
one place a frame.
"""

import json
import math
import os
import random
import zlib

import numpy as np

from captions import COLORS, RELATION_PHRASES, with_article, words_of

FPS = 8
MAX_FRAMES = 24
MOTIONS = ["left", "right", "up", "down", "clockwise", "counterclockwise", "grow", "shrink", "bounce", "circle",
           "still"]
DIRECTIONS = MOTIONS[:4]
STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITE_WAY = {"left": "right", "right": "left", "up": "down", "down": "up"}
WEIGHTS = (13, 13, 13, 13, 8, 8, 8, 8, 6, 5, 5)
PHRASES = {
    "left": ["moving left", "moving left", "moving to the left", "moves left", "going left", "sliding left"],
    "right": ["moving right", "moving right", "moving to the right", "moves right", "going right", "sliding right"],
    "up": ["moving up", "moving up", "moving upwards", "moves up", "going up", "rising"],
    "down": ["moving down", "moving down", "moving downwards", "moves down", "going down", "sinking"],
    "clockwise": ["turning clockwise", "turning clockwise", "spinning clockwise", "rotating clockwise"],
    "counterclockwise": ["turning counterclockwise", "turning counterclockwise", "spinning counterclockwise",
                         "rotating counterclockwise", "turning anticlockwise"],
    "grow": ["growing", "growing", "getting bigger", "getting larger", "grows", "coming closer"],
    "shrink": ["shrinking", "shrinking", "getting smaller", "shrinks", "going away"],
    "bounce": ["bouncing", "bouncing", "bouncing up and down", "bounces", "jumping up and down"],
    "circle": ["moving in a circle", "moving in a circle", "circling", "moving around in circles"],
    "still": ["standing still", "staying still", "not moving"],
}
CROSSINGS = ["{} crossing {}", "{} and {} crossing", "{} and {} passing each other"]
SPEED_WORDS = {"slow": ["slowly"], "fast": ["quickly", "fast"]}
OTHER_WORDS = "animated animation moving video clip of while"
# Sides per second and degrees per second below which a motion is called slow, above which fast.
SLOW, FAST = 0.15, 0.28
SLOW_TURN, FAST_TURN = 80, 170


def motion_words(verbs):
    """All words of motions, and of `verbs` of animated drawings."""
    words = set(words_of(OTHER_WORDS))
    groups = [*PHRASES.values(), CROSSINGS, *SPEED_WORDS.values(), verbs]
    for phrase in (phrase for group in groups for phrase in group):
        words |= set(words_of(phrase))
    return words


def held_out_motion(name, motion):
    """True for the tenth of the (object, motion) combinations that is never trained on."""
    return zlib.crc32(f"{name}|{motion}".encode()) % 10 == 0


def place_for(rng, size, path=0.0):
    """First centre on an axis, such that after moving by +path almost all of the object is inside."""
    edge = 0.35 * size
    return rng.uniform(min(edge, 0.5 - path / 2), max(1 - edge - path, 0.5 - path / 2))


def straight(rng, motion, frames, size, across=None):
    """(path, speed word's kind or None) of a move to one side; `across` fixes the place on the other axis."""
    seconds = (frames - 1) / FPS
    speed = rng.choice((rng.uniform(0.09, 0.14), rng.uniform(0.18, 0.3), rng.uniform(0.18, 0.3),
                        rng.uniform(0.36, 0.55)))
    length = min(speed * seconds, 1 - 0.7 * size)
    kind = "slow" if length / seconds < SLOW else "fast" if length / seconds > FAST else None
    begin = place_for(rng, size, length)
    part = np.linspace(0, 1, frames)
    if rng.random() < 0.2:  # softly from rest to rest
        part = part * part * (3 - 2 * part)
    dx, dy = STEP[motion]
    along = begin + length * part if dx + dy > 0 else begin + length * (1 - part)
    if across is None:
        across = 0.5 + rng.uniform(-0.35, 0.35) * (1 - size)
    path = np.empty((frames, 4), np.float32)
    path[:, 0], path[:, 1] = (along, across) if dx else (across, along)
    path[:, 2], path[:, 3] = size, rng.gauss(0, 2)
    return path, kind


def path_of(rng, motion, frames, size=None, centre=None):
    """(path, kind of speed word or None) of one object; `size` and `centre` bind it to its part of the frame."""
    if motion in STEP:
        size = size or rng.uniform(0.52, 0.8)
        across = None if centre is None else centre[1 if STEP[motion][0] else 0]
        return straight(rng, motion, frames, size, across)
    bound, seconds = size is not None, np.arange(frames) / FPS
    usual = {"grow": (0.5, 0.5), "shrink": (0.5, 0.5), "bounce": (0.45, 0.62), "circle": (0.42, 0.56),
             "still": (0.55, 0.9)}.get(motion, (0.6, 0.88))
    size = size or rng.uniform(*usual)
    path = np.empty((frames, 4), np.float32)
    free = 0.35 * (1 - size)
    x, y = centre or (0.5 + rng.uniform(-free, free), 0.5 + rng.uniform(-free, free))
    path[:] = (x, y, size, rng.gauss(0, 2))
    kind = None
    if motion in ("clockwise", "counterclockwise"):
        speed = rng.uniform(50, 220)
        kind = "slow" if speed < SLOW_TURN else "fast" if speed > FAST_TURN else None
        path[:, 3] += speed * seconds * (1 if motion == "clockwise" else -1)
    elif motion in ("grow", "shrink"):
        small, large = (0.65 * size, 1.1 * size) if bound else (rng.uniform(0.3, 0.45), rng.uniform(0.75, 0.95))
        ends = (small, large) if motion == "grow" else (large, small)
        path[:, 2] = np.linspace(*ends, frames)
        if not bound:
            free = 0.3 * (1 - large)
            path[:, 0], path[:, 1] = 0.5 + rng.uniform(-free, free), 0.5 + rng.uniform(-free, free)
    elif motion == "bounce":
        floor = min(y + 0.15, 1 - size / 2) if bound else 1 - size / 2 - rng.uniform(0, 0.1)
        height = rng.uniform(0.5, 1) * max(0.12, floor - 0.45 * size)
        phase = math.pi * (rng.uniform(0.8, 1.6) * seconds + rng.random())
        path[:, 1] = floor - height * np.abs(np.sin(phase))
    elif motion == "circle":
        radius = rng.uniform(0.12, 0.24)
        angle = 2 * math.pi * (rng.choice((-1, 1)) * rng.uniform(0.4, 0.9) * seconds + rng.random())
        path[:, 0], path[:, 1] = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)
    return path, kind


def phrase_of(motion, kind, rng):
    """What a caption says of a motion, sometimes with its speed."""
    phrase = rng.choice(PHRASES[motion])
    if kind and rng.random() < 0.6:
        phrase += " " + rng.choice(SPEED_WORDS[kind])
    return phrase


def pair_caption(names, phrases, relation, rng):
    """`names` with articles and `phrases` of their motions ("" for none); `relation` of the first or None."""
    parts = [f"{name} {phrase}".strip() for name, phrase in zip(names, phrases)]
    if relation:
        return rng.choice(RELATION_PHRASES[relation]).format(*parts)
    return rng.choice(["{} and {}", "{} and {}", "{} while {}", "{}, {}"]).format(*parts)


def write_clip_prompts(captioner, animations, out, count=200, seed=2025):
    """Writes eval_clips.jsonl, prompts of held-out combinations only (half of them of the four directions), and
    eval_animated.jsonl, prompts of animated drawings, which are all trained on."""
    rng = random.Random(seed)
    objects, clips = captioner.objects, []
    others = MOTIONS[4:]
    while len(clips) < count:
        number = len(clips)
        motion = DIRECTIONS[number // 2 % 4] if number % 2 == 0 else others[number // 2 % len(others)]
        name = rng.choice(objects)
        if not held_out_motion(name, motion) or any(c["objects"] == [name] and c["motion"] == motion for c in clips):
            continue
        color = rng.choice([c for c in COLORS if c not in name])
        styles = [s for s in ("3d", "3d", "noto", "flat", "blob") if objects.index(name) in captioner.in_style[s]]
        style = rng.choice(styles) if rng.random() < 0.5 else None
        text = f"{with_article(name, 0.5)} {PHRASES[motion][0]} on {with_article(color, 0.5)} background"
        clips.append({"prompt": text + (f", {style} style" if style else ""), "objects": [name], "motion": motion,
                      "color": color, "relation": None, "style": style})
    animated = []
    for entry in animations:
        text = f"{with_article(entry['name'], 0.5)} {entry['verbs'][0]}"
        if rng.random() < 0.5:
            color = rng.choice([c for c in COLORS if c not in entry["name"]])
            text += f" on {with_article(color, 0.5)} background"
        animated.append({"prompt": text, "objects": [entry["name"]] if entry["object"] >= 0 else []})
    rng.shuffle(animated)
    for name, entries in (("eval_clips.jsonl", clips), ("eval_animated.jsonl", animated)):
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
