"""The chunks of a survey: the sources of each field, by their place on the sky or by their identifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

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
    """Some chunks, one after another.

    Attributes
    ----------
    rows : ndarray of int64, shape (row,)
        The sources, by number, in their order.
    chunks : list of (str, str, slice)
        Field and cell of each chunk, and which of `rows` are in it.
    """

    rows: np.ndarray
    chunks: list[tuple[str, str, slice]]


def pieces(division: Division, recipe: Recipe) -> Iterator[Piece]:
    """Yield the chunks of all sources, as many at a time as fit into memory.

    Fields come by name, cells and rows by sky (deepest pixel, then id). Without positions the hash of the id takes the
    place of the pixel. So the order of all rows is the same whatever the size of the chunks.
    """
    return _Chunking(division, recipe).pieces()


class _Chunking:
    """How sources become chunks."""

    def __init__(self, division: Division, recipe: Recipe):
        self._shelf, self._ids, self._fields = division.rows, division.rows.texts("id"), division.fields
        self._on_sky, self._chunk_rows = recipe.catalog.has_positions, recipe.run.chunk_rows
        self._most = max(BLOCK, self._chunk_rows)
        coded = ((rows, division.codes[rows]) for rows in division.sources())
        self._by_field = Ranked(division.rows, len(division), coded, 31)

    def pieces(self) -> Iterator[Piece]:
        """Yield all chunks; small fields are made together."""
        small: list[tuple[str, np.ndarray]] = []
        for code in sorted(range(len(self._fields)), key=self._fields.__getitem__):
            start, stop = self._by_field.place(code), self._by_field.place(code + 1)
            if small and sum(len(rows) for _, rows in small) + stop - start > self._most:
                yield self._piece(small)
                small = []
            if stop - start <= self._most:
                small.append((self._fields[code], self._by_field.rows(start, stop)))
            else:
                for order, rows in self._whole_cells(start, stop):
                    yield self._piece([(self._fields[code], rows)], order)
        if small:
            yield self._piece(small)

    def _piece(self, fields: list[tuple[str, np.ndarray]], order: int = 0) -> Piece:
        """Return the chunks of some fields, or of whole cells of this order of one."""
        rows, sizes = np.concatenate([rows for _, rows in fields]), [len(rows) for _, rows in fields]
        keys, ranks = self._keys(rows), natural_rank(self._ids.take(number_array(rows)))
        in_order = np.lexsort((ranks, keys, np.repeat(np.arange(len(fields)), sizes)))
        keys, end = keys[in_order], 0
        chunks = []
        for (field, _), first, size in zip(fields, accumulate([0, *sizes]), sizes, strict=False):
            for cell in split_keys(keys[first : first + size], self._chunk_rows, "o" if self._on_sky else "h", order):
                chunks.append((field, cell.name, slice(end, end + len(cell.rows))))
                end += len(cell.rows)
        return Piece(rows[in_order], chunks)

    def _whole_cells(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield cells of a field that fit into memory: their order and rows; by rising key."""
        parts = (self._by_field.rows(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK))
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
