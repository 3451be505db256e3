"""Prompts for composed scenes: which object is asked for and how, in words, by points or by a box; corrections."""


import os
import random

import torch
import torch.nn.functional as F

from captions import Captioner, with_article
from import_state import read
from models import TextEncoder
from segment_model import CORNER_FIRST, CORNER_LAST, NEGATIVE, POSITIVE
from segment_scenes import SIZE, SLOTS

CLICKS = 4           # points of a prompt at most, corrections included
TOKENS = CLICKS + 2  # and the corners of a box
POINT, BOX, TEXT, NOWHERE, ABSENT = range(5)  # the last two: a point on the background, words for what is not there
SHARES = {"pictures": (0.44, 0.33, 0.13, 0.04, 0.06), "clips": (0.55, 0.25, 0.20, 0.0, 0.0)}


class Phrases:
    """Text vectors of what objects are called: the mean of the frozen text encoder's states at the words."""

    def __init__(self, folder, models, objects, device):
        captioner = Captioner(folder)
        weights, config = read(models, "text", "text.")
        encoder = TextEncoder(config).eval()
        encoder.load_state_dict(weights)
        encoder.to(device)
        with open(os.path.join(models, "vocabulary.txt"), encoding="utf-8") as file:
            captioner.words = file.read().split("\n")[:-1]
        captioner.ids = {word: index for index, word in enumerate(captioner.words)}
        rng, texts = random.Random(3), []
        self.rows = [4, 7]  # of each object: its name alone, with articles; then mostly other words for it
        for name in captioner.objects:
            others = captioner.aliases.get(name) or [name]
            texts += [name, with_article(name, 0.5), "the " + name, with_article(name, 0.5)]
            texts += [others[k % len(others)] for k in range(2)] + [with_article(rng.choice(others), 0.5)]
        vectors = torch.cat([text_vectors(encoder, captioner, texts[k:k + 500]) for k in range(0, len(texts), 500)])
        self.table = vectors.reshape(len(captioner.objects), -1, vectors.shape[1])  # (objects, phrases, width)
        self.objects = torch.tensor(sorted(objects), device=device)

    def pick(self, objects):
        """Vectors (…, text width) of a phrase each for `objects` (…); a fifth of them are other words."""
        first, last = self.rows
        device = objects.device
        usual = torch.randint(0, first, objects.shape, device=device)
        other = torch.randint(first, last, objects.shape, device=device)
        row = torch.where(torch.rand(objects.shape, device=device) < 0.2, other, usual)
        return self.table[objects, row]


@torch.no_grad()
def text_vectors(encoder, captioner, texts):
    """(n, text width): the mean of the states at the words of each text."""
    ids = torch.tensor([captioner.tokenize(text) for text in texts], device=encoder.token.weight.device)
    words = (ids > 0).float()[..., None]
    return (encoder(ids) * words).sum(1) / words.sum(1).clamp(min=1)


def pick_one(weight):
    """Index (…) of one entry of the last axis where `weight` is above 0, at random in proportion to it (about)."""
    noise = torch.rand_like(weight).clamp(min=1e-6)
    return (noise.log() / weight.clamp(min=1e-9)).argmax(-1)


def point_of(index, side):
    """Flat indices (…) of a picture of `side` pixels to points (…, 2) = (x, y) in [0, 1]."""
    x, y = index % side, torch.div(index, side, rounding_mode="floor")
    return torch.stack(((x + 0.5) / side, (y + 0.5) / side), -1)


def inner_weight(mask):
    """How likely a pixel of (N, H, W) masks is clicked: more inside than at the edge."""
    solid = (mask > 0.5).float()
    near = F.avg_pool2d(F.avg_pool2d(solid[:, None], 9, 1, 4), 5, 1, 2)[:, 0]
    return solid * (0.15 + near ** 3)


def box_of(mask):
    """Points (N, 2, 2): first and last corner of what is above 1/2 in (N, H, W) masks."""
    solid = mask > 0.5
    side = mask.shape[-1]
    index = torch.arange(side, device=mask.device).float()
    ends = []
    for axis in (1, 2):
        there = solid.any(axis)  # over rows: columns that are used
        low = torch.where(there, index, torch.full_like(index, side)).amin(1).clamp(max=side - 1)
        high = torch.where(there, index + 1, torch.zeros_like(index)).amax(1)
        ends.append((low / side, high / side))
    (x0, x1), (y0, y1) = ends
    return torch.stack((torch.stack((x0, y0), -1), torch.stack((x1, y1), -1)), 1)


def groups_of(visible, valid):
    """Which slots touch each other: (B, S, S) from visible alpha (B, S, 128, 128)."""
    low = F.avg_pool2d(visible, 4)
    wide = F.max_pool2d(low, 3, 1, 1).flatten(2)
    touch = torch.einsum("bsn,btn->bst", wide, low.flatten(2)) > 2.0
    eye = torch.eye(SLOTS, dtype=torch.bool, device=visible.device)
    return (touch | touch.transpose(1, 2) | eye) & valid[:, None, :] & valid[:, :, None]


