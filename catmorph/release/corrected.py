"""Fractions of a class as a sum of probabilities, and corrected for the mistakes that a test of the network shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from catmorph.release.intervals import exact, wilson

COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")
DRAWS = 20_000
"""Draws for an interval: a bound of it is uncertain by about 1% of its width."""
SEED = 0


@dataclass(frozen=True)
class Trial:
    """How a network did at a class, at a threshold, on stamps whose truth is known."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def sensitivity(self) -> float | None:
        """Of the stamps of the class, the fraction that was found; None where there was none."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Of the other stamps, the fraction that was not taken for it; None where there was none."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def problem(self) -> str:
        """Why nothing can be corrected by it; empty where it can."""
        if self.sensitivity is None:
            return "the test has no stamp of the class"
        if self.specificity is None:
            return "the test has no stamp of another class"
        if self.sensitivity + self.specificity <= 1:
            return "the test shows no more than chance (sensitivity + specificity is not above 1)"
        return ""

    def as_dict(self, confidence: float) -> dict[str, Any]:
        """Return the counts, and sensitivity and specificity with their exact intervals."""
        positives = (self.true_positive, self.true_positive + self.false_negative)
        negatives = (self.true_negative, self.true_negative + self.false_positive)
        return {
            **{name: getattr(self, name) for name in COUNTS},
            "sensitivity": {"value": self.sensitivity, "interval": exact(*positives, confidence)},
            "specificity": {"value": self.specificity, "interval": exact(*negatives, confidence)},
        }


def from_counts(counts: Mapping[str, Any]) -> Trial | None:
    """Return the test that a card tells of, None where its counts are no counts."""
    values = [counts.get(name) for name in COUNTS]
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        return None
    return Trial(*values)  # type: ignore[arg-type]


def probability_sum(total: float, of: int, confidence: float = 0.95) -> dict[str, Any]:
    """Return the mean of `of` probabilities whose sum is `total`, with an interval of the population's fraction.

    Stamp i is of the class with its probability p_i. What is not known is which of them are (variance
    sum p_i (1 - p_i), of the Poisson binomial distribution) and which stamps the survey happened to see (n times the
    variance of the p_i). The two add up to n q (1 - q) with q the mean: those of a binomial. So the interval is
    Wilson's (1927), of a count that need not be whole. It holds for calibrated probabilities.
    """
    if not of:
        return {"value": None, "interval": None}
    return {"value": total / of, "interval": _wilson(total / of, of, confidence)}


def _wilson(share: float, of: int, confidence: float) -> list[float]:
    # wilson() takes whole counts: between the two next to this one its bounds are all but straight lines.
    low = int(np.floor(share * of))
    weight = share * of - low
    ends = [wilson(min(count, of), of, confidence) or (0.0, 1.0) for count in (low, low + 1)]
    return [(1 - weight) * one + weight * two for one, two in zip(*ends, strict=True)]


def corrected(count: int, of: int, test: Trial, confidence: float = 0.95) -> dict[str, Any]:
    """Return the fraction of a class that `count` of `of` stamps stand for, given the network's mistakes in a test.

    The estimate of Rogan & Gladen (1978), (raw + specificity - 1) / (sensitivity + specificity - 1), clipped to 0..1.
    It takes the mistakes to be as frequent among these stamps as in the test.

    The interval is between percentiles of seeded draws: raw fraction, sensitivity and specificity are drawn from
    their posteriors with Jeffreys' priors, Beta(x + 1/2, n - x + 1/2). A draw with sensitivity + specificity <= 1
    tells nothing: such draws are counted half as 0 and half as 1.

    Returns
    -------
    dict
        ``value``, ``interval`` and, where they are None, ``reason``.
    """
    reason = test.problem if of else "no stamp is counted"
    if reason:
        return {"value": None, "interval": None, "reason": reason}
    sensitivity, specificity = test.sensitivity or 0.0, test.specificity or 0.0
    value = (count / of + specificity - 1) / (sensitivity + specificity - 1)
    generator = np.random.default_rng(SEED)
    drawn = [generator.beta(yes + 0.5, no + 0.5, DRAWS) for yes, no in (
        (test.true_positive, test.false_negative), (test.true_negative, test.false_positive), (count, of - count),
    )]
    gain = drawn[0] + drawn[1] - 1
    known = gain > 0
    draws = np.where(np.arange(DRAWS) % 2, 1.0, 0.0)
    draws[known] = np.clip((drawn[2] + drawn[1] - 1)[known] / gain[known], 0, 1)
    tail = 50 * (1 - confidence)
    interval = [float(bound) for bound in np.percentile(draws, [tail, 100 - tail])]
    clipped = min(1.0, max(0.0, value))
    # Where the estimate was clipped the draws may all lie beyond it.
    return {"value": clipped, "interval": [min(interval[0], clipped), max(interval[1], clipped)]}


def _ratio(count: int, of: int) -> float | None:
    return count / of if of else None
