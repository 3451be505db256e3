"""Trains the promptable segmentation model on composed scenes and short composed clips.

    python3 training/train_segment.py --minutes 10 --models assets/default --export out/segment/models
"""

import json
import math
import os
import random
import time

from team import Team

import torch

from common import (Average, Clock, Muon, adamw, arguments, autocast, load_checkpoint, log, save_checkpoint, set_rate,
                    set_up)
from export import write
from import_state import read
from models import file_tensors, parameter_count
from segment_loss import answer_loss, match_loss
from segment_model import FIRST, RECENT, SEGMENT_CONFIG, Segmenter
from segment_prompts import BOX, POINT, SHARES, TEXT, Phrases, Prompts, halve
from segment_scenes import SceneMaker, Sprites, choose_rows

FRAMES = 3
SMOKE = dict(SEGMENT_CONFIG, width=64, heads=2, layers=2, hidden=128, stem=[8, 16], global_layers=[1], decoder_width=32,
             decoder_hidden=64, memory_layers=1, memory_hidden=64, upscale=[16, 8], match_width=32)
NAMES = ("loss", "point", "box", "text", "last", "clips", "match", "words")


def split_parameters(model):
    """Hidden matrices of attention layers, for Muon, those that only clips use apart; all else, for AdamW."""
    def hidden(*names):
        return [p for name in names for p in getattr(model, name).parameters() if p.dim() == 2]

    pictures, clips = hidden("blocks", "decoder", "last"), hidden("memory")
    chosen = {id(p) for p in pictures + clips}
    return pictures, clips, [p for p in model.parameters() if id(p) not in chosen]


class Trainer:
    def __init__(self, model, maker, phrases, options, device):
        self.model, self.maker, self.phrases, self.options, self.device = model, maker, phrases, options, device
        side = model.config["size"] // 8
        self.shape, self.loss = (side, side), answer_loss

    def compile_parts(self):
        self.model.compile_parts()  # not the loss: compiled by PyTorch 2.11 its gradients are no numbers

    def drop_compiled(self):
        self.model.drop_compiled()
        self.loss = answer_loss

    def ask(self, features, skips, prompts):
        return self.model.decode(features, skips, self.model.point_tokens(prompts.points, prompts.types), prompts.seen,
                                 prompts.text, prompts.said, prompts.earlier, prompts.given, self.shape)

    def pictures(self, features, skips, visible, valid, objects, corrections):
        """Loss of prompts and corrections, and mean IoU of points, boxes, words and the last answer."""
        options = self.options
        prompts = Prompts(visible, valid, objects, self.phrases, options.prompts, SHARES["pictures"])
        everyone = torch.ones_like(prompts.present)
        loss, figures = 0.0, []
        for turn in range(corrections + 1):
            logits, scores = self.ask(features, skips, prompts)
            part, iou = self.loss(logits, scores, prompts.target, prompts.present, prompts.ambiguous, prompts.group,
                                  everyone)
            loss = loss + part / (corrections + 1)
            if turn == 0:
                for kind in (POINT, BOX, TEXT):
                    chosen = ((prompts.kind == kind) & ~prompts.group).float()
                    figures.append((iou[:, 0] * chosen).sum() / chosen.sum().clamp(min=1))
            if turn < corrections:
                prompts.correct(logits[:, 0].detach(), again=0.3)
            prompts.group = torch.zeros_like(prompts.group)
        chosen = prompts.present.float()
        figures.append((iou[:, 0] * chosen).sum() / chosen.sum().clamp(min=1))
        return loss, figures

    def clips(self, features, skips, visible, valid, objects):
        """Loss of objects followed through clips and the mean IoU of all frames but the first. features (B, T, …)."""
        options, count = self.options, self.options.clip_prompts
        prompts = Prompts(visible[:, 0], valid[:, 0], objects, self.phrases, count, SHARES["clips"])
        prompts.group = torch.zeros_like(prompts.group)
        counts, memory, loss, ious = prompts.present, [], 0.0, []
        for frame in range(FRAMES):
            own = features[:, frame].repeat_interleave(count, 0)
            target, present = prompts.target, prompts.present
            if frame:
                target = prompts.masks(visible[:, frame], count)
                present = target.mean((1, 2)) > 0.0008
                own_seen = self.model.recall(own, torch.cat(memory[:1] + memory[1:][-1:], 1), self.shape)
                prompts.seen, prompts.said = torch.zeros_like(prompts.seen), torch.zeros_like(prompts.said)
                prompts.ambiguous = torch.zeros_like(prompts.ambiguous)
            else:
                own_seen = own
            logits, scores = self.ask(own_seen, [skip[:, frame] for skip in skips], prompts)
            part, iou = answer_loss(logits, scores, target, present, prompts.ambiguous, prompts.group,
                                    counts if frame else torch.ones_like(counts))
            loss = loss + part / FRAMES
            if frame:
                chosen = (present & counts).float()
                ious.append((iou[:, 0] * chosen).sum() / chosen.sum().clamp(min=1))
            # What is remembered is the answer or, half of the time, the truth.
            true = (torch.rand(len(target), device=self.device) < 0.5)[:, None, None]
            kept = torch.where(true, 8 * (2 * target - 1), logits[:, 0].detach().float())
            memory.append(self.model.remember(own, kept, self.shape, RECENT if frame else FIRST))
        return loss, torch.stack(ious).mean()

    def step(self, corrections, speed, with_clips=True):
        """(loss, figures in the order of NAMES) of a batch of pictures and, where asked for, a batch of clips."""
        options, model, maker = self.options, self.model, self.maker
        picture, visible, valid, objects = maker.batch(options.batch, closer=options.closer)
        visible, frames, b = halve(visible[:, 0]), picture[:, 0], options.batch
        if with_clips:
            clip, clip_visible, clip_valid, clip_objects = maker.batch(options.clips, FRAMES, speed)
            clip_visible, frames = halve(clip_visible), torch.cat((frames, clip.flatten(0, 1)))
        frames = frames.contiguous(memory_format=torch.channels_last)
        with autocast(self.device):
            features, *skips = model.encode(frames)
            loss, figures = self.pictures(features[:b], [skip[:b] for skip in skips], visible, valid[:, 0], objects,
                                          corrections)
            match, right = match_loss(model, features[:b], self.shape, visible, objects, self.phrases)
            total, clip_iou = loss + 0.5 * match, torch.full_like(right, float("nan"))

            def in_clips(x):
                return x[b:].unflatten(0, (options.clips, FRAMES))

            if with_clips:
                with model.plain_decoder():
                    clip_loss, clip_iou = self.clips(in_clips(features), [in_clips(skip) for skip in skips],
                                                     clip_visible, clip_valid, clip_objects)
                total = total + 0.5 * clip_loss
        return total, torch.stack([x.detach().float() for x in (total, *figures, clip_iou, match, right)])


