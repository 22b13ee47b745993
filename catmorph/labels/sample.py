"""A random sample of stamps for people to label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catmorph.errors import UsageError
from catmorph.labels.cells import find_column, number_cell, plain_cell, read_rows, text_cell, write_table
from catmorph.labels.places import StampPlace, refuse_shared_names, stamp_places
from catmorph.workspace import RunFolder

SAMPLE_COLUMNS = ("stamp", "field", "id", "view", "magnitude", "ra", "dec")


@dataclass(frozen=True)
class SampleRow:
    """One stamp of a sample file; numbers are NaN where unknown."""

    stamp: str
    field: str
    id: str
    view: str
    magnitude: float
    ra: float
    dec: float


@dataclass(frozen=True)
class Sample:
    """What `draw_sample` drew, how many stamps each view had to draw from, and what is lacking, a line each."""

    rows: list[SampleRow]
    available: dict[str, int]
    lacking: list[str]


def draw_sample(
    run: RunFolder, *, per_view: int, seed: int, edges: Sequence[float] = (), views: Sequence[str] = ()
) -> Sample:
    """Draw stamps at random, in each view for itself.

    Every stamp gets a number from the sha256 of seed, view, field and id, and the smallest numbers are taken, in
    that order: the draw depends on nothing but the seed and which stamps there are, neither on chunks nor on
    their order, and the first k rows of a view are themselves a random sample of k.

    Parameters
    ----------
    per_view : int
        Stamps of each view.
    edges : sequence of float
        Edges of magnitude bins, ascending: each bin (the upper edge belongs to the next, the last to the last)
        gives an equal share of `per_view`, the first bins one more where it does not divide. What a bin lacks is
        not taken from others.
    views : sequence of str
        Views to draw from; none given draws from all.

    Raises
    ------
    UsageError
        When two stamps of the sample have one name, or the edges do not ascend.
    CatmorphError
        When a shard is missing or damaged.
    """
    check_edges(edges, per_view)
    rows: list[SampleRow] = []
    lacking: list[str] = []
    available: dict[str, int] = {}
    for view in views or run.recipe.all_views:
        places = sorted(stamp_places(run, view), key=lambda place: _rank(seed, place))
        available[view] = len(places)
        chosen = _stratified(view, places, per_view, edges, lacking) if edges else places[:per_view]
        if not edges and len(chosen) < per_view:
            lacking.append(f"{view}: only {len(chosen)} of {per_view} stamps")
        rows += [_row(place) for place in chosen]
    refuse_shared_names([row.stamp for row in rows], run.recipe.labels.stamp)
    return Sample(rows, available, lacking)


def write_sample(path: Path, rows: Iterable[SampleRow]) -> None:
    """Write a sample as CSV with the columns `SAMPLE_COLUMNS`."""
    write_table(path, SAMPLE_COLUMNS, (
        [*map(text_cell, (row.stamp, row.field, row.id, row.view)),
         *map(number_cell, (row.magnitude, row.ra, row.dec))]
        for row in rows
    ))  # fmt: skip


def read_sample(path: Path) -> list[SampleRow]:
    """Read a sample file; only stamp, field, id and view must be there.

    Raises
    ------
    CatalogError
        When the file or one of these columns is missing.
    """
    lines = read_rows(path, "sample")
    header = next(lines)
    texts = [find_column(header, name, path) for name in SAMPLE_COLUMNS[:4]]
    numbers = [header.index(name) if name in header else None for name in SAMPLE_COLUMNS[4:]]
    rows = []
    for line in lines:
        cells = [*line, *[""] * (len(header) - len(line))]
        stamp, field, identifier, view = (plain_cell(cells[column]) for column in texts)
        magnitude, ra, dec = (_number(cells[column]) if column is not None else np.nan for column in numbers)
        rows.append(SampleRow(stamp, field, identifier, view, magnitude, ra, dec))
    return rows


def check_edges(edges: Sequence[float], per_view: int) -> None:
    """Raise `UsageError` unless `edges` are none, or ascend and make no more bins than stamps are drawn."""
    if edges and (len(edges) < 2 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0)):
        raise UsageError(f"magnitude edges {', '.join(f'{edge:g}' for edge in edges)} do not ascend",
                         hint="give at least two, as in --by-magnitude 18,20,22,24")
    if len(edges) - 1 > per_view:
        raise UsageError(f"{len(edges) - 1} magnitude bins cannot share {per_view} stamps", hint="raise --per-view")


def _rank(seed: int, place: StampPlace) -> tuple[bytes, str, str]:
    key = "\0".join((str(seed), place.view, place.field, place.id))
    return hashlib.sha256(key.encode()).digest(), place.field, place.id


def _stratified(
    view: str, places: list[StampPlace], per_view: int, edges: Sequence[float], lacking: list[str]
) -> list[StampPlace]:
    magnitudes = np.array([place.magnitude for place in places], dtype=np.float64)
    bins = np.searchsorted(edges, magnitudes, side="right") - 1
    bins[magnitudes == edges[-1]] = len(edges) - 2
    bins[np.isnan(magnitudes)] = -1
    share, more = divmod(per_view, len(edges) - 1)
    chosen: list[int] = []
    for number in range(len(edges) - 1):
        wanted = share + (number < more)
        found = np.flatnonzero(bins == number)[:wanted]
        chosen += found.tolist()
        if len(found) < wanted:
            lacking.append(f"{view}, magnitude {edges[number]:g} to "
                           f"{edges[number + 1]:g}: only {len(found)} of {wanted} stamps")
    return [places[index] for index in sorted(chosen)]


def _row(place: StampPlace) -> SampleRow:
    return SampleRow(place.name, place.field, place.id, place.view, place.magnitude, place.ra, place.dec)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
