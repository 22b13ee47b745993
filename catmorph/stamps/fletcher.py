"""The checksum that HDF5 keeps with each block: Fletcher's of 32 bits.

HDF5 itself takes it from copies of the block, word by word: that was half the time of writing a shard.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_COLUMNS, _ROWS = 1024, 4096
"""Words that are summed at once: few enough for sums below 2**32, enough to be fast."""

_MODULUS = 65535


def fletcher32(data: np.ndarray) -> int:
    """Return the checksum of the bytes of a contiguous array, an even number, as HDF5's filter `fletcher32` takes it.

    The low 16 bits hold the sum of the 16-bit words, the high ones the sum of the sums up to each word, both modulo
    65535, which stands for 0 unless all words are (H5checksum.c).
    """
    total = sum_of_sums = 0
    for words in _parts(data.reshape(-1).view("<u2")):
        here, weighed = _sums(words)
        sum_of_sums += words.size * total + weighed
        total += here
    # There the first byte of a word is the high one: 256 times as much, modulo 65535.
    return _folded(256 * sum_of_sums) << 16 | _folded(256 * total)


def _parts(words: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `words` in their order as arrays (row, column)."""
    whole = len(words) // _COLUMNS * _COLUMNS
    for start in range(0, whole, _ROWS * _COLUMNS):
        yield words[start : min(start + _ROWS * _COLUMNS, whole)].reshape(-1, _COLUMNS)
    if whole < len(words):
        yield words[whole:].reshape(1, -1)


def _sums(words: np.ndarray) -> tuple[int, int]:
    """Return the sum of `words` (row, column), and the sum of the sums up to each of them."""
    of_rows = np.add.reduce(words, axis=1, dtype=np.uint32).astype(np.int64)
    of_columns = np.add.reduce(words, axis=0, dtype=np.uint32).astype(np.int64)
    rows, columns = words.shape
    total = int(of_rows.sum())
    # A word is in the sums from its own on: in all but as many as there are words before it.
    before = columns * int(of_rows @ np.arange(rows)) + int(of_columns @ np.arange(columns))
    return total, words.size * total - before


def _folded(total: int) -> int:
    return (total - 1) % _MODULUS + 1 if total else 0
