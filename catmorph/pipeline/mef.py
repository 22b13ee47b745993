"""The stamps as FITS files, a file a source: `cutouts --format mef`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from catmorph.engine import run_tasks
from catmorph.pipeline.report import StageReport
from catmorph.progress import progress
from catmorph.stamps import mef
from catmorph.workspace import RunFolder

FILES_A_SECOND = 500
"""Rough rate of one core, to tell whether worker processes pay: files of one source each."""


def run_mef(
    run: RunFolder, bands: Iterable[str] = (), *, workers: int = 1, scheduler: str | None = None, shown: bool = False,
) -> StageReport:
    """Write the stamps of the views called `bands` (default: all) as FITS files, where they are not there or not valid.

    `run_cutouts` comes first: the files are made from its shards.
    """
    report, views = StageReport("mef"), run.chosen_views(bands)
    todo = []
    for task in mef.mef_tasks(run, views):
        state = mef.task_state(run, task)
        if state.done:
            report.kept += 1
            _count_files(report, state.marker["sources"], state.marker["files"])
        else:
            todo.append(task)
            report.note_why(task.list, state.why)
    report.warn_of_damage()
    seconds = sum(task.chunk.count for task in todo) / FILES_A_SECOND
    results = run_tasks(mef.write_chunk, todo, workers=workers, estimated_seconds=seconds, scheduler=scheduler)
    with closing(results), closing(progress(results, total=len(todo), label="mef", shown=shown)) as shown_results:
        for result in shown_results:
            report.made += 1
            report.worked += result.sources
            _count_files(report, result.sources, result.files)
    removed = mef.remove_unlisted(run, views)
    if removed:
        report.counts["files removed"] = removed
    return report


def _count_files(report: StageReport, sources: int, files: int) -> None:
    report.counts.update({"(source, view)s": sources, "files": files, "without stamp": sources - files})
