"""Reading survey tables of any format that astropy or Parquet know."""

from __future__ import annotations

import codecs
import csv
import lzma
import mmap
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io.ascii import convert_numpy
from astropy.io.registry import IORegistryError
from astropy.table import Column, MaskedColumn, Table

from catmorph.errors import CatalogError, suggest
from catmorph.recipe import CatalogSection

SUFFIX_FORMATS = {
    ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".fits.fz": "fits",
    ".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".tbl": "ascii.ipac", ".mrt": "ascii.mrt",
    ".vot": "votable", ".vo": "votable", ".xml": "votable",
    ".parquet": "parquet", ".pq": "parquet", ".hdf5": "hdf5", ".h5": "hdf5",
}
"""File name ending -> astropy format; other endings are plain text whose layout astropy guesses."""

_UNTYPED = ("ascii", "csv", "no_header", "basic", "commented_header", "tab", "fixed_width", "rdb", "sextractor")
"""Text formats that leave it to the reader what is a number."""

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
READ_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, zlib.error, SyntaxError,
    RecursionError, IORegistryError, pa.ArrowException, csv.Error, zipfile.BadZipFile, lzma.LZMAError,
)
"""What astropy's readers raise over broken files (seen by feeding each of them every kind of broken file)."""


def read_table(path: Path, section: CatalogSection) -> Table:
    """Read one survey table.

    Raises
    ------
    CatalogError
        When the file cannot be read as the format it should have.
    """
    start = _start(path)
    table_format = section.format or guess_format(path, section)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(path, table_format, section, start)
    except CatalogError:
        raise
    except READ_ERRORS as error:
        raise CatalogError(
            f"cannot be read as {table_format}: {_first_line(error)}", where=path,
            hint="check the file, or set catalog.format in the recipe",
        ) from error


def _read(path: Path, table_format: str, section: CatalogSection, start: bytes) -> Table:
    if table_format == "parquet":
        with pq.ParquetFile(path) as file:
            _refuse_duplicates(file.schema_arrow.names, path)
            return _from_arrow(file.read())
    if table_format == "r":
        return _read_r(path, section)
    if table_format.removeprefix("ascii.") in _UNTYPED:
        return _read_text(path, table_format, section, start)
    return Table.read(path, format=table_format, **_options(table_format, section))


def _read_text(path: Path, table_format: str, section: CatalogSection, start: bytes) -> Table:
    compressed = start.startswith(COMPRESSED)
    if table_format in ("ascii.csv", "csv") and not compressed:
        _refuse_duplicates(_csv_header(path), path)
    options = {"encoding": "utf-8-sig"} if start.startswith(codecs.BOM_UTF8) else {}
    options |= _options(table_format, section)
    table = Table.read(path, format=table_format, **options)
    names = [name for name in _labels(table.colnames, section) if table[name].dtype.kind in "iuf"]
    if names and (compressed or _has_leading_zeros(path)):
        # As numbers, 0003 would have become 3. Only astropy's slow reader (a tenth of the speed) can be told.
        as_text = {name: [convert_numpy(str)] for name in names}
        table = Table.read(path, format=table_format, converters=as_text, **options)
    return table


def _labels(names: list[str], section: CatalogSection) -> list[str]:
    """Return the columns of `names` that label rows: identifier and field."""
    chosen = [name for name in (section.id.column, section.field.column) if name is not None]
    named = [names[name - 1] if isinstance(name, int) and 1 <= name <= len(names) else name for name in chosen]
    return [name for name in named if name in names]


def _has_leading_zeros(path: Path) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return re.search(rb"(?<![0-9.eE+-])0[0-9]", data) is not None


def guess_format(path: Path, section: CatalogSection) -> str:
    """Tell the format from the file name; columns by number mean a text table without header."""
    name = path.name.lower()
    endings = (suffix for suffix in sorted(SUFFIX_FORMATS, key=len, reverse=True) if name.endswith(suffix))
    known = SUFFIX_FORMATS.get(next(endings, ""))
    if isinstance(section.id.column, int) and known in (None, "ascii.csv"):
        return "ascii.no_header"
    return known or ("r" if _has_row_names(path) else "ascii")


