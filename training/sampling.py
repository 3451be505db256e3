"""Draws pictures from prompts with the trained models, as the engine does: Euler steps and guidance."""

import torch

from common import autocast


@torch.no_grad()
def generate(models, tokens, device, guidance=4.0, steps=24, seed=0, grid=(32, 32), size=150):
    """Pictures in [0, 1] (B, 3, 8h, 8w) for token ids (B, 32). `models` = (text encoder, transformer, autoencoder)."""
    text_encoder, dit, autoencoder = models
    generator = torch.Generator(device="cpu").manual_seed(seed)
    channels = dit.config["latent_channels"]
    pictures = []
    for ids in tokens.split(size):
        noise = torch.randn(len(ids), channels, *grid, generator=generator)
        z, ids = noise.to(device), ids.to(device).long()
        with autocast(device):
            states = text_encoder(torch.cat((ids, torch.zeros_like(ids))))
            times = torch.linspace(1, 0, steps + 1, device=device)
            for t, after in zip(times[:-1], times[1:]):
                velocity = dit(torch.cat((z, z)), t.expand(2 * len(ids)), states).float()
                told, untold = velocity.chunk(2)
                z = z - (t - after) * (untold + guidance * (told - untold))
            latent = autoencoder.denormalise(z).contiguous(memory_format=torch.channels_last)
            pictures.append(autoencoder.decoder(latent).float().clamp(0, 1))
    return torch.cat(pictures)
