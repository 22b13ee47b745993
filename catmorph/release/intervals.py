"""Binomial intervals of a fraction."""

from __future__ import annotations

from math import sqrt

from scipy.special import betaincinv, erfinv

Interval = tuple[float, float]


def wilson(count: int, total: int, confidence: float = 0.95) -> Interval | None:
    """Return the Wilson score interval of `count` out of `total` (Wilson 1927); None when `total` is 0."""
    if total == 0:
        return None
    # Not by astropy.stats.binom_conf_interval, which gives the same: half a second of imports.
    deviations = sqrt(2.0) * float(erfinv(confidence))
    share, more = count / total, deviations**2
    middle = (count + more / 2) / (total + more)
    half = deviations * sqrt(total) / (total + more) * sqrt(share * (1 - share) + more / (4 * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)


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
