"""Survey tables that need neither astropy, a second to import, nor pandas, half a second: plain CSV and Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.sources.arrow import numbers_of, texts_of

_OWN_UNITS = ("deg", "arcmin", "arcsec", "mag", "rad", "pix", "Jy", "nJy", "uJy", "mas")
"""Units whose names astropy leaves as they are."""


class Column(np.ma.MaskedArray):
    """Cells of a column (row,), masked where they are missing, with the name of their unit, None without one."""

    unit: str | None = None


class LightTable:
    """A survey table, as far as the reader of catalogs asks one: what it says of `astropy.table.Table` holds here.

    Parameters
    ----------
    columns : mapping of str to array (row,) or Arrow array of strings
        Strings of Arrow become objects when they are asked for.
    """

    def __init__(self, columns: Mapping[str, Any]):
        self._columns = dict(columns)

    @property
    def colnames(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._columns)

    @property
    def columns(self) -> list[Any]:
        """The columns, in order."""
        return [self[name] for name in self._columns]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __getitem__(self, name: str) -> Any:
        cells = self._columns[name]
        if isinstance(cells, pa.Array | pa.ChunkedArray):
            cells = self._columns[name] = column_of(texts_of(cells), numbers_of(cells.is_null())[0])
        return cells


def column_of(data: np.ndarray, missing: np.ndarray, unit: str | None = None) -> Column:
    """Return a column of a light table."""
    column = np.ma.array(data, mask=missing).view(Column)
    column.unit = unit
    return column


def from_arrow(table: pa.Table) -> LightTable:
    """Return an Arrow table as a light one: integers stay integers where cells are null, units are kept."""
    columns = {}
    for field, cells in zip(table.schema, table.columns, strict=True):
        unit = (field.metadata or {}).get(b"unit", b"").decode() or None
        columns[field.name] = column_of(_cells(cells), numbers_of(cells.is_null())[0], unit and unit_name(unit))
    return LightTable(columns)


def unit_name(text: str) -> str:
    """Return the name of a unit as astropy writes it: ``km/s`` is ``km / s``."""
    if text in _OWN_UNITS:
        return text
    from astropy.units import Unit

    return str(Unit(text, parse_strict="silent"))


def _cells(cells: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_decimal(cells.type):
        cells = cells.cast(pa.float64())
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type) or pa.types.is_boolean(cells.type):
        return numbers_of(cells)[0]
    if pa.types.is_nested(cells.type):
        return np.array([str(cell) for cell in cells.to_pylist()], dtype=object)
    return texts_of(cells.cast(pa.string()))
