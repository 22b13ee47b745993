"""The chunk plan: adaptive cells of the sky, and the order of sources within them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy_healpix import HEALPix

DEEPEST = 29
"""HEALPix order of the finest cells (0.4 milliarcsec), the deepest that fits into 64 bits."""


@dataclass(frozen=True)
class Cell:
    """A cell, the rows (indices into the arrays given to `split`) it holds, and their deepest pixels."""

    name: str
    rows: np.ndarray
    pixels: np.ndarray


def split(ra: np.ndarray, dec: np.ndarray, chunk_rows: int) -> list[Cell]:
    """Divide positions (degrees, ICRS) into HEALPix cells (nested) of at most `chunk_rows` rows.

    A cell with more is split into its four children, and only that cell: an added row touches one cell.
    Cells come in the order of the sky (their first deepest pixel). Only more than `chunk_rows` rows that
    share one deepest pixel stay together.
    """
    if not len(ra):
        return []
    deep = HEALPix(nside=2**DEEPEST, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg)
    pending = [(0, rows) for rows in groups(deep >> (2 * DEEPEST))]
    cells: list[tuple[int, Cell]] = []
    while pending:
        order, rows = pending.pop()
        if len(rows) <= chunk_rows or order == DEEPEST:
            pixel = int(deep[rows[0]] >> (2 * (DEEPEST - order)))
            cells.append((pixel << (2 * (DEEPEST - order)), Cell(f"o{order}p{pixel}", rows, deep[rows])))
        else:
            children = deep[rows] >> (2 * (DEEPEST - order - 1))
            pending += [(order + 1, rows[child]) for child in groups(children)]
    return [cell for _, cell in sorted(cells, key=lambda item: item[0])]


def groups(keys: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each distinct value of `keys` (row,), by rising value; rows keep their order."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, edges)


def natural_rank(identifiers: np.ndarray) -> np.ndarray:
    """Return each identifier's place (row,): whole numbers first, by value, then everything else as text."""
    texts = pa.array(identifiers, pa.string())
    whole = pc.match_substring_regex(texts, r"\A[0-9]{1,18}\z")
    value = pc.if_else(whole, texts, "0").cast(pa.int64())
    table = pa.table({"other": pc.invert(whole).cast(pa.int8()), "value": value, "text": texts})
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names]).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank
