"""Trains the text encoder alone on captions until its noun states say on which side each object stands.

    python3 training/pretrain_text.py --models assets/default --minutes 2

Starts from the exported text encoder, with stronger position embeddings, and writes text.pt, which import_state.py
joins with the exported transformer. Three losses: the side (side_loss.py); which object each noun names; and staying
near the old states, in full where no relation is stated, so that the transformer still understands them.
"""

import copy
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from captions import RELATIONS, Captioner
from common import Average, Clock, adamw, arguments, load_checkpoint, log, save_checkpoint, set_rate, set_up
from import_state import read
from models import TextEncoder
from scenes import SceneSampler, SceneStream
from scoring import read_prompt_file
from side_loss import SideHead, side_loss

PROBE_SEED = 313_000  # captions of the probe; training streams use small seeds


def ids_of(batch, device):
    return [torch.from_numpy(batch[key]).long().to(device) for key in ("tokens", "nouns", "sides")]


@torch.no_grad()
def noun_states(encoder, tokens, sides, size=250):
    """States of all tokens with a side, and the sides."""
    states = torch.cat([encoder(part).float() for part in tokens.split(size)])
    return states[sides > 0], sides[sides > 0]


def prompt_tokens(folder, captioner, device):
    """Tokens and sides of the evaluation's pair prompts: combinations that are never trained on."""
    sampler, tokens, sides = SceneSampler(folder, 0), [], []
    for entry in read_prompt_file(folder, "pairs"):
        tokens.append(captioner.tokenize(entry["prompt"]))
        things = [captioner.objects.index(name) for name in entry["objects"]]
        sides.append(sampler.labels(tokens[-1], things, entry["objects"], entry["relation"])[1])
    return torch.tensor(tokens).to(device), torch.tensor(sides).to(device)


class Probe:
    """A linear probe, fitted anew each time it is asked: can the side be read from a single noun's state?

    Fitted by least squares on random captions, judged on others and on the evaluation's pair prompts.
    """

    def __init__(self, folder, captioner, device, count):
        parts = [SceneSampler(folder, PROBE_SEED + i, "relations", "pairs").batch(count) for i in range(2)]
        self.sets = [(ids_of(part, device)[0], ids_of(part, device)[2]) for part in parts]
        self.sets.append(prompt_tokens(folder, captioner, device))

    @torch.no_grad()
    def measure(self, encoder):
        """{name: (side right of four, side right where the axis is given)} for fresh captions and for prompts."""
        states, sides = noun_states(encoder, *self.sets[0])
        mean = states.mean(0)

        def features(x):
            return F.pad(x - mean, (0, 1), value=1.0).double()

        x, y = features(states), F.one_hot(sides - 1, len(RELATIONS)).double()
        weight = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], device=x.device).double(), x.T @ y)
        result = {}
        for name, part in zip(("captions", "prompts"), self.sets[1:]):
            states, sides = noun_states(encoder, *part)
            scores, sides = features(states) @ weight, sides - 1
            across = sides[:, None] // 2 == torch.arange(len(RELATIONS), device=sides.device)[None] // 2
            given = scores.masked_fill(~across, float("-inf"))
            result[name] = tuple(round((s.argmax(1) == sides).float().mean().item(), 4) for s in (scores, given))
        return result


