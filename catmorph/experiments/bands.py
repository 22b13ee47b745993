"""What setting one band to zero does to the answers of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from catmorph.experiments.measures import EVERYTHING
from catmorph.experiments.plan import NO_BAND
from catmorph.experiments.tables import Results, spread
from catmorph.release.intervals import wilson


@dataclass(frozen=True)
class Change:
    """The fraction of stamps called as people call them: with all bands, without one, and the difference.

    `low` and `high` bound the difference; NaN where there is no interval. `group` is a class, or `EVERYTHING`.
    """

    band: str
    group: str
    stamps: int
    before: float
    after: float
    change: float
    low: float
    high: float


def band_changes(results: Results) -> list[Change]:
    """Return a row for each band and each of: all stamps, the stamps of each class.

    Of several trainings means, with Student's t interval of the paired differences; of a single network the interval of
    `paired_change` over its test stamps.
    """
    found = [one for one in results.found if one.get("zeroed")]
    bands = [entry["band"] for entry in found[0]["zeroed"]] if found else []
    return [
        _change(band, group, [_counts(one, band)[group] for one in found], results.confidence)
        for band in bands for group in (EVERYTHING, *results.answers)
    ]  # fmt: skip


def _counts(found: dict[str, Any], band: str) -> dict[str, list[int]]:
    return next(entry["changes"] for entry in found["zeroed"] if entry["band"] == band)


def _change(band: str, group: str, counts: Sequence[Sequence[int]], confidence: float) -> Change:
    tables = [table for table in map(np.array, counts) if table.sum()]
    stamps = round(float(np.mean([np.sum(one) for one in counts])))
    if not tables:
        return Change(band, group, stamps, *[math.nan] * 5)
    before = [float((one[0] + one[1]) / one.sum()) for one in tables]
    after = [float((one[0] + one[2]) / one.sum()) for one in tables]
    change = spread(np.subtract(after, before), confidence)
    low, high = (change.low, change.high) if len(tables) > 1 else paired_change(tables[0], confidence)
    return Change(band, group, stamps, float(np.mean(before)), float(np.mean(after)), change.mean, low, high)


def paired_change(counts: Sequence[int] | np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the interval of the change of a fraction between two answers about the same stamps.

    Parameters
    ----------
    counts : sequence of 4 int
        Stamps that are right [both times, before only, after only, never].

    Returns
    -------
    low, high : float
        Of (right after - right before) / stamps, by Newcombe (1998, Statistics in Medicine 17, 2635), method 10: the
        Wilson intervals of the two fractions, joined with their correlation; NaN without stamps.
    """
    both, first, second, neither = (int(one) for one in counts)
    total = both + first + second + neither
    of_after, of_before = (wilson(both + one, total, confidence) for one in (second, first))
    if of_after is None or of_before is None:
        return math.nan, math.nan
    (low_after, high_after), (low_before, high_before) = of_after, of_before
    after, before = (both + second) / total, (both + first) / total
    phi = _correlation(both, first, second, neither)

    def half(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    low = half(after - low_after, high_before - before)
    high = half(high_after - after, before - low_before)
    return after - before - low, after - before + high


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Return the correlation of the two answers, with the continuity correction of method 10 where it is positive."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    product = float(both * neither - first * second)
    if product > 0:
        product = max(product - (both + first + second + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def bands_table(changes: Sequence[Change]) -> pd.DataFrame:
    """Return the changes as a table."""
    columns = {"group": "stamps of", "stamps": "n"}
    return pd.DataFrame([vars(one) for one in changes]).rename(columns=columns)


def band_rows(changes: Sequence[Change], answers: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the page's table: per cent called as people do, and the change without each band."""
    groups = [EVERYTHING, *answers]
    by_key = {(one.band, one.group): one for one in changes}
    bands = list(dict.fromkeys(one.band for one in changes))
    first = ["", *(_percent(by_key[bands[0], group].before) for group in groups)]
    rows = [[NO_BAND, *first[1:]]]
    rows += [[band, *(_cell(by_key[band, group]) for group in groups)] for band in bands]
    return ["without", "all stamps", *answers], rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else ""


def _cell(one: Change) -> str:
    if not math.isfinite(one.change):
        return ""
    sure = f" ({100 * one.low:+.1f} to {100 * one.high:+.1f})" if math.isfinite(one.low) else ""
    return f"{_percent(one.after)}: {100 * one.change:+.1f}{sure}"
