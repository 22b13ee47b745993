"""Reading survey tables of any format that astropy or Parquet know.

Only what needs astropy imports it: plain CSV and Parquet do without.
"""

from __future__ import annotations

import csv
import lzma
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatalogError, suggest
from catmorph.recipe import CatalogSection
from catmorph.sources.expressions import Expression
from catmorph.sources.light import from_arrow
from catmorph.sources.plain_csv import plain_blocks, plain_types, read_plain_csv

SUFFIX_FORMATS = {
    ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".fits.fz": "fits",
    ".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".tbl": "ascii.ipac", ".mrt": "ascii.mrt",
    ".vot": "votable", ".vo": "votable", ".xml": "votable",
    ".parquet": "parquet", ".pq": "parquet", ".hdf5": "hdf5", ".h5": "hdf5",
}
"""File name ending -> astropy format; other endings are plain text whose layout astropy guesses."""

_CONTROL = frozenset(range(32)) - set(b"\t\r\n\f")
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
READ_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, zlib.error, SyntaxError,
    RecursionError, pa.ArrowException, csv.Error, zipfile.BadZipFile, lzma.LZMAError,
)
"""What astropy's readers raise over broken files (seen by feeding each of them every kind of broken file)."""


def read_table(path: Path, section: CatalogSection) -> Any:
    """Read one survey table, as an astropy table or a `catmorph.sources.light.LightTable`.

    Raises
    ------
    CatalogError
        When the file cannot be read as the format it should have.
    """
    start, table_format = _start(path), _format(path, section)
    with _told(path, table_format, start):
        return _read(path, table_format, section, start)


def read_blocks(path: Path, section: CatalogSection, rows: int) -> Iterator[Any]:
    """Read one survey table as `read_table`, but yield it as tables of its rows, in order; one without rows is one.

    Plain CSV, Parquet and FITS files are never in memory as a whole.

    Parameters
    ----------
    rows : int
        How many rows a table has, about.

    Raises
    ------
    CatalogError
        When the file cannot be read as the format it should have.
    """
    start, table_format = _start(path), _format(path, section)
    tables = _blocks(path, table_format, section, start, rows)
    while True:
        with _told(path, table_format, start):
            table = next(tables, None)
        if table is None:
            return
        yield table


def _format(path: Path, section: CatalogSection) -> str:
    return section.format or guess_format(path, section)


@contextmanager
def _told(path: Path, table_format: str, start: bytes) -> Iterator[None]:
    """Let what readers raise be one line, and their warnings nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CatalogError:
        raise
    except READ_ERRORS as error:
        raise _unreadable(path, table_format, start, error) from error


def _blocks(path: Path, table_format: str, section: CatalogSection, start: bytes, rows: int) -> Iterator[Any]:
    if table_format == "parquet":
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            refuse_duplicates(names, path)
            chosen = _asked(names, section)
            batches = file.iter_batches(rows, columns=chosen) if file.metadata.num_rows else [file.read(columns=chosen)]
            yield from (from_arrow(batch, names) for batch in batches)
        return
    if _may_be_plain(table_format, section, start):
        types = plain_types(path, partial(labels, section=section), partial(_asked, section=section))
        if types is not None:
            yield from plain_blocks(path, types, rows)
            return
    from catmorph.sources.astropy_tables import any_blocks

    yield from any_blocks(path, table_format, section, start, rows)


def _read(path: Path, table_format: str, section: CatalogSection, start: bytes) -> Any:
    if table_format == "parquet":
        with pq.ParquetFile(path) as file:
            refuse_duplicates(file.schema_arrow.names, path)
            return from_arrow(file.read())
    if _may_be_plain(table_format, section, start):
        table = read_plain_csv(path, partial(labels, section=section))
        if table is not None:
            return table
    from catmorph.sources.astropy_tables import read_any

    return read_any(path, table_format, section, start)


def _may_be_plain(table_format: str, section: CatalogSection, start: bytes) -> bool:
    return table_format == "ascii.csv" and section.hdu is None and not start.startswith(COMPRESSED)


def _asked(names: list[str], section: CatalogSection) -> list[str]:
    """Return the columns of `names` that a catalog section names."""
    chosen = {*section.columns.values(), *section.keep}
    for cut in map(Expression, section.cuts):
        chosen |= cut.names | cut.quoted
    return [name for place, name in enumerate(names, start=1) if name in chosen or place in chosen]


def labels(names: list[str], section: CatalogSection) -> list[str]:
    """Return the columns of `names` that label rows: identifier and field."""
    chosen = [name for name in (section.id.column, section.field.column) if name is not None]
    named = [names[name - 1] if isinstance(name, int) and 1 <= name <= len(names) else name for name in chosen]
    return [name for name in named if name in names]


def guess_format(path: Path, section: CatalogSection) -> str:
    """Tell the format from the file name; columns by number mean a text table without header."""
    name = path.name.lower()
    endings = (suffix for suffix in sorted(SUFFIX_FORMATS, key=len, reverse=True) if name.endswith(suffix))
    known = SUFFIX_FORMATS.get(next(endings, ""))
    if isinstance(section.id.column, int) and known in (None, "ascii.csv"):
        return "ascii.no_header"
    return known or ("r" if _has_row_names(path) else "ascii")


def column(table: Any, name: str | int, *, key: str, where: object) -> Any:
    """Return a column (row,) by name or 1-based number.

    Raises
    ------
    CatalogError
        Naming the recipe `key`, and the nearest existing column; or when a row holds several values.
    """
    if isinstance(name, int):
        if not 1 <= name <= len(table.colnames):
            raise CatalogError(f"no column number {name} for {key}, there are {len(table.colnames)}", where=where)
        name = table.colnames[name - 1]
    elif name not in table.colnames:
        hint = _other_separator(table.colnames) or suggest(name, table.colnames)
        raise CatalogError(f"no column {name!r} for {key}", where=where, hint=hint)
    found = table[name]
    if not hasattr(found, "dtype") or found.dtype.kind not in "fiubSUO":
        raise CatalogError(f"column {name!r} for {key} holds neither numbers nor text", where=where)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise CatalogError(f"column {name!r} for {key} holds {found.shape[1:]} values a row, not one", where=where)
    return found


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


def refuse_duplicates(names: Iterable[str], path: Path) -> None:
    """Raise a CatalogError where two columns have one name."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise CatalogError(f"has more than one column {repeated[0]!r}", where=path, hint="rename one of them")


