"""Binomial intervals of a fraction."""

from __future__ import annotations

from astropy.stats import binom_conf_interval
from scipy.special import betaincinv

Interval = tuple[float, float]


def wilson(count: int, total: int, confidence: float = 0.95) -> Interval | None:
    """Return the Wilson score interval of `count` out of `total` (Wilson 1927); None when `total` is 0."""
    if total == 0:
        return None
    low, high = binom_conf_interval(count, total, confidence_level=confidence, interval="wilson")
    return float(low), float(high)


def exact(count: int, total: int, confidence: float = 0.95) -> Interval | None:
    """Return the exact interval of `count` out of `total` (Clopper & Pearson 1934); None when `total` is 0.

    Its coverage is at least `confidence`. astropy has no such interval; the bounds are quantiles of the beta
    distribution.
    """
    if total == 0:
        return None
    tail = 0.5 * (1.0 - confidence)
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1.0 - tail))
    return low, high
