"""The `classify` stage: every network of the recipe over the stamps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from catmorph.errors import UsageError
from catmorph.inference import classify
from catmorph.inference.classify import LogitsReport
from catmorph.inference.members import Member, all_members
from catmorph.inference.supply import Group, Supply, from_shards
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
    """Where the stamps of logits come from, and what that means for their validity.

    Attributes
    ----------
    one_pass : bool
        Whether all networks see a chunk's stamps before the next chunk, and so are all in memory; else one network
        after another.
    """

    one_pass: bool

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""

    def supplies(self, groups: Sequence[Group]) -> Generator[Supply, None, None]:
        """Yield the stamps of each group."""


class ShardStamps:
    """Stamps that `cutouts` has cut."""

    one_pass = False

    def __init__(self, run: RunFolder):
        self._run = run

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""
        return task_state(self._run, task)

    def supplies(self, groups: Sequence[Group]) -> Generator[Supply, None, None]:
        """Yield the stamps of each group from its shard."""
        return from_shards(self._run, groups)


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False, stamps: StampSource | None = None,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every network of the recipe.

    `stamps` are those of the shards, unless `catmorph.pipeline.direct.DirectStamps` are given.
    """
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    views, stamps = run.chosen_views(bands), stamps or ShardStamps(run)
    networks = all_members(run.recipe)
    for together in [networks] if stamps.one_pass else [[one] for one in networks]:
        predictors = {one: classify.load_predictor(run, one, device=device, precision=precision) for one in together}
        _classify_by(run, predictors, views, stamps, report, shown=shown)
    return report


def _classify_by(
    run: RunFolder, predictors: dict[Member, Predictor], views: Sequence[str], stamps: StampSource,
    report: StageReport, *, shown: bool,
) -> None:
    """Classify with networks that see the same stamps, and add what they did to the report."""
    todo, kept = _sort_out(run, predictors, views, stamps)
    label = next(iter(predictors)).label if len(predictors) == 1 else f"{len(predictors)} networks"
    spoilt: Counter[Member] = Counter()
    with closing(stamps.supplies(todo)) as supplies:
        found = progress(classify.classify(run, predictors, supplies), total=sum(map(len, todo)), label=label,
                         shown=shown)
        for result in chain(kept, found):
            member = result.task.member
            _add(report, result, predictors[member].passes)
            spoilt[member] += result.flags.get(_NOT_FINITE, 0)
    report.warn_of_damage()
    for member, count in spoilt.items():
        if count and member.name:
            report.warnings.append(f"{member.checkpoint}: its output is not finite for {count} (source, view)s; the "
                                   f"ensemble {member.classifier!r} has no probabilities for them")


def _sort_out(
    run: RunFolder, predictors: dict[Member, Predictor], views: Sequence[str], stamps: StampSource
) -> tuple[list[Group], list[LogitsReport]]:
    """Return the tasks of each (view, chunk) where a network has something to do, and what came of the others."""
    groups: dict[tuple[str, str], list[LogitsTask]] = {}
    for member, predictor in predictors.items():
        for task in logits_tasks(run, member, views, predictor.fingerprint):
            groups.setdefault((task.view, task.chunk.key), []).append(task)
    todo: list[Group] = []
    kept: list[LogitsReport] = []
    for group in groups.values():
        states = [stamps.state(task) for task in group]
        if all(state.done for state in states):
            kept += map(classify.kept_report, group, states)
        else:
            # Also those that are done: cutting again may tell otherwise.
            todo.append(group)
    return todo, kept


def _add(report: StageReport, result: LogitsReport, passes: int) -> None:
    if result.why:
        report.made += 1
        report.note_why(result.task.product, result.why)
        report.worked += result.classified
        report.passes += result.classified * passes
    else:
        report.kept += 1
    report.warnings += [result.note] if result.note else []
    report.counts.update({"classified": result.classified, "blocked": result.blocked})
    # The others are those of the stamps, which the stage before has told.
    report.flags.update({name: count for name, count in result.flags.items() if name == _NOT_FINITE})
