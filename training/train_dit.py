"""Trains the diffusion transformer and the text encoder on latents of composed scenes.

    python3 training/train_dit.py --minutes 9 --pool-minutes 1.5

Run it again to go on from its checkpoint. Needs the autoencoder's checkpoint; the evaluator's is used for progress
figures where it exists. Beside the flow's loss, the text encoder is held to saying in its noun states on which side
each object stands (side_loss.py); the linear head for this stays in the checkpoint and is not exported.
"""

import json
import math
import os
import time

import torch

from captions import Captioner
from common import (Average, Clock, Compiled, Muon, adamw, arguments, autocast, load_checkpoint, log,
                    save_checkpoint, set_rate, set_up)
from latent_pool import LatentPool, fingerprint
from loading import load_autoencoder, load_evaluator
from models import DIT_CONFIG, TEXT_CONFIG, Dit, TextEncoder, parameter_count
from sampling import generate
from scenes import Renderer, SceneStream
from scoring import read_pictures, read_prompt_file, score, summary
from side_loss import SideHead, side_loss


def split_parameters(text_encoder, dit):
    """(hidden matrices for Muon, everything else)."""
    matrices = [p for module in (dit, text_encoder) for block in module.blocks
                for name, p in block.named_parameters() if p.dim() == 2 and name != "table"]
    chosen = {id(p) for p in matrices}
    others = [p for module in (dit, text_encoder) for p in module.parameters() if id(p) not in chosen]
    return matrices, others


def make_loss(text_encoder, dit, head, side_weight):
    def loss(z, noise, t, ids, sides):
        """(loss to minimise, flow's part of it, share of nouns whose side is read right)."""
        mixed = (1 - t[:, None, None, None]) * z + t[:, None, None, None] * noise
        states = text_encoder(ids)
        velocity = dit(mixed, t, states).float()
        flow = (velocity - (noise - z)).pow(2).mean()
        side, right = side_loss(head(states), sides)
        return flow + side_weight * side, flow.detach(), right
    return loss


def sample_times(count, device):
    """Logit-normal times, with a part uniform so that both ends are seen too."""
    t = torch.sigmoid(torch.randn(count, device=device) + 0.1)
    uniform = torch.rand(count, device=device)
    return torch.where(torch.rand(count, device=device) < 0.15, uniform, t)


def read_prompts(folder, captioner, limit=None):
    """The evaluation prompts by kind: (expected, token ids)."""
    result = {}
    for kind in ("single", "pairs"):
        entries = read_prompt_file(folder, kind, limit)
        result[kind] = (entries, torch.tensor([captioner.tokenize(entry["prompt"]) for entry in entries]))
    return result


