"""A table of columns in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.sources.arrow import number_array, text_array

Cells = Any
"""A column (row,): float, NaN where missing; int64 or bool, masked where missing; or text as objects, None where
missing."""


class Rows:
    """Columns of one length by name, in order: no more, because a data frame takes half a second to import.

    Parameters
    ----------
    columns : mapping of str to Cells
    count : int, optional
        Number of rows, needed where there is no column.
    """

    def __init__(self, columns: Mapping[str, Cells], count: int | None = None):
        self.columns = dict(columns)
        self._count = len(next(iter(self.columns.values()))) if count is None else count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> Cells:
        return self.columns[name]

    def __setitem__(self, name: str, cells: Cells) -> None:
        self.columns[name] = cells

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.columns)

    def take(self, rows: np.ndarray) -> Rows:
        """Return some rows, by number (-1: a row of missing cells) or by a boolean for each."""
        if rows.dtype == bool:
            if rows.all():
                return Rows(self.columns, len(self))
            rows = np.flatnonzero(rows)
        return Rows({name: _taken(cells, rows) for name, cells in self.columns.items()}, len(rows))

    def only(self, names: Sequence[str]) -> Rows:
        """Return some columns, in the order of `names`."""
        return Rows({name: self.columns[name] for name in names}, len(self))

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the columns that `schema` names as an Arrow table."""
        return pa.table([arrow_cells(self.columns[field.name]).cast(field.type) for field in schema], schema=schema)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return rows of several tables with the same columns, one after another; numbers as a type that holds them all."""
    if len(parts) == 1:
        return parts[0]
    return Rows({name: _joined([part[name] for part in parts]) for name in parts[0].names}, sum(map(len, parts)))


def arrow_cells(cells: Cells) -> pa.Array | pa.ChunkedArray:
    """Return a column as an Arrow array (row,), NaN as null."""
    if cells.dtype != object:
        return number_array(cells)
    texts = cells.tolist()
    if not texts or texts[0] != texts[-1] or texts.count(texts[0]) < len(texts):
        return text_array(texts)
    # A field or file that all rows have.
    return text_array(texts[:1]).take(number_array(np.zeros(len(texts), dtype=np.int64)))


def arrow_type(cells: Cells) -> pa.DataType:
    """Return the type of a column in Arrow."""
    return pa.string() if cells.dtype == object else pa.from_numpy_dtype(cells.dtype)


def numbered(*columns: np.ndarray) -> np.ndarray:
    """Return a number for each row (row,) of columns of text, the same for the same texts; None is a text too."""
    numbers, count = np.zeros(len(columns[0]), dtype=np.int64), 1
    for cells in columns:
        places, texts = distinct(cells)
        count *= len(texts)
        assert count < 2**62, "two columns of less than 2**31 rows"
        numbers = numbers * len(texts) + places
    return numbers


def distinct(cells: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Return the texts of a column, each once and as they come (None is one), and the place of each row's (row,)."""
    rows = cells.tolist()
    places = dict.fromkeys(rows)
    if len(places) < 2:
        return np.zeros(len(rows), dtype=np.int64), list(places)
    places.update(zip(places, range(len(places)), strict=True))
    return np.fromiter(map(places.__getitem__, rows), np.int64, len(rows)), list(places)


def _joined(parts: Sequence[Cells]) -> Cells:
    return _without(np.concatenate([np.ma.getdata(cells) for cells in parts]),
                    np.concatenate([np.ma.getmaskarray(cells) for cells in parts]))


def _taken(cells: Cells, rows: np.ndarray) -> Cells:
    if not (rows < 0).any():
        return cells[rows]
    known = cells if len(cells) else np.zeros(1, cells.dtype)
    return _without(np.ma.getdata(known)[rows], np.ma.getmaskarray(known)[rows] | (rows < 0))


def _without(data: np.ndarray, missing: np.ndarray) -> Cells:
    """Return cells (row,) that are missing where `missing` holds, and besides where text is None or a float NaN."""
    if not missing.any():
        return data
    if data.dtype.kind not in "Of":
        return np.ma.array(data, mask=missing)
    data[missing] = None if data.dtype.kind == "O" else np.nan
    return data
