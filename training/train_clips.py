"""Goes on with the transformer and the text encoder on pictures and clips together.

    python3 training/train_clips.py --minutes 20 --pool-minutes 4 --export out/clips/models

Needs the checkpoints of the autoencoder and of the transformer (import_state.py). Run it again to go on from its
checkpoint; the pools of latents are then made anew. On several GPUs (each_gpu.sh N python3 training/train_clips.py ...)
each process has pools and batches of its own. Each step is a batch of pictures or of clips of one shape, as the shares
of BUCKETS say; all batches have about equally many tokens. With every checkpoint the averaged weights are written to
--export, so that a run that is cut has its models.
"""

import collections
import json
import math
import os
import random
import time

import torch

from captions import Captioner
from clip_pool import ClipPool
from clips import ClipRenderer, ClipStream
from common import (Average, Clock, Compiled, Muon, adamw, arguments, autocast, load_checkpoint, log, save_checkpoint,
                    set_rate, set_up)
from export import write_generator, write_words
from latent_pool import LatentPool
from loading import load_autoencoder, load_evaluator
from models import CLIP_CONFIG, Dit, TextEncoder, parameter_count
from sampling import generate
from scenes import Renderer, SceneStream
from scoring import read_pictures, score, summary
from side_loss import MoveHead, SideHead, move_loss, side_loss
from team import Team
from train_dit import read_prompts, sample_times, split_parameters
from tracking import judge_clips, read_clip_prompts, track

# frames (1: pictures), side in pixels, share of the steps, scenes kept encoded. Other lengths and 256 pixels are for
# generality; a 16-frame clip of 128 pixels is the default.
Bucket = collections.namedtuple("Bucket", "frames size share scenes")
BUCKETS = [Bucket(1, 256, 0.40, 300_000), Bucket(16, 128, 0.40, 150_000), Bucket(8, 128, 0.04, 20_000),
           Bucket(12, 128, 0.04, 15_000), Bucket(24, 128, 0.05, 12_000), Bucket(16, 256, 0.07, 10_000)]
SMOKE = [Bucket(1, 256, 0.3, 8), Bucket(4, 64, 0.4, 4), Bucket(6, 64, 0.15, 4), Bucket(4, 96, 0.15, 4)]
FIRST_GIVEN = 0.2  # of the clips: the first frame is known, as for --image
ENCODED_PIXELS = 768 * 128 * 128  # of one call of the encoder: whole clips of 8, 12, 16 and 24 frames


