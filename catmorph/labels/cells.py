"""CSV files that people's text goes into: safe in a spreadsheet, whole on disk, and read back row by row."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from catmorph.errors import CatalogError, suggest
from catmorph.files import write_bytes
from catmorph.release.cells import guarded, quoted

_HARMLESS = re.compile(r"[+-][\w.:+-]*", re.ASCII)
_GUARDED = re.compile(r"'+[=+\-@\t\r\n]")


def text_cell(text: object) -> str:
    """Return a CSV cell of any text: in quotes where needed, with an apostrophe before what would be a formula.

    Quotes are also set around ``#``, which begins a comment where label tables are read. Names such as
    ``-30_f160w_5`` stay as they are: of letters, digits, signs and ``_ . :`` alone, no formula can do anything.
    """
    plain = str(text).replace("\0", "")
    safe = "'" + plain if _GUARDED.match(plain) else plain if _HARMLESS.fullmatch(plain) else guarded(plain)
    return f'"{safe}"' if "#" in safe and quoted(safe) == safe else quoted(safe)


def plain_cell(text: str) -> str:
    """Return the text that `text_cell` was given: an apostrophe before a formula's first sign is taken off."""
    return text[1:] if _GUARDED.match(text) else text


def number_cell(value: float) -> str:
    """Return the shortest text that reads back as the same number, whole numbers without a point; NaN is blank."""
    if value != value:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file of finished cells, whole or not at all; same rows, same bytes."""
    lines = [",".join(map(text_cell, header)), *(",".join(row) for row in rows)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def refuse_no_file(path: Path) -> None:
    """Raise a CatalogError for a folder, and for a device such as /dev/full, which has no end."""
    if path.is_dir() or path.is_char_device():
        raise CatalogError("is no file", where=path)


def read_rows(path: Path, what: str) -> Iterator[list[str]]:
    """Yield the header and then each row of a CSV file, in UTF-8 with or without a byte order mark.

    Bytes that are not UTF-8 become the replacement character.

    Raises
    ------
    CatalogError
        When there is no such file, it is empty, or a quote is never closed (a download cut off).
    """
    refuse_no_file(path)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from _rows(file, path, what)
    except FileNotFoundError:
        raise CatalogError(f"no such {what}", where=path) from None
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=path) from error


def _rows(file: TextIO, path: Path, what: str) -> Iterator[list[str]]:
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    empty = True
    try:
        for row in reader:
            if row:
                empty = False
                yield row
    except csv.Error as error:
        raise CatalogError(f"is no whole CSV file: {error} (line {reader.line_num})", where=path,
                           hint="download or write it again") from error
    if empty:
        raise CatalogError(f"is empty, not a {what}", where=path)


def find_column(header: Sequence[str], name: str, path: Path, key: str = "") -> int:
    """Return the place of column `name`, which the recipe's `key` names.

    Raises
    ------
    CatalogError
        When it is not there or there twice.
    """
    if header.count(name) > 1:
        raise CatalogError(f"has {header.count(name)} columns {name!r}", where=path)
    if name not in header:
        raise CatalogError(f"has no column {name!r}", where=path,
                           hint=suggest(name, header) + (f"; set {key}" if "." in key else ""))
    return header.index(name)
