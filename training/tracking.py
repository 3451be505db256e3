"""Follows objects through clips with the evaluator, and measures the flicker of backgrounds.

Frames are enlarged to the evaluator's 256 pixels. Everything is read from generated and from real clips alike.

Motion: the object's centre in a frame is the mean of the evaluator's token centres weighted by the probability of its
class; the displacement is the slope of a straight line through the centres, weighted by the class's mass, times the
number of steps. A direction is right if the displacement's larger component has its sign and is LEAST_MOVE at least.

Flicker: the mean absolute difference of neighbouring frames (RGB in [0, 1]) over the background: tokens (16x16 of the
frame) that the evaluator calls background with 0.9 at least in both frames, and all of whose neighbours are so too.
A clip counts if a tenth of its pixels are background so defined.
"""

import json
import os

import torch
import torch.nn.functional as F

from captions import COLORS
from common import autocast
from motions import DIRECTIONS, STEP

LEAST_MOVE = 0.08
SURE_BACKGROUND = 0.9


def read_clip_prompts(folder, limit=None, kind="clips"):
    with open(os.path.join(folder, f"eval_{kind}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file][:limit]


@torch.no_grad()
def track(evaluator, clips, device, size=200):
    """Of clips (B, T, 3, H, W) in [0, 1]: masses (B, T, K), centres (B, T, K, 2 as x, y), where nothing is seen but
    background (B, T, 16, 16), colour and style ids (B, T)."""
    parts = []
    for frames in clips.flatten(0, 1).split(size):
        frames = F.interpolate(frames.to(device), (256, 256), mode="bilinear", align_corners=False)
        with autocast(device):
            objects, color, style = evaluator(frames)
        p = objects.float().softmax(-1)
        side = int(p.shape[1] ** 0.5)
        axis = (torch.arange(side, device=p.device).float() + 0.5) / side
        places = torch.stack((axis.repeat(side), axis.repeat_interleave(side)), 1)
        mass = p[..., :-1].sum(1)
        centres = torch.einsum("bnk,nd->bkd", p[..., :-1], places) / (mass[..., None] + 1e-9)
        thing = (p[..., -1] < SURE_BACKGROUND).float().reshape(-1, 1, side, side)
        empty = F.max_pool2d(thing, 3, 1, 1)[:, 0] == 0
        parts.append((mass, centres, empty, color.float().argmax(1), style.float().argmax(1)))
    return [torch.cat(items).unflatten(0, clips.shape[:2]).cpu() for items in zip(*parts)]


def displacement(centres, mass):
    """Way (x, y) along the line that fits centres (T, 2) weighted by mass (T)."""
    time = torch.linspace(-0.5, 0.5, len(mass))
    weight = mass / (mass.sum() + 1e-9)
    time = time - (weight * time).sum()
    return (weight * time) @ centres / ((weight * time) @ time + 1e-9)


def judge_clips(tracked, expected, names):
    """Shares of clips right, of those that ask for it: the object of greatest mass in the middle frame; directions;
    growing and shrinking; standing still; colour in the middle frame."""
    mass, centres, _, color, _ = tracked
    ids = {name: index for index, name in enumerate(names)}
    found = {}
    for index, want in enumerate(expected):
        target = ids[want["objects"][0]]
        middle = mass.shape[1] // 2
        found.setdefault("object", []).append(mass[index, middle].argmax().item() == target)
        found.setdefault("object_all_frames", []).append((mass[index].argmax(1) == target).float().mean().item())
        if want.get("color"):
            found.setdefault("color", []).append(COLORS[color[index, middle]] == want["color"])
        motion = want.get("motion")
        way = displacement(centres[index, :, target], mass[index, :, target])
        axis = way.abs().argmax().item()
        if motion in DIRECTIONS:
            right = way[axis] * STEP[motion][axis] >= LEAST_MOVE
            for key in ("direction", motion):
                found.setdefault(key, []).append(bool(right))
        elif motion in ("grow", "shrink"):
            third = max(1, mass.shape[1] // 3)
            before, after = mass[index, :third, target].mean(), mass[index, -third:, target].mean()
            found.setdefault("size", []).append(bool((after > 1.2 * before) if motion == "grow" else
                                                     (before > 1.2 * after)))
        elif motion == "still":
            found.setdefault("still", []).append(bool(way.abs().max() < LEAST_MOVE))
    return {key: round(sum(map(float, values)) / len(values), 4) for key, values in found.items()}


@torch.no_grad()
def flicker(clips, empty):
    """Per clip, the flicker of its background (top of this file), or nan. `empty` (B, T, 16, 16) from track()."""
    values = []
    for clip, free in zip(clips, empty):
        difference = (clip[1:] - clip[:-1]).abs().mean(1)
        both = (free[1:] & free[:-1]).float().to(clip.device)[:, None]
        both = F.interpolate(both, clip.shape[-2:], mode="nearest")[:, 0]
        enough = both.mean() >= 0.1
        values.append(((difference * both).sum() / both.sum()).item() if enough else float("nan"))
    return torch.tensor(values)


def flicker_table(values):
    """Mean and median in units of 1/255, and how many clips count."""
    known = values[~values.isnan()] * 255
    return {"mean": round(known.mean().item(), 4), "median": round(known.median().item(), 4), "clips": len(known)}
