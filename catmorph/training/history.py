"""What a training has behind it: its learning curve and its best weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from catmorph.recipe import TrainingSection

Row = dict[str, float]
"""One epoch of the learning curve."""


@dataclass
class History:
    """The learning curve and the weights of the best epoch.

    `best` is the smallest validation loss or the largest accuracy; `gained` is the last one that was better by at least
    ``section.least_gain`` than the one before it, in epoch `gained_epoch`. Epochs count from 1.
    """

    rows: list[Row] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    gained: float | None = None
    gained_epoch: int = 0

    def add(self, row: Row, section: TrainingSection) -> bool:
        """Take up the row of an epoch, and return whether it is the best so far."""
        self.rows.append(row)
        sign = -1.0 if section.monitor == "loss" else 1.0
        value = sign * row[f"validation_{section.monitor}"]
        if value > (-math.inf if self.gained is None else self.gained + section.least_gain):
            self.gained, self.gained_epoch = value, len(self.rows)
        better = self.best is None or value > sign * self.best
        if better:
            self.best, self.best_epoch = sign * value, len(self.rows)
        return better

    def ended(self, section: TrainingSection) -> bool:
        """Whether the last epoch or the end of patience is reached."""
        return len(self.rows) >= section.epochs or len(self.rows) - self.gained_epoch >= section.patience


def accuracy(predicted: Tensor, fractions: Tensor) -> Tensor:
    """Return the share of stamps whose most probable class is the most voted one.

    With a single class: whose probability and vote fraction are on the same side of one half.

    Parameters
    ----------
    predicted, fractions : Tensor of shape (n, class)
    """
    if predicted.shape[1] == 1:
        return ((predicted >= 0.5) == (fractions >= 0.5)).float().mean()
    return (predicted.argmax(dim=1) == fractions.argmax(dim=1)).float().mean()
