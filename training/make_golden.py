"""Writes tiny models with random weights, inputs and expected outputs for the tests of the C++ engine.

    python3 training/make_golden.py tests/golden/models [assets/default]

Weights are rounded to F16 before the outputs are computed (in F32), so that the engine sees the same weights. With a
folder of exported models, default_clip.safetensors gets what these make of a small clip (no weights in it).
"""

import json
import os
import sys

import torch

import safetensors_io
from import_state import read
from models import Dit, Evaluator, TextEncoder, file_tensors

TEXT = {"type": "text", "vocabulary": 40, "width": 48, "heads": 3, "layers": 2, "length": 8}
DIT = {"type": "dit", "width": 64, "heads": 2, "layers": 2, "hidden": 96, "text_width": 48, "latent_channels": 4,
       "patch": 2, "rope_axes": [8, 12, 12], "rope_theta": 100.0, "window": 3, "global_layers": [1], "size": 96,
       "frames": 3, "fps": 8, "clip_size": 32, "frame_range": [2, 4]}
EVALUATOR = {"type": "evaluator", "width": 32, "heads": 2, "layers": 2, "stem": [8, 16, 24, 32], "size": 64,
             "rope_axes": [0, 8, 8], "rope_theta": 100.0, "objects": 5, "colors": ["red", "green", "blue"],
             "styles": ["3d", "flat"]}


def randomise(model, seed):
    """Gives every parameter, gates and tables too, seeded non-zero values that F16 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            owner = name.rpartition(".")[0].rpartition(".")[2]
            if name.endswith("norm.weight") or ("norm" in owner and name.endswith("weight")):
                value = 1 + 0.2 * noise
            elif parameter.dim() >= 2 and "table" not in name and "token" not in name and "position" not in name:
                value = noise / parameter[0].numel() ** 0.5
            else:
                value = 0.3 * noise
            parameter.copy_(value.half().float())
    return model.eval()


def write(folder, name, config, tensors):
    metadata = {"config": json.dumps(config), "training_commit": "golden", "data_licences": "none: random weights"}
    size = safetensors_io.save(os.path.join(folder, name), tensors, metadata)
    print(f"{name}: {size} bytes")


@torch.no_grad()
def write_default_clip(folder, models):
    """Text states and velocity of the exported models for a prompt and a clip of 3 frames of 6 x 8 latents."""
    words, config = read(models, "text", "text.")
    text = TextEncoder(config).eval()
    text.load_state_dict(words)
    weights, config = read(models, "dit", "dit.")
    dit = Dit(config).eval()
    dit.load_state_dict(weights)
    ids = torch.tensor([[3, 17, 5, 39] + [0] * 28, [0] * 32])
    z = torch.randn(2, 3, 6, 8, config["latent_channels"], generator=torch.Generator().manual_seed(12))
    t, states = torch.tensor([0.7, 0.7]), text(ids)
    write(folder, "default_clip.safetensors", config, {
        "golden.ids": ids.int(), "golden.t": t, "golden.z": z, "golden.states": states,
        "golden.velocity": dit(z, t, states)})


@torch.no_grad()
def main(folder, models=None):
    os.makedirs(folder, exist_ok=True)
    if models:
        write_default_clip(folder, models)
    generator = torch.Generator().manual_seed(7)

    text = randomise(TextEncoder(TEXT), 1)
    ids = torch.tensor([[3, 17, 5, 39, 0, 0, 0, 0], [0] * 8])
    states = text(ids)
    tensors = file_tensors(text, "text.")
    tensors.update({"golden.ids": ids.int(), "golden.states": states})
    write(folder, "text.safetensors", TEXT, tensors)

    dit = randomise(Dit(DIT), 2)
    z = torch.randn(2, 4, 10, 12, generator=generator)
    t = torch.tensor([0.25, 0.8])
    record = []
    velocity = dit(z, t, states, record)
    tensors = file_tensors(dit, "dit.")
    c, m = dit.condition(t, states)
    tensors.update({"golden.z": z, "golden.t": t, "golden.states": states, "golden.condition": c,
                    "golden.modulation": m, "golden.patch": dit.patch(dit.patchify(z)), "golden.velocity": velocity})
    for index, state in enumerate(record):
        tensors[f"golden.block.{index}"] = state
    # A clip of three frames, 4 x 6 latents each, with the same weights and states.
    clip = torch.randn(2, 3, 4, 6, 4, generator=torch.Generator().manual_seed(11))
    record = []
    tensors.update({"golden.clip.z": clip, "golden.clip.velocity": dit(clip, t, states, record)})
    tensors["golden.clip.picture_velocity"] = dit(clip[:, :1], t, states)  # one frame: attention as for pictures
    for index, state in enumerate(record):
        tensors[f"golden.clip.block.{index}"] = state
    write(folder, "dit.safetensors", DIT, tensors)

    evaluator = randomise(Evaluator(EVALUATOR), 3)
    picture = torch.rand(2, 3, 64, 64, generator=generator)
    objects, color, style = evaluator(picture)
    probability = objects.softmax(-1)
    tensors = file_tensors(evaluator, "evaluator.")
    tensors.update({"golden.picture": picture, "golden.objects": objects, "golden.color": color,
                    "golden.style": style, "golden.mass": probability[..., :-1].sum(1)})
    write(folder, "evaluator.safetensors", EVALUATOR, tensors)


if __name__ == "__main__":
    main(*sys.argv[1:3])
