"""Where the stamps that a network sees come from: the shards. See `catmorph.inference.direct` for another way."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from catmorph.engine import run_ahead
from catmorph.errors import CatmorphError
from catmorph.files import checksum
from catmorph.inference.tasks import LogitsTask, changed_stamps, renewed, task_state
from catmorph.ledger import State
from catmorph.quality import blocked
from catmorph.recipe import NormaliseSection
from catmorph.stamps import build
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import Shard, ShardContent, open_shard
from catmorph.workspace import RunFolder

READ_AHEAD = 512
"""Stamps read and normalised at a time: 13 MB of 80x80 float32."""


Group = Sequence[LogitsTask]
"""What several networks are to make of the same stamps: those of one view and chunk."""


@dataclass(frozen=True)
class Supply:
    """The stamps of one view and chunk.

    Attributes
    ----------
    logits : dict of LogitsTask to State
        Whether what each network makes of them is there and valid, now that it is certain which stamps they are.
    ids, flags, bad_fraction, signal
        Of the chunk's sources, as in `catmorph.stamps.store.ShardContent`.
    inputs : iterable of ndarray of float32, shape (m, channel, y, x)
        The normalised stamps of the sources whose flags do not block, in order, some at a time.
    note : str
        What happened on the way that a user should know.
    """

    logits: Mapping[LogitsTask, State]
    ids: Sequence[str]
    flags: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    inputs: Iterable[np.ndarray]
    note: str = ""


def normalised(stamps: Shard | ShardContent, section: NormaliseSection) -> Iterator[np.ndarray]:
    """Yield the normalised stamps (m, channel, y, x) of the sources whose flags do not block, some at a time."""
    rows = stamps.rows[~blocked(stamps.flags)]
    for start in range(0, len(rows), READ_AHEAD):
        yield normalise(stamps.read(rows[start : start + READ_AHEAD]), section)


def from_shards(run: RunFolder, groups: Iterable[Group], *, threads: int = 0) -> Generator[Supply, None, None]:
    """Yield the stamps of each group from its shard; one that is damaged is cut again.

    Parameters
    ----------
    threads : int
        How many read and normalise ahead of the network; as many chunks and one more are in memory then, else a few
        stamps of one.

    Raises
    ------
    CatmorphError
        When there is no shard, or it was cut for another recipe.
    """
    section, sound = run.recipe.normalise, (_with_sound_shard(run, group) for group in groups)
    if threads:
        with closing(run_ahead(partial(_loaded, section), sound, threads=threads)) as loaded:
            for (tasks, note), ready in loaded:
                yield ready.supply(logits_states(run, tasks), note)
        return
    for tasks, note in sound:
        with open_shard(tasks[0].shard) as shard:
            yield Supply(logits_states(run, tasks), shard.ids, shard.flags, shard.bad_fraction, shard.signal,
                         normalised(shard, section), note)


@dataclass(frozen=True)
class Ready:
    """The normalised stamps of one chunk, and the columns of its sources; see `Supply`."""

    ids: list[str]
    flags: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    inputs: list[np.ndarray]

    @classmethod
    def of(cls, stamps: Shard | ShardContent, section: NormaliseSection) -> Ready:
        """Normalise all stamps of a chunk."""
        return cls(stamps.ids, stamps.flags, stamps.bad_fraction, stamps.signal, list(normalised(stamps, section)))

    def supply(self, logits: Mapping[LogitsTask, State], note: str = "") -> Supply:
        """Return them for networks whose logits have these states."""
        return Supply(logits, self.ids, self.flags, self.bad_fraction, self.signal, self.inputs, note)


def _loaded(section: NormaliseSection, sound: tuple[Group, str]) -> tuple[tuple[Group, str], Ready]:
    with open_shard(sound[0][0].shard) as shard:
        return sound, Ready.of(shard, section)


def logits_states(run: RunFolder, group: Group) -> dict[LogitsTask, State]:
    """Return whether the logits of each task are there and valid."""
    return {task: task_state(run, task) for task in group}


def _with_sound_shard(run: RunFolder, group: Group) -> tuple[Group, str]:
    """Return the tasks, their shard cut again where its bytes are not those that were written, and a note of that."""
    first = group[0]
    marker = run.ledger.read(first.shard)
    if marker is None or not first.shard.exists():
        raise CatmorphError("there are no stamps", where=first.shard,
                            hint="run `catmorph cutouts`, or classify with --direct")
    changed = changed_stamps(run, first, marker["parts"])
    if changed:
        raise CatmorphError(f"was cut before a change of: {changed}", where=first.shard, hint="run `catmorph cutouts`")
    if checksum(first.shard) == marker.get("checksum"):
        return group, ""
    _cut_again(run, first, marker)
    return ([renewed(run, task) for task in group],
            f"{first.shard}: was damaged, its bytes were not what was written; cut again")


def _cut_again(run: RunFolder, task: LogitsTask, marker: dict[str, Any]) -> None:
    run.ledger.forget(task.shard)
    (cut,) = build.cut_tasks(run, [task.view], [task.chunk])
    if cut.parts.fingerprint != marker["fingerprint"]:
        raise CatmorphError("is damaged, and its mosaics are not those it was cut from", where=task.shard,
                            hint="run `catmorph run` or `catmorph cutouts`, which cut it again")
    build.cut_chunk(cut)
