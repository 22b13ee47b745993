"""Where the stamps that a network sees come from: the shards. See `catmorph.inference.direct` for another way."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catmorph.errors import CatmorphError
from catmorph.files import checksum
from catmorph.inference.tasks import LogitsTask, changed_stamps, logits_task
from catmorph.quality import blocked
from catmorph.recipe import NormaliseSection
from catmorph.stamps import build
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import Shard, ShardContent, open_shard
from catmorph.workspace import RunFolder

READ_AHEAD = 512
"""Stamps read and normalised at a time: 13 MB of 80x80 float32, and at least one batch."""


@dataclass(frozen=True)
class Supply:
    """The stamps of one task.

    Attributes
    ----------
    task : LogitsTask
    ids, flags, bad_fraction, signal
        Of the chunk's sources, as in `catmorph.stamps.store.ShardContent`.
    inputs : iterable of ndarray of float32, shape (m, channel, y, x)
        The normalised stamps of the sources whose flags do not block, in order, some at a time.
    note : str
        What happened on the way that a user should know.
    """

    task: LogitsTask
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


def from_shards(run: RunFolder, tasks: Iterable[LogitsTask]) -> Generator[Supply, None, None]:
    """Yield the stamps of each task from its shard; one that is damaged is cut again.

    Raises
    ------
    CatmorphError
        When there is no shard, or it was cut for another recipe.
    """
    for task in tasks:
        sound, note = _with_sound_shard(run, task)
        with open_shard(sound.shard) as shard:
            yield Supply(sound, shard.ids, shard.flags, shard.bad_fraction, shard.signal,
                         normalised(shard, run.recipe.normalise), note)


def _with_sound_shard(run: RunFolder, task: LogitsTask) -> tuple[LogitsTask, str]:
    """Return the task, its shard cut again where its bytes are not those that were written, and a note of that."""
    marker = run.ledger.read(task.shard)
    if marker is None or not task.shard.exists():
        raise CatmorphError("there are no stamps", where=task.shard,
                            hint="run `catmorph cutouts`, or classify with --direct")
    changed = changed_stamps(run, task, marker["parts"])
    if changed:
        raise CatmorphError(f"was cut before a change of: {changed}", where=task.shard, hint="run `catmorph cutouts`")
    if checksum(task.shard) == marker.get("checksum"):
        return task, ""
    return _cut_again(run, task, marker), f"{task.shard}: was damaged, its bytes were not what was written; cut again"


def _cut_again(run: RunFolder, task: LogitsTask, marker: dict[str, Any]) -> LogitsTask:
    run.ledger.forget(task.shard)
    (cut,) = build.cut_tasks(run, [task.view], [task.chunk])
    if cut.parts.fingerprint != marker["fingerprint"]:
        raise CatmorphError("is damaged, and its mosaics are not those it was cut from", where=task.shard,
                            hint="run `catmorph run` or `catmorph cutouts`, which cut it again")
    build.cut_chunk(cut)
    return logits_task(run, task.member, task.view, task.chunk, task.parts.values["classifier"])