def main():
    parser = arguments(__doc__, 9)
    parser.add_argument("--pool-minutes", type=float, default=1.5, help="time for encoding scenes in this run")
    parser.add_argument("--capacity", type=int, default=600_000, help="most latents kept")
    parser.add_argument("--encode-batch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1.5e-3, help="AdamW's rate; Muon's is --matrix-lr")
    parser.add_argument("--matrix-lr", type=float, default=0.01)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--decay", type=int, default=1, help="0: the rates stay, for a run that another one follows")
    parser.add_argument("--flat", type=float, default=0.3, help="share of the run before the rates fall")
    parser.add_argument("--side-weight", type=float, default=0.05)
    parser.add_argument("--only-pool", action="store_true", help="encode scenes, keep them on disk, do not train")
    parser.add_argument("--check-prompts", type=int, default=100)
    parser.add_argument("--save-pool", type=int, default=1, help="keep the latents on disk for the next run")
    options = parser.parse_args()
    begin = time.time()
    path = os.path.join(options.state, "dit.pt")
    previous = load_checkpoint(path, "cpu") if os.path.exists(path) else None
    runs = previous["runs"] + 1 if previous else 0
    device = torch.device(options.device)
    seed = options.seed + 1000 * runs
    stream = SceneStream(options.data, options.encode_batch, 41 + seed, "relations", options.workers)
    set_up(options.device, seed)
    captioner = Captioner(options.data)
    text_config = dict(TEXT_CONFIG, vocabulary=len(captioner.words))
    autoencoder = load_autoencoder(options.state, device)
    prompts = read_prompts(options.data, captioner, options.check_prompts)

    mark = fingerprint(autoencoder)
    pool = LatentPool(options.state, options.capacity, DIT_CONFIG["latent_channels"], TEXT_CONFIG["length"], device)
    pool.load(mark)
    if pool.count < options.capacity and options.pool_minutes > 0 or pool.count == 0:
        renderer = Renderer(options.data, device)
        pool.fill(autoencoder, renderer, stream, max(1, options.pool_minutes * 60),
                  options.compile and device.type == "cuda")
        del renderer
        if options.save_pool:
            saving = time.time()
            try:
                pool.save(mark)
                log(f"latents saved in {time.time() - saving:.0f} s")
            except OSError as error:  # a full disk must not end the run
                log("latents not saved:", error)
    stream.close()
    if options.only_pool:
        return

    text_encoder, dit = TextEncoder(text_config).to(device), Dit(DIT_CONFIG).to(device)
    matrices, others = split_parameters(text_encoder, dit)
    head = SideHead(text_config["width"]).to(device)
    muon, optimizer = Muon(matrices, options.matrix_lr), adamw(others, options.lr)
    head_optimizer = adamw(head.parameters(), options.lr)  # its own: checkpoints from before the head stay readable
    average = Average([text_encoder, dit], options.average)
    step, best = 0, None
    if previous:
        text_encoder.load_state_dict(previous["text"])
        dit.load_state_dict(previous["dit"])
        if "optimizer" in previous:
            muon.load(previous["muon"])
            optimizer.load_state_dict(previous["optimizer"])
            average.load(previous["average"])
        else:
            average.copy()
        if "side" in previous:
            head.load_state_dict(previous["side"])
        step = previous["step"]
        log(f"resumed from {path} at step {step}")
    previous = None
    log(f"transformer {parameter_count(dit):,}, text encoder {parameter_count(text_encoder):,} parameters, "
        f"{len(matrices)} matrices under Muon")

    def save():
        average.swap()
        metrics = {}
        evaluator = load_evaluator(options.state, device)  # it may still be training in another process
        if evaluator is not None:
            for kind, (expected, tokens) in prompts.items():
                pictures = generate((text_encoder, dit, autoencoder), tokens, device, 4.0, options_steps, 1)
                metrics[kind] = summary(score(read_pictures(evaluator, pictures, device), expected,
                                              captioner.objects))
        averaged = {"text": {k: v.clone() for k, v in text_encoder.state_dict().items()},
                    "dit": {k: v.clone() for k, v in dit.state_dict().items()}}
        average.swap()
        save_checkpoint(path, {"text": text_encoder.state_dict(), "dit": dit.state_dict(), "muon": muon.state(),
                               "optimizer": optimizer.state_dict(), "average": average.state(), "averaged": averaged,
                               "side": head.state_dict(), "text_config": text_config, "config": DIT_CONFIG,
                               "step": step, "runs": runs, "metrics": metrics})
        log(f"step {step}: {json.dumps(metrics)}; saved")

    options_steps = 24 if device.type == "cuda" else 2
    loss_function = Compiled(make_loss(text_encoder, dit, head, options.side_weight),
                             options.compile and device.type == "cuda")
    dit.grid(1, 16, 16, next(dit.parameters()).device)  # made outside the compiled function
    clock = Clock(options.minutes, reserve=12 if device.type == "cuda" else 0, warm_up=200, begin=begin)
    shown, saved, first, total, heard = time.time(), time.time(), step, [], []
    while not clock.done():
        factor = clock.factor(floor=0.01, flat=options.flat if options.decay else 0.999)
        set_rate(optimizer, options.lr * factor)
        set_rate(head_optimizer, options.lr * factor)
        z, ids, sides = pool.batch(options.batch)
        told = torch.rand(len(ids), 1, device=device) > 0.1
        ids, sides = ids * told, sides * told
        noise, t = torch.randn_like(z), sample_times(len(z), device)
        with autocast(device):
            loss, flow, right = loss_function(z, noise, t, ids, sides)
        for parameter in [*matrices, *others, *head.parameters()]:
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step(factor)
        optimizer.step()
        head_optimizer.step()
        average.update()
        step += 1
        total.append(flow)
        heard.append(right)
        if time.time() - shown > 5:
            rate = (step - first) / (time.time() - shown)
            mean = torch.stack(total).mean().item()
            log(f"step {step} {clock.progress():4.0%} loss {mean:.4f} {rate * options.batch:.0f} latents/s, "
                f"sides {torch.stack(heard).mean().item():.3f} right")
            shown, first, total, heard = time.time(), step, [], []
            if not math.isfinite(mean):
                raise SystemExit("loss is not finite")
        if time.time() - saved > 120:
            save()
            saved = shown = time.time()
            first = step
    save()


if __name__ == "__main__":
    main()
