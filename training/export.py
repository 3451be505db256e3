"""Writes the trained models as the files of docs/model-format.md.

    python3 training/export.py --out out --commit "$(git rev-parse --short HEAD)"
"""

import json
import os
import shutil

import torch

import safetensors_io
from captions import Captioner
from common import arguments
from loading import load_autoencoder, load_evaluator, load_generator
from models import AUTOENCODER_CONFIG, file_tensors

LIMIT = 16 * 2 ** 20
LICENCES = ("Trained on pictures composed from Microsoft Fluent Emoji (MIT), Google Noto Emoji and Blob emoji "
            "(Apache-2.0), Twemoji (CC BY 4.0), Google Noto Emoji Animation (CC BY 4.0), with names from emojibase (MIT).")


def write(out, name, commit, config, tensors):
    broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor.float()).all()]
    if broken:
        raise SystemExit(f"{name}: not finite in F16: {broken}")
    metadata = {"config": json.dumps(config), "training_commit": commit, "data_licences": LICENCES}
    size = safetensors_io.save(os.path.join(out, name), tensors, metadata)
    print(f"{name}: {size:,} bytes, {len(tensors)} tensors" + ("  TOO LARGE" if size > LIMIT else ""), flush=True)


def write_words(out, data):
    os.makedirs(out, exist_ok=True)
    shutil.copy(os.path.join(data, "vocabulary.txt"), out)
    concepts = Captioner(data).concepts
    keys = ("objects", "aliases", "styles", "colors", "backgrounds", "relations")
    with open(os.path.join(out, "concepts.json"), "w", encoding="utf-8") as file:
        json.dump({key: concepts[key] for key in keys}, file, indent=1)


def write_generator(out, commit, text, text_config, dit, config):
    """Writes the text encoder and the transformer (modules)."""
    write(out, "text.safetensors", commit, text_config, file_tensors(text, "text."))
    write(out, "dit.safetensors", commit, config, file_tensors(dit, "dit."))


def main():
    parser = arguments(__doc__, 1)
    parser.add_argument("--out", required=True)
    parser.add_argument("--commit", default="unknown", help="commit of the training code")
    options = parser.parse_args()
    write_words(options.out, options.data)
    device = torch.device("cpu")
    autoencoder = load_autoencoder(options.state, device)
    config = dict(AUTOENCODER_CONFIG, latent_mean=[round(v, 6) for v in autoencoder.latent_mean.tolist()],
                  latent_std=[round(v, 6) for v in autoencoder.latent_std.tolist()])
    write(options.out, "autoencoder.safetensors", options.commit, config, file_tensors(autoencoder, ""))
    evaluator = load_evaluator(options.state, device)
    if evaluator is not None:
        write(options.out, "evaluator.safetensors", options.commit, evaluator.config,
              file_tensors(evaluator, "evaluator."))
    if os.path.exists(os.path.join(options.state, "dit.pt")):
        text, dit, state = load_generator(options.state, device)
        write_generator(options.out, options.commit, text, state["text_config"], dit, state["config"])


if __name__ == "__main__":
    main()
