"""A pool of encoded clips of one length and size, on the device."""

import time

import torch

from common import autocast, log


class ClipPool:
    def __init__(self, frames, size, capacity, channels, length, device):
        kind = torch.float16 if device.type == "cuda" else torch.float32
        self.frames, self.size, self.device, self.count = frames, size, device, 0
        self.latents = torch.empty(capacity, frames, size // 8, size // 8, channels, dtype=kind, device=device)
        # Per token of the caption: its id, the side (side_loss.py) and the motion of the object it names.
        self.labels = torch.empty(3, capacity, length, dtype=torch.int16, device=device)

    @torch.no_grad()
    def fill(self, autoencoder, renderer, stream, seconds, encode):
        """Draws and encodes clips until the time or the room is used up. `encode`: frames to normalised latents."""
        begin = time.time()
        while self.count < len(self.latents) and time.time() - begin < seconds:
            batch = stream.next()
            clips = renderer.draw(batch, self.size)
            with autocast(self.device):
                latent = encode(clips.flatten(0, 1).contiguous(memory_format=torch.channels_last))
            latent = latent.unflatten(0, clips.shape[:2]).permute(0, 1, 3, 4, 2)
            room = min(len(latent), len(self.latents) - self.count)
            part = slice(self.count, self.count + room)
            self.latents[part] = latent[:room].to(self.latents.dtype)
            for target, key in zip(self.labels, ("tokens", "sides", "moves")):
                target[part] = torch.from_numpy(batch[key][:room]).to(self.device)
            self.count += room
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        part = self.latents[:min(self.count, 512)].float()
        log(f"{self.count} clips of {self.frames} frames of {self.size} pixels after {time.time() - begin:.0f} s, "
            f"mean {part.mean():.3f}, std {part.std():.3f}")

    def batch(self, size):
        """(latents (B, T, h, w, C), token ids, sides, moves), drawn at random."""
        index = torch.randint(0, self.count, (size,), device=self.device)
        return (self.latents[index].float(), *self.labels[:, index].long().unbind(0))
