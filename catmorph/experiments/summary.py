"""What came of an experiment: tables, figure, and a page with what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catmorph.experiments.plan import FINE_TUNED, FROM_SCRATCH, NO_FILTER, Grid, Setting
from catmorph.experiments.run import Account
from catmorph.experiments.tables import Results, Spread, label, stops_gaining
from catmorph.experiments.trainings import versions
from catmorph.files import write_bytes, write_json
from catmorph.release.text import markdown_table, markdown_text

SPLITS_NOTE = (
    "Intervals are of the mean over random splits of these labels, by Student's t; the splits share stamps, so that "
    "they say nothing of another sample of galaxies."
)


def write_all(grid: Grid, found: Sequence[dict[str, Any]], account: Account, folder: Path) -> dict[str, Any]:
    """Write tables, figure and page of what is there, and return the report as plain values.

    Writes trainings.csv (a row a training), table.csv and table.md (means), differences.csv (paired differences),
    <experiment>.png and .pdf, summary.md and summary.json. Without any result only the page is written.
    """
    files = []
    results = Results(grid, found)
    report: dict[str, Any] = {
        "experiment": grid.experiment.name, "quick": grid.quick, "recipe": grid.recipe.name, "folder": str(folder),
        "trainings": {"total": account.total, "done": len(found), "failed": len(account.failures)},
        "failures": account.failures, "points": [], "conclusions": [],
    }  # fmt: skip
    if found:
        from catmorph.experiments.figures import draw

        tables = {"trainings": results.table, "table": results.means(), "differences": results.differences()}
        for name, table in tables.items():
            path = folder / f"{name}.csv"
            if table.empty:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, _csv(table))
                files.append(path)
        path = folder / "table.md"
        write_bytes(path, ("\n".join(_tables(results)) + "\n").encode())
        files += [path, *draw(results, folder / grid.experiment.name)]
        report["points"] = [_point(results, setting) for setting in results.settings]
        report["conclusions"] = list(conclusions(results))
    path = folder / "summary.md"
    write_bytes(path, ("\n".join(_page(results, report, account)) + "\n").encode())
    report["files"] = [str(one) for one in [*files, path, folder / "summary.json"]]
    write_json(folder / "summary.json", _plain(report))
    return _plain(report)


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
    else:
        yield from _of_differences(results)


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


def _point(results: Results, setting: Setting) -> dict[str, Any]:
    measures = {name: vars(results.spread(setting, name)) for name in results.headlines}
    point: dict[str, Any] = {"setting": dict(setting), "measures": measures}
    reference = results.reference(setting)
    if reference is not None:
        differences = {name: results.difference(setting, name) for name in results.headlines}
        point["minus"] = dict(reference)
        point["differences"] = {name: vars(one) for name, one in differences.items() if one is not None}
    return point


def _tables(results: Results) -> list[str]:
    """Return the tables of means and of paired differences, as Markdown."""
    percent = f"{100 * results.confidence:g}%"
    lines = [f"Means over the trainings, with standard deviation and {percent} interval of the mean:", ""]
    header = [*results.grid.axes, "n", *results.headlines]
    rows = [
        [*_values(one), results.spread(one, "rmse").n,
         *(_cell(results.spread(one, name)) for name in results.headlines)]
        for one in results.settings
    ]
    lines += markdown_table(header, rows)
    compared = [one for one in results.settings if results.reference(one) is not None]
    if compared:
        lines += ["", f"Paired differences, trainings on the same split, with {percent} interval of the mean:", ""]
        rows = [
            [*_values(one), label(results.reference(one)), _count(results.difference(one, "rmse")),
             *(_cell(results.difference(one, name), signed=True) for name in results.headlines)]
            for one in compared
        ]  # fmt: skip
        lines += markdown_table([*results.grid.axes, "minus", "n", *results.headlines], rows)
    return lines


def _values(setting: Setting) -> list[str]:
    return [label({axis: value}) for axis, value in setting.items()]


def _count(one: Spread | None) -> int:
    return one.n if one else 0


def _cell(one: Spread | None, *, signed: bool = False) -> str:
    if one is None or not one.n:
        return ""
    form = "+.4f" if signed else ".4f"
    if not math.isfinite(one.std):
        return f"{one.mean:{form}}"
    return f"{one.mean:{form}} ± {one.std:.4f} ({one.low:{form}} to {one.high:{form}})"


def _page(results: Results, report: dict[str, Any], account: Account) -> Iterator[str]:
    grid = results.grid
    yield f"# {grid.experiment.title}: {markdown_text(grid.recipe.title or grid.recipe.name)}"
    yield ""
    if grid.quick:
        yield "**This is the quick grid: fewer, shorter trainings. Its numbers are not those of the full one.**"
        yield ""
    failed = f", {len(account.failures)} failed" if account.failures else ""
    done = report["trainings"]["done"]
    yield f"`catmorph experiment {grid.experiment.name}`: {done} of {account.total} trainings{failed}."
    yield ""
    yield from (f"- {markdown_text(line)}" for line in _settings(grid))
    yield ""
    for line in report["conclusions"]:
        yield from (markdown_long(line), "")
    if report["points"]:
        yield f"![{grid.experiment.title}]({grid.experiment.name}.png)"
        yield ""
        yield from _tables(results)
        yield ""
        yield SPLITS_NOTE
    if account.failures:
        yield from ("", "## Failed trainings", "")
        yield from markdown_table(["training", "reason"], list(account.failures.items()))


def markdown_long(text: str) -> str:
    """Return a sentence of our own, whose names are escaped, whatever its length."""
    return " ".join(markdown_text(word) for word in text.split())


def _settings(grid: Grid) -> Iterator[str]:
    section = grid.section
    yield f"network {section.model}, " + (f"starting from {grid.start.name}" if grid.start else "from scratch")
    yield (f"at most {section.epochs} epochs of {section.batches_per_epoch} batches of {section.batch}, patience "
           f"{section.patience}, learning rate {section.learning_rate:g}, loss {section.loss}")  # fmt: skip
    yield f"validation {section.validation:g}, test {section.test:g} (below 1 a fraction, else stamps)"
    yield f"seed {grid.recipe.experiments.seed}; " + ", ".join(f"{name} {one}" for name, one in versions().items())


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()


def _plain(value: Any) -> Any:
    """Return `value` with None for what is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
