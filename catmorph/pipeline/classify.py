"""The `classify` stage: every network of the recipe over the stamps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from catmorph.errors import UsageError
from catmorph.inference import classify
from catmorph.inference.classify import LogitsReport
from catmorph.inference.identity import PASSES
from catmorph.inference.members import Member, all_members
from catmorph.inference.supply import Group, Supply, from_shards
from catmorph.inference.tasks import LogitsTask, logits_tasks, task_state
from catmorph.ledger import State
from catmorph.models.device import resolve_device
from catmorph.pipeline.report import StageReport
from catmorph.progress import progress
from catmorph.quality import Flag
from catmorph.workspace import RunFolder

if TYPE_CHECKING:
    from catmorph.inference.predict import Predictor

_GPU_READERS = 4
"""Threads that feed a GPU: one reads and normalises some 6,000 stamps of 80 x 80 pixels a second."""

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
    """Stamps that `cutouts` has cut, read by this thread, or by so many `threads` ahead of the network."""

    one_pass = False

    def __init__(self, run: RunFolder, threads: int):
        self._run, self._threads = run, threads

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""
        return task_state(self._run, task)

    def supplies(self, groups: Sequence[Group]) -> Generator[Supply, None, None]:
        """Yield the stamps of each group from its shard."""
        return from_shards(self._run, groups, threads=self._threads)


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False, stamps: StampSource | None = None, readers: int | None = None,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every network of the recipe.

    `stamps` are those of the shards, unless `catmorph.pipeline.direct.DirectStamps` are given. `readers` are the
    threads that read shards and normalise stamps ahead of the network: on a GPU 4 unless said, else none, as the
    network itself keeps the processor busy.
    """
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    if readers is None:
        readers = _GPU_READERS if resolve_device(device) == "cuda" else 0
    views, stamps = run.chosen_views(bands), stamps or ShardStamps(run, readers)
    networks = all_members(run.recipe)
    for together in [networks] if stamps.one_pass else [[one] for one in networks]:
        made_by = {one: classify.fingerprint_of(run, one, device=device, precision=precision) for one in together}
        todo, kept = _sort_out(run, made_by, views, stamps)
        load = partial(classify.load_predictor, run, device=device, precision=precision)
        _report(run, report, chain(kept, _classified(run, together, load, todo, stamps, shown=shown)))
    return report


def _classified(
    run: RunFolder, networks: Sequence[Member], load: Callable[[Member], Predictor], todo: Sequence[Group],
    stamps: StampSource, *, shown: bool,
) -> Iterator[LogitsReport]:
    """Classify with networks that see the same stamps; they are loaded only if there is something to do."""
    if not todo:
        return
    predictors = {one: load(one) for one in networks}
    label = networks[0].label if len(networks) == 1 else f"{len(networks)} networks"
    with closing(stamps.supplies(todo)) as supplies:
        results = classify.classify(run, predictors, supplies)
        yield from progress(results, total=sum(map(len, todo)), label=label, shown=shown)


def _report(run: RunFolder, report: StageReport, results: Iterable[LogitsReport]) -> None:
    """Add what came of networks to the report."""
    spoilt: Counter[Member] = Counter()
    for result in results:
        member = result.task.member
        _add(report, result, PASSES[run.recipe.classifiers[member.classifier].test_time])
        spoilt[member] += result.flags.get(_NOT_FINITE, 0)
    report.warn_of_damage()
    for member, count in spoilt.items():
        if count and member.name:
            report.warnings.append(f"{member.checkpoint}: its output is not finite for {count} (source, view)s; the "
                                   f"ensemble {member.classifier!r} has no probabilities for them")


def _sort_out(
    run: RunFolder, made_by: dict[Member, str], views: Sequence[str], stamps: StampSource
) -> tuple[list[Group], list[LogitsReport]]:
    """Return the tasks of each (view, chunk) where a network has something to do, and what came of the others.

    `made_by` are the fingerprints of the networks.
    """
    groups: dict[tuple[str, str], list[LogitsTask]] = {}
    for member, fingerprint in made_by.items():
        for task in logits_tasks(run, member, views, fingerprint):
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
