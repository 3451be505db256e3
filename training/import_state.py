"""Makes checkpoints from exported files, to go on or to evaluate where the state folder is lost.

    python3 training/import_state.py --models assets/default --state /tmp/fovea

Optimizer momentum is not in the files and starts anew. Checkpoints that are there already are kept. Where the state
folder holds text.pt (pretrain_text.py), the transformer's checkpoint gets that text encoder instead of the file's.
Where the data's vocabulary goes on after the models', new words get random embeddings.
"""

import json
import os

import torch

import safetensors_io
from common import arguments, load_checkpoint, log, save_checkpoint


def read(folder, name, prefix):
    """(weights without `prefix` in F32, config), or None where there is no such file."""
    path = os.path.join(folder, name + ".safetensors")
    if not os.path.exists(path):
        return None
    tensors, metadata = safetensors_io.load(path)
    return {key[len(prefix):]: tensor.float() for key, tensor in tensors.items()}, json.loads(metadata["config"])


def grow_vocabulary(words, config, models, data):
    """(weights, config) of the text encoder with a row for every word of the data's vocabulary."""
    def lines(folder):
        with open(os.path.join(folder, "vocabulary.txt"), encoding="utf-8") as file:
            return file.read().split("\n")[:-1]

    old, new = lines(models), lines(data)
    if new[:len(old)] != old:
        raise SystemExit(f"{data}/vocabulary.txt does not begin with the words of {models}/vocabulary.txt")
    if len(new) == len(old):
        return words, config
    table = words["token.weight"]
    rows = torch.randn(len(new) - len(old), table.shape[1], generator=torch.Generator().manual_seed(0)) * table.std()
    log(f"{len(rows)} new words")
    return dict(words, **{"token.weight": torch.cat((table, rows))}), dict(config, vocabulary=len(new))


def main():
    parser = arguments(__doc__, 1)
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", default="autoencoder,evaluator,dit", help="which checkpoints to make")
    options = parser.parse_args()

    def write(name, content):
        path = os.path.join(options.state, name)
        if name[:-3] not in options.only.split(","):
            return
        if os.path.exists(path):
            log("kept", path)
        else:
            save_checkpoint(path, content)
            log("made", path)

    found = read(options.models, "autoencoder", "")
    if found:
        weights, config = found
        weights["latent_mean"] = torch.tensor(config["latent_mean"])
        weights["latent_std"] = torch.tensor(config["latent_std"])
        write("autoencoder.pt", {"model": weights, "averaged": weights})
    found = read(options.models, "evaluator", "evaluator.")
    if found:
        write("evaluator.pt", {"config": found[1], "model": found[0], "averaged": found[0]})
    text, dit = read(options.models, "text", "text."), read(options.models, "dit", "dit.")
    if text and dit:
        words, extra = text[0], {}
        path = os.path.join(options.state, "text.pt")
        if os.path.exists(path):
            pretrained = load_checkpoint(path, "cpu")
            words, extra = pretrained["averaged"], {"side": pretrained["side"]}
            log("text encoder from", path, pretrained["probe"])
        words, text_config = grow_vocabulary(words, text[1], options.models, options.data)
        averaged = {"text": words, "dit": dit[0]}
        write("dit.pt", {**averaged, "averaged": averaged, "text_config": text_config,
                         "config": dit[1], "step": 0, "runs": 9, "metrics": {}, **extra})


if __name__ == "__main__":
    main()
