"""Draws pictures and clips from prompts with the trained models, as the engine does: Euler steps and guidance."""

import torch

from common import autocast


def shifted(times, shift):
    """Times moved towards noise: the `clip_shift` of docs/model-format.md."""
    return shift * times / (1 + (shift - 1) * times)


@torch.no_grad()
def decode(autoencoder, z, device, size=256):
    """Pictures in [0, 1] of normalised latents (N, C, h, w)."""
    pictures = []
    for part in z.split(size):
        with autocast(device):
            latent = autoencoder.denormalise(part).contiguous(memory_format=torch.channels_last)
            pictures.append(autoencoder.decoder(latent).float().clamp(0, 1))
    return torch.cat(pictures)


@torch.no_grad()
def encode(autoencoder, pictures, device, size=256):
    """Normalised latents (N, C, h, w) of pictures in [0, 1]."""
    latents = []
    for part in pictures.split(size):
        with autocast(device):
            latents.append(autoencoder.encoder(part.contiguous(memory_format=torch.channels_last)).float())
    return autoencoder.normalise(torch.cat(latents))


@torch.no_grad()
def generate(models, tokens, device, guidance=4.0, steps=24, seed=0, grid=(32, 32), size=150, frames=None, shift=1.0,
             first=None):
    """Pictures in [0, 1] (B, 3, 8h, 8w) for token ids (B, 32). `models` = (text encoder, transformer, autoencoder).

    With `frames`, clips (B, frames, 3, 8h, 8w); `first` is then None or the latents (B, h, w, C) of their first frames.
    """
    text_encoder, dit, autoencoder = models
    generator = torch.Generator(device="cpu").manual_seed(seed)
    channels = dit.config["latent_channels"]
    shape = (channels, *grid) if frames is None else (frames, *grid, channels)
    times = shifted(torch.linspace(1, 0, steps + 1, device=device), shift)
    pictures = []
    for begin in range(0, len(tokens), size):
        ids = tokens[begin:begin + size].to(device).long()
        z = torch.randn(len(ids), *shape, generator=generator).to(device)
        with autocast(device):
            states = text_encoder(torch.cat((ids, torch.zeros_like(ids))))
            for t, after in zip(times[:-1], times[1:]):
                if first is not None:
                    z[:, 0] = first[begin:begin + size]
                velocity = dit(torch.cat((z, z)), t.expand(2 * len(ids)), states).float()
                told, untold = velocity.chunk(2)
                z = z - (t - after) * (untold + guidance * (told - untold))
        if frames is None:
            pictures.append(decode(autoencoder, z, device))
            continue
        if first is not None:
            z[:, 0] = first[begin:begin + size]
        drawn = decode(autoencoder, z.permute(0, 1, 4, 2, 3).flatten(0, 1), device)
        pictures.append(drawn.unflatten(0, (len(ids), frames)))
    return torch.cat(pictures)
