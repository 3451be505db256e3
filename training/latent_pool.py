"""A pool of encoded scenes: latents, captions and side labels on the device, kept on disk between runs."""

import json
import os
import time

import numpy as np
import torch

from common import Compiled, autocast, log


def fingerprint(autoencoder):
    """A number that changes with what makes the latents, so that those of another encoder are not used."""
    parts = [*autoencoder.encoder.parameters(), autoencoder.latent_mean, autoencoder.latent_std]
    return round(sum(p.double().abs().sum().item() for p in parts), 4)


class LatentPool:
    def __init__(self, folder, capacity, channels, length, device, grid=32):
        self.folder, self.device, self.count = folder, device, 0
        kind = torch.float16 if device.type == "cuda" else torch.float32
        self.latents = torch.empty(capacity, channels, grid, grid, dtype=kind, device=device)
        self.tokens = torch.empty(capacity, length, dtype=torch.int16, device=device)
        self.sides = torch.empty(capacity, length, dtype=torch.int8, device=device)  # per token, see side_loss.py

    def _paths(self):
        return [os.path.join(self.folder, name) for name in ("latents.bin", "tokens.bin", "sides.bin", "pool.json")]

    def load(self, mark):
        """Reads the pool left by an earlier run with the same autoencoder, if there is one."""
        latents, tokens, sides, note = self._paths()
        if not os.path.exists(note):
            return
        with open(note) as file:
            stored = json.load(file)
        if stored["mark"] != mark:
            log("the stored latents belong to another autoencoder; made anew")
            return
        count = min(stored["count"], len(self.latents))
        shape = self.latents.shape[1:]
        source = np.memmap(latents, np.float16, "r", shape=(stored["count"],) + tuple(shape))
        for begin in range(0, count, 16384):
            end = min(count, begin + 16384)
            self.latents[begin:end] = torch.from_numpy(np.array(source[begin:end])).to(self.device)
        for target, name, kind in ((self.tokens, tokens, np.int16), (self.sides, sides, np.int8)):
            values = np.fromfile(name, kind).reshape(stored["count"], -1)[:count]
            target[:count] = torch.from_numpy(values).to(self.device)
        self.count = count
        log(f"read {count} latents")

    def save(self, mark):
        latents, tokens, sides, note = self._paths()
        if os.path.exists(note):
            os.remove(note)  # the note comes last: without it the rest does not count
        with open(latents, "wb") as file:
            for begin in range(0, self.count, 16384):
                file.write(self.latents[begin:min(self.count, begin + 16384)].half().cpu().numpy().tobytes())
        self.tokens[:self.count].cpu().numpy().tofile(tokens)
        self.sides[:self.count].cpu().numpy().tofile(sides)
        with open(note, "w") as file:
            json.dump({"mark": mark, "count": self.count}, file)

    @torch.no_grad()
    def fill(self, autoencoder, renderer, stream, seconds, compiled):
        """Draws and encodes scenes until the time or the room is used up."""
        begin, shown = time.time(), time.time()

        def encode(picture):
            return autoencoder.normalise(autoencoder.encoder(picture).float())

        encode = Compiled(encode, compiled, backward=False)
        while self.count < len(self.latents) and time.time() - begin < seconds:
            batch = stream.next()
            picture = renderer.draw(batch).contiguous(memory_format=torch.channels_last)
            with autocast(self.device):
                latent = encode(picture)
            room = min(len(latent), len(self.latents) - self.count)
            part = slice(self.count, self.count + room)
            self.latents[part] = latent[:room].to(self.latents.dtype)
            self.tokens[part] = torch.from_numpy(batch["tokens"][:room]).to(self.device)
            self.sides[part] = torch.from_numpy(batch["sides"][:room]).to(self.device)
            self.count += room
            if time.time() - shown > 5:
                shown = time.time()
                log(f"{self.count} latents")
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        part = self.latents[:min(self.count, 4096)].float()
        log(f"pool of {self.count} latents after {time.time() - begin:.0f} s, "
            f"mean {part.mean():.3f}, std {part.std():.3f}")

    def batch(self, size):
        index = torch.randint(0, self.count, (size,), device=self.device)
        return self.latents[index].float(), self.tokens[index].long(), self.sides[index].long()
