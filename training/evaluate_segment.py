"""Measures the segmentation model on scenes with known objects, held-out objects and the held-out style.

    python3 training/evaluate_segment.py --weights out/segment/models --models assets/default --out out/segment/eval

Writes metrics.json, pictures.png (prompt, truth, answer) and clips.png. Scenes are new ones of the kind of the training
scenes, from seeds of their own; IoU is measured at 256 x 256, masks' logits enlarged linearly.

    python3 training/evaluate_segment.py --data .carry --cases cases --count 40 --backgrounds 60 --device cpu

writes such scenes instead, --count of each kind by turns, which `fovea bench segment --cases` reads. cases.json lists of each

    picture   256x256, PNG
    kind      known, objects or style
    objects   name and mask (white: more than half of what is seen there) of all that can be asked for; maybe none
"""

import copy
import json
import os
import time

import torch
import torch.nn.functional as F
from PIL import Image

from common import arguments, autocast, log, set_up
from import_state import read
from scenes import save_sheet
from segment_model import FIRST, RECENT, Segmenter
from segment_prompts import (ABSENT, BOX, CLICKS, NOWHERE, POINT, TEXT, TOKENS, Phrases, Prompts, box_of, halve,
                             point_of)
from segment_scenes import SIZE, SLOTS, SceneMaker, Sprites, choose_rows

SEEDS = {"known": 555100, "objects": 555200, "style": 555300}
SIDE = SIZE // 2
CLOSER_MARGIN, LEAST_CLOSER = 1.6, 0.16  # of ask_closer(): windows by boxes, and of the picture at least


def load_model(folder, device):
    weights, config = read(folder, "segment", "segment.")
    model = Segmenter(config)
    model.load_state_dict(weights)
    return model.to(device).eval()


def enlarge(logits):
    return F.interpolate(logits.float(), (SIZE, SIZE), mode="bilinear", align_corners=False)


