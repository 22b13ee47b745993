"""What the results of an experiment show, in sentences, and the sentences that several experiments share."""

from __future__ import annotations

import math
from collections.abc import Iterator

from catmorph.experiments.plan import Setting
from catmorph.experiments.tables import Results, Spread, label


def conclusions(results: Results) -> Iterator[str]:
    """Yield what the results show, a sentence each."""
    if "rmse" in results.table.columns:
        yield from results.grid.experiment.conclusions(results)


def best_and_differences(results: Results) -> Iterator[str]:
    """Yield which setting has the lowest error, and how many differ from their reference."""
    best = min(results.settings, key=lambda one: results.spread(one, "rmse").mean)
    yield f"Lowest mean RMSE: {label(best)} ({mean_of(results.spread(best, 'rmse'))})."
    yield from clear_differences(results)


def clear_differences(results: Results) -> Iterator[str]:
    """Yield how many settings differ from their reference by more than the trainings scatter."""
    told = compared(results)
    apart = [label(one) for one, difference in told if difference.low > 0 or difference.high < 0]
    sure = [one for one in told if math.isfinite(one[1].low)]
    if sure:
        reference = label(results.reference(told[0][0]))
        yield (f"The interval of the paired difference from {reference!r} leaves out zero for {len(apart)} of "
               f"{len(sure)} others{': ' + ', '.join(apart) if apart else ''}.")  # fmt: skip


def compared(results: Results) -> list[tuple[Setting, Spread]]:
    """Return the settings that have a reference, each with the paired difference of the error."""
    pairs = [(one, results.difference(one, "rmse")) for one in results.settings]
    return [(one, difference) for one, difference in pairs if difference is not None and difference.n]


def mean_of(one: Spread) -> str:
    """Return a mean in words, with its standard deviation and n."""
    std = f", standard deviation {one.std:.4f}" if math.isfinite(one.std) else ""
    return f"mean {one.mean:.4f}{std}, n = {one.n}"


def interval(one: Spread) -> str:
    """Return an interval in words, nothing where there is none."""
    return f" ({one.low:+.4f} to {one.high:+.4f})" if math.isfinite(one.low) else ""
