"""A running average of the weights of a training, which is validated and saved in their place."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class RunningAverage(nn.Module):
    """A copy of a network whose weights follow those of the training slowly.

    After step t (from 1) each weight w of the copy becomes s w + (1 - s) v, with v the weight of the training and
    s = min(share, (1 + t) / (10 + t)), so that the random weights of the start are soon forgotten. The running
    statistics of batch norms are averaged alike. The average of the last steps lies nearer to the middle of the
    valley that the steps jump about in (Polyak & Juditsky 1992; Izmailov et al. 2018).

    Parameters
    ----------
    module : nn.Module
        The network of the training; it is copied, with its hooks.
    share : float
        Between 0 and 1; the average goes back over about 1 / (1 - share) steps.
    """

    steps: Tensor

    def __init__(self, module: nn.Module, share: float):
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.share = share
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Take one step towards the weights of `module`."""
        self.steps += 1
        step = int(self.steps)
        share = min(self.share, (1 + step) / (10 + step))
        theirs = module.state_dict()
        for name, mine in self.module.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], 1 - share)
            else:
                mine.copy_(theirs[name])