def iou_of(answer, truth):
    """IoU (…) of boolean masks (…, H, W); 1 where both are empty."""
    both = (answer & truth).flatten(-2).sum(-1).float()
    either = (answer | truth).flatten(-2).sum(-1).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def innermost(mask):
    """Flat index (n) of the pixel of (n, H, W) masks that is farthest from their edges."""
    x = F.pad((mask > 0.5).float()[:, None], (1, 1, 1, 1))
    depth = torch.zeros_like(x)
    for _ in range(mask.shape[-1] // 2):
        x = -F.max_pool2d(-x, 3, 1, 1)
        x = F.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
        depth += x
    depth = F.avg_pool2d(depth, 5, 1, 2)[:, 0, 1:-1, 1:-1] + (mask > 0.5)
    return (depth + 0.001 * torch.rand_like(depth)).flatten(1).argmax(1)


class Measure:
    def __init__(self, model, maker, phrases, device):
        self.model, self.maker, self.phrases, self.device = model, maker, phrases, device
        self.shape = (SIZE // 8, SIZE // 8)

    def encode(self, picture):
        with autocast(self.device):
            return self.model.encode(picture.contiguous(memory_format=torch.channels_last))

    def ask(self, features, skips, prompts):
        with autocast(self.device):
            logits, scores = self.model.decode(
                features, skips, self.model.point_tokens(prompts.points, prompts.types), prompts.seen, prompts.text,
                prompts.said, prompts.earlier, prompts.given, self.shape)
        return logits.float(), scores.float()

    def ask_again(self, features, skips, prompts, logits):
        """The prompts once more, with their answers `logits` (n, H, W) as earlier masks and, without a box, their boxes."""
        prompts.correct(logits, again=1.0)
        return self.ask(features, skips, prompts)

    def ask_closer(self, picture, prompts, count, margin=CLOSER_MARGIN):
        """Which pixels (n, SIZE, SIZE) prompts with boxes mean, each asked in a window around its box, enlarged. Windows have
        `margin` times the box's sides; pictures (B, 3, SIZE, SIZE) have `count` prompts each."""
        corners = prompts.points[:, CLICKS:]
        side = (margin * (corners[:, 1] - corners[:, 0]).amax(1)).clamp(min=LEAST_CLOSER, max=1)[:, None]
        middle = torch.minimum(torch.maximum(corners.mean(1), side / 2), 1 - side / 2)

        def view(x, side, middle):
            zero = torch.zeros_like(side)
            theta = torch.stack((torch.cat((side, zero, middle[:, :1]), 1), torch.cat((zero, side, middle[:, 1:]), 1)), 1)
            grid = F.affine_grid(theta, (len(x), 1, SIZE, SIZE), align_corners=False)
            return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False), grid

        seen, _ = view(picture.float().repeat_interleave(count, 0), side, 2 * middle - 1)
        closer = copy.copy(prompts)
        closer.points = (prompts.points - (middle - side / 2)[:, None]) / side[:, None]
        closer.given = torch.zeros_like(prompts.given)
        features, *skips = self.encode(seen)
        logits, _ = self.ask(features, skips, closer)
        back, grid = view(enlarge(logits[:, :1]), 1 / side, (1 - 2 * middle) / side)
        return (back[:, 0] > 0) & (grid.abs() <= 1).all(-1)

    def prompts(self, visible, valid, objects, kind, count):
        shares = [1.0 if k == kind else 0.0 for k in range(5)]
        prompts = Prompts(halve(visible), valid, objects, self.phrases, count, shares)
        prompts.group[:] = False
        if kind in (POINT, TEXT, BOX):
            prompts.chosen = prompts.chosen if kind == TEXT else F.one_hot(prompts.slot, SLOTS).bool()
            prompts.target = prompts.masks(halve(visible), count)
            prompts.truth = prompts.masks(visible, count) > 0.5
            prompts.asked = prompts.kind == kind
            prompts.points[:, CLICKS:] = box_of(prompts.truth.float())
        return prompts

    @torch.no_grad()
    def images(self, scenes, batch, with_text, count=3):
        """Mean IoU by prompt, and how often what is there, and what is not, is said to be there."""
        heard = {}

        def note(name, values, chosen):
            heard.setdefault(name, []).append(values[chosen].float())

        for _ in range(-(-scenes // batch)):
            picture, visible, valid, objects = self.maker.batch(batch)
            visible, valid = visible[:, 0].float(), valid[:, 0]
            features, *skips = self.encode(picture[:, 0])
            # A point: the innermost one, as is usual, or any.
            for name in ("point", "any_point"):
                prompts = self.prompts(visible, valid, objects, POINT, count)
                if name == "point":
                    prompts.points[:, 0] = point_of(innermost(prompts.target), SIDE)
                logits, scores = self.ask(features, skips, prompts)
                ious = torch.stack([iou_of(enlarge(logits[:, k:k + 1])[:, 0] > 0, prompts.truth)
                                    for k in range(logits.shape[1])], 1)
                best = scores[:, :-1].argmax(1, keepdim=True)
                note(name, ious.gather(1, best)[:, 0], prompts.asked)
                if name == "any_point":
                    continue
                note("point_first_mask", ious[:, 0], prompts.asked)
                note("point_best_of_masks", ious.amax(1), prompts.asked)
                note("point_found", scores[:, -1] > 0, prompts.asked)
                chosen = logits[torch.arange(len(logits), device=self.device), best[:, 0]]
                twice = copy.copy(prompts)
                again, _ = self.ask_again(features, skips, twice, chosen)
                note("point_again", iou_of(enlarge(again[:, :1])[:, 0] > 0, prompts.truth), prompts.asked)
                note("point_closer", iou_of(self.ask_closer(picture[:, 0], twice, count), prompts.truth), prompts.asked)
                for click in range(1, CLICKS):
                    prompts.correct(logits[:, 0])
                    logits, scores = self.ask(features, skips, prompts)
                    note(f"points_{click + 1}", iou_of(enlarge(logits[:, :1])[:, 0] > 0, prompts.truth), prompts.asked)
            prompts = self.prompts(visible, valid, objects, BOX, count)
            logits, scores = self.ask(features, skips, prompts)
            note("box", iou_of(enlarge(logits[:, :1])[:, 0] > 0, prompts.truth), prompts.asked)
            note("box_closer", iou_of(self.ask_closer(picture[:, 0], prompts, count), prompts.truth), prompts.asked)
            logits, _ = self.ask_again(features, skips, prompts, logits[:, 0])
            note("box_again", iou_of(enlarge(logits[:, :1])[:, 0] > 0, prompts.truth), prompts.asked)
            prompts = self.prompts(visible, valid, objects, NOWHERE, count)
            _, scores = self.ask(features, skips, prompts)
            note("nowhere_found", scores[:, -1] > 0, prompts.kind == NOWHERE)
            if not with_text:
                continue
            prompts = self.prompts(visible, valid, objects, TEXT, count)
            logits, scores = self.ask(features, skips, prompts)
            answer = enlarge(logits[:, :1])[:, 0] > 0
            note("text", iou_of(answer, prompts.truth), prompts.asked)
            found = scores[:, -1] > 0
            note("text_or_nothing", iou_of(answer & found[:, None, None], prompts.truth), prompts.asked)
            note("text_found", found, prompts.asked)
            absent = self.prompts(visible, valid, objects, ABSENT, count)
            _, scores = self.ask(features, skips, absent)
            note("absent_found", scores[:, -1] > 0, absent.said)
        return {name: round(torch.cat(values).mean().item(), 4) for name, values in heard.items()}

    @torch.no_grad()
    def clips(self, scenes, batch, frames, kind, speed=0.025):
        """(J: mean IoU of an object's mask in all frames but the first, a strip of the first clip)."""
        heard, strip = [], None
        for _ in range(-(-scenes // batch)):
            picture, visible, valid, objects = self.maker.batch(batch, frames, speed)
            visible = visible.float()
            prompts = self.prompts(visible[:, 0], valid[:, 0], objects, kind, 2)
            if kind == POINT:
                prompts.points[:, 0] = point_of(innermost(prompts.target), SIDE)
            memory, rows = [], []
            for frame in range(frames):
                features, *skips = self.encode(picture[:, frame])
                own = seen = features.repeat_interleave(2, 0)
                if frame:
                    with autocast(self.device):
                        seen = self.model.recall(own, torch.cat(memory[:1] + memory[1:][-1:], 1), self.shape)
                    prompts.seen, prompts.said = torch.zeros_like(prompts.seen), torch.zeros_like(prompts.said)
                logits, scores = self.ask(seen, skips, prompts)
                best = scores[:, :-1].argmax(1) if kind == POINT and not frame else torch.zeros_like(prompts.slot)
                logits = logits[torch.arange(len(logits), device=self.device), best]
                answer = (enlarge(logits[:, None])[:, 0] > 0) & (scores[:, -1] > 0)[:, None, None]
                truth = prompts.masks(visible[:, frame], 2) > 0.5
                if frame:
                    heard.append(iou_of(answer, truth)[prompts.asked])
                with autocast(self.device):
                    memory.append(self.model.remember(own, logits, self.shape, RECENT if frame else FIRST))
                rows.append(shown(picture[:, frame].repeat_interleave(2, 0), answer))
            strip = torch.stack(rows, 1)[::2] if strip is None else strip
        return round(torch.cat(heard).mean().item(), 4), strip

    @torch.no_grad()
    def everything(self, scenes, grid=16):
        """Average recall of all objects by a grid of points without asking, IoU 0.5 to 0.95, and masks a picture."""
        recalls, counts, half = [], [], []
        axis = (torch.arange(grid, device=self.device).float() + 0.5) / grid
        points = torch.stack((axis[None].expand(grid, grid), axis[:, None].expand(grid, grid)), -1).reshape(-1, 2)
        for _ in range(scenes):
            picture, visible, valid, objects = self.maker.batch(1)
            visible, valid = visible[0, 0].float(), valid[0, 0]
            features, *skips = self.encode(picture[:, 0])
            prompts = self.prompts(visible[None], valid[None], objects, POINT, len(points))
            prompts.points[:, 0], prompts.seen[:, 0], prompts.seen[:, 1:] = points, True, False
            prompts.said[:] = False
            logits, scores = self.ask(features, skips, prompts)
            quality, best = scores[:, :-1].sigmoid().max(1)
            logits = logits[torch.arange(len(logits), device=self.device), best]
            masks = logits > 0
            quality = torch.where((scores[:, -1] > 0) & masks.flatten(1).any(1), quality, torch.zeros_like(quality))
            order = quality.argsort(descending=True)
            order, kept = order[quality[order] > 0.6].tolist(), []
            flat = masks.flatten(1).float()
            both = flat @ flat.t()
            area = both.diagonal()
            ious = (both / (area[:, None] + area[None] - both).clamp(min=1)).tolist()
            for index in order:
                if all(ious[index][other] < 0.7 for other in kept):
                    kept.append(index)
            truth = visible[valid] > 0.5
            counts.append(len(kept))
            if len(truth) == 0:
                continue
            found = torch.zeros(len(truth))
            if kept:
                answer = enlarge(logits[kept][:, None])[:, 0] > 0
                found = iou_of(answer[None], truth[:, None]).amax(1).cpu()
            steps = torch.arange(0.5, 0.96, 0.05)
            recalls += (found[:, None] >= steps).float().mean(1).tolist()
            half += (found >= 0.5).float().tolist()
        return {"average_recall": round(sum(recalls) / max(1, len(recalls)), 4),
                "recall_50": round(sum(half) / max(1, len(half)), 4), "masks": round(sum(counts) / len(counts), 2)}

    @torch.no_grad()
    def sheet(self, kinds, scenes=8):
        """Rows of prompt, truth and answer."""
        parts = []
        for kind in kinds:
            picture, visible, valid, objects = self.maker.batch(scenes)
            visible = visible[:, 0].float()
            features, *skips = self.encode(picture[:, 0])
            prompts = self.prompts(visible, valid[:, 0], objects, kind, 1)
            logits, scores = self.ask(features, skips, prompts)
            best = scores[:, :-1].argmax(1) if kind == POINT else torch.zeros_like(prompts.slot)
            answer = enlarge(logits[torch.arange(scenes, device=self.device), best][:, None])[:, 0] > 0
            marked = mark(picture[:, 0].clone(), prompts)
            parts.append(torch.stack((marked, shown(picture[:, 0], prompts.truth), shown(picture[:, 0], answer)), 1))
        return torch.cat(parts).flatten(0, 1)


def shown(picture, mask):
    """Pictures with their masks in red, the rest darker."""
    mask = mask[:, None].float()
    red = torch.tensor([1.0, 0.15, 0.1], device=picture.device)[None, :, None, None]
    return picture * (0.45 + 0.25 * mask) + red * 0.3 * mask


def mark(picture, prompts):
    """Draws points and boxes."""
    axis = (torch.arange(SIZE, device=picture.device).float() + 0.5) / SIZE
    white = torch.ones(1, 3, 1, 1, device=picture.device)
    for index in range(TOKENS):
        point = prompts.points[:, index]
        x, y = axis[None, None, :] - point[:, :1, None], axis[None, :, None] - point[:, 1:, None]
        near = ((x * x + y * y).sqrt() < 0.025) & prompts.seen[:, index, None, None]
        picture = torch.where(near[:, None], white, picture)
    return picture


def speed(measure, batch):
    """Pictures encoded and prompts answered a second."""
    picture = torch.rand(batch, 3, SIZE, SIZE, device=measure.device)
    visible = torch.ones(batch, SLOTS, SIZE, SIZE, device=measure.device)
    valid = torch.ones(batch, SLOTS, dtype=torch.bool, device=measure.device)
    objects = measure.phrases.objects[:1].expand(batch, SLOTS)
    result = {}
    with torch.no_grad():
        prompts = measure.prompts(visible, valid, objects, POINT, 1)
        features, *skips = measure.encode(picture)
        for name, run in (("encoded", lambda: measure.encode(picture)),
                          ("answered", lambda: measure.ask(features, skips, prompts))):
            run()
            if measure.device.type == "cuda":
                torch.cuda.synchronize()
            begin, turns = time.time(), 20 if measure.device.type == "cuda" else 1
            for _ in range(turns):
                float(run()[0].float().sum())  # waits
            result[name + "_a_second"] = round(batch * turns / (time.time() - begin), 1)
    return result


class Cases:
    """Scenes written as files: PNG pictures, and masks of what can be asked for."""

    def __init__(self, folder, names):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.names, self.kinds = folder, names, []

    def save(self, name, values):
        """(H, W) or (H, W, 3) in [0, 1]"""
        values = (values * 255).round().byte().cpu().numpy()
        Image.fromarray(values).save(os.path.join(self.folder, name))
        return name

    def add(self, kind, maker, count):
        # All at once: only shares of a batch are blurred, coded and so on. Those of most objects come first, so mixed.
        picture, visible, valid, objects = maker.batch(count)
        order, listed = torch.randperm(count).tolist(), []
        for number, scene in enumerate(order):
            name = f"{kind}-{number:03d}"
            masks = (visible[scene, 0].float() > 0.5).float()
            listed.append({
                "picture": self.save(f"{name}.png", picture[scene, 0].float().permute(1, 2, 0)), "kind": kind,
                "objects": [{"name": self.names[objects[scene, slot]],
                             "mask": self.save(f"{name}-{slot}.png", masks[slot])}
                            for slot in valid[scene, 0].nonzero()[:, 0].tolist()]})
        self.kinds.append(listed)

    def list(self):
        with open(os.path.join(self.folder, "cases.json"), "w", encoding="utf-8") as file:
            json.dump({"cases": [case for each in zip(*self.kinds) for case in each]}, file, indent=1)


def main():
    parser = arguments(__doc__, 1)
    parser.add_argument("--weights", help="folder with segment.safetensors; needed but for --cases")
    parser.add_argument("--models", default="assets/default", help="folder with the text encoder")
    parser.add_argument("--out", help="folder of what is measured; needed but for --cases")
    parser.add_argument("--cases", metavar="FOLDER", help="measure nothing: write scenes and their masks there")
    parser.add_argument("--count", type=int, default=100, help="of --cases: scenes of each kind")
    parser.add_argument("--scenes", type=int, default=600, help="of each kind")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--everything", type=int, default=100, help="pictures for average recall")
    parser.add_argument("--backgrounds", type=int, default=600)
    parser.add_argument("--objects", type=int, default=None, help="use only so many objects, for trials")
    options = parser.parse_args()
    if not options.cases and not (options.weights and options.out):
        parser.error("expected --weights and --out, or --cases")
    device = set_up(options.device, options.seed)
    with open(os.path.join(options.data, "concepts.json"), encoding="utf-8") as file:
        concepts = json.load(file)
    styles = len(concepts["styles"])
    sprites = Sprites(options.data, device, options.objects)
    train = choose_rows(concepts, "train", options.objects)
    if options.cases:
        cases = Cases(options.cases, concepts["objects"])
    else:
        os.makedirs(options.out, exist_ok=True)
        model = load_model(options.weights, device)
        phrases = Phrases(options.data, options.models, {row // styles for row in train}, device)
    metrics = {}
    for kind, seed in SEEDS.items():
        torch.manual_seed(seed + options.seed)
        rows = choose_rows(concepts, kind, options.objects)
        if not rows:
            continue
        if options.cases:
            cases.add(kind, SceneMaker(sprites, rows, options.backgrounds, train), options.count)
            continue
        measure = Measure(model, SceneMaker(sprites, rows, options.backgrounds, train), phrases, device)
        metrics[kind] = measure.images(options.scenes, options.batch, kind != "objects")
        batch = max(1, options.batch // 4)
        for name, prompt in (("video_point", POINT), ("video_box", BOX)):
            metrics[kind][name], strip = measure.clips(options.clips, batch, options.frames, prompt)
        metrics[kind]["everything"] = measure.everything(options.everything)
        log(kind, json.dumps(metrics[kind]))
        kinds = (POINT, BOX) if kind == "objects" else (POINT, BOX, TEXT)
        save_sheet(os.path.join(options.out, f"pictures_{kind}.png"), measure.sheet(kinds), 12, 128)
        save_sheet(os.path.join(options.out, f"clips_{kind}.png"), strip[:4].flatten(0, 1), options.frames, 112)
    if options.cases:
        return cases.list()
    batches = (256, 1) if device.type == "cuda" else (1,)
    metrics["speed"] = {f"batches of {batch}": speed(measure, batch) for batch in batches}
    with open(os.path.join(options.out, "metrics.json"), "w", encoding="utf-8") as file:
        json.dump(metrics, file, indent=1)
    print(json.dumps(metrics["speed"]))


if __name__ == "__main__":
    main()
