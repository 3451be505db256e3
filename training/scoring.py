"""Reads pictures with the evaluator and compares them with what they should show (docs/model-format.md, Reading)."""

import json
import os

import torch

from captions import COLORS, RELATIONS, STYLES
from common import autocast
from scenes import SceneSampler

REAL_SEED = 555_000


def read_prompt_file(folder, kind, limit=None):
    """The evaluation prompts of a kind, "single" or "pairs": dicts with the prompt and what it asks for."""
    with open(os.path.join(folder, f"eval_{kind}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file][:limit]


@torch.no_grad()
def read_pictures(model, pictures, device, size=100):
    """Masses (B, K), confidences (B, K), centres (B, K, 2 as x, y), colour and style ids of pictures in [0, 1]."""
    parts = []
    for part in pictures.split(size):
        with autocast(device):
            objects, color, style = model(part)
        p = objects.float().softmax(-1)[..., :-1]
        side = int(p.shape[1] ** 0.5)
        centre = (torch.arange(side, device=p.device).float() + 0.5) / side
        places = torch.stack((centre.repeat(side), centre.repeat_interleave(side)), 1)
        mass = p.sum(1)
        centres = torch.einsum("bnk,nd->bkd", p, places) / (mass[..., None] + 1e-9)
        parts.append((mass, p.amax(1), centres, color.float().argmax(1), style.float().argmax(1)))
    return [torch.cat(items) for items in zip(*parts)]


def relation_between(first, second):
    """Relation of the object at `first` (x, y) to the one at `second`."""
    dx, dy = (second - first).tolist()
    if abs(dx) > abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


def score(reading, expected, names):
    """Per picture a dict of what is right. `expected`: dicts with objects (names), color, relation, style or None."""
    mass, confidence, centres, color, style = [item.cpu() for item in reading]
    ids = {name: index for index, name in enumerate(names)}
    results = []
    for index, want in enumerate(expected):
        targets = [ids[name] for name in want["objects"]]
        ranking = mass[index].topk(max(2, len(targets))).indices.tolist()
        result = {"top1": ranking[0] in targets, "objects": set(targets) <= set(ranking[:len(targets)]),
                  "one": bool(set(targets) & set(ranking[:len(targets)])),
                  "mass": min(mass[index, t].item() for t in targets),
                  "confidence": min(confidence[index, t].item() for t in targets)}
        if want.get("color"):
            result["color"] = COLORS[color[index]] == want["color"]
        if want.get("style"):
            result["style"] = STYLES[style[index]] == want["style"]
        if want.get("relation") and len(targets) == 2:
            result["relation"] = relation_between(centres[index, targets[0]],
                                                  centres[index, targets[1]]) == want["relation"]
            result["relation_all"] = result["relation"] and result["objects"]
        result["all"] = all(result.get(key, True) for key in ("objects", "color", "relation"))
        results.append(result)
    return results


def summary(results):
    """Share of pictures right in each respect, among those that ask for it."""
    keys = ("top1", "objects", "one", "color", "style", "relation", "relation_all", "all", "confidence")
    table = {}
    for key in keys:
        values = [float(result[key]) for result in results if key in result]
        if values:
            table[key] = round(sum(values) / len(values), 4)
    return table


def expected_of(batch, names):
    """What the scenes of a batch of descriptions show, in the form that score() wants."""
    result = []
    for index in range(len(batch["color"])):
        relation, style = int(batch["relation"][index]), int(batch["style"][index])
        result.append({"objects": [names[k] for k in batch["object"][index] if k >= 0],
                       "color": COLORS[int(batch["color"][index])],
                       "relation": RELATIONS[relation] if relation >= 0 else None,
                       "style": STYLES[style] if style >= 0 else None})
    return result


def draw_scenes(renderer, folder, count, kind, seed, size=100):
    """Pictures of `count` fresh scenes and what they show; kind "single", "pairs" or None for the training mixture."""
    sampler = SceneSampler(folder, seed, "default", kind)
    pictures, expected = [], []
    while len(expected) < count:
        batch = sampler.batch(min(size, count - len(expected)))
        pictures.append(renderer.draw(batch))
        expected += expected_of(batch, sampler.captioner.objects)
    return torch.cat(pictures), expected, sampler.captioner.objects


def real_scene_metrics(model, renderer, folder, device, count):
    """Accuracies of the evaluator on real scenes that were never drawn before: the generator's ceilings."""
    was_training = model.training
    model.eval()
    table = {}
    for kind in ("single", "pairs"):
        pictures, expected, names = draw_scenes(renderer, folder, count, kind, REAL_SEED)
        table[kind] = summary(score(read_pictures(model, pictures, device), expected, names))
    model.train(was_training)
    return table