def main():
    parser = arguments(__doc__, 2)
    parser.add_argument("--models", required=True, help="folder of exported models")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--position-scale", type=float, default=3.0)
    parser.add_argument("--side-weight", type=float, default=1.0)
    parser.add_argument("--noun-weight", type=float, default=0.2)
    parser.add_argument("--keep-weight", type=float, default=4.0, help="of staying near the old states")
    parser.add_argument("--keep-stated", type=float, default=0.15, help="the same where a relation is stated, relative")
    parser.add_argument("--probe", type=int, default=2000, help="captions the probe is fitted on, and judged on")
    parser.add_argument("--save-minutes", type=float, default=2, help="between probes and checkpoints")
    parser.add_argument("--wanted", type=float, default=0.99, help="below this probe figure the exit status is 1")
    options = parser.parse_args()
    begin = time.time()
    stream = SceneStream(options.data, options.batch, 61 + options.seed, "relations", options.workers)
    device = set_up(options.device, options.seed)
    captioner = Captioner(options.data)
    weights, config = read(options.models, "text", "text.")
    if config["vocabulary"] != len(captioner.words):
        raise SystemExit("the models have another vocabulary than the data")
    old = TextEncoder(config).to(device)
    old.load_state_dict(weights)
    old.requires_grad_(False)
    encoder = copy.deepcopy(old).requires_grad_(True)
    with torch.no_grad():
        encoder.position.weight.mul_(options.position_scale)
    side_head = SideHead(config["width"]).to(device)
    noun_head = nn.Linear(config["width"], len(captioner.objects)).to(device)
    average = Average([encoder], 0.99)
    optimizer = adamw([*encoder.parameters(), *side_head.parameters(), *noun_head.parameters()], options.lr)
    path = os.path.join(options.state, "text.pt")
    if os.path.exists(path):
        state = load_checkpoint(path, device)
        encoder.load_state_dict(state["text"])
        side_head.load_state_dict(state["side"])
        noun_head.load_state_dict(state["noun"])
        average.copy()
        log("resumed from", path)
    probe = Probe(options.data, captioner, device, options.probe)
    log(f"probe of the old states {probe.measure(old)} (side of four, side of two)")

    def save():
        average.swap()
        figures = probe.measure(encoder)
        averaged = {key: value.clone() for key, value in encoder.state_dict().items()}
        average.swap()
        save_checkpoint(path, {"text": encoder.state_dict(), "averaged": averaged, "side": side_head.state_dict(),
                               "noun": noun_head.state_dict(), "text_config": config,
                               "probe": figures})
        log(f"step {step}: probe {figures}; saved")
        return figures

    clock = Clock(options.minutes, reserve=3 if device.type == "cuda" else 0, warm_up=20, begin=begin)
    step, shown, saved = 0, time.time(), time.time()
    while not clock.done():
        set_rate(optimizer, options.lr * clock.factor(flat=0.4))
        tokens, nouns, sides = ids_of(stream.next(), device)
        empty = torch.rand(len(tokens), 1, device=device) < 0.03  # the unconditional input must stay as it is
        tokens, nouns, sides = tokens * ~empty, nouns.masked_fill(empty, -1), sides * ~empty
        with torch.autocast(device.type, dtype=torch.bfloat16):  # on CPUs too: those with matrix units gain by it
            states, before = encoder(tokens).float(), old(tokens).float()
        side, right = side_loss(side_head(states), sides)
        noun = F.cross_entropy(noun_head(states[nouns >= 0]), nouns[nouns >= 0])
        stated = (sides > 0).any(1)
        share = 1 - (1 - options.keep_stated) * stated.float()
        drift = (states - before).pow(2).mean((1, 2))
        loss = (options.side_weight * side + options.noun_weight * noun
                + options.keep_weight * (share * drift).sum() / share.sum())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        average.update()
        step += 1
        if time.time() - shown > 5:
            shown = time.time()
            away = [part.mean().item() for part in (drift[~stated], drift[stated])]
            log(f"step {step} {clock.progress():4.0%} side {side.item():.4f} ({right.item():.3f} right) "
                f"noun {noun.item():.4f} drift {away[0]:.4f}, where stated {away[1]:.4f}")
        if time.time() - saved > 60 * options.save_minutes:
            save()
            saved = time.time()
    stream.close()
    if min(right for right, _ in save().values()) < options.wanted:
        raise SystemExit(f"the probe stays below {options.wanted}")


if __name__ == "__main__":
    main()
