"""Reliability: whether predicted probabilities are, on average, the fractions of votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catmorph.evaluation.additive import bin_numbers, ratio
from catmorph.schemes import Form


@dataclass(frozen=True)
class Reliability:
    """Points of a reliability diagram, each array (bin,); means are NaN in empty bins.

    `low`, `high`: edges of the bins of equal width; `count`: (stamp, class) pairs; `predicted`, `voted`: mean
    predicted probability and mean vote fraction.
    """

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    predicted: np.ndarray
    voted: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error: the gaps between the two means, weighted by the counts."""
        filled = self.count > 0
        gaps = np.abs(self.predicted[filled] - self.voted[filled])
        return float(np.sum(self.count[filled] * gaps) / self.count.sum())


def reliability(probabilities: np.ndarray, fractions: np.ndarray, bins: int) -> Reliability:
    """Return the reliability diagram of arrays of any one shape, all their entries pooled."""
    p, f = (np.asarray(part, dtype=np.float64).ravel() for part in (probabilities, fractions))
    number = bin_numbers(p, bins)
    count = np.bincount(number, minlength=bins)
    edges = np.arange(bins + 1) / bins
    predicted, voted = (ratio(np.bincount(number, part, bins), count) for part in (p, f))
    return Reliability(edges[:-1], edges[1:], count, predicted, voted)


def ece_of_votes(probabilities: np.ndarray, votes: np.ndarray, bins: int, kind: Form = "softmax") -> float | None:
    """Return the expected calibration error that a perfectly calibrated network would show.

    Votes are counts: in a bin, the sum of f - p of n stamps has the variance of n multinomial draws,
    sum_i q_i (1 - q_i) / N_i with q_i the sum of stamp i's probabilities that are in the bin and N_i its votes
    (independent questions, and the answers of a tree as if they were: sum p (1 - p) / N). The mean absolute value
    of a normal deviate is sqrt(2 / pi) times its standard deviation. Stamps of one source are taken as independent.

    Returns
    -------
    float or None
        None where a stamp has no votes.
    """
    votes = np.asarray(votes, dtype=np.float64)
    if not np.all(votes >= 1):
        return None
    p = np.asarray(probabilities, dtype=np.float64)
    number = bin_numbers(p, bins)
    variance = np.zeros(bins)
    for one in range(bins):
        inside = np.where(number == one, p, 0.0)
        if kind == "softmax":
            inside = inside.sum(axis=1)
            variance[one] = np.sum(inside * (1 - inside) / votes)
        else:
            variance[one] = np.sum(np.where(number == one, p * (1 - p), 0.0) / votes[:, None])
    return float(np.sqrt(2 / np.pi) * np.sqrt(np.maximum(variance, 0.0)).sum() / p.size)
