"""Losses of the segmentation model: masks, their scores, whether there is anything, and words for tokens."""

import torch
import torch.nn.functional as F


def mask_losses(logits, target):
    """Loss and IoU, each (n, masks), of logits (n, masks, H, W) to a mask (n, H, W) with soft edges."""
    logits = logits.float()
    t = target[:, None]
    p = logits.sigmoid()
    cross = F.softplus(logits) - logits * t
    focal = ((t - p) ** 2 * cross).mean((2, 3))
    dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / ((p * p).sum((2, 3)) + (t * t).sum((2, 3)) + 1)
    answer, truth = logits > 0, t > 0.5
    both = (answer & truth).sum((2, 3)).float()
    either = (answer | truth).sum((2, 3)).float()
    return 10 * focal + 2 * cross.mean((2, 3)) + dice, both / either.clamp(min=1)


def answer_loss(logits, scores, target, present, ambiguous, group, counts):
    """(loss, IoU (n, masks)) of one answer.

    `present` (n): there is a mask; `ambiguous`: a single point, so that the best of the masks but the first is trained;
    `group`: a point that means more than its object, of which only these know; `counts`: in the loss at all.
    """
    losses, iou = mask_losses(logits, target)
    scores = scores.float()
    there = (present & counts).float()
    total = there.sum().clamp(min=1)
    first = there * (~group).float()
    several = there * ambiguous.float()
    mask = (losses[:, 0] * first + losses[:, 1:].amin(1) * several).sum() / total
    wrong = (scores[:, :-1].sigmoid() - iou.detach()) ** 2
    score = (wrong[:, 0] * first + wrong[:, 1:].mean(1) * several).sum() / total
    found = F.binary_cross_entropy_with_logits(scores[:, -1], present.float(), reduction="none")
    found = (found * counts.float()).sum() / counts.float().sum().clamp(min=1)
    return mask + score + 0.5 * found, iou.detach()


def match_loss(model, features, shape, visible, objects, phrases):
    """Tokens must be like the words for what they show, among all objects: (loss, share right among objects' tokens).

    A quarter of the tokens takes part. visible (B, S, 4 rows, 4 columns), objects (B, S).
    """
    rows, columns = shape
    i, j = torch.randint(0, 2, (2,)).tolist()
    part = features.reshape(len(features), rows, columns, -1)[:, i::2, j::2].flatten(1, 2)
    share = F.avg_pool2d(visible, 4)[:, :, i::2, j::2].flatten(2)
    best, slot = share.max(1)
    total = share.sum(1)
    table = torch.zeros(int(phrases.table.shape[0]) + 1, dtype=torch.long, device=features.device)
    table[phrases.objects] = torch.arange(1, len(phrases.objects) + 1, device=features.device)
    label = table[objects.gather(1, slot)]
    unclear = torch.full_like(label, -100)
    label = torch.where((best > 0.4) & (total - best < 0.6 * best), label, unclear)
    label = torch.where(total < 0.08, torch.zeros_like(label), label)
    words = phrases.pick(phrases.objects)[None]
    logits = model.similarity(part, words).float()
    logits = torch.cat((torch.zeros_like(logits[..., :1]), logits), -1).flatten(0, 1)
    label = label.flatten()
    loss = F.cross_entropy(logits, label, ignore_index=-100, reduction="none")
    weight = torch.where(label == 0, 0.3, 1.0) * (label >= 0)
    named = label > 0
    right = ((logits.argmax(1) == label) & named).sum() / named.sum().clamp(min=1)
    return (loss * weight).sum() / weight.sum().clamp(min=1), right.detach()
