"""The stages as functions of a run folder: what each finds done, makes, and reports.

`catmorph run` is these in a row. Each holds the folder's lock while it works, skips what is there and still
valid, and returns a `StageReport`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from catmorph.errors import UsageError
from catmorph.files import remove_partial_files
from catmorph.inference import classify as inference
from catmorph.progress import progress
from catmorph.release.bundle import export as export_release
from catmorph.release.summary import Summary
from catmorph.release.summary import summarize as summarize_release
from catmorph.sources.ingest import ingest as ingest_catalog
from catmorph.sources.ingest import ingest_state
from catmorph.stamps import build
from catmorph.workspace import RunFolder

STAMPS_A_SECOND = 3000
"""Rough rate of one core, to tell whether worker processes pay."""


@dataclass
class StageReport:
    """What a stage did.

    Attributes
    ----------
    made, kept : int
        Products made now, and found valid.
    counts : dict
        What the stage counts (rows, stamps ...), over products made and kept.
    flags : dict of str to int
        Flags of the (source, view)s, over products made and kept.
    failures : dict of str to str
        Mosaic -> why it could not be read.
    """

    stage: str
    made: int = 0
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return the report as one line for people."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        flags = ", ".join(f"{count:,} {name}" for name, count in sorted(self.flags.items()))
        text = f"{self.stage}: {counts}; {self.made} made, {self.kept} up to date"
        return f"{text}; flags: {flags}" if flags else text


def prepare(run: RunFolder) -> None:
    """Make the run folder ready for work: format mark, resolved recipe, nothing half-written left over."""
    run.prepare()
    remove_partial_files(run.path)


def run_ingest(run: RunFolder) -> StageReport:
    """Read the survey table in, unless the sources are there and valid."""
    report = StageReport("ingest")
    if ingest_state(run).done:
        report.kept = 1
        counts = run.ingest_counts()
    else:
        counts = ingest_catalog(run)
        report.made = 1
    report.counts.update({"rows read": counts["read"], "rejected": counts["rejected"], "sources": counts["sources"]})
    return report


def run_cutouts(
    run: RunFolder, bands: Iterable[str] = (), *, workers: int = 1, scheduler: str | None = None, shown: bool = False
) -> StageReport:
    """Cut the stamps of the views called `bands` (default: all) that are not there or not valid any more."""
    from catmorph.engine import run_tasks

    report = StageReport("cutouts")
    tasks = build.cut_tasks(run, build.chosen_views(run, bands))
    _refuse_without_mosaics(run, tasks)
    run.identities.save()
    todo = []
    for task in tasks:
        state = build.task_state(run, task)
        if state.done:
            report.kept += 1
            _count_stamps(report, state.marker["sources"], state.marker["stamps"], state.marker["flags"])
        else:
            todo.append(task)
    seconds = sum(task.chunk.count for task in todo) / STAMPS_A_SECOND
    results = run_tasks(build.cut_chunk, todo, workers=workers, estimated_seconds=seconds, scheduler=scheduler)
    for result in progress(results, total=len(todo), label="cutouts", shown=shown):
        report.made += 1
        _count_stamps(report, result.sources, result.stamps, result.flags)
        report.failures.update(result.failures)
    return report


def _count_stamps(report: StageReport, sources: int, stamps: int, flags: dict[str, int]) -> None:
    report.counts.update({"(source, view)s": sources, "stamps": stamps})
    report.flags.update(flags)


def _refuse_without_mosaics(run: RunFolder, tasks: list[build.CutTask]) -> None:
    if tasks and not any(tile for task in tasks for tile in task.mosaics):
        raise UsageError(
            f"no mosaic matches for any of the fields {', '.join(sorted({task.chunk.field for task in tasks})[:5])}",
            where=", ".join(run.recipe.mosaics.pattern), hint="check mosaics.pattern in the recipe",
        )


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every classifier of the recipe."""
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    views = build.chosen_views(run, bands)
    for name in run.recipe.classifiers:
        predictor = inference.load_predictor(run, name, device=device, precision=precision)
        todo = []
        for task in inference.logits_tasks(run, name, views, predictor.fingerprint):
            state = inference.task_state(run, task)
            if state.done:
                report.kept += 1
                _count_logits(report, state.marker["classified"], state.marker["blocked"], state.marker["flags"])
            else:
                todo.append(task)
        for result in progress(inference.classify(run, predictor, todo), total=len(todo), label=name, shown=shown):
            report.made += 1
            _count_logits(report, result.classified, result.blocked, result.flags)
    return report


def _count_logits(report: StageReport, classified: int, blocked: int, flags: dict[str, int]) -> None:
    report.counts.update({"classified": classified, "blocked": blocked})
    report.flags.update(flags)


def run_release(run: RunFolder, formats: Iterable[str] = ()) -> Any:
    """Write the released catalog in `formats` (default: the recipe's); see `catmorph.release.bundle.export`."""
    return export_release(run, tuple(formats) or run.recipe.release.formats)


def run_summary(run: RunFolder) -> Summary:
    """Write the summaries; see `catmorph.release.summary.summarize`."""
    return summarize_release(run)
