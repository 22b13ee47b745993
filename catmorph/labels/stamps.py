"""Labelled stamps in memory, from the shards of a run folder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from catmorph.errors import UsageError
from catmorph.labels.tables import match_labels, read_labels, stamp_names
from catmorph.quality import blocked
from catmorph.schemes import load_scheme
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import open_shard
from catmorph.workspace import Chunk, RunFolder


@dataclass(frozen=True)
class LabelledStamps:
    """Normalised stamps with the vote fractions people gave them.

    Parameters
    ----------
    inputs : ndarray of float32, shape (n, channel, y, x)
        What the network sees: after normalisation, without NaN.
    fractions : ndarray of float32, shape (n, class)
        Vote fractions in the order of the scheme's classes; rows sum to 1 for softmax schemes.
    fields, ids, views : ndarray of str, shape (n,)
        Field and id make the source; one source may have stamps in several views.
    votes : ndarray of int, shape (n,), optional
        Number of votes behind each row of fractions.
    names : ndarray of str, shape (n,), optional
        What the label table calls each stamp.
    ra, dec, magnitude, size_arcsec : ndarray of float64, shape (n,), optional
        Of the source: position (ICRS, degrees), magnitude and radius in arcsec, NaN where the survey has none.
    """

    inputs: np.ndarray
    fractions: np.ndarray
    fields: np.ndarray
    ids: np.ndarray
    views: np.ndarray
    votes: np.ndarray | None = None
    names: np.ndarray | None = None
    ra: np.ndarray | None = None
    dec: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    size_arcsec: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.inputs)
        for name, array in self.columns().items():
            if len(array) != count:
                raise ValueError(f"{name} has {len(array)} rows, inputs has {count}")
        if self.inputs.ndim != 4 or self.inputs.dtype != np.float32:
            raise ValueError(f"inputs must be float32 (n, channel, y, x), not {self.inputs.dtype} {self.inputs.shape}")

    def __len__(self) -> int:
        return len(self.inputs)

    def columns(self) -> dict[str, np.ndarray]:
        """Return every array that is there, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def take(self, rows: np.ndarray) -> LabelledStamps:
        """Return the stamps of `rows`, in that order."""
        return LabelledStamps(**{name: value[rows] for name, value in self.columns().items()})

    @property
    def sources(self) -> np.ndarray:
        """Number of each stamp's source, shape (n,): equal for stamps of one (field, id), counted in their order."""
        keys = np.array([f"{field}\0{name}" for field, name in zip(self.fields, self.ids, strict=True)])
        return np.unique(keys, return_inverse=True)[1]

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views that occur, sorted."""
        return tuple(sorted(set(map(str, self.views))))


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


def labelled_stamps(run: RunFolder) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps of `run` that have a label, and what was left over, a line each.

    Raises
    ------
    CatmorphError
        When a shard is missing or the label table does not fit.
    """
    section = run.recipe.labels
    if section.table is None:
        raise UsageError("the recipe names no label table", hint="set labels.table")
    table = read_labels(
        section.table, load_scheme(run.recipe.scheme), id_column=section.id_column, votes_column=section.votes_column
    )
    places = _places(run)
    names = stamp_names(
        section.stamp, [p.field for p in places], [p.identifier for p in places], [p.view for p in places]
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
