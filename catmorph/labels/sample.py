"""A random sample of stamps for people to label."""

from __future__ import annotations

import hashlib
import heapq
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
    """One stamp of a sample file; numbers are NaN where unknown. `number` is its row there, 1 after the header."""

    stamp: str
    field: str
    id: str
    view: str
    magnitude: float
    ra: float
    dec: float
    number: int = 0


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
    bins = _bins(per_view, edges)
    rows: list[SampleRow] = []
    lacking: list[str] = []
    available: dict[str, int] = {}
    outside = 0
    for view in views or run.recipe.all_views:
        drawn = _Drawn(seed, bins)
        for places in stamp_places(run, view):
            drawn.take(places)
        available[view], outside = drawn.available, outside + drawn.outside
        chosen = sorted((one for kept in drawn.kept for one in kept), key=lambda item: item[0])
        rows += [_row(place) for _, place in chosen]
        lacking += [
            f"{view}{one.text}: only {len(kept)} of {one.wanted} stamps"
            for one, kept in zip(bins, drawn.kept, strict=True) if len(kept) < one.wanted
        ]  # fmt: skip
    if outside:
        lacking.append(f"{outside} stamps have no magnitude in a bin and could not be drawn")
    if not rows:
        raise UsageError(f"there is no stamp to draw: {lacking[-1]}", where=run.path)
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
    for number, line in enumerate(lines, start=1):
        cells = [*line, *[""] * (len(header) - len(line))]
        stamp, field, identifier, view = (plain_cell(cells[column]) for column in texts)
        magnitude, ra, dec = (_number(cells[column]) if column is not None else np.nan for column in numbers)
        rows.append(SampleRow(stamp, field, identifier, view, magnitude, ra, dec, number))
    return rows


def check_edges(edges: Sequence[float], per_view: int) -> None:
    """Raise `UsageError` unless `edges` are none, or ascend and make no more bins than stamps are drawn."""
    if edges and (len(edges) < 2 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0)):
        raise UsageError(f"magnitude edges {', '.join(f'{edge:g}' for edge in edges)} do not ascend",
                         hint="give at least two, as in --by-magnitude 18,20,22,24")
    if len(edges) - 1 > per_view:
        raise UsageError(f"{len(edges) - 1} magnitude bins cannot share {per_view} stamps", hint="raise --per-view")


@dataclass(frozen=True)
class _Bin:
    """Magnitudes from `low` to below `high`, and how many stamps they give."""

    low: float
    high: float
    wanted: int
    text: str = ""

    def holds(self, magnitude: float) -> bool:
        return self.low <= magnitude < self.high


def _bins(per_view: int, edges: Sequence[float]) -> list[_Bin]:
    """Return the bins; without edges a single one for all magnitudes and none."""
    share, more = divmod(per_view, max(len(edges) - 1, 1))
    # The last bin has its upper edge, too.
    highs = [*edges[1:-1], np.nextafter(edges[-1], np.inf)] if edges else []
    return [
        _Bin(low, high, share + (number < more), f", magnitude {low:g} to {edge:g}")
        for number, (low, high, edge) in enumerate(zip(edges[:-1], highs, edges[1:], strict=True))
    ] or [_Bin(-np.inf, np.inf, per_view)]


class _Drawn:
    """The stamps of a view with the smallest numbers so far, for each bin; memory does not grow with the view."""

    def __init__(self, seed: int, bins: list[_Bin]):
        self._seed, self._bins = seed, bins
        self.kept: list[list[tuple[_Rank, StampPlace]]] = [[] for _ in bins]
        self.available = self.outside = 0

    def take(self, places: list[StampPlace]) -> None:
        """Take in the stamps of one more chunk."""
        self.available += len(places)
        everything = len(self._bins) == 1 and not self._bins[0].text
        for number, one in enumerate(self._bins):
            fitting = places if everything else [place for place in places if one.holds(place.magnitude)]
            ranked = [(_rank(self._seed, place), place) for place in fitting]
            self.kept[number] = heapq.nsmallest(one.wanted, self.kept[number] + ranked, key=lambda item: item[0])
            self.outside -= len(fitting)
        self.outside += len(places)


_Rank = tuple[bytes, str, str, int]


def _rank(seed: int, place: StampPlace) -> _Rank:
    key = "\0".join((str(seed), place.view, place.field, place.id))
    return hashlib.sha256(key.encode()).digest(), place.field, place.id, place.row


def _row(place: StampPlace) -> SampleRow:
    return SampleRow(place.name, place.field, place.id, place.view, place.magnitude, place.ra, place.dec)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
