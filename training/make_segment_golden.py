"""Writes a tiny segmentation model with random weights, inputs and expected outputs for the tests of the C++ engine.

    python3 training/make_segment_golden.py tests/golden/models

Weights are rounded to F16 before the outputs are computed (in F32), so that the engine sees the same weights.
"""

import os
import sys

import torch

from make_golden import randomise, write
from models import file_tensors
from segment_model import CORNER_FIRST, CORNER_LAST, FIRST, NEGATIVE, POSITIVE, RECENT, SEGMENT_CONFIG, Segmenter

SEGMENT = dict(SEGMENT_CONFIG, size=64, width=32, heads=2, layers=2, hidden=48, stem=[8, 16], window=3,
               global_layers=[1], rope_axes=[0, 8, 8], text_width=24, match_width=16, decoder_layers=1,
               decoder_width=16, decoder_hidden=48, memory_layers=1, memory_hidden=32, upscale=[16, 8], masks=4)


@torch.no_grad()
def main(folder):
    os.makedirs(folder, exist_ok=True)
    model = randomise(Segmenter(SEGMENT), 5)
    generator = torch.Generator().manual_seed(21)
    picture = torch.rand(1, 3, 64, 64, generator=generator)
    shape, record = (8, 8), []
    features, *skips = model.encode(picture, record)
    tensors = file_tensors(model, "segment.")
    tensors.update({"golden.picture": picture, "golden.features": features, "golden.skip1": skips[0],
                    "golden.skip2": skips[1]})
    for index, state in enumerate(record):
        tensors[f"golden.block.{index}"] = state

    nothing = torch.zeros(1, SEGMENT["text_width"])
    no_mask = torch.zeros(1, 32, 32)
    no, yes = torch.tensor([False]), torch.tensor([True])

    def ask(name, seen_features, points, types, text=None, earlier=None):
        points = torch.tensor(points, dtype=torch.float32).reshape(1, -1, 2)
        types = torch.tensor(types, dtype=torch.long).reshape(1, -1)
        logits, scores = model.decode(
            seen_features, skips, model.point_tokens(points, types), torch.ones(types.shape, dtype=torch.bool),
            nothing if text is None else text, no if text is None else yes, no_mask if earlier is None else earlier,
            no if earlier is None else yes, shape)
        if types.numel():
            tensors[f"golden.{name}.points"], tensors[f"golden.{name}.types"] = points, types.int()
        tensors[f"golden.{name}.logits"], tensors[f"golden.{name}.scores"] = logits, scores
        return logits

    text = torch.randn(1, SEGMENT["text_width"], generator=generator)
    logits = ask("point", features, [[0.3, 0.6]], [POSITIVE])
    ask("correction", features, [[0.3, 0.6], [0.8, 0.1]], [POSITIVE, NEGATIVE], earlier=logits[:, 0])
    ask("box", features, [[0.1, 0.2], [0.7, 0.9]], [CORNER_FIRST, CORNER_LAST])
    tensors["golden.text.vector"] = text
    ask("text", features, [], [], text)
    memory = torch.cat((model.remember(features, logits[:, 0], shape, FIRST),
                        model.remember(features.flip(1), logits[:, 1], shape, RECENT)), 1)
    recalled = model.recall(features, memory, shape)
    tensors.update({"golden.memory": memory, "golden.recalled": recalled})
    ask("video", recalled, [], [])
    write(folder, "segment.safetensors", SEGMENT, tensors)


if __name__ == "__main__":
    main(sys.argv[1])
