"""Trains the autoencoder on composed scenes.

    python3 training/train_autoencoder.py --minutes 5
    python3 training/train_autoencoder.py --minutes 3 --freeze-encoder --lr 3e-4 --small 0.5

The second form goes on with the decoder alone: better pictures from the same latents, --small also those of 128 pixels.
"""

import math
import os
import time

import torch
import torch.nn.functional as F

from common import (Average, Clock, Compiled, adamw, arguments, autocast, load_checkpoint, log, save_checkpoint,
                    set_rate, set_up)
from models import AUTOENCODER_CONFIG, Autoencoder, parameter_count
from scenes import Renderer, SceneStream

HELD_OUT_SEED = 987_654


def psnr(a, b):
    error = (a.float().clamp(0, 1) - b.float()).pow(2).mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error + 1e-10)).mean().item()


def gradients(x):
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def make_loss(model):
    def loss(picture, noise, weak):
        """Reconstruction of the picture, and of the small picture from the small latent.

        The second term asks that halving the latent halves the picture, which makes latents smooth across scales and
        easier for the diffusion model. With `weak` 0 nothing is asked of the latents: they are given.
        """
        latent = model.encoder(picture)
        decoded = model.decoder(latent + noise).float()
        value = F.l1_loss(decoded, picture) + 2 * F.mse_loss(decoded, picture)
        for a, b in zip(gradients(decoded), gradients(picture)):
            value = value + 0.5 * F.l1_loss(a, b)
        if not weak:
            return value, decoded
        small = F.avg_pool2d(picture, 2)
        decoded_small = model.decoder(F.avg_pool2d(latent, 2)).float()
        value = value + weak * (F.l1_loss(decoded_small, small) + 2 * F.mse_loss(decoded_small, small))
        # Unit scale per channel.
        flat = latent.float().transpose(0, 1).flatten(1)
        mean, std = flat.mean(1), flat.std(1)
        return value + 0.02 * (mean.pow(2) + (std - 1).pow(2)).mean(), decoded
    return loss


@torch.no_grad()
def measure(model, pictures, device, size=50):
    """Mean PSNR of reconstructions, and mean and standard deviation of each latent channel."""
    values, latents = [], []
    for part in pictures.split(size):
        with autocast(device):
            latent = model.encoder(part.contiguous(memory_format=torch.channels_last))
            decoded = model.decoder(latent)
        values.append(psnr(decoded, part))
        latents.append(latent.float())
    flat = torch.cat(latents).transpose(0, 1).flatten(1)
    return sum(values) / len(values), flat.mean(1), flat.std(1)


def main():
    parser = arguments(__doc__, 5)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--crop", type=int, default=256, help="side of the training crops")
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--noise", type=float, default=0.1, help="most noise on latents while training")
    parser.add_argument("--small", type=float, default=0.0, help="share of the steps with pictures of half the size")
    parser.add_argument("--freeze-encoder", action="store_true",
                        help="train the decoder only: latents, and the transformer made for them, stay valid")
    options = parser.parse_args()
    begin = time.time()
    device = set_up(options.device, options.seed)
    stream = SceneStream(options.data, options.batch, 11 + options.seed, "default", options.workers)
    held = SceneStream(options.data, options.held_out, HELD_OUT_SEED, "default", 0).next()
    renderer = Renderer(options.data, device)
    held = torch.cat([renderer.draw({k: v[i:i + 50] for k, v in held.items()})
                      for i in range(0, options.held_out, 50)])
    log(f"data ready after {time.time() - begin:.0f} s")

    model = Autoencoder(AUTOENCODER_CONFIG).to(device).to(memory_format=torch.channels_last)
    frozen = options.freeze_encoder
    trained = list((model.decoder if frozen else model).parameters())
    optimizer = adamw(trained, options.lr, (0.9, 0.99), 1e-4)
    average = Average([model], 0.998)
    path = os.path.join(options.state, "autoencoder.pt")
    if os.path.exists(path):
        state = load_checkpoint(path, device)
        # The transformer was trained on the averaged encoder's latents.
        model.load_state_dict(state["averaged" if frozen else "model"])
        if "optimizer" in state and not frozen and state.get("whole", True):
            optimizer.load_state_dict(state["optimizer"])
            average.load(state["average"])
        else:
            average.copy()
        log("resumed from", path)
    elif frozen:
        raise SystemExit(f"--freeze-encoder needs {path}")
    model.encoder.requires_grad_(not frozen)
    log(f"{parameter_count(model):,} parameters")

    def save():
        average.swap()
        quality, mean, std = measure(model, held, device)
        small = measure(model, F.avg_pool2d(held, 2), device)[0]
        if not frozen:
            model.latent_mean.copy_(mean)
            model.latent_std.copy_(std)
        averaged = {k: v.clone() for k, v in model.state_dict().items()}
        average.swap()
        save_checkpoint(path, {"model": model.state_dict(), "average": average.state(), "averaged": averaged,
                               "optimizer": optimizer.state_dict(), "whole": not frozen, "psnr": quality})
        log(f"step {step}: held-out PSNR {quality:.2f} dB, of half the size {small:.2f} dB, "
            f"latent std {std.min():.2f} to {std.max():.2f}; saved")

    if frozen:
        log(f"at first: held-out PSNR {measure(model, held, device)[0]:.2f} dB, "
            f"of half the size {measure(model, F.avg_pool2d(held, 2), device)[0]:.2f} dB")
    loss_function = Compiled(make_loss(model), options.compile and device.type == "cuda")
    clock = Clock(options.minutes, reserve=6 if device.type == "cuda" else 0, begin=begin)
    step, shown, saved = 0, time.time(), time.time()
    while not clock.done():
        set_rate(optimizer, options.lr * clock.factor())
        picture = renderer.draw(stream.next())
        if options.crop < 256:
            y, x = torch.randint(0, 257 - options.crop, (2,)).tolist()
            picture = picture[..., y:y + options.crop, x:x + options.crop]
        if torch.rand(()).item() < options.small:
            picture = F.avg_pool2d(picture, 2)
        picture = picture.contiguous(memory_format=torch.channels_last)
        side = picture.shape[-1] // 8
        strength = options.noise * torch.rand(len(picture), 1, 1, 1, device=device)
        noise = strength * torch.randn(len(picture), AUTOENCODER_CONFIG["latent_channels"], side, side, device=device)
        with autocast(device):
            loss, decoded = loss_function(picture, noise, 0.0 if frozen else 0.25)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        step += 1
        if time.time() - shown > 5:
            shown = time.time()
            log(f"step {step} {clock.progress():4.0%} loss {loss.item():.4f} PSNR {psnr(decoded.detach(), picture):.2f} dB")
            if not math.isfinite(loss.item()):
                raise SystemExit("loss is not finite")
        if time.time() - saved > 60:
            save()
            saved = time.time()
    save()


if __name__ == "__main__":
    main()
