"""Measures the trained models and draws contact sheets.

    python3 training/evaluate.py --out out

Writes metrics.json, random.png, best.png, worst.png, pairs.png, reconstructions.png. No picture is hand-picked:
random.png and pairs.png show the first prompts of the files; best and worst are by the evaluator's mass of the asked objects.
"""

import json
import os
import time

import torch

from captions import Captioner
from common import arguments, autocast, log, set_up
from loading import load_autoencoder, load_evaluator, load_generator
from sampling import generate
from scenes import Renderer, save_sheet
from scoring import draw_scenes, read_pictures, real_scene_metrics, score, summary
from train_autoencoder import measure
from train_dit import read_prompts


def main():
    parser = arguments(__doc__, 3)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=1000, help="real scenes per kind")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", default="2,3,4,5")
    options = parser.parse_args()
    begin = time.time()
    device = set_up(options.device, options.seed)
    os.makedirs(options.out, exist_ok=True)
    captioner = Captioner(options.data)
    renderer = Renderer(options.data, device)
    autoencoder, evaluator = load_autoencoder(options.state, device), load_evaluator(options.state, device)
    names, metrics = captioner.objects, {}

    def write():
        with open(os.path.join(options.out, "metrics.json"), "w") as file:
            json.dump(metrics, file, indent=1)

    pictures, _, _ = draw_scenes(renderer, options.data, options.count, None, 777_001)
    quality, _, _ = measure(autoencoder, pictures, device)
    metrics["autoencoder"] = {"psnr_db": round(quality, 2), "scenes": len(pictures)}
    with torch.no_grad(), autocast(device):
        decoded = autoencoder.decoder(autoencoder.encoder(pictures[:16])).float()
    save_sheet(os.path.join(options.out, "reconstructions.png"), torch.cat((pictures[:16], decoded)), 16, 96)
    log("autoencoder", metrics["autoencoder"])
    write()
    if evaluator is None:
        return
    metrics["evaluator_on_real_scenes"] = real_scene_metrics(evaluator, renderer, options.data, device, options.count)
    # The same after a round through the autoencoder: what a perfect generator could reach.
    for kind in ("single", "pairs"):
        real, expected, _ = draw_scenes(renderer, options.data, min(options.count, 500), kind, 777_002)
        with torch.no_grad(), autocast(device):
            real = torch.cat([autoencoder.decoder(autoencoder.encoder(part)).float().clamp(0, 1)
                              for part in real.split(50)])
        metrics.setdefault("evaluator_on_reconstructions", {})[kind] = summary(
            score(read_pictures(evaluator, real, device), expected, names))
    log("evaluator", json.dumps(metrics["evaluator_on_real_scenes"]))
    write()
    if not os.path.exists(os.path.join(options.state, "dit.pt")):
        return

    text, dit, state = load_generator(options.state, device)
    models = (text, dit, autoencoder)
    metrics["generator"] = {"training_steps": state["step"], "sampling_steps": options.steps}
    results = {}
    for guidance in [float(value) for value in options.guidance.split(",")]:
        for kind, (expected, tokens) in read_prompts(options.data, captioner, options.prompts).items():
            started = time.time()
            drawn = generate(models, tokens, device, guidance, options.steps, seed=2024)
            scored = score(read_pictures(evaluator, drawn, device), expected, names)
            table = summary(scored)
            by_style = {}
            for style in captioner.concepts["styles"]:
                chosen = [r for r, e in zip(scored, expected) if e["style"] == style]
                if chosen:
                    by_style[style] = summary(chosen)["objects"]
            table["objects_by_style"] = by_style
            metrics["generator"][f"{kind}, guidance {guidance:g}"] = table
            results[kind, guidance] = (drawn, scored, table)
            log(f"{kind} guidance {guidance:g} ({time.time() - started:.1f} s):", json.dumps(table))
        write()

    best = max({g for _, g in results}, key=lambda g: results["single", g][2]["all"] + results["pairs", g][2]["all"])
    metrics["generator"]["best_guidance"] = best
    drawn, scored, _ = results["single", best]
    order = sorted(range(len(scored)), key=lambda index: -scored[index]["mass"])
    save_sheet(os.path.join(options.out, "best.png"), drawn[order[:48]], 12)
    save_sheet(os.path.join(options.out, "worst.png"), drawn[order[-48:]], 12)
    save_sheet(os.path.join(options.out, "random.png"), drawn[:96], 12)
    save_sheet(os.path.join(options.out, "pairs.png"), results["pairs", best][0][:96], 12)
    entries = {kind: read_prompts(options.data, captioner, options.prompts)[kind][0] for kind in ("single", "pairs")}
    metrics["failures"] = {kind: [entry["prompt"] for entry, result in zip(entries[kind], results[kind, best][1])
                                  if not result["all"]][:60] for kind in entries}
    write()
    log(f"done in {time.time() - begin:.0f} s; best guidance {best:g}")


if __name__ == "__main__":
    main()
