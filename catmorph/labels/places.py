"""The stamps of a run folder that can be shown or labelled, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catmorph.errors import CatmorphError, UsageError, listed
from catmorph.labels.tables import stamp_names
from catmorph.quality import blocked
from catmorph.stamps.store import open_shard
from catmorph.workspace import Chunk, RunFolder


@dataclass(frozen=True)
class StampPlace:
    """One unblocked stamp: its name, whose it is, and its row in which shard.

    `ra` and `dec` in degrees (ICRS); `magnitude` is NaN where the survey has none.
    """

    name: str
    field: str
    id: str
    view: str
    magnitude: float
    ra: float
    dec: float
    shard: Path
    row: int


def stamp_places(run: RunFolder, view: str) -> Iterator[list[StampPlace]]:
    """Yield the unblocked stamps of `view`, a list for each chunk.

    Raises
    ------
    CatmorphError
        When a shard is missing, damaged or of other sources than its chunk.
    """
    for chunk in run.chunks():
        yield list(_of_chunk(run, view, chunk))


def _of_chunk(run: RunFolder, view: str, chunk: Chunk) -> Iterator[StampPlace]:
    path = run.shard_path(view, chunk)
    table = run.read_sources(chunk)
    values = [table[name].to_numpy(zero_copy_only=False).astype(np.float64) if name in table.column_names
              else np.full(len(table), np.nan) for name in ("magnitude", "ra", "dec")]
    sources = dict(zip(table["id"].to_pylist(), zip(*values, strict=True), strict=True))
    with open_shard(path) as shard:
        rows = np.flatnonzero(~blocked(shard.flags) & (shard.rows >= 0))
        ids = [shard.ids[row] for row in rows]
        stamps = [int(shard.rows[row]) for row in rows]
    if not sources.keys() >= set(ids):
        raise CatmorphError("holds other sources than its chunk has now", where=path, hint="run `catmorph cutouts`")
    names = stamp_names(run.recipe.labels.stamp, [chunk.field] * len(ids), ids, [view] * len(ids))
    for name, identifier, stamp in zip(names, ids, stamps, strict=True):
        magnitude, ra, dec = map(float, sources[identifier])
        yield StampPlace(name, chunk.field, identifier, view, magnitude, ra, dec, path, stamp)


def refuse_shared_names(names: list[str], pattern: str) -> None:
    """Raise `UsageError` where stamps share a name: their votes could not be told apart."""
    shared = sorted(name for name, count in Counter(names).items() if count > 1)
    if shared:
        raise UsageError(f"labels.stamp = {pattern!r} gives {len(shared)} names to several stamps each: "
                         f"{listed(shared)}",
                         hint="use {field}, {view} and {id} in it")
