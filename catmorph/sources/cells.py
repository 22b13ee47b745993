"""The chunk plan: adaptive cells of the sky, and the order of sources within them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy_healpix import HEALPix

DEEPEST = 29
"""HEALPix order of the finest cells (0.4 milliarcsec), the deepest that fits into 64 bits."""


@dataclass(frozen=True)
class Cell:
    """A cell and the rows (indices into the arrays given to `split`) it holds."""

    name: str
    rows: np.ndarray


def split(ra: np.ndarray, dec: np.ndarray, chunk_rows: int) -> list[Cell]:
    """Divide positions (degrees, ICRS) into HEALPix cells (nested) of at most `chunk_rows` rows.

    A cell with more is split into its four children, and only that cell: an added row touches one cell.
    Cells come in the order of the sky (their first deepest pixel).
    """
    if not len(ra):
        return []
    deep = HEALPix(nside=2**DEEPEST, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg)
    pending = [(0, rows) for rows in _groups(deep >> (2 * DEEPEST), np.arange(len(deep)))]
    cells: list[tuple[int, Cell]] = []
    while pending:
        order, rows = pending.pop()
        if len(rows) <= chunk_rows or order == DEEPEST:
            pixel = int(deep[rows[0]] >> (2 * (DEEPEST - order)))
            cells.append((pixel << (2 * (DEEPEST - order)), Cell(f"o{order}p{pixel}", rows)))
        else:
            children = deep[rows] >> (2 * (DEEPEST - order - 1))
            pending += [(order + 1, child) for child in _groups(children, rows)]
    return [cell for _, cell in sorted(cells, key=lambda item: item[0])]


def _groups(keys: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(rows[order], edges)


def natural_key(identifier: str) -> tuple[int, int, str]:
    """Sort key that puts whole numbers first, by value, then everything else as text."""
    if identifier.isascii() and identifier.isdigit() and len(identifier) < 19:
        return (0, int(identifier), identifier)
    return (1, 0, identifier)