def _has_row_names(path: Path) -> bool:
    """Tell whether a text table is as R's write.table leaves it: a header one name short, all quoted."""
    try:
        with open(path, encoding="utf-8") as file:
            header, row = file.readline(), file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return header.startswith('"') and len(words(row)) == len(words(header)) + 1


def words(line: str) -> list[str]:
    """Split a line at white space, but not within double quotes."""
    return next(csv.reader([" ".join(line.split())], delimiter=" "), [])


def _other_separator(names: list[str]) -> str:
    """Return a hint where the only name of a table is a whole header line; nothing elsewhere."""
    found = next((one for one in ";|\t " if len(names) == 1 and one in names[0]), None)
    if found is None:
        return ""
    cure = "save the table with commas" if found == ";" else "set catalog.format = 'ascii' in the recipe"
    return f"its cells seem to be separated by {found!r}: {cure}"


def _unreadable(path: Path, table_format: str, start: bytes, error: BaseException) -> CatalogError:
    """Return the error for a table that a reader gave up; it tells the line where that can be found out."""
    what, hint = _first_line(error), "check the file, or set catalog.format in the recipe"
    if isinstance(error, UnicodeDecodeError) and (line := _line_beyond_utf8(path)):
        what, hint = f"line {line} is not UTF-8", "convert it, as by iconv -f latin1 -t utf-8"
    elif table_format.removeprefix("ascii.") == "csv" and not start.startswith(COMPRESSED) \
            and (counts := _longer_line(path)):
        line, cells, named = counts
        what, hint = f"line {line} has {cells} cells, the header {named}", "text with commas in it needs quotes"
    elif table_format == "ascii" and "guess" in what:
        what = "none of the formats that are guessed fits all lines"
        hint = "where a row has more or fewer cells than others, catalog.format in the recipe (such as " \
               "'ascii.commented_header') lets that be told"
    return CatalogError(f"cannot be read as {table_format}: {what}", where=path, hint=hint)


def _line_beyond_utf8(path: Path) -> int | None:
    """Return the number of the first line that is not UTF-8, if text at all; else None."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number if set(line).isdisjoint(_CONTROL) else None
    return None


def _longer_line(path: Path) -> tuple[int, int, int] | None:
    """Return of the first row with more cells than the header its line, its cells and those of the header.

    Of a file that Python's csv cannot read either: None.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            named = len(next((row for row in rows if row), []))
            return next(((rows.line_num, len(row), named) for row in rows if len(row) > named), None)
    except (csv.Error, UnicodeError):
        return None


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" *")]
    text = lines[0].split(" with the guesses")[0] if lines else type(error).__name__
    return text[:200]
