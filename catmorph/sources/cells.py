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
    """A cell, the rows (indices into the arrays given to `split`) it holds, and their keys (deepest cells)."""

    name: str
    rows: np.ndarray
    keys: np.ndarray


def split(ra: np.ndarray, dec: np.ndarray, chunk_rows: int) -> list[Cell]:
    """Divide positions (degrees, ICRS) into HEALPix cells (nested, ``o<order>p<pixel>``) of at most `chunk_rows` rows.

    Cells come in the order of the sky (their first deepest pixel); see `split_keys`.
    """
    if not len(ra):
        return []
    deep = ang2pix(2**DEEPEST, ra, dec, nest=True, lonlat=True)
    return split_keys(np.asarray(deep, dtype=np.int64), chunk_rows, "o")


def split_identifiers(identifiers: Iterable[str], chunk_rows: int) -> list[Cell]:
    """Divide identifiers into cells of their hash (``h<order>p<cell>``) of at most `chunk_rows` rows; see `split_keys`.

    A cell of order n holds the identifiers whose blake2b digest of 64 bits starts with the same 2n bits. So the
    cell of an identifier does not depend on how the others are numbered.
    """
    hashed = (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") for text in identifiers)
    return split_keys(np.fromiter((value >> (64 - 2 * DEEPEST) for value in hashed), np.int64), chunk_rows, "h")


def split_keys(keys: np.ndarray, chunk_rows: int, letter: str) -> list[Cell]:
    """Divide `keys` (row,), non-negative integers of which the last 58 bits count, into cells of `chunk_rows` at most.

    A cell of order n holds the keys that are the same but for their last ``58 - 2 n`` bits. One with more than
    `chunk_rows` is split into its four children, and only that cell: an added row touches one cell. Cells come by
    rising key. Only more than `chunk_rows` rows that share one key stay together.
    """
    pending = [(0, rows) for rows in groups(keys >> (2 * DEEPEST))]
    cells: list[tuple[int, Cell]] = []
    while pending:
        order, rows = pending.pop()
        if len(rows) <= chunk_rows or order == DEEPEST:
            number = int(keys[rows[0]] >> (2 * (DEEPEST - order)))
            cell = Cell(f"{letter}{order}p{number}", rows, keys[rows])
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
