"""Stamps that go from the mosaics to the network without being kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from catmorph.engine import run_in_order
from catmorph.inference.supply import Group, Ready, Supply, from_shards, logits_states
from catmorph.inference.tasks import renewed
from catmorph.recipe import NormaliseSection
from catmorph.stamps import build
from catmorph.workspace import Chunk, RunFolder

WORKERS_IMPORT = build.WORKERS_IMPORT

Cuts = Mapping[tuple[str, str], build.CutTask]
"""(view, chunk key) -> how its stamps are cut."""


def cuts_of(run: RunFolder, views: Sequence[str], chunks: Sequence[Chunk] | None = None) -> Cuts:
    """Return how the stamps of `views` are cut, of every chunk or of `chunks`."""
    return {(task.view, task.chunk.key): task for task in build.cut_tasks(run, views, chunks)}


@dataclass(frozen=True)
class _Work:
    """What a worker needs to ready the stamps of one chunk for the networks."""

    task: build.CutTask
    normalise: NormaliseSection


def _ready(work: _Work) -> tuple[build.CutReport, Ready]:
    stamps = build.cut_stamps(work.task)
    return build.cut_report(work.task, stamps), Ready.of(stamps.content, work.normalise)


def from_mosaics(
    run: RunFolder, groups: Sequence[Group], cuts: Cuts, *, workers: int,
    seconds: Callable[[Iterable[build.CutTask]], float], tell: Callable[[build.CutReport], None],
) -> Generator[Supply, None, None]:
    """Yield the stamps of each group: from its shard where that is valid, else cut, normalised and not kept.

    What came of cutting is recorded as `cutouts` would, before the logits: they stay valid by the same rules.

    Parameters
    ----------
    workers : int
        Processes that cut; as many chunks and one more are in memory at a time.
    seconds : callable
        Returns the estimated work of cutting, see `catmorph.engine.run_in_order`.
    tell : callable
        Takes the report of each chunk that is cut.
    """
    mine = [cuts[group[0].view, group[0].chunk.key] for group in groups]
    kept = [build.task_state(run, task).done for task in mine]
    todo = [task for task, there in zip(mine, kept, strict=True) if not there]
    work = [_Work(task, run.recipe.normalise) for task in todo]
    # Closing ends the worker processes, also where the network is the one that fails.
    with closing(run_in_order(_ready, work, workers=workers, estimated_seconds=seconds(todo))) as ready:
        for group, task, there in zip(groups, mine, kept, strict=True):
            yield from from_shards(run, [group]) if there else [_supply(run, group, task, *next(ready), tell)]


def _supply(
    run: RunFolder, group: Group, task: build.CutTask, report: build.CutReport, ready: Ready,
    tell: Callable[[build.CutReport], None],
) -> Supply:
    build.note_chunk(task, report)
    tell(report)
    # A mosaic that could not be read this time, or can be again, changes what is valid, for all networks alike.
    return ready.supply(logits_states(run, [renewed(run, one) for one in group]))
