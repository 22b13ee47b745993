"""What the results of an experiment show, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from catmorph.experiments.bands import band_changes
from catmorph.experiments.measures import EVERYTHING
from catmorph.experiments.plan import FINE_TUNED, FROM_SCRATCH, NO_FILTER
from catmorph.experiments.tables import Results, Spread, label, stops_gaining


def conclusions(results: Results) -> Iterator[str]:
    """Yield what the results show, a sentence each."""
    if "rmse" not in results.table.columns:
        return
    kind = results.grid.experiment.name
    if kind == "learning-curve":
        yield from _of_sizes(results)
    elif kind == "repeat":
        for measure in results.headlines:
            yield f"{measure}: {_told(results.spread(results.settings[0], measure))}."
        yield from _best_validation(results)
    elif kind == "leave-band-out":
        yield from _of_bands(results)
    else:
        yield from _of_differences(results)
    if kind == "compare" and "mean_label_rmse" in results.table.columns:
        level = float(results.table["mean_label_rmse"].mean())
        yield f"Always answering the mean label of the test stamps has the RMSE {level:.4f}."


def _of_sizes(results: Results) -> Iterator[str]:
    for start in (FINE_TUNED, FROM_SCRATCH):
        settings = [one for one in results.settings if one["start"] == start]
        if len(settings) > 1:
            spreads = [results.spread(one, "rmse") for one in settings]
            size = stops_gaining([float(one["size"]) for one in settings], spreads)
            if size is not None:
                best = min(spreads, key=lambda one: one.mean)
                yield (f"The {start} network stops gaining at {size:.0f} stamps: the smallest size whose mean RMSE "
                       f"is within one standard error of the best mean ({best.mean:.4f} +- {best.error:.4f}).")
    pairs = [(one["size"], results.difference(one, "rmse")) for one in results.settings if one["start"] == FINE_TUNED]
    told = [(size, difference) for size, difference in pairs if difference is not None and difference.n]
    if told:
        better = [size for size, one in told if one.mean < 0]
        sure = [size for size, one in told if one.high < 0]
        yield f"The fine-tuned network has the lower mean RMSE at {_listed(better, len(told))}."
        yield f"The interval of the paired difference lies below zero at {_listed(sure, len(told))}."


def _of_differences(results: Results) -> Iterator[str]:
    settings = [one for one in results.settings if results.grid.experiment.name != "filter-importance"
                or one["without"] != NO_FILTER]  # fmt: skip
    if results.grid.experiment.name != "filter-importance":
        best = min(settings, key=lambda one: results.spread(one, "rmse").mean)
        yield f"Lowest mean RMSE: {label(best)} ({_told(results.spread(best, 'rmse'))})."
    compared = [(one, results.difference(one, "rmse")) for one in settings]
    told = [(one, difference) for one, difference in compared if difference is not None and difference.n]
    if not told:
        return
    reference = label(results.reference(told[0][0]))
    if results.grid.experiment.name == "filter-importance":
        worst, difference = max(told, key=lambda pair: pair[1].mean)
        yield (f"The filter that matters most to all test stamps is {label(worst)}: without it the RMSE changes by "
               f"{difference.mean:+.4f}{_interval(difference)}.")  # fmt: skip
    apart = [label(one) for one, difference in told if difference.low > 0 or difference.high < 0]
    sure = [one for one in told if math.isfinite(one[1].low)]
    if sure:
        yield (f"The interval of the paired difference from {reference!r} leaves out zero for {len(apart)} of "
               f"{len(sure)} others{': ' + ', '.join(apart) if apart else ''}.")  # fmt: skip


def _of_bands(results: Results) -> Iterator[str]:
    found = [one for one in band_changes(results) if one.group == EVERYTHING and math.isfinite(one.change)]
    if not found:
        return
    worst = min(found, key=lambda one: one.change)
    interval = f" ({100 * worst.low:+.1f} to {100 * worst.high:+.1f})" if math.isfinite(worst.low) else ""
    yield (f"The band that matters most is {worst.band}: when it is zero, {100 * worst.after:.1f}% instead of "
           f"{100 * worst.before:.1f}% of the stamps are called as people do, {100 * worst.change:+.1f} percentage "
           f"points{interval}.")  # fmt: skip
    if results.grid.given is not None:
        yield f"The stamps are {results.found[0]['note']}."


def _best_validation(results: Results) -> Iterator[str]:
    if "validation_rmse" in results.table.columns:
        row = results.table.sort_values("validation_rmse", kind="stable").iloc[0]
        yield (f"The training of the lowest validation RMSE is number {int(row['repeat'])}: validation "
               f"{row['validation_rmse']:.4f}, test {row['rmse']:.4f}.")  # fmt: skip


def _listed(sizes: Sequence[object], total: int) -> str:
    if len(sizes) == total:
        return f"every size ({total})"
    return f"{len(sizes)} of {total} sizes" + (f": {', '.join(map(str, sizes))}" if sizes else "")


def _told(one: Spread) -> str:
    std = f", standard deviation {one.std:.4f}" if math.isfinite(one.std) else ""
    return f"mean {one.mean:.4f}{std}, n = {one.n}"


def _interval(one: Spread) -> str:
    return f" ({one.low:+.4f} to {one.high:+.4f})" if math.isfinite(one.low) else ""
