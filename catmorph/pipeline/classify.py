"""The `classify` stage: every network of the recipe over the stamps."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from catmorph.errors import UsageError
from catmorph.inference import classify as inference
from catmorph.inference.members import Member, all_members
from catmorph.inference.supply import Supply, from_shards
from catmorph.inference.tasks import LogitsTask, logits_tasks, task_state
from catmorph.ledger import State
from catmorph.pipeline.report import StageReport
from catmorph.progress import progress
from catmorph.quality import Flag
from catmorph.workspace import RunFolder

if TYPE_CHECKING:
    from catmorph.inference.predict import Predictor

_NOT_FINITE = Flag.NOT_FINITE.name or ""


class StampSource(Protocol):
    """Where the stamps of logits come from, and what that means for their validity."""

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""

    def supplies(self, tasks: Sequence[LogitsTask]) -> Generator[Supply, None, None]:
        """Yield the stamps of each task."""


class ShardStamps:
    """Stamps that `cutouts` has cut."""

    def __init__(self, run: RunFolder):
        self._run = run

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""
        return task_state(self._run, task)

    def supplies(self, tasks: Sequence[LogitsTask]) -> Generator[Supply, None, None]:
        """Yield the stamps of each task from its shard."""
        return from_shards(self._run, tasks)


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False, stamps: StampSource | None = None,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every network of the recipe, one by one.

    `stamps` are those of the shards, unless `catmorph.pipeline.direct.DirectStamps` are given.
    """
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    views = run.chosen_views(bands)
    for member in all_members(run.recipe):
        predictor = inference.load_predictor(run, member, device=device, precision=precision)
        _classify_by(run, member, predictor, views, stamps or ShardStamps(run), report, shown=shown)
    return report


def _classify_by(
    run: RunFolder, member: Member, predictor: Predictor, views: Iterable[str], stamps: StampSource,
    report: StageReport, *, shown: bool,
) -> None:
    """Classify with one network, and add what it did to the report."""
    todo, before = [], report.flags[_NOT_FINITE]
    for task in logits_tasks(run, member, views, predictor.fingerprint):
        state = stamps.state(task)
        if state.done:
            report.kept += 1
            _count_logits(report, state.marker["classified"], state.marker["blocked"], state.marker["flags"])
        else:
            todo.append(task)
            report.note_why(task.product, state.why)
    report.warn_of_damage()
    with closing(stamps.supplies(todo)) as supplies:
        results = inference.classify(run, predictor, supplies)
        for result in progress(results, total=len(todo), label=member.label, shown=shown):
            report.made += 1
            report.warnings += [result.note] if result.note else []
            report.worked += result.classified
            report.passes += result.classified * predictor.passes
            _count_logits(report, result.classified, result.blocked, result.flags)
    spoilt = report.flags[_NOT_FINITE] - before
    if spoilt and member.name:
        report.warnings.append(f"{member.checkpoint}: its output is not finite for {spoilt} (source, view)s; the "
                               f"ensemble {member.classifier!r} has no probabilities for them")


def _count_logits(report: StageReport, classified: int, blocked: int, flags: dict[str, int]) -> None:
    report.counts.update({"classified": classified, "blocked": blocked})
    # The others are those of the stamps, which the stage before has told.
    report.flags.update({name: count for name, count in flags.items() if name == _NOT_FINITE})
