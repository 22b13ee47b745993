"""Stamps that go from the mosaics to the network without being kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from catmorph.engine import run_in_order
from catmorph.inference.supply import Supply, from_shards, normalised
from catmorph.inference.tasks import LogitsTask, logits_task, task_state
from catmorph.ledger import State, is_kept
from catmorph.recipe import NormaliseSection
from catmorph.stamps import build
from catmorph.workspace import Chunk, RunFolder

Cuts = Mapping[tuple[str, str], build.CutTask]
"""(view, chunk key) -> how its stamps are cut."""


def cuts_of(run: RunFolder, views: Sequence[str], chunks: Sequence[Chunk] | None = None) -> Cuts:
    """Return how the stamps of `views` are cut, of every chunk or of `chunks`."""
    return {(cut.view, cut.chunk.key): cut for cut in build.cut_tasks(run, views, chunks)}


def cut_state(run: RunFolder, cut: build.CutTask) -> State:
    """Return whether what is known of a chunk's stamps is valid, whether they were kept or not."""
    state = build.task_state(run, cut)
    if state.done or not state.marker or is_kept(state.marker):
        return state
    if state.marker["fingerprint"] != cut.parts.fingerprint or state.marker["failures"]:
        return State("stale", "its mosaics or the recipe have changed, or a mosaic could not be read", state.marker)
    return State("done", "", state.marker)


def direct_state(run: RunFolder, task: LogitsTask, cut: build.CutTask) -> State:
    """Return whether logits are there and valid, where the stamps need not be."""
    state = cut_state(run, cut)
    return task_state(run, task) if state.done else State("stale", f"stamps are to be cut: {state.why}")


@dataclass(frozen=True)
class _Work:
    """What a worker needs to ready the stamps of one task for the network."""

    cut: build.CutTask
    normalise: NormaliseSection


@dataclass(frozen=True)
class _Ready:
    """The normalised stamps of one task, and the columns of its sources."""

    report: build.CutReport
    ids: list[str]
    flags: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    inputs: list[np.ndarray]


def _ready(work: _Work) -> _Ready:
    cut = build.cut_stamps(work.cut)
    content = cut.content
    return _Ready(build.cut_report(work.cut, cut), content.ids, content.flags, content.bad_fraction, content.signal,
                  list(normalised(content, work.normalise)))


def from_mosaics(
    run: RunFolder, tasks: Sequence[LogitsTask], cuts: Cuts, *, workers: int,
    seconds: float, tell: Callable[[build.CutReport], None],
) -> Generator[Supply, None, None]:
    """Yield the stamps of each task: from its shard where that is valid, else cut, normalised and not kept.

    What came of cutting is recorded as `cutouts` would, before the logits: they stay valid by the same rules.

    Parameters
    ----------
    workers : int
        Processes that cut; as many chunks and one more are in memory at a time.
    seconds : float
        Estimated work of cutting, see `catmorph.engine.run_in_order`.
    tell : callable
        Takes the report of each chunk that is cut.
    """
    mine = [cuts[task.view, task.chunk.key] for task in tasks]
    kept = [build.task_state(run, cut).done for cut in mine]
    work = [_Work(cut, run.recipe.normalise) for cut, there in zip(mine, kept, strict=True) if not there]
    # Closing ends the worker processes, also where the network is the one that fails.
    with closing(run_in_order(_ready, work, workers=workers, estimated_seconds=seconds)) as ready:
        for task, cut, there in zip(tasks, mine, kept, strict=True):
            yield from from_shards(run, [task]) if there else [_supply(run, task, cut, next(ready), tell)]


def _supply(
    run: RunFolder, task: LogitsTask, cut: build.CutTask, ready: _Ready, tell: Callable[[build.CutReport], None]
) -> Supply:
    build.note_chunk(cut, ready.report)
    tell(ready.report)
    renewed = logits_task(run, task.member, task.view, task.chunk, task.parts.values["classifier"])
    return Supply(renewed, ready.ids, ready.flags, ready.bad_fraction, ready.signal, ready.inputs)