def column(table: Table, name: str | int, *, key: str, where: object) -> Any:
    """Return a column (row,) by name or 1-based number.

    Raises
    ------
    CatalogError
        Naming the recipe `key`, and the nearest existing column; or when a row holds several values.
    """
    if isinstance(name, int):
        if not 1 <= name <= len(table.columns):
            raise CatalogError(f"no column number {name} for {key}, there are {len(table.columns)}", where=where)
        name = table.colnames[name - 1]
    elif name not in table.colnames:
        raise CatalogError(f"no column {name!r} for {key}", where=where, hint=suggest(name, table.colnames))
    found = table[name]
    if not hasattr(found, "dtype") or found.dtype.kind not in "fiubSUO":
        raise CatalogError(f"column {name!r} for {key} holds neither numbers nor text", where=where)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise CatalogError(f"column {name!r} for {key} holds {found.shape[1:]} values a row, not one", where=where)
    return found


def _options(table_format: str, section: CatalogSection) -> dict[str, Any]:
    if section.hdu is None:
        return {}
    if table_format == "fits":
        return {"hdu": section.hdu}
    if table_format == "votable":
        return {"table_id": section.hdu}
    if table_format == "hdf5":
        return {"path": section.hdu}
    raise CatalogError(f"catalog.hdu does not apply to the format {table_format}")


def _start(path: Path) -> bytes:
    """Return the first bytes of a file that may be a table."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=path) from error
    if not start.strip():
        raise CatalogError("the file is empty", where=path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise CatalogError("is a web page, not a table", where=path, hint="download it again")
    return start


def _refuse_duplicates(names: Iterable[str], path: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise CatalogError(f"has more than one column {repeated[0]!r}", where=path, hint="rename one of them")


def _csv_header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next((row for row in csv.reader(file) if row), [])]


def _from_arrow(table: pa.Table) -> Table:
    """Return an Arrow table as an astropy table: integers stay integers where cells are null, units are kept."""
    columns = []
    for field, cells in zip(table.schema, table.columns, strict=True):
        unit = (field.metadata or {}).get(b"unit", b"").decode() or None
        null = cells.is_null().to_numpy()
        kind = MaskedColumn if null.any() else Column
        masks = {"mask": null} if null.any() else {}
        columns.append(kind(_arrow_cells(cells), name=field.name, unit=unit, **masks))
    return Table(columns)


def _arrow_cells(cells: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type):
        return cells.fill_null(0 if pa.types.is_integer(cells.type) else False).to_numpy()
    if pa.types.is_floating(cells.type):
        return cells.to_numpy()
    if pa.types.is_decimal(cells.type):
        return cells.cast(pa.float64()).to_numpy()
    if pa.types.is_nested(cells.type):
        return np.array([str(cell) for cell in cells.to_pylist()], dtype=object)
    return cells.cast(pa.string()).to_numpy()


def _read_r(path: Path, section: CatalogSection) -> Table:
    """Read what R's write.table leaves; numbers exactly, which pandas does not by default."""
    with open(path, encoding="utf-8") as file:
        names = _words(file.readline())
    _refuse_duplicates(names, path)
    frame = pd.read_csv(path, sep=r"\s+", quotechar='"', na_values=["NA"], keep_default_na=False,
                        float_precision="round_trip", dtype_backend="pyarrow",
                        dtype=dict.fromkeys(_labels(names, section), "string[pyarrow]"))
    return _from_arrow(pa.Table.from_pandas(frame, preserve_index=False))


def _has_row_names(path: Path) -> bool:
    """Tell whether a text table is as R's write.table leaves it: a header one name short, all quoted."""
    try:
        with open(path, encoding="utf-8") as file:
            header, row = file.readline(), file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return header.startswith('"') and len(_words(row)) == len(_words(header)) + 1


def _words(line: str) -> list[str]:
    # Split at white space, but not within double quotes.
    return next(csv.reader([" ".join(line.split())], delimiter=" "), [])


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" *")]
    text = lines[0].split(" with the guesses")[0] if lines else type(error).__name__
    return text[:200]
