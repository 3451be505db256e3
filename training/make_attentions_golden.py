"""Writes tiny backbone attentions with random weights, inputs and expected outputs for the tests of the C++ engine.

    python3 training/make_attentions_golden.py tests/golden/models

Weights and inputs are rounded to F16 before the outputs are computed (in F32), so that the engine sees the same.
"""

import sys

import torch

from backbone_attentions import AttentiveProbe, build
from make_golden import randomise, write
from make_segment_golden import SEGMENT
from models import file_tensors
from segment_model import Segmenter

# Name of the case: attention and options, batch, rows, columns. Grids that windows and regions do and do not divide.
CASES = {
    "biformer": ({"name": "biformer", "regions": 3, "keep": 2}, 2, 6, 3),
    "biformer_padded": ({"name": "biformer", "keep": 3, "kernel": 3}, 1, 6, 9),
    "hilo": ({"name": "hilo", "low_share": 0.5}, 2, 4, 6),
    "hilo_padded": ({"name": "hilo", "window": 3, "low_share": 0.5}, 1, 5, 7),
    "hilo_low": ({"name": "hilo", "low_share": 1.0}, 1, 4, 5),
    "halo": ({"name": "halo", "block": 4, "halo": 1}, 1, 4, 8),
    "halo_padded": ({"name": "halo", "block": 3, "halo": 2}, 1, 7, 5),
    "mala": ("mala", 2, 3, 7),
    "rala": ("rala", 2, 3, 7),
    "flow": ("flow", 2, 3, 7),
    "focal": ({"name": "focal", "levels": 2}, 2, 3, 5),
    "focal_deep": ({"name": "focal", "window": 5}, 1, 6, 4),
    "cascaded": ({"name": "cascaded", "window": 4, "key_dim": 8, "kernels": [5, 3]}, 1, 4, 8),
    "cascaded_padded": ({"name": "cascaded", "key_dim": 8}, 1, 8, 5),
    "contmix": ({"name": "contmix", "small": 3, "kernel": 5, "pooled": 3}, 1, 5, 7),
}
WIDTH, HEADS = 32, 2


# An encoder of which some layers have chosen attentions, and one its own.
ENCODER = dict(SEGMENT, layers=3, global_layers=[], attentions=["mala", None, {"name": "focal", "levels": 2}])


@torch.no_grad()
def write_encoder(folder):
    model = randomise(Segmenter(ENCODER), 60)
    picture = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(160)).half().float()
    encoder = ("segment.stem.", "segment.blocks.", "segment.norm.", "segment.skip")
    tensors = {name: tensor for name, tensor in file_tensors(model, "segment.").items() if name.startswith(encoder)}
    tensors.update({"golden.picture": picture.half(), "golden.features": model.encode(picture)[0]})
    write(folder, "segment_attentions.safetensors", ENCODER, tensors)


@torch.no_grad()
def main(folder):
    tensors, config = {}, {"type": "attentions", "width": WIDTH, "heads": HEADS, "cases": {}}
    for seed, (name, (options, *shape)) in enumerate(CASES.items()):
        model = randomise(build(options, WIDTH, HEADS), seed)
        x = torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(100 + seed)).half().float()
        config["cases"][name] = options
        tensors.update(file_tensors(model, name + "."))
        tensors.update({f"golden.{name}.x": x.half(), f"golden.{name}.y": model(x)})
    probe = randomise(AttentiveProbe(WIDTH, 4, 16), 50)
    x = torch.randn(2, 13, WIDTH, generator=torch.Generator().manual_seed(150)).half().float()
    tensors.update(file_tensors(probe, "probe."))
    tensors.update({"golden.probe.x": x.half(), "golden.probe.y": probe(x)})
    write(folder, "attentions.safetensors", config, tensors)
    write_encoder(folder)


if __name__ == "__main__":
    main(sys.argv[1])
