"""Sorting rows on disk, by a key of 64 bits for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from catmorph.sources.shelf import BLOCK, Shelf


class Ranked:
    """Rows in the order of their keys, and rows of one key in their own.

    The leading bits of a key and the number of its row are one integer of 64 bits; those are sorted where they lie, in
    a file, which takes no memory. Of keys that are longer than what the row leaves, the last bits do not count.

    Parameters
    ----------
    shelf : Shelf
        What the rows are numbers of.
    count : int
        Number of rows to sort.
    parts : iterable of (rows, keys)
        The rows (row,), by number, and their keys (row,), non-negative.
    bits : int
        How many bits of a key count, from the last.
    """

    def __init__(self, shelf: Shelf, count: int, parts: Iterable[tuple[np.ndarray, np.ndarray]], bits: int):
        self._row_bits = np.uint64(len(shelf).bit_length())
        self.lost_bits = max(0, bits + int(self._row_bits) - 64)
        self._sorted = shelf.array(np.uint64, count)
        start = 0
        for rows, keys in parts:
            heads = keys.astype(np.uint64) >> np.uint64(self.lost_bits)
            self._sorted[start : start + len(rows)] = (heads << self._row_bits) | rows.astype(np.uint64)
            start += len(rows)
        assert start == count, "as many rows as were told"
        self._sorted.sort()

    def __len__(self) -> int:
        return len(self._sorted)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows (row,), by number, from place `start` to before `stop`."""
        mask = (np.uint64(1) << self._row_bits) - np.uint64(1)
        return (self._sorted[start:stop] & mask).astype(np.int64)

    def place(self, key: int) -> int:
        """Return the place of the first row with this key, or the next."""
        head = key >> self.lost_bits << int(self._row_bits)
        return len(self) if head >= 2**64 else int(np.searchsorted(self._sorted, np.uint64(head)))

    def repeated(self) -> Iterator[np.ndarray]:
        """Yield the rows (row,), by rising number, that share a key with others; those of a key at once."""
        start = 0
        while start < len(self):
            stop = min(start + BLOCK, len(self))
            heads = self._sorted[start:stop] >> self._row_bits
            stop = self.place((int(heads[-1]) + 1) << self.lost_bits)
            heads = self._sorted[start:stop] >> self._row_bits
            same = heads[1:] == heads[:-1]
            several = np.concatenate(([False], same)) | np.concatenate((same, [False]))
            if several.any():
                yield np.sort(self.rows(start, stop)[several])
            start = stop
