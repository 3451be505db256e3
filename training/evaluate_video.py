"""Measures the clips of the trained models and draws strips of them.

    python3 training/evaluate_video.py --out out/clips/eval

Writes metrics_video.json and strips (a row holds 8 frames of a clip): clips.jpg, animated.jpg, first_frame.jpg,
large.jpg, real.jpg. None is picked by hand: they show the first prompts of the files. tracking.py says how motion and
flicker are measured.
"""

import json
import os
import time

import torch

from captions import Captioner
from clips import ClipRenderer, ClipSampler, save_strips
from common import arguments, log, set_up
from loading import load_autoencoder, load_evaluator, load_generator
from sampling import decode, encode, generate
from scenes import Renderer
from tracking import flicker, flicker_table, judge_clips, read_clip_prompts, track

REAL_SEED = 888_000


def round_trip(autoencoder, clips, device):
    flat = clips.flatten(0, 1)
    return decode(autoencoder, encode(autoencoder, flat, device), device).unflatten(0, clips.shape[:2])


def psnr(a, b):
    """Mean over frames, in dB."""
    error = (a - b).pow(2).flatten(0, 1).mean((1, 2, 3))
    return (-10 * torch.log10(error + 1e-10)).mean().item()


def main():
    parser = arguments(__doc__, 3)
    parser.add_argument("--out", required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--settings", default="3/1,2/1,4/1,3/2,3/3", help="guidance/shift, the first is the main one")
    parser.add_argument("--lengths", default="8,24", help="other lengths to measure")
    parser.add_argument("--few", type=int, default=40, help="prompts of other lengths and sizes")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, to see all parts work")
    options = parser.parse_args()
    begin = time.time()
    device = set_up(options.device, options.seed)
    os.makedirs(options.out, exist_ok=True)
    captioner = Captioner(options.data)
    names, metrics = captioner.objects, {}
    autoencoder, evaluator = load_autoencoder(options.state, device), load_evaluator(options.state, device)
    text, dit, state = load_generator(options.state, device)
    models, config = (text, dit, autoencoder), state["config"]
    frames, size, large = config["frames"], config["clip_size"], config["size"]
    lengths = [int(value) for value in options.lengths.split(",") if value]
    if options.smoke:
        options.prompts, options.few, options.steps, frames, size, large, lengths = 4, 2, 2, 4, 64, 96, [3]
        options.settings = "3/2"
    entries = read_clip_prompts(options.data, options.prompts)
    tokens = torch.tensor([captioner.tokenize(entry["prompt"]) for entry in entries])

    def write():
        with open(os.path.join(options.out, "metrics_video.json"), "w") as file:
            json.dump(metrics, file, indent=1)

    def measure(name, clips, expected):
        tracked = track(evaluator, clips, device)
        table = judge_clips(tracked, expected, names)
        table["flicker"] = flicker_table(flicker(clips, tracked[2]))
        metrics[name] = table
        log(name, json.dumps(table))
        write()
        return table

    def strips(name, clips, **how):
        save_strips(os.path.join(options.out, name), clips, **how)

    def draw(prompts, number, side, guidance=3.0, shift=1.0, first=None, seed=2024):
        batch = max(1, 12_800 // (number * (side // 16) ** 2) * 4)
        return generate(models, prompts, device, guidance, options.steps, seed, (side // 8,) * 2, batch, number, shift,
                        first)

    # Real clips of the same objects, motions and colours: ceilings of the tracker, and what flicker is measured by.
    torch.manual_seed(REAL_SEED)
    renderer = ClipRenderer(options.data, Renderer(options.data, device))
    sampler, real = ClipSampler(options.data, REAL_SEED, frames, entries), []
    for start in range(0, len(entries), 40):
        real.append(renderer.draw(sampler.batch(min(40, len(entries) - start)), size))
    real = torch.cat(real)
    decoded = round_trip(autoencoder, real, device)
    metrics["training_steps"], metrics["sampling_steps"] = state["step"], options.steps
    metrics["autoencoder_psnr_db"] = round(psnr(real, decoded), 2)
    raw, through = measure("real", real, entries), measure("real through the autoencoder", decoded, entries)
    strips("real.jpg", real[:24], size=64, columns=2)
    del decoded

    for setting in options.settings.split(","):
        guidance, shift = [float(value) for value in setting.split("/")]
        started = time.time()
        clips = draw(tokens, frames, size, guidance, shift)
        name = f"clips, guidance {guidance:g}, shift {shift:g}"
        table = measure(name, clips, entries)
        for key, other in (("data", raw), ("decoded_data", through)):
            for how in ("mean", "median"):
                table[f"flicker_by_{key}_{how}"] = round(table["flicker"][how] / max(other["flicker"][how], 1e-6), 3)
        log(f"{time.time() - started:.1f} s; flicker by the data's:",
            {key: value for key, value in table.items() if key.startswith("flicker_by")})
        if setting == options.settings.split(",")[0]:
            strips("clips.jpg", clips[:48], size=64, columns=2)
        del clips
        write()

    few, few_tokens = entries[:options.few], tokens[:options.few]
    first = real[:options.few, 0]
    latents = encode(autoencoder, first, device).permute(0, 2, 3, 1)
    clips = draw(few_tokens, frames, size, first=latents)
    table = measure("first frame given", clips, few)
    table["first_frame_psnr_db"] = round(psnr(clips[:, :1], first[:, None]), 2)
    table["step_0_to_1"] = round((clips[:, 1] - clips[:, 0]).abs().mean().item() * 255, 3)
    table["step_0_to_1_data"] = round((real[:options.few, 1] - first).abs().mean().item() * 255, 3)
    strips("first_frame.jpg", clips[:24], size=64, columns=2)
    del real, clips
    for number in lengths:
        measure(f"{number} frames", draw(few_tokens, number, size), few)
    clips = draw(few_tokens, frames, large)
    measure(f"{large} pixels", clips, few)
    strips("large.jpg", clips[:12], size=128)
    animated = read_clip_prompts(options.data, 4 if options.smoke else 60, "animated")
    clips = draw(torch.tensor([captioner.tokenize(entry["prompt"]) for entry in animated]), frames, size)
    known = [index for index, entry in enumerate(animated) if entry["objects"]]
    if known:
        measure("animated", clips[known], [animated[index] for index in known])
    metrics["animated"]["change_of_frames"] = round((clips[:, 1:] - clips[:, :-1]).abs().mean().item() * 255, 3)
    strips("animated.jpg", clips, size=64, columns=2)
    metrics["prompts_of_animated"] = [entry["prompt"] for entry in animated]
    write()
    log(f"done in {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
