"""Loads trained models from the checkpoints of a state folder (the averaged weights)."""

import os

import torch

from common import load_checkpoint
from models import AUTOENCODER_CONFIG, Autoencoder, Dit, Evaluator, TextEncoder


def _frozen(model, weights, device):
    model.load_state_dict(weights)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(device).eval()


def load_autoencoder(folder, device):
    state = load_checkpoint(os.path.join(folder, "autoencoder.pt"), device)
    return _frozen(Autoencoder(AUTOENCODER_CONFIG), state["averaged"], device).to(memory_format=torch.channels_last)


def load_evaluator(folder, device):
    """The evaluator, or None where it has not been trained yet."""
    path = os.path.join(folder, "evaluator.pt")
    if not os.path.exists(path):
        return None
    state = load_checkpoint(path, device)
    return _frozen(Evaluator(state["config"]), state["averaged"], device)


def load_generator(folder, device):
    """(text encoder, transformer) and their checkpoint's other contents."""
    state = load_checkpoint(os.path.join(folder, "dit.pt"), device)
    text = _frozen(TextEncoder(state["text_config"]), state["averaged"]["text"], device)
    dit = _frozen(Dit(state["config"]), state["averaged"]["dit"], device)
    return text, dit, state
