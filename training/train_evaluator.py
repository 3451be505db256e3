"""Trains the evaluator, which recognises objects, background colour and style of a picture, on composed scenes.

    python3 training/train_evaluator.py --minutes 8
"""

import json
import math
import os
import time

import torch
import torch.nn.functional as F

from augment import augment
from captions import COLORS, STYLES, Captioner
from common import (Average, Clock, Compiled, Muon, adamw, arguments, autocast, load_checkpoint, log,
                    save_checkpoint, set_rate, set_up)
from models import EVALUATOR_CONFIG, Evaluator, parameter_count
from scenes import Renderer, SceneStream
from scoring import real_scene_metrics

IGNORE = -100


def token_labels(cover, objects, background, cell=16):
    """Class per token from the visible alpha (B, slots, H, W) and the objects' ids (B, slots; -1: no object)."""
    share = F.avg_pool2d(cover, cell).flatten(2)
    best, slot = share.max(1)
    total = share.sum(1)
    label = torch.gather(objects.long(), 1, slot)
    # A thin object never covers a third of a token: its fullest tokens count too.
    fullest = share.amax(2, keepdim=True)
    full = ((share >= 0.75 * fullest) & (share > 0.08)).any(1)
    other = (total - best) > 0.6 * best
    unclear = torch.full_like(label, IGNORE)
    result = torch.where(((best > 0.35) | full) & ~other, label, unclear)
    return torch.where(total < 0.08, torch.full_like(label, background), result)


def make_loss(model, classes):
    def loss(picture, labels, presence, color, style):
        """Token classes, the share of each present object in the mass, colour and style."""
        objects, color_logits, style_logits = model(picture)
        objects = objects.float()
        tokens = F.cross_entropy(objects.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none")
        weight = torch.where(labels.flatten() == classes, 0.4, 1.0) * (labels.flatten() != IGNORE)
        token_loss = (tokens * weight).sum() / weight.sum()
        mass = objects.softmax(-1)[..., :classes].sum(1)
        share = mass / (mass.sum(1, keepdim=True) + 1e-4)
        mass_loss = -(presence * torch.log(share + 1e-4)).sum(1).mean()
        return (token_loss + 0.5 * mass_loss + 0.3 * F.cross_entropy(color_logits.float(), color)
                + 0.3 * F.cross_entropy(style_logits.float(), style, ignore_index=IGNORE), token_loss)
    return loss


def main():
    parser = arguments(__doc__, 8)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--held-out", type=int, default=1000)
    options = parser.parse_args()
    begin = time.time()
    device = set_up(options.device, options.seed)
    stream = SceneStream(options.data, options.batch, 23 + options.seed, "wide", options.workers)
    captioner = Captioner(options.data)
    classes = len(captioner.objects)
    renderer = Renderer(options.data, device)
    log(f"data ready after {time.time() - begin:.0f} s")

    config = dict(EVALUATOR_CONFIG, objects=classes, colors=COLORS, styles=STYLES)
    model = Evaluator(config).to(device)
    matrices = [p for block in model.blocks for n, p in block.named_parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    muon = Muon(matrices, 0.01)
    optimizer = adamw([p for p in model.parameters() if id(p) not in chosen], options.lr)
    average = Average([model], 0.998)
    path = os.path.join(options.state, "evaluator.pt")
    if os.path.exists(path):
        state = load_checkpoint(path, device)
        model.load_state_dict(state["model"])
        if "optimizer" in state:
            muon.load(state["muon"])
            optimizer.load_state_dict(state["optimizer"])
            average.load(state["average"])
        else:
            average.copy()
        log("resumed from", path)
    log(f"{parameter_count(model):,} parameters")

    def save(final=False):
        average.swap()
        metrics = real_scene_metrics(model, renderer, options.data, device,
                                     options.held_out if final else min(400, options.held_out))
        averaged = {k: v.clone() for k, v in model.state_dict().items()}
        average.swap()
        save_checkpoint(path, {"config": config, "model": model.state_dict(), "average": average.state(),
                               "averaged": averaged, "muon": muon.state(), "optimizer": optimizer.state_dict(),
                               "metrics": metrics})
        log(f"step {step}: held-out {json.dumps(metrics)}; saved")

    model.grid(16, 16, next(model.parameters()).device)  # made outside the compiled function
    loss_function = Compiled(make_loss(model, classes), options.compile and device.type == "cuda")
    clock = Clock(options.minutes, reserve=8 if device.type == "cuda" else 0, warm_up=300, begin=begin)
    step, shown, saved = 0, time.time(), time.time()
    while not clock.done():
        factor = clock.factor()
        set_rate(optimizer, options.lr * factor)
        batch = stream.next()
        picture, cover = renderer.draw(batch, cover=True)
        objects = torch.from_numpy(batch["object"]).to(device).long()
        labels = token_labels(cover, objects.clamp(min=0), classes)
        present = (objects >= 0).float()
        presence = torch.zeros(len(objects), classes, device=device).scatter_add_(
            1, objects.clamp(min=0), present / present.sum(1, keepdim=True))
        color = torch.from_numpy(batch["color"]).to(device).long()
        style = torch.from_numpy(batch["style"]).to(device).long()
        style = torch.where(style < 0, torch.full_like(style, IGNORE), style)
        picture = augment(picture)
        with autocast(device):
            loss, token_loss = loss_function(picture, labels, presence, color, style)
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(factor)
        optimizer.step()
        average.update()
        step += 1
        if time.time() - shown > 5:
            shown = time.time()
            log(f"step {step} {clock.progress():4.0%} loss {loss.item():.4f} tokens {token_loss.item():.4f}")
            if not math.isfinite(loss.item()):
                raise SystemExit("loss is not finite")
        if time.time() - saved > 75:
            save()
            saved = time.time()
    save(final=True)


if __name__ == "__main__":
    main()
