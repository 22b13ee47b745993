"""ECSV: text with units and metadata that astropy reads back as a full table."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.table import MaskedColumn, Table

from catmorph.release.cells import quoted, rows_text
from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.layout import Layout, OutputColumn


@FORMATS.register("ecsv")
class EcsvFormat(Format):
    """Enhanced CSV (astropy APE 6), comma-delimited; missing values are blank and read back masked.

    astropy's reader strips blanks around text, also where it is quoted.
    """

    suffix = "ecsv"
    title = "text with units and metadata (astropy)"

    def encode(self, batch: pa.RecordBatch, layout: Layout) -> bytes:
        """Return the lines of some rows."""
        return rows_text(batch, layout.columns, quoted, b"", b",", b"\n")

    @contextmanager
    def open(self, path: Path, layout: Layout, total_rows: int) -> Iterator[Callable[[bytes], object]]:
        """Write the table; see `Format.open`."""
        with open(path, "wb") as file:
            file.write(_header(layout).encode())
            yield file.write


def empty_table(layout: Layout) -> Table:
    """Return a table without rows that has the layout's names, types, units, descriptions and metadata."""
    meta = {
        "name": layout.name,
        "title": layout.title,
        "reference": layout.reference,
        "scheme": layout.scheme,
        "producer": producer(),
        "flags": layout.flag_meanings,
    }
    return Table([_empty(column) for column in layout.columns], meta=meta)


def _header(layout: Layout) -> str:
    text = io.StringIO()
    empty_table(layout).write(text, format="ascii.ecsv", delimiter=",")
    return text.getvalue()


def _empty(column: OutputColumn) -> MaskedColumn:
    numpy_type = np.dtype(str) if column.kind == "text" else np.dtype(column.type.to_pandas_dtype())
    return MaskedColumn(
        np.array([], dtype=numpy_type),
        name=column.name,
        unit=u.Unit(column.unit, parse_strict="silent") if column.unit else None,
        description=column.description,
        meta={"ucd": column.ucd} if column.ucd else None,
    )
