"""Labelled stamps from the shards of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.tables import LabelTable, match_labels, stamp_names
from catmorph.quality import blocked
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import open_shard
from catmorph.workspace import Chunk, RunFolder

SOURCE_COLUMNS = ("ra", "dec", "magnitude", "size_arcsec")


@dataclass(frozen=True)
class _Place:
    """Where one stamp lies, and its source's row."""

    shard: Path
    row: int
    view: str
    field: str
    identifier: str
    source: tuple[float, ...]


def labelled_shards(run: RunFolder, table: LabelTable) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps among the shards of `run` that have a label in `table`.

    Returns
    -------
    stamps : LabelledStamps
    left_over : list of str
        One line for labels without a stamp and one for stamps without a label, with the first five.

    Raises
    ------
    CatmorphError
        When a shard is missing or no label fits a stamp.
    """
    places = _places(run)
    names = stamp_names(
        run.recipe.labels.stamp, [p.field for p in places], [p.identifier for p in places], [p.view for p in places]
    )
    match = match_labels(table, names)
    chosen = [places[i] for i in match.stamps]
    sources = np.array([place.source for place in chosen], dtype=np.float64)
    data = LabelledStamps(
        inputs=_inputs(run, chosen),
        fractions=table.fractions[match.labels],
        fields=np.array([place.field for place in chosen]),
        ids=np.array([place.identifier for place in chosen]),
        views=np.array([place.view for place in chosen]),
        votes=None if table.votes is None else table.votes[match.labels],
        names=np.array([names[i] for i in match.stamps]),
        **{name: sources[:, i] for i, name in enumerate(SOURCE_COLUMNS)},
    )
    return data, match.report()


def _places(run: RunFolder) -> list[_Place]:
    sources = {chunk: _source_rows(run, chunk) for chunk in run.chunks()}
    places = []
    for view in run.recipe.all_views:
        for chunk, rows in sources.items():
            path = run.shard_path(view, chunk)
            with open_shard(path) as shard:
                places += [
                    _Place(path, int(shard.rows[i]), view, chunk.field, shard.ids[i], rows[shard.ids[i]])
                    for i in np.flatnonzero(~blocked(shard.flags))
                ]
    return places


def _source_rows(run: RunFolder, chunk: Chunk) -> dict[str, tuple[float, ...]]:
    rows = run.read_sources(chunk)
    columns = [rows[name].to_numpy(zero_copy_only=False).astype(np.float64) if name in rows.column_names
               else np.full(len(rows), np.nan) for name in SOURCE_COLUMNS]
    return dict(zip(rows["id"].to_pylist(), zip(*columns, strict=True), strict=True))


def _inputs(run: RunFolder, chosen: list[_Place]) -> np.ndarray:
    channels = len(next(iter(run.recipe.all_views.values())))
    pixels = run.recipe.stamp.pixels
    inputs = np.empty((len(chosen), channels, pixels, pixels), np.float32)
    by_shard: dict[Path, list[int]] = {}
    for index, place in enumerate(chosen):
        by_shard.setdefault(place.shard, []).append(index)
    for path, indices in by_shard.items():
        with open_shard(path) as shard:
            pixels_read = shard.read(np.array([chosen[i].row for i in indices]))
        inputs[indices] = normalise(pixels_read, run.recipe.normalise)
    return inputs
