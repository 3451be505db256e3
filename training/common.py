"""What the training scripts share: device set-up, schedule by wall-clock, checkpoints, averaging, Muon."""

import argparse
import contextlib
import math
import os
import sys
import time

import torch


def arguments(description, minutes):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default=".carry", help="folder made by prepare_data.py")
    parser.add_argument("--state", default="/tmp/fovea", help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=minutes, help="wall-clock, start-up included")
    parser.add_argument("--workers", type=int, default=4, help="processes that make scene descriptions; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", type=int, default=1)
    return parser


def set_up(device, seed):
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
        torch.backends.cuda.enable_cudnn_sdp(False)  # the other attention kernels are quick here and better proven
    return torch.device(device)


def autocast(device):
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def log(*parts):
    print(time.strftime("%H:%M:%S"), *parts, flush=True)


class Compiled:
    """Calls torch.compile's version of a loss `function`; goes on with the plain one if compiling fails.

    The first call also tries a backward pass, since that is compiled late; the caller clears gradients after calling.
    """

    def __init__(self, function, enabled, backward=True):
        self.plain, self.fast, self.proven, self.backward = function, None, False, backward
        if enabled and hasattr(torch, "compile"):
            self.fast = torch.compile(function, dynamic=False)

    def __call__(self, *values):
        if self.fast is not None and not self.proven:
            begin = time.time()
            try:
                result = self.fast(*values)
                if self.backward:
                    (result[0] if isinstance(result, tuple) else result).backward()
                torch.cuda.synchronize()
                self.proven = True
                log(f"compiled in {time.time() - begin:.0f} s")
            except Exception as error:  # any failure of the compiler
                log("torch.compile failed, going on without:", repr(error)[:300])
                self.fast = None
        return (self.fast or self.plain)(*values)


class Clock:
    """Progress of a run by wall-clock and the learning-rate factor that follows from it; done() reads the time.

    `agree` makes the progress of one process that of all (team.py).
    """

    def __init__(self, minutes, reserve=0.0, warm_up=200, begin=None, agree=lambda value: value):
        self.begin = begin or time.time()
        self.training_begin, self.part, self.agree = None, 0.0, agree
        self.end = self.begin + minutes * 60 - reserve
        self.warm_up, self.step = warm_up, 0

    def progress(self):
        return self.part

    def factor(self, floor=0.02, flat=0.0):
        """Warm-up by steps, then constant for the share `flat` of the time, then cosine to `floor`."""
        self.step += 1
        part = max(0.0, (self.part - flat) / (1 - flat))
        return min(1.0, self.step / self.warm_up) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))

    def done(self):
        now = time.time()
        if self.training_begin is None:
            self.training_begin = now
        self.part = self.agree(min(1.0, (now - self.training_begin) / max(1e-3, self.end - self.training_begin)))
        return self.part >= 1.0


class Average:
    """Exponential moving average of a module's parameters, in F32."""

    def __init__(self, modules, decay):
        self.decay, self.count = decay, 0
        self.source = [p for module in modules for p in module.parameters()]
        self.values = [p.detach().clone().float() for p in self.source]

    @torch.no_grad()
    def update(self):
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        if hasattr(torch, "_foreach_lerp_"):
            torch._foreach_lerp_(self.values, [p.detach() for p in self.source], 1 - decay)
        else:
            for value, parameter in zip(self.values, self.source):
                value.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self):
        """Exchanges the averaged values and the live ones; call it twice to go back."""
        for value, parameter in zip(self.values, self.source):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    @torch.no_grad()
    def copy(self):
        """Starts again from the live values, as after many steps."""
        self.count = 1000
        for value, parameter in zip(self.values, self.source):
            value.copy_(parameter)

    def state(self):
        return {"count": self.count, "values": self.values}

    def load(self, state):
        self.count = state["count"]
        for value, other in zip(self.values, state["values"]):
            value.copy_(other)


def save_checkpoint(path, content):
    """Writes beside `path` and renames, so that a stop half-way leaves the last good checkpoint."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    torch.save(content, path + ".part")
    os.replace(path + ".part", path)


def load_checkpoint(path, device):
    if sys.version_info >= (3, 12) or "weights_only" in torch.load.__code__.co_varnames:
        return torch.load(path, map_location=device, weights_only=False)
    return torch.load(path, map_location=device)


def orthogonalise(matrices, steps=5):
    """Newton-Schulz iteration: for each matrix of (n, rows, columns) about the nearest semi-orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    turned = x.shape[-2] > x.shape[-1]
    if turned:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(-1, -2) if turned else x).to(matrices.dtype)


class Muon:
    """Momentum whose update is orthogonalised, for hidden matrices; matrices of one shape are handled together."""

    def __init__(self, parameters, lr=0.01, momentum=0.95, weight_decay=0.1):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.groups = {}
        for parameter in parameters:
            self.groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.buffers = {shape: torch.zeros(len(group), *shape, device=group[0].device)
                        for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, factor):
        for shape, group in self.groups.items():
            gradient = torch.stack([parameter.grad.float() for parameter in group])
            buffer = self.buffers[shape]
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))  # Nesterov momentum
            scale = -self.lr * factor * max(1.0, shape[0] / shape[1]) ** 0.5
            if hasattr(torch, "_foreach_mul_"):
                torch._foreach_mul_(group, 1 - self.lr * factor * self.weight_decay)
                torch._foreach_add_(group, list((update * scale).unbind(0)))
            else:
                for parameter, change in zip(group, update):
                    parameter.mul_(1 - self.lr * factor * self.weight_decay).add_(change, alpha=scale)

    def state(self):
        return {str(shape): buffer for shape, buffer in self.buffers.items()}

    def load(self, state):
        for shape, buffer in self.buffers.items():
            buffer.copy_(state[str(shape)])


def adamw(parameters, lr, betas=(0.9, 0.98), weight_decay=0.01):
    """AdamW with the fused kernel where there is one."""
    parameters = list(parameters)
    if parameters and parameters[0].is_cuda:
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)


def set_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