class Prompts:
    """Prompts of one batch, flattened to n = B * P. visible (B, S, 128, 128), valid (B, S), objects (B, S)."""

    def __init__(self, visible, valid, objects, phrases, count, shares):
        b, device, side = len(visible), visible.device, visible.shape[-1]
        n = b * count
        rand = lambda *shape: torch.rand(*shape, device=device)
        repeated = lambda x: x.repeat_interleave(count, 0)
        any_valid = repeated(valid.any(1))
        draw, kind = rand(n), torch.zeros(n, dtype=torch.long, device=device)
        for last in range(1, len(shares)):
            kind = kind + (draw >= sum(shares[:last])).long()
        slot = pick_one(repeated(valid.float()))
        self.slot, self.objects = slot, repeated(objects).gather(1, slot[:, None])[:, 0]
        one = F.one_hot(slot, SLOTS).bool()
        named = repeated(objects) == self.objects[:, None]
        together = groups_of(visible, valid).repeat_interleave(count, 0)
        together = together.gather(1, slot[:, None, None].expand(-1, 1, SLOTS))[:, 0]
        self.group = (kind == POINT) & (rand(n) < 0.08) & (together.sum(1) > 1)
        chosen = torch.where((kind == TEXT)[:, None], named, one)
        chosen = torch.where(self.group[:, None], together, chosen)
        kind = torch.where((kind == NOWHERE) | (kind == ABSENT) | any_valid, kind,
                           torch.where(kind == TEXT, torch.full_like(kind, ABSENT), torch.full_like(kind, NOWHERE)))
        self.kind, self.chosen = kind, chosen
        self.present = (kind != NOWHERE) & (kind != ABSENT)
        everything = visible.sum(1).clamp(max=1).repeat_interleave(count, 0)
        self.target = self.masks(visible, count)

        owner = torch.arange(b, device=device).repeat_interleave(count)
        solid = inner_weight(visible[owner, slot].float())
        free = (everything < 0.02).float()
        weight = torch.where((kind == NOWHERE)[:, None, None], free, solid).flatten(1)
        self.points = torch.zeros(n, TOKENS, 2, device=device)
        self.types = torch.full((n, TOKENS), POSITIVE, device=device)
        self.types[:, CLICKS], self.types[:, CLICKS + 1] = CORNER_FIRST, CORNER_LAST
        self.seen = torch.zeros(n, TOKENS, dtype=torch.bool, device=device)
        self.points[:, 0] = point_of(pick_one(weight), side) + (rand(n, 2) - 0.5) / side
        self.seen[:, 0] = (kind == POINT) | (kind == NOWHERE)
        corners = box_of(self.target)
        extent = (corners[:, 1] - corners[:, 0])[:, None]
        noise = torch.randn(n, 2, 2, device=device).clamp(-2, 2) * (0.04 * extent * rand(n, 1, 1) + 0.003)
        self.points[:, CLICKS:] = (corners + noise).clamp(0, 1)
        self.seen[:, CLICKS:] = (kind == BOX)[:, None]
        self.said = (kind == TEXT) | (kind == ABSENT)
        absent = phrases.objects[torch.randint(0, len(phrases.objects), (n, 6), device=device)]
        clash = (absent[:, :, None] == repeated(objects)[:, None]).any(2)
        absent = absent.gather(1, clash.float().argmin(1, keepdim=True))[:, 0]  # the first that is not in the picture
        self.text = phrases.pick(torch.where(kind == ABSENT, absent, self.objects.clamp(min=0)))
        self.earlier = torch.zeros(n, side, side, device=device)
        self.given = torch.zeros(n, dtype=torch.bool, device=device)
        self.clicks = self.seen[:, 0].long()
        self.ambiguous = self.seen[:, 0] & self.present

    def masks(self, visible, count):
        """The objects asked for in a frame's visible alpha (B, S, H, W): (n, H, W)."""
        b = len(visible)
        chosen = self.chosen.reshape(b, count, SLOTS).to(visible.dtype)
        masks = torch.einsum("bps,bshw->bphw", chosen, visible).flatten(0, 1).float().clamp(0, 1)
        return masks * self.present[:, None, None].float()

    @torch.no_grad()
    def correct(self, logits, again=0.0):
        """Adds a click where the answer `logits` (n, H, W) is wrong, and gives the answer as the earlier mask. A share `again`
        is asked once more instead, with the answer's box where no box was given."""
        side = logits.shape[-1]
        answer, truth = logits > 0, self.target > 0.5
        wrong = (answer != truth).flatten(1)
        weight = torch.where(wrong.any(1, keepdim=True), wrong, truth.flatten(1)).float()
        index = pick_one(weight)
        positive = truth.flatten(1).gather(1, index[:, None])[:, 0]
        once_more = (torch.rand(len(index), device=index.device) < again) & answer.flatten(1).any(1)
        can = self.present & (self.clicks < CLICKS) & ~once_more
        boxed = (once_more & self.present & ~self.seen[:, CLICKS])[:, None]
        corners = torch.where(boxed[..., None], box_of(answer.float()), self.points[:, CLICKS:])
        self.points = torch.cat((self.points[:, :CLICKS], corners), 1)
        self.seen = torch.cat((self.seen[:, :CLICKS], self.seen[:, CLICKS:] | boxed), 1)
        row = F.one_hot(self.clicks.clamp(max=CLICKS - 1), TOKENS).bool() & can[:, None]
        self.points = torch.where(row[..., None], point_of(index, side)[:, None], self.points)
        types = torch.where(positive, POSITIVE, NEGATIVE)[:, None]
        self.types = torch.where(row, types, self.types)
        self.seen = self.seen | row
        self.clicks = self.clicks + can.long()
        self.earlier, self.given = logits.float(), self.present
        self.ambiguous = torch.zeros_like(self.ambiguous)


def halve(visible):
    """Visible alpha (…, SIZE, SIZE) at the masks' resolution."""
    flat = visible.flatten(0, -3)
    return F.avg_pool2d(flat[:, None].float(), 2)[:, 0].reshape(*visible.shape[:-2], SIZE // 2, SIZE // 2)


