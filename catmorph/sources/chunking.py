"""The chunks of a survey: the sources of each field, by their place on the sky or by their identifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from catmorph.recipe import Recipe
from catmorph.sources.arrow import number_array
from catmorph.sources.cells import DEEPEST, identifier_keys, sky_keys, split_keys
from catmorph.sources.division import Division
from catmorph.sources.order import natural_rank
from catmorph.sources.ranked import Ranked
from catmorph.sources.shelf import BLOCK

_KEY_BITS = 62
"""Twelve pixels of HEALPix, and two bits for each order."""


@dataclass(frozen=True)
class Piece:
    """Some chunks of a field, one after another.

    Attributes
    ----------
    field : str
    rows : ndarray of int64, shape (row,)
        The sources, by number, in their order.
    cells : list of (str, slice)
        Name of the cell of each chunk, and which of `rows` are in it.
    """

    field: str
    rows: np.ndarray
    cells: list[tuple[str, slice]]


def pieces(division: Division, recipe: Recipe) -> Iterator[Piece]:
    """Yield the chunks of all sources, as many at a time as fit into memory.

    Fields come by name, cells and rows by sky (deepest pixel, then id). Without positions the hash of the id takes the
    place of the pixel. So the order of all rows is the same whatever the size of the chunks.
    """
    chunking, fields = _Chunking(division, recipe), division.fields
    by_field = Ranked(division.rows, len(division), ((rows, division.codes[rows]) for rows in division.sources()), 31)
    for code in sorted(range(len(fields)), key=fields.__getitem__):
        yield from chunking.pieces(fields[code], by_field, by_field.place(code), by_field.place(code + 1))


class _Chunking:
    """How the sources of a field become chunks."""

    def __init__(self, division: Division, recipe: Recipe):
        self._shelf, self._ids = division.rows, division.rows.texts("id")
        self._on_sky, self._chunk_rows = recipe.catalog.has_positions, recipe.run.chunk_rows
        self._most = max(BLOCK, self._chunk_rows)

    def pieces(self, field: str, by_field: Ranked, start: int, stop: int) -> Iterator[Piece]:
        """Yield the chunks of the field that has these places."""
        for order, rows in self._whole_cells(by_field, start, stop):
            keys, ranks = self._keys(rows), natural_rank(self._ids.take(number_array(rows)))
            in_order = np.lexsort((ranks, keys))
            cells = split_keys(keys[in_order], self._chunk_rows, "o" if self._on_sky else "h", order)
            ends = np.cumsum([len(cell.rows) for cell in cells]).tolist()
            yield Piece(field, rows[in_order], [(cell.name, slice(end - len(cell.rows), end))
                                                for cell, end in zip(cells, ends, strict=True)])

    def _whole_cells(self, by_field: Ranked, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield cells that fit into memory, or all of a small field: their order and rows; by rising key."""
        if stop - start <= self._most:
            yield 0, by_field.rows(start, stop)
            return
        parts = (by_field.rows(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK))
        by_key = Ranked(self._shelf, stop - start, ((rows, self._keys(rows)) for rows in parts), _KEY_BITS)
        # The last of the list comes first.
        pending = [(0, number) for number in reversed(range(12))]
        while pending:
            order, number = pending.pop()
            shift = 2 * (DEEPEST - order)
            first, end = by_key.place(number << shift), by_key.place((number + 1) << shift)
            if end - first > self._most and shift > by_key.lost_bits:
                pending += [(order + 1, 4 * number + child) for child in (3, 2, 1, 0)]
            elif end > first:
                yield order, by_key.rows(first, end)

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        if self._on_sky:
            return sky_keys(self._shelf.numbers("ra")[rows], self._shelf.numbers("dec")[rows])
        return identifier_keys(self._ids.take(number_array(rows)).to_pylist())
