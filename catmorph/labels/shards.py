"""Labelled stamps from the shards of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.labels.joined import stamp_labels
from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.tables import LabelTable, stamp_names
from catmorph.models.card import one_channel_count
from catmorph.quality import blocked
from catmorph.sources.regions import source_columns
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


def labelled_shards(run: RunFolder, tables: Sequence[LabelTable]) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps among the shards of `run` that have a label.

    Parameters
    ----------
    tables : sequence of LabelTable
        At least one; a stamp has the label of the first that names it.

    Returns
    -------
    stamps : LabelledStamps
    left_over : list of str
        As `catmorph.labels.joined.StampLabels` has them.

    Raises
    ------
    CatmorphError
        When a shard is missing, no label fits a stamp, or those that do are of different numbers of bands.
    """
    places = _places(run)
    fields, ids, views = ([getattr(place, name) for place in places] for name in ("field", "identifier", "view"))
    labels = stamp_labels(tables, run.recipe.labels.stamp, fields, ids, views)
    chosen = [places[i] for i in labels.stamps]
    names = stamp_names(run.recipe.labels.stamp, fields, ids, views)
    sources = np.array([place.source for place in chosen], dtype=np.float64)
    numbers: dict[str, Any] = {name: sources[:, i] for i, name in enumerate(SOURCE_COLUMNS)}
    inputs, top_first = _inputs(run, chosen)
    data = LabelledStamps(
        inputs=inputs,
        top_first=top_first if top_first.any() else None,
        fractions=labels.fractions,
        fields=np.array([place.field for place in chosen]),
        ids=np.array([place.identifier for place in chosen]),
        views=np.array([place.view for place in chosen]),
        votes=labels.votes,
        names=np.array([names[i] for i in labels.stamps]),
        survey=_survey(run, chosen) if run.recipe.evaluation.needs_columns else None,
        **numbers,
    )
    return data, labels.left_over


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


def _survey(run: RunFolder, chosen: list[_Place]) -> dict[str, np.ndarray]:
    """Return all columns of the sources of `chosen` stamps."""
    table = pa.concat_tables([run.read_sources(chunk) for chunk in run.chunks()])
    keys = zip(table["field"].to_pylist(), table["id"].to_pylist(), strict=True)
    rows = {key: number for number, key in enumerate(keys)}
    return source_columns(table.take([rows[place.field, place.identifier] for place in chosen]))


def _source_rows(run: RunFolder, chunk: Chunk) -> dict[str, tuple[float, ...]]:
    rows = run.read_sources(chunk)
    columns = [rows[name].to_numpy(zero_copy_only=False).astype(np.float64) if name in rows.column_names
               else np.full(len(rows), np.nan) for name in SOURCE_COLUMNS]
    return dict(zip(rows["id"].to_pylist(), zip(*columns, strict=True), strict=True))


def _inputs(run: RunFolder, chosen: list[_Place]) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised stamps (n, channel, y, x), and where the first row is the top one (n, channel)."""
    channels = one_channel_count(run.recipe, dict.fromkeys(place.view for place in chosen))
    pixels = run.recipe.stamp.pixels
    inputs = np.empty((len(chosen), channels, pixels, pixels), np.float32)
    top_first = np.zeros((len(chosen), channels), bool)
    by_shard: dict[Path, list[int]] = {}
    for index, place in enumerate(chosen):
        by_shard.setdefault(place.shard, []).append(index)
    for path, indices in by_shard.items():
        with open_shard(path) as shard:
            rows = np.array([chosen[i].row for i in indices])
            pixels_read, top_first[indices] = shard.read(rows), shard.top_first[rows]
        inputs[indices] = normalise(pixels_read, run.recipe.normalise)
    return inputs, top_first
