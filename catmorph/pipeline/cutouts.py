"""The `cutouts` stage: the shards that are not there, or not valid any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from itertools import groupby
from pathlib import Path

from catmorph.engine import run_tasks
from catmorph.errors import CatmorphError, UsageError
from catmorph.failures import write_failures
from catmorph.ledger import State
from catmorph.pipeline.report import StageReport
from catmorph.progress import progress
from catmorph.quality import Flag
from catmorph.stamps import build
from catmorph.stamps.mosaics import describe_unmatched
from catmorph.workspace import RunFolder

STAMPS_A_SECOND = 8000
"""Rough rate of one core, to tell whether worker processes pay."""

IMAGES_A_SECOND = 200
"""The same of JPEGs of 424 x 424 pixels, which are decoded whole."""


def run_cutouts(
    run: RunFolder, bands: Iterable[str] = (), *, workers: int = 1, scheduler: str | None = None, shown: bool = False,
    fail_fast: bool = False,
) -> StageReport:
    """Cut the stamps of the views called `bands` (default: all) that are not there or not valid any more.

    Raises
    ------
    CatmorphError
        With `fail_fast`, at the first mosaic that cannot be read; else its sources are flagged.
    """
    report = StageReport("cutouts")
    tasks = build.cut_tasks(run, run.chosen_views(bands))
    report.warnings += unmatched_bands(run, tasks)
    run.identities.save()
    todo, kept = sort_out(report, tasks, partial(build.task_state, run))
    for state in kept.values():
        count_kept(report, state)
    results = run_tasks(build.cut_chunk, _largest_first(todo), workers=workers,
                        estimated_seconds=seconds_to_cut(run, todo), scheduler=scheduler)
    try:
        # Closing the generator ends its worker processes, also where this loop is left early.
        with closing(progress(results, total=len(todo), label="cutouts", shown=shown)) as shown_results:
            for result in shown_results:
                add_result(report, result, fail_fast)
    finally:
        results.close()
        # A disk that is full is told by the error that is on its way.
        with suppress(CatmorphError):
            write_failures(run)
    report.warn_of_bad_images()
    report.warnings += blank_fields(run, tasks)
    return report


def _largest_first(tasks: Iterable[build.CutTask]) -> list[build.CutTask]:
    """Return the tasks of one field and view after another, each from the largest on.

    So no worker process waits long for the last chunk of another, and a mosaic is read while it is in memory.
    """
    fields = groupby(tasks, key=lambda task: (task.view, task.chunk.field))
    return [task for _, field in fields for task in sorted(field, key=lambda task: -task.chunk.count)]


def sort_out(
    report: StageReport, tasks: Iterable[build.CutTask], state_of: Callable[[build.CutTask], State]
) -> tuple[list[build.CutTask], dict[Path, State]]:
    """Return the tasks to do, and of the others shard -> state; the report takes why, and what is lost by it."""
    todo, kept = [], {}
    for task in tasks:
        state = state_of(task)
        if state.done:
            kept[task.shard] = state
        else:
            todo.append(task)
            report.note_why(task.shard, state.why)
            report.warnings += _given_up(task, state.marker.get("stamps", 0))
    report.warn_of_damage()
    return todo, kept


def count_kept(report: StageReport, state: State) -> None:
    """Note a chunk whose stamps, or what is recorded of them, are valid."""
    report.kept += 1
    _count_stamps(report, state.marker["sources"], state.marker["stamps"], state.marker["flags"])
    report.note_bad_images(state.marker.get("bad_images", []))


def seconds_to_cut(run: RunFolder, tasks: Iterable[build.CutTask]) -> float:
    """Return roughly how long one core takes."""
    return sum(task.chunk.count for task in tasks) / (IMAGES_A_SECOND if run.recipe.images else STAMPS_A_SECOND)


def _given_up(task: build.CutTask, stamps: int) -> list[str]:
    """Warn where what `stamps` were cut from is not there any more."""
    if task.images is not None:
        lacking = (task.images.index < 0).sum(axis=0)
        there = int((lacking <= task.stamp.may_be_missing(len(task.images.index))).sum())
        return [f"{task.view}, field {task.chunk.field}: images have gone; {stamps - there} stamps are given up"
                ] if there < stamps else []
    gone = sum(not tiles for tiles in task.mosaics)
    if stamps and gone > task.stamp.may_be_missing(len(task.mosaics)):
        return [f"{task.view}, field {task.chunk.field}: the mosaic has gone; its {stamps} stamps are given up"]
    return []


def add_result(report: StageReport, result: build.CutReport, fail_fast: bool) -> None:
    """Note what was cut, and what could not be read.

    Raises
    ------
    CatmorphError
        With `fail_fast`, where a mosaic or image could not be read.
    """
    report.made += 1
    report.worked += result.sources
    _count_stamps(report, result.sources, result.stamps, result.flags)
    report.note_bad_images(result.bad_images)
    if fail_fast and result.bad_images:
        image, reason = result.bad_images[0]
        raise CatmorphError(reason, where=image, hint="repair or remove it and run again, or leave --fail-fast out")
    for mosaic, reason in result.failures:
        report.failures[f"{mosaic} (field {result.chunk.field})"] = reason
        if fail_fast:
            raise CatmorphError(reason, where=mosaic, hint="repair it and run again, or leave --fail-fast out")


def blank_fields(run: RunFolder, tasks: list[build.CutTask]) -> list[str]:
    """Warn of fields that a view's mosaics cover without one valid pixel at a source."""
    stamps: Counter[tuple[str, str]] = Counter()
    blank: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        marker, key = run.ledger.read(task.shard) or {}, (task.view, task.chunk.field)
        stamps[key] += marker.get("stamps", 0)
        blank[key] += marker.get("flags", {}).get(Flag.NO_DATA.name, 0)
    return [
        f"{view}, field {field}: its mosaics hold no valid pixel at any source ({count} NO_DATA); are they blank?"
        for (view, field), count in blank.items() if count and not stamps[view, field]
    ]


def _count_stamps(report: StageReport, sources: int, stamps: int, flags: dict[str, int]) -> None:
    """Count the (source, view)s of a chunk."""
    report.counts.update({"(source, view)s": sources, "stamps": stamps})
    report.flags.update(flags)


def unmatched_bands(run: RunFolder, tasks: list[build.CutTask]) -> list[str]:
    """Warn of bands without any mosaic; without one in all bands there is nothing to cut. The same of images."""
    if run.recipe.images is not None:
        return build.image_warnings(run)
    found = {band: False for task in tasks for band in task.bands}
    for task in tasks:
        for band, tiles in zip(task.bands, task.mosaics, strict=True):
            found[band] |= bool(tiles)
    unmatched = [band for band, matched in found.items() if not matched]
    if not unmatched:
        return []
    text = describe_unmatched(run.recipe, unmatched)
    if len(unmatched) == len(found):
        raise UsageError(text)
    return [text]
