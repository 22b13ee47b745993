"""What came of an experiment: tables, figure, and a page with what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catmorph.experiments.conclusions import conclusions
from catmorph.experiments.plan import Grid, Setting
from catmorph.experiments.run import Account
from catmorph.experiments.tables import Results, Spread, label
from catmorph.experiments.trainings import versions
from catmorph.files import write_bytes, write_json
from catmorph.release.cells import guarded
from catmorph.release.text import markdown_table, markdown_text

SPLITS_NOTE = (
    "Intervals are of the mean over random splits of these labels, by Student's t; the splits share stamps, so that "
    "they say nothing of another sample of galaxies."
)


def write_all(grid: Grid, found: Sequence[dict[str, Any]], account: Account, folder: Path) -> dict[str, Any]:
    """Write tables, figure and page of what is there, and return the report as plain values.

    Writes trainings.csv (a row a training), table.csv and table.md (means), differences.csv (paired differences),
    <experiment>.png and .pdf, summary.md and summary.json, and the experiment's own tables. Without any result only the
    page is written.
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

        own = grid.experiment.tables(results)
        tables = {"trainings": results.table, "table": results.means(), "differences": results.differences(), **own}
        for name, table in tables.items():
            path = folder / f"{name}.csv"
            if table.empty:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, csv_bytes(table))
                files.append(path)
        path = folder / "table.md"
        write_bytes(path, ("\n".join(_tables(results)) + "\n").encode())
        files += [path, *draw(results, folder / grid.experiment.name)]
        report["points"] = [_point(results, setting) for setting in results.settings]
        report["conclusions"] = list(conclusions(results))
        report |= {name: table.to_dict("records") for name, table in own.items()}
    path = folder / "summary.md"
    write_bytes(path, ("\n".join(_page(results, report, account)) + "\n").encode())
    report["files"] = [str(one) for one in [*files, path, folder / "summary.json"]]
    write_json(folder / "summary.json", plain(report))
    return plain(report)


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
    lines = [*results.grid.experiment.lines(results)]
    lines += [f"Means over the trainings, with standard deviation and {results.percent} interval of the mean:", ""]
    header = [*results.grid.axes, "n", *results.headlines]
    rows = [
        [*_values(one), results.spread(one, "rmse").n,
         *(_cell(results.spread(one, name)) for name in results.headlines)]
        for one in results.settings
    ]
    lines += markdown_table(header, rows)
    compared = [one for one in results.settings if results.reference(one) is not None]
    if compared:
        told = f"Paired differences, trainings on the same split, with {results.percent} interval of the mean:"
        lines += ["", told, ""]
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
    what = "trainings" if grid.given is None else "checkpoints"
    yield f"`catmorph experiment {grid.experiment.name}`: {done} of {account.total} {what}{failed}."
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
        if grid.given is None:
            yield SPLITS_NOTE
    if account.failures:
        yield from ("", "## Failed trainings", "")
        yield from markdown_table(["training", "reason"], list(account.failures.items()))


def markdown_long(text: str) -> str:
    """Return a sentence of our own, whose names are escaped, whatever its length."""
    return " ".join(markdown_text(word) for word in text.split())


def _settings(grid: Grid) -> Iterator[str]:
    made_with = ", ".join(f"{name} {one}" for name, one in versions().items())
    if grid.given is not None:
        yield f"checkpoint {grid.given.name}, network {grid.section.model}; nothing is trained"
        yield made_with
        return
    yield from (grid.experiment.settings or _as_training_says)(grid)
    yield f"seed {grid.recipe.experiments.seed}; {made_with}"


def _as_training_says(grid: Grid) -> Iterator[str]:
    section = grid.section
    yield f"network {section.model}, " + (f"starting from {grid.start.name}" if grid.start else "from scratch")
    yield (f"at most {section.epochs} epochs of {section.batches_per_epoch} batches of {section.batch}, patience "
           f"{section.patience}, learning rate {section.learning_rate:g}, loss {section.loss}")  # fmt: skip
    yield f"validation {section.validation:g}, test {section.test:g} (below 1 a fraction, else stamps)"


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV, numbers with six digits; no text in it is a formula to a spreadsheet."""
    safe = table.map(lambda cell: guarded(cell) if isinstance(cell, str) else cell)
    safe = safe.rename(columns=lambda name: guarded(str(name)))
    return safe.to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()


def plain(value: Any) -> Any:
    """Return `value` with None for what is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
