"""The chunk plan: adaptive cells of the sky or, without positions, of identifiers; the order of sources within."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from healpix import ang2pix

DEEPEST = 29
"""HEALPix order of the finest cells (0.4 milliarcsec), the deepest that fits into 64 bits."""


@dataclass(frozen=True)
class Cell:
    """A cell, and the rows (indices into the keys given to `split_keys`) that it holds."""

    name: str
    rows: np.ndarray


def sky_keys(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the deepest HEALPix pixel (nested) of each position (row,), in degrees ICRS, as int64."""
    if not len(ra):
        return np.zeros(0, np.int64)
    return np.asarray(ang2pix(2**DEEPEST, ra, dec, nest=True, lonlat=True), dtype=np.int64)


def identifier_keys(identifiers: Iterable[str]) -> np.ndarray:
    """Return a key for each identifier (row,): the first 58 bits of its blake2b digest of 64 bits.

    So the cell of an identifier does not depend on how the others are numbered.
    """
    hashed = (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") for text in identifiers)
    return np.fromiter((value >> (64 - 2 * DEEPEST) for value in hashed), np.int64)


def split_keys(keys: np.ndarray, chunk_rows: int, letter: str, order: int = 0) -> list[Cell]:
    """Divide `keys` (row,), non-negative integers, into cells of `chunk_rows` at most, ``<letter><order>p<cell>``.

    A cell of order n holds the keys that are the same but for their last ``58 - 2 n`` bits: with `sky_keys` a nested
    HEALPix pixel. One with more than `chunk_rows` is split into its four children, and only that cell: an added row
    touches one cell. Cells come by rising key. Only more than `chunk_rows` rows that share one key stay together.

    Parameters
    ----------
    order : int
        Of the largest cells.
    """
    pending = [(order, rows) for rows in groups(keys >> (2 * (DEEPEST - order)))]
    cells: list[tuple[int, Cell]] = []
    while pending:
        order, rows = pending.pop()
        if len(rows) <= chunk_rows or order == DEEPEST:
            number = int(keys[rows[0]] >> (2 * (DEEPEST - order)))
            cell = Cell(f"{letter}{order}p{number}", rows)
            cells.append((number << (2 * (DEEPEST - order)), cell))
        else:
            children = keys[rows] >> (2 * (DEEPEST - order - 1))
            pending += [(order + 1, rows[child]) for child in groups(children)]
    return [cell for _, cell in sorted(cells, key=lambda item: item[0])]


def groups(keys: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each distinct value of `keys` (row,), by rising value; rows keep their order."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, edges)
