"""The side loss: makes the text encoder say, in the state of every noun, on which side its object stands.

The transformer sees a caption only through these states. Without this loss the encoder finds that "a cat left of a dog"
and "a dog left of a cat" differ far too late, since the picture's loss hardly depends on it.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from captions import RELATIONS
from motions import MOTIONS

# Class of each side code (SceneSampler.labels) on the axes x and y: 0 before, 1 level, 2 after; -100 is ignored.
_AXES = {"left": (0, 1), "right": (2, 1), "above": (1, 0), "below": (1, 2)}
SIDE_CLASSES = [(-100, -100)] + [_AXES[name] for name in RELATIONS]


class SideHead(nn.Module):
    """Reads x and y side from text states. It is dropped at export: no model needs it.

    Its rows have unit length. A head that may grow would be content with a trace of the side in the states, which
    the transformer could not pick up.
    """

    def __init__(self, width):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(6, width))
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, states):
        """Logits (..., axis, class)."""
        logits = F.linear(states.float(), F.normalize(self.rows.float(), dim=1), self.bias.float())
        return logits.unflatten(-1, (2, 3))


def side_loss(logits, sides):
    """(loss, share of labelled tokens with both axes right) of logits (B, N, 2, 3) and side codes (B, N)."""
    classes = torch.tensor(SIDE_CLASSES, device=sides.device)[sides]
    total = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), ignore_index=-100, reduction="sum")
    labelled = sides > 0
    count = labelled.sum().clamp(min=1)
    right = ((logits.detach().argmax(-1) == classes).all(-1) & labelled).sum() / count
    return total / (2 * count), right


class MoveHead(nn.Module):
    """Reads from the state of a noun how its object moves in the clip. As SideHead, dropped at export."""

    def __init__(self, width):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(len(MOTIONS), width))
        self.bias = nn.Parameter(torch.zeros(len(MOTIONS)))

    def forward(self, states):
        """Logits (..., motion)."""
        return F.linear(states.float(), F.normalize(self.rows.float(), dim=1), self.bias.float())


def move_loss(logits, moves):
    """(loss, share of labelled tokens that are right) of logits (B, N, M) and codes (B, N): 1 + motion, 0: not said."""
    labelled = moves > 0
    count = labelled.sum().clamp(min=1)
    total = F.cross_entropy(logits.flatten(0, 1), moves.flatten() - 1 + (~labelled).flatten() * -99,
                            ignore_index=-100, reduction="sum")
    return total / count, ((logits.detach().argmax(-1) + 1 == moves) & labelled).sum() / count