def tokens_of(bucket):
    return bucket.frames * (bucket.size // 16) ** 2


def time_shift(bucket):
    """How far times move towards noise: tokens that say the same thing hide noise, by the root of their number."""
    return math.sqrt(tokens_of(bucket) / 256)


def clip_times(count, bucket, device):
    """As sample_times (train_dit.py), moved towards noise: in logits, by the shift's logarithm."""
    t = sample_times(count, device).clamp(1e-5, 1 - 1e-5)
    return torch.sigmoid(torch.logit(t) + math.log(time_shift(bucket)))


def make_loss(text_encoder, dit, side_head, move_head, weight):
    def loss(z, noise, t, given, ids, sides, moves):
        """(loss to minimise, flow's part, share of sides and of motions read right). `given`: clips (bool) whose first
        frame is known, or None for pictures."""
        wide = t.reshape(-1, *[1] * (z.dim() - 1))
        mixed, target = (1 - wide) * z + wide * noise, noise - z
        if given is not None:
            known = torch.zeros(z.shape[:2], dtype=torch.bool, device=z.device)
            known[:, 0] = given
            known = known[:, :, None, None, None]
            mixed = torch.where(known, z, mixed)
        states = text_encoder(ids)
        error = (dit(mixed, t, states).float() - target).pow(2)
        if given is None:
            flow = error.mean()
        else:
            flow = (error * ~known).sum() / ((~known).sum() * error[0, 0].numel())
        side, side_right = side_loss(side_head(states), sides)
        move, move_right = move_loss(move_head(states), moves)
        return flow + weight * (side + move), flow.detach(), side_right, move_right
    return loss


def make_batch(bucket, pool, count, device):
    """A batch of a pool with its noise, times and first frames; some captions are emptied."""
    if bucket.frames == 1:
        z, ids, sides = pool.batch(count)
        moves, t, given = torch.zeros_like(sides), sample_times(count, device), None
    else:
        z, ids, sides, moves = pool.batch(count)
        t, given = clip_times(count, bucket, device), torch.rand(count, device=device) < FIRST_GIVEN
    told = torch.rand(count, 1, device=device) > 0.1
    return z, torch.randn_like(z), t, given, ids * told, sides * told, moves * told


def random_batch(bucket, count, channels, length, device):
    """A batch of the same shapes without data, to compile with."""
    side = bucket.size // 8
    shape = (channels, side, side) if bucket.frames == 1 else (bucket.frames, side, side, channels)
    z, ids = torch.randn(count, *shape, device=device), torch.zeros(count, length, dtype=torch.long, device=device)
    given = None if bucket.frames == 1 else torch.zeros(count, dtype=torch.bool, device=device)
    return z, torch.randn_like(z), torch.rand(count, device=device), given, ids, ids, ids


def fill_pools(buckets, streams, autoencoder, folder, seconds, device, compiled):
    """One pool for each bucket; time goes by the pixels to encode."""
    renderer = Renderer(folder, device)
    clip_renderer = ClipRenderer(folder, renderer)
    channels, length = autoencoder.latent_mean.numel(), 32
    encode = Compiled(lambda pictures: autoencoder.normalise(autoencoder.encoder(pictures).float()), compiled,
                      backward=False)
    cost = [bucket.scenes * bucket.frames * bucket.size ** 2 for bucket in buckets]
    pools, end = [], time.time() + seconds
    for index, (bucket, stream) in enumerate(zip(buckets, streams)):
        available = (end - time.time()) * cost[index] / sum(cost[index:])
        if bucket.frames == 1:
            pools.append(LatentPool("", bucket.scenes, channels, length, device))
            pools[-1].fill(autoencoder, renderer, stream, max(available, 1), compiled)
        else:
            pools.append(ClipPool(bucket.frames, bucket.size, bucket.scenes, channels, length, device))
            pools[-1].fill(autoencoder, clip_renderer, stream, max(available, 1), encode)
        stream.close()
    return pools


def make_streams(folder, buckets, seed, workers, pixels):
    """Scene descriptions of every bucket; processes by the work there is, a picture's description being the slowest."""
    work, streams = [bucket.scenes * (6 if bucket.frames == 1 else 1) for bucket in buckets], []
    for bucket, part in zip(buckets, work):
        processes = max(1, round(workers * part / sum(work))) if workers else 0
        count = max(1, pixels // (bucket.frames * bucket.size ** 2))
        if bucket.frames == 1:
            streams.append(SceneStream(folder, count, 71 + seed, "relations", processes))
        else:
            streams.append(ClipStream(folder, bucket.frames, count, 73 + seed + bucket.size + bucket.frames, processes))
    return streams


def main():
    team = Team()
    parser = arguments(__doc__, 20)
    parser.add_argument("--pool-minutes", type=float, default=4, help="of --minutes, for encoding scenes")
    parser.add_argument("--tokens", type=int, default=2 ** 18, help="of a batch of one process")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="AdamW's rate; Muon's is --matrix-lr")
    parser.add_argument("--matrix-lr", type=float, default=0.01)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--flat", type=float, default=0.4, help="share of the run before the rates fall")
    parser.add_argument("--label-weight", type=float, default=0.05, help="of the side and motion losses")
    parser.add_argument("--save-minutes", type=float, default=3.5)
    parser.add_argument("--check-prompts", type=int, default=60, help="of each kind, with every checkpoint")
    parser.add_argument("--export", help="folder for the models of every checkpoint")
    parser.add_argument("--commit", default="unknown", help="commit of the training code")
    parser.add_argument("--only-compile", action="store_true",
                        help="fill the compiler's cache, beside a run that is still encoding, and stop")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes and pools, to see all parts work")
    options = parser.parse_args()
    begin = time.time()
    buckets, budget = (SMOKE, 512) if options.smoke else (BUCKETS, options.tokens)
    path = os.path.join(options.state, "dit.pt")
    streams = [] if options.only_compile else make_streams(
        options.data, buckets, options.seed + 1000 * team.rank, options.workers, 8 * 64 * 64 if options.smoke else ENCODED_PIXELS)
    device = set_up(options.device, options.seed)
    team.gather()
    cuda = device.type == "cuda"
    previous = load_checkpoint(path, "cpu")
    captioner = Captioner(options.data)
    text_config, config = previous["text_config"], dict(previous["config"], **CLIP_CONFIG)
    if text_config["vocabulary"] != len(captioner.words):
        raise SystemExit("the checkpoint has another vocabulary than the data; import_state.py adds words")
    counts = [max(1, budget // tokens_of(bucket) // 8 * 8) if not options.smoke else 2 for bucket in buckets]

    text_encoder, dit = TextEncoder(text_config).to(device), Dit(config).to(device)
    matrices, others = split_parameters(text_encoder, dit)
    heads = torch.nn.ModuleDict({"side": SideHead(text_config["width"]), "move": MoveHead(text_config["width"])})
    heads = heads.to(device)
    loss_function = make_loss(text_encoder, dit, heads["side"], heads["move"], options.label_weight)
    learnt = [*matrices, *others, *heads.parameters()]
    torch.manual_seed(options.seed + team.rank)  # from here on processes draw different scenes and noise

    def clear():
        for parameter in learnt:
            parameter.grad = None

    def compile_all():
        dit.compile_blocks()
        try:
            for bucket, count in zip(buckets, counts):
                started = time.time()
                with autocast(device):
                    loss_function(*random_batch(bucket, count, config["latent_channels"], text_config["length"],
                                                device))[0].backward()
                clear()
                torch.cuda.synchronize()
                log(f"compiled {count} x {bucket.frames} frames of {bucket.size} in {time.time() - started:.0f} s")
        except Exception as error:  # any failure of the compiler
            log("torch.compile failed, going on without:", repr(error)[:400])
            dit.drop_compiled()
            clear()

    if options.only_compile:
        compile_all()
        return
    autoencoder = load_autoencoder(options.state, device)
    pools = fill_pools(buckets, streams, autoencoder, options.data, options.pool_minutes * 60, device,
                       cuda and options.compile)
    if cuda:
        torch.cuda.empty_cache()  # what drawing and encoding needed

    muon, optimizer = Muon(matrices, options.matrix_lr), adamw(others, options.lr)
    head_optimizer = adamw(heads.parameters(), options.lr)
    average = Average([text_encoder, dit], options.average)
    text_encoder.load_state_dict(previous["text"])
    dit.load_state_dict(previous["dit"])
    step = previous["step"]
    if "heads" in previous:
        heads.load_state_dict(previous["heads"])
        muon.load(previous["muon"])
        optimizer.load_state_dict(previous["optimizer"])
        average.load(previous["average"])
        log(f"resumed from {path} at step {step}")
    else:
        average.copy()
    previous = None
    team.share(learnt)
    log(f"transformer {parameter_count(dit):,}, text encoder {parameter_count(text_encoder):,} parameters, "
        f"{len(matrices)} matrices under Muon")
    if cuda and options.compile:
        compile_all()

    prompts = read_prompts(options.data, captioner, options.check_prompts)
    clip_prompts = read_clip_prompts(options.data, options.check_prompts)
    check_steps, models = (24 if cuda else 2), (text_encoder, dit, autoencoder)

    def check():
        """Progress figures: pictures as in train_dit.py, motion and middle frames of clips."""
        evaluator = load_evaluator(options.state, device)
        if evaluator is None or options.check_prompts == 0:
            return {}
        metrics = {}
        for kind, (expected, tokens) in prompts.items():
            pictures = generate(models, tokens, device, 3.0, check_steps, 1)
            metrics[kind] = summary(score(read_pictures(evaluator, pictures, device), expected, captioner.objects))
        tokens = torch.tensor([captioner.tokenize(entry["prompt"]) for entry in clip_prompts])
        shape = buckets[1]
        clips = generate(models, tokens, device, 3.0, check_steps, 1, (shape.size // 8,) * 2, 32, shape.frames)
        metrics["clips"] = judge_clips(track(evaluator, clips, device), clip_prompts, captioner.objects)
        return metrics

    def save():
        average.swap()
        with dit.plain_blocks():
            metrics = check()
        averaged = {"text": {k: v.clone() for k, v in text_encoder.state_dict().items()},
                    "dit": {k: v.clone() for k, v in dit.state_dict().items()}}
        if options.export:
            write_words(options.export, options.data)
            write_generator(options.export, options.commit, text_encoder, text_config, dit, config)
        average.swap()
        save_checkpoint(path, {"text": text_encoder.state_dict(), "dit": dit.state_dict(), "muon": muon.state(),
                               "optimizer": optimizer.state_dict(), "average": average.state(), "averaged": averaged,
                               "heads": heads.state_dict(), "text_config": text_config, "config": config,
                               "step": step, "runs": 20, "metrics": metrics})
        log(f"step {step}: {json.dumps(metrics)}; saved")

    clock = Clock(options.minutes, reserve=15 if cuda else 0, warm_up=200, begin=begin, agree=team.agree)
    if options.smoke:
        clock.end = time.time() + 12
    order = random.Random(options.seed + step)
    shown, saved, first, heard = time.time(), time.time(), step, {}
    while not clock.done():
        factor = clock.factor(floor=0.01, flat=options.flat)
        set_rate(optimizer, options.lr * factor)
        set_rate(head_optimizer, options.lr * factor)
        index = order.choices(range(len(buckets)), [bucket.share for bucket in buckets])[0]
        batch = make_batch(buckets[index], pools[index], counts[index], device)
        with autocast(device):
            loss, *figures = loss_function(*batch)
        clear()
        loss.backward()
        team.average_gradients(learnt)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step(factor)
        optimizer.step()
        head_optimizer.step()
        average.update()
        step += 1
        if team.rank != 0:
            continue
        heard.setdefault(index, []).append(torch.stack(figures))
        if time.time() - shown > 5:
            means = {index: torch.stack(rows).mean(0).tolist() for index, rows in sorted(heard.items())}
            parts = [f"{buckets[i].frames}x{buckets[i].size} {row[0]:.4f}" for i, row in means.items()]
            sides = [f"{row[1]:.3f}" for i, row in means.items() if i == 0]
            moves = [f"{row[2]:.3f}" for i, row in means.items() if i == 1]
            log(f"step {step} {clock.progress():4.0%} {(step - first) / (time.time() - shown):.2f} steps/s, loss",
                ", ".join(parts), "; right: sides", *sides, "motions", *moves)
            if not all(math.isfinite(row[0]) for row in means.values()):
                raise SystemExit("loss is not finite")
            shown, first, heard = time.time(), step, {}
        if time.time() - saved > 60 * options.save_minutes:
            save()
            saved = shown = time.time()
            first = step
    if team.rank == 0:
        save()
    team.part()


if __name__ == "__main__":
    main()
