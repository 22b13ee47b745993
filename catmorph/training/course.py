"""The optimiser of a training and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from catmorph.recipe import TrainingSection

PLATEAU_GAIN = 1e-4
"""What counts as better on a plateau: of the loss this share of it, of the accuracy this much."""


def optimiser_for(section: TrainingSection, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser that `section` names, for `parameters`."""
    if section.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=section.learning_rate, momentum=section.momentum)
    return torch.optim.Adam(parameters, lr=section.learning_rate, betas=(0.9, 0.999), fused=True)


def one_cycle(section: TrainingSection, optimiser: torch.optim.Optimizer) -> Any:
    """Return the schedule that takes a step with every batch: up to the learning rate, then down to nearly 0."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=section.learning_rate, total_steps=section.epochs * section.batches_per_epoch,
        cycle_momentum=False,
    )  # fmt: skip


def schedule_for(section: TrainingSection, optimiser: torch.optim.Optimizer) -> Any:
    """Return the schedule that takes a step after every epoch, None where there is none."""
    if section.schedule == "exponential":
        return torch.optim.lr_scheduler.ExponentialLR(optimiser, math.exp(-section.decay))
    if section.schedule != "plateau":
        return None
    of_accuracy = section.plateau_watches == "accuracy"
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max" if of_accuracy else "min", factor=section.plateau_factor,
        patience=section.plateau_patience, threshold=PLATEAU_GAIN, threshold_mode="abs" if of_accuracy else "rel",
        # By default torch leaves rates below about 1e-8 as they are.
        min_lr=section.plateau_least, eps=0.0,
    )  # fmt: skip
