"""The processes of one training run, one for each GPU, as each_gpu.sh starts them; one process without it.

All of them hold the same weights and take the same steps: each on its own data, with the mean of all gradients.
"""

import os

import torch
import torch.distributed as dist


class Team:
    """Make it before anything asks for a GPU: each process sees only its own, so that all find the same compiled code."""

    def __init__(self):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.size > 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["LOCAL_RANK"]

    def gather(self):
        """Waits for the others."""
        if self.size > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            self.talk = dist.new_group(backend="gloo")  # of numbers that are not on a GPU

    def agree(self, value):
        """The first process' `value`, a float."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0, group=self.talk)
        return told.item()

    @torch.no_grad()
    def share(self, tensors):
        """Gives all processes the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    @torch.no_grad()
    def average_gradients(self, parameters):
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def part(self):
        if self.size > 1:
            dist.barrier(group=self.talk)
            dist.destroy_process_group()
