"""Survey tables that need neither astropy, a second to import, nor pandas, half a second."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.sources.arrow import numbers_of, texts_of

_OWN_UNITS = ("deg", "arcmin", "arcsec", "mas", "rad", "mag", "Jy", "pix", "km", "s", "adu", "Angstrom")
"""Units whose names astropy leaves as they are."""


class Column(np.ma.MaskedArray):
    """Cells of a column (row,), masked where they are missing, with their unit."""

    _optinfo: dict[str, Any]

    @property
    def unit(self) -> str | None:
        """The name of the unit as astropy writes it, ``km / s`` for ``km/s``; None without one."""
        text = self._optinfo.get("unit")
        if text is None or text in _OWN_UNITS:
            return text
        # A third of a second to import.
        from astropy.units import Unit

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(Unit(text, parse_strict="silent"))


class LightTable:
    """A survey table, as far as the reader of catalogs asks one: what it asks of `astropy.table.Table` is here too.

    Parameters
    ----------
    columns : mapping of str to Column, to a callable, or to None
        The columns, or what makes one when it is asked for; None for one that was not read, as nobody asks for it.
    count : int
        Number of rows.
    """

    def __init__(self, columns: Mapping[str, Column | Callable[[], Column] | None], count: int):
        self._columns, self._count = dict(columns), count

    @property
    def colnames(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._columns)

    @property
    def columns(self) -> list[Column]:
        """The columns, in order."""
        return [self[name] for name in self._columns]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> Column:
        column = self._columns[name]
        if column is None:
            raise KeyError(f"{name} was not read")
        if not isinstance(column, Column):
            column = self._columns[name] = column()
        return column


def column_of(data: np.ndarray, missing: np.ndarray, unit: str | None = None) -> Column:
    """Return a column of a light table, with its unit as astropy reads it."""
    column = np.ma.array(data, mask=missing).view(Column)
    # What numpy hands on to slices.
    column._optinfo["unit"] = unit
    return column


def text_column(cells: pa.Array | pa.ChunkedArray) -> Column:
    """Return strings of Arrow as a column."""
    return column_of(texts_of(cells), numbers_of(cells.is_null())[0])


def from_arrow(table: pa.Table | pa.RecordBatch, names: Sequence[str] = ()) -> LightTable:
    """Return an Arrow table as a light one: integers stay integers where cells are null, units are kept.

    `names` are those of all columns, where some were not read.
    """
    columns: dict[str, Any] = dict.fromkeys(names)
    for field, cells in zip(table.schema, table.columns, strict=True):
        unit = (field.metadata or {}).get(b"unit", b"").decode() or None
        columns[field.name] = column_of(_cells(cells), numbers_of(cells.is_null())[0], unit)
    return LightTable(columns, table.num_rows)


def _cells(cells: pa.Array | pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_decimal(cells.type):
        cells = cells.cast(pa.float64())
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type) or pa.types.is_boolean(cells.type):
        return numbers_of(cells)[0]
    if pa.types.is_nested(cells.type):
        return np.array([str(cell) for cell in cells.to_pylist()], dtype=object)
    return texts_of(cells.cast(pa.string()))
