"""Survey tables as astropy reads them, and as R writes them; a module of its own because astropy takes a second."""

from __future__ import annotations

import codecs
import csv
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from astropy.io import fits
from astropy.io.ascii import InconsistentTableError, convert_numpy
from astropy.io.registry import IORegistryError
from astropy.table import Table

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection
from catmorph.sources.light import LightTable, from_arrow
from catmorph.sources.tables import COMPRESSED, labels, refuse_duplicates, words

_PLAIN_FITS = b"SIMPLE  ="
"""How a FITS file begins that is not compressed or in an archive, which astropy reads too."""
_TABLES = (fits.TableHDU, fits.BinTableHDU, fits.GroupsHDU)
_HEAPED = re.compile("[PQ]")
"""In the format of a column whose cells are of various lengths."""
_UNTYPED = ("ascii", "csv", "no_header", "basic", "commented_header", "tab", "fixed_width", "rdb", "sextractor")
"""Text formats that leave it to the reader what is a number."""


def read_any(path: Path, table_format: str, section: CatalogSection, start: bytes) -> Table | LightTable:
    """Read a table that starts with the bytes `start`, of a format that astropy knows, or of R.

    Raises
    ------
    CatalogError
        When it has two columns of one name, or ``catalog.hdu`` has no meaning for it.
    Exception
        One of `catmorph.sources.tables.READ_ERRORS` when it cannot be read.
    """
    try:
        if table_format == "r":
            return _read_r(path, section)
        if table_format.removeprefix("ascii.") in _UNTYPED:
            return _read_text(path, table_format, section, start)
        return Table.read(path, format=table_format, **_options(table_format, section))
    except IORegistryError as error:
        raise ValueError(str(error)) from error


def any_blocks(path: Path, table_format: str, section: CatalogSection, start: bytes, rows: int) -> Iterator[Any]:
    """Yield a table as tables of its rows, `rows` at most, in order; errors as of `read_any`.

    A FITS file is read piece by piece, unless its cells are of various lengths; of other formats the whole table is
    in memory.
    """
    if table_format == "fits" and start.startswith(_PLAIN_FITS):
        with fits.open(path) as hdus:
            place = _place(hdus, section.hdu, path.stat().st_size)
        if place is not None:
            yield from _fits_blocks(path, *place, rows)
            return
    table = read_any(path, table_format, section, start)
    if isinstance(table, LightTable):
        yield table
    else:
        yield from (table[first : first + rows] for first in range(0, len(table), rows) or [0])


def _place(hdus: fits.HDUList, wanted: str | int | None, size: int) -> tuple[fits.Header, int] | None:
    """Return the header of the table that astropy would read of a file of `size` bytes, and where its rows begin.

    None where the table is not one of rows of the same length, all of them there.
    """
    tables = [number for number, one in enumerate(hdus) if isinstance(one, _TABLES)]
    number = hdus.index_of(wanted) if wanted is not None and len(tables) > 1 else next(iter(tables), None)
    table = hdus[number] if number in tables else None
    if not isinstance(table, fits.BinTableHDU) or table.header["PCOUNT"]:
        return None
    header, place, columns = table.header.copy(), table.fileinfo()["datLoc"], table.columns
    if columns.dtype.itemsize != header["NAXIS1"] or any(_HEAPED.search(str(one)) for one in columns.formats):
        return None
    return (header, place) if place + header["NAXIS1"] * header["NAXIS2"] <= size else None


def _fits_blocks(path: Path, header: fits.Header, place: int, rows: int) -> Iterator[Table]:
    count, width = header["NAXIS2"], header["NAXIS1"]
    # Not through a memory map: a file that cannot be read to its end would kill the process.
    with open(path, "rb") as file:
        file.seek(place)
        for start in range(0, count, rows) or [0]:
            header["NAXIS2"] = min(rows, count - start)
            data = header.tostring().encode() + file.read(header["NAXIS2"] * width)
            yield Table.read(fits.BinTableHDU.fromstring(data, character_as_bytes=True, uint=True))


def read_lines(lines: list[str], table_format: str) -> Table:
    """Read the lines of a text table; errors as of `read_any`."""
    try:
        return Table.read(lines, format=table_format)
    except IORegistryError as error:
        raise ValueError(str(error)) from error


def _read_text(path: Path, table_format: str, section: CatalogSection, start: bytes) -> Table:
    compressed = start.startswith(COMPRESSED)
    if table_format in ("ascii.csv", "csv") and not compressed:
        refuse_duplicates(_csv_header(path), path)
    options = {"encoding": "utf-8-sig"} if start.startswith(codecs.BOM_UTF8) else {}
    options |= _options(table_format, section)
    try:
        table = Table.read(path, format=table_format, **options)
    except InconsistentTableError:
        if table_format == "ascii":
            raise
        # That no guess at its separator and quotes fits says less than why the usual ones do not.
        table = Table.read(path, format=table_format, guess=False, **options)
    names = [name for name in labels(table.colnames, section) if table[name].dtype.kind in "iuf"]
    if names and (compressed or _has_leading_zeros(path)):
        # As numbers, 0003 would have become 3. Only astropy's slow reader (a tenth of the speed) can be told.
        as_text = {name: [convert_numpy(str)] for name in names}
        table = Table.read(path, format=table_format, converters=as_text, **options)
    return table


def _has_leading_zeros(path: Path) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return re.search(rb"(?<![0-9.eE+-])0[0-9]", data) is not None


def _csv_header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next((row for row in csv.reader(file) if row), [])]


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


def _read_r(path: Path, section: CatalogSection) -> LightTable:
    """Read what R's write.table leaves; numbers exactly, which pandas does not by default."""
    import pandas as pd

    with open(path, encoding="utf-8") as file:
        names = words(file.readline())
    refuse_duplicates(names, path)
    frame = pd.read_csv(path, sep=r"\s+", quotechar='"', na_values=["NA"], keep_default_na=False,
                        float_precision="round_trip", dtype_backend="pyarrow",
                        dtype=dict.fromkeys(labels(names, section), "string[pyarrow]"))
    return from_arrow(pa.Table.from_pandas(frame, preserve_index=False))