def main():
    team = Team()
    parser = arguments(__doc__, 10)
    parser.add_argument("--models", default="assets/default", help="folder with the text encoder")
    parser.add_argument("--batch", type=int, default=256, help="pictures of a step, of each process")
    parser.add_argument("--closer", type=float, default=0.4, help="share of pictures that are a part of a scene, enlarged")
    parser.add_argument("--prompts", type=int, default=3, help="for each picture")
    parser.add_argument("--clips", type=int, default=16, help="clips of 3 frames of a step")
    parser.add_argument("--clips-every", type=int, default=3, help="steps: their many small kernels keep a GPU waiting")
    parser.add_argument("--clip-prompts", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--matrix-lr", type=float, default=0.01)
    parser.add_argument("--flat", type=float, default=0.2, help="share of the time before the learning rate falls")
    parser.add_argument("--warm-up", type=int, default=150, help="steps")
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--backgrounds", type=int, default=1500)
    parser.add_argument("--objects", type=int, default=None, help="use only so many objects, for trials")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, to see all parts work on a CPU")
    parser.add_argument("--repeat", type=int, default=0, help="for trials: the same scenes again after so many steps")
    parser.add_argument("--save-minutes", type=float, default=2.0)
    parser.add_argument("--export", help="folder for the model of every checkpoint")
    parser.add_argument("--start", help="folder with an exported model to go on from where there is no checkpoint")
    parser.add_argument("--commit", default="unknown", help="commit of the training code")
    options = parser.parse_args()
    begin = time.time()
    device = set_up(options.device, options.seed)
    team.gather()
    cuda = device.type == "cuda"
    config = SMOKE if options.smoke else SEGMENT_CONFIG
    model = Segmenter(config).to(device)
    if options.start:
        model.load_state_dict(read(options.start, "segment", "segment.")[0])
    model.grid(*(config["size"] // 8,) * 2, next(model.parameters()).device)
    *matrices, others = split_parameters(model)
    learnt = [*sum(matrices, []), *others]
    muons, optimizer = [Muon(part, options.matrix_lr) for part in matrices], adamw(others, options.lr)
    average = Average([model], options.average)
    path, step = os.path.join(options.state, "segment.pt"), 0
    if os.path.exists(path):
        state = load_checkpoint(path, device)
        model.load_state_dict(state["model"])
        for muon, kept in zip(muons, state["muons"]):
            muon.load(kept)
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        step = state["step"]
        log(f"resumed from {path} at step {step}")
    team.share(learnt)
    torch.manual_seed(options.seed + 1000 * team.rank + step)  # from here on processes draw different scenes

    with open(os.path.join(options.data, "concepts.json"), encoding="utf-8") as file:
        concepts = json.load(file)
    rows = choose_rows(concepts, "train", options.objects)
    maker = SceneMaker(Sprites(options.data, device, options.objects), rows, options.backgrounds)
    phrases = Phrases(options.data, options.models, {row // len(concepts["styles"]) for row in rows}, device)
    trainer = Trainer(model, maker, phrases, options, device)
    log(f"{parameter_count(model):,} parameters, {sum(map(len, matrices))} matrices under Muon; {len(rows)} sprites, "
        f"{len(phrases.objects)} objects; data ready after {time.time() - begin:.0f} s")

    def clear():
        for parameter in learnt:
            parameter.grad = None

    if cuda and options.compile:
        started = time.time()
        try:
            trainer.compile_parts()
            for corrections, with_clips in ((0, False), (1, True)):
                trainer.step(corrections, 0.05, with_clips)[0].backward()
            torch.cuda.synchronize()
            log(f"compiled in {time.time() - started:.0f} s")
        except Exception as error:  # any failure of the compiler
            log("torch.compile failed, going on without:", repr(error)[:600])
            trainer.drop_compiled()
        clear()

    def seconds_of(run, turns):
        run()
        if cuda:
            torch.cuda.synchronize()
        started = time.time()
        for _ in range(turns):
            run()
        if cuda:
            torch.cuda.synchronize()
        return (time.time() - started) / turns

    if cuda:
        log(f"drawing {options.batch} pictures takes {seconds_of(lambda: maker.batch(options.batch, closer=options.closer), 5):.4f} s, a step's "
            f"losses {seconds_of(lambda: trainer.step(0, 0.05)[0].backward(), 4):.4f} s")
        clear()

    def save():
        average.swap()
        averaged = {name: value.clone() for name, value in model.state_dict().items()}
        if options.export:
            os.makedirs(options.export, exist_ok=True)
            write(options.export, "segment.safetensors", options.commit, model.config, file_tensors(model, "segment."))
        average.swap()
        save_checkpoint(path, {"model": model.state_dict(), "averaged": averaged, "average": average.state(),
                               "muons": [muon.state() for muon in muons], "optimizer": optimizer.state_dict(), "config": model.config,
                               "step": step})
        log(f"step {step}: saved")

    clock = Clock(options.minutes, reserve=5 if cuda else 0, warm_up=options.warm_up, begin=begin, agree=team.agree)
    order = random.Random(options.seed + step)
    images = (options.batch + options.clips * FRAMES // options.clips_every) * team.size
    shown, saved, first, heard = time.time(), time.time(), step, []
    while not clock.done():
        factor = clock.factor(floor=0.01, flat=options.flat)
        set_rate(optimizer, options.lr * factor)
        corrections = order.choices((0, 1, 2, 3), (45, 28, 15, 12))[0]
        speed = 0.012 * 12 ** order.random()
        if options.repeat:
            torch.manual_seed(step % options.repeat)
        elif step % 10 == 0:
            maker.backgrounds.renew(40 if cuda else 5)
        with_clips = step % options.clips_every == 0
        loss, figures = trainer.step(corrections, speed, with_clips)
        clear()
        loss.backward()
        team.average_gradients(learnt)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for muon in muons[:1 + with_clips]:
            muon.step(factor)
        optimizer.step()
        average.update()
        step += 1
        if team.rank != 0:
            continue
        heard.append(figures)
        if time.time() - shown > 5:
            means = torch.stack(heard).nanmean(0).tolist()
            rate = images * (step - first) / (time.time() - shown)
            log(f"step {step} {clock.progress():4.0%} {rate:.0f} pictures/s,",
                ", ".join(f"{name} {value:.3f}" for name, value in zip(NAMES, means)))
            if not math.isfinite(means[0]):
                raise SystemExit("loss is not finite")
            shown, first, heard = time.time(), step, []
        if time.time() - saved > 60 * options.save_minutes:
            save()
            saved = shown = time.time()
            first = step
    if team.rank == 0:
        save()
    team.part()


if __name__ == "__main__":
    main()
