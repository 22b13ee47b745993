"""Binary tables of FITS whose columns lie in the file as they are meant; cells are those that astropy's reader gives.

That is a header of simple cards (FITS standard 4.0, sections 4.1 and 7.3) and numpy's view of the rows, for which
astropy takes a second to import. Whatever else a FITS file may hold is left to astropy.
"""

from __future__ import annotations

import mmap
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from catmorph.sources.light import Column, LightTable, column_of

Header = dict[str, Any]

_BLOCK = 2880
_CARD = 80
_MOST_BLOCKS = 4000
"""Of a header; thousands of columns fit."""
_VALUE = re.compile(r"= *(?:'((?:[^']|'')*)'|([TF])|([+-]?[0-9]+)|([+-]?[0-9.]+(?:[ED][+-]?[0-9]+)?)) *(?:/.*)?")
_FORM = re.compile(r"([0-9]*)([LBIJKEDA])")
_TYPES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_ODD_KEYS = ("TSCAL", "TZERO", "TDIM", "THEAP", "ZTABLE", "ZIMAGE", "GROUPS")
"""Scaled, many-dimensional, compressed columns and the like."""
_MIXIN = "SERIALIZED-COLUMNS"
"""In comments of tables whose columns astropy makes into other things."""


class _OddError(Exception):
    """A file that is not plain."""


def read_plain_fits(path: Path) -> LightTable | None:
    """Read the first table of a FITS file, or return None where it is not plain.

    Plain is: a binary table with rows, without scaled, many-dimensional, variable or complex columns. Text comes as
    bytes, conditions as booleans; integers at TNULL, NaN and empty text are masked.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            start, header = _first_table(data)
            kind, columns = _layout(header)
        except _OddError:
            return None
        count = header["NAXIS2"]
        if count < 1 or start + _padded(kind.itemsize * count) > len(data):
            return None
    rows = np.memmap(path, kind, "r", start, (count,))
    return LightTable({name: partial(_column, rows, name, number, header) for name, number in columns.items()}, count)


def plain_fits_names(path: Path) -> list[str] | None:
    """Return the names of the columns of the first table of a FITS file; None where it is not plain."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return list(_layout(_first_table(data)[1])[1])
        except _OddError:
            return None


def _first_table(data: mmap.mmap) -> tuple[int, Header]:
    """Return where the rows of the first table start, and its header."""
    place = 0
    while place < len(data):
        start, header = _header(data, place)
        if header.get("XTENSION", "").rstrip() == "BINTABLE":
            return start, header
        if (place == 0) != (header.get("SIMPLE") is True) or header.get("XTENSION", "IMAGE").rstrip() != "IMAGE":
            raise _OddError
        place = start + _padded(_bytes(header))
    raise _OddError


def _header(data: mmap.mmap, place: int) -> tuple[int, Header]:
    """Return where the header at `place` ends, and its keys with a value."""
    header: Header = {}
    for number in range(_MOST_BLOCKS):
        start = place + number * _BLOCK
        try:
            text = data[start : start + _BLOCK].decode("ascii")
        except UnicodeDecodeError:
            raise _OddError from None
        if len(text) < _BLOCK:
            raise _OddError
        for card in (text[first : first + _CARD] for first in range(0, _BLOCK, _CARD)):
            key, value = card[:8].rstrip(), card[8:]
            if key == "END":
                if text.rpartition("END")[2].strip():
                    raise _OddError
                return start + _BLOCK, header
            if key in ("COMMENT", "HISTORY", "") and _MIXIN not in card:
                continue
            if key == "HIERARCH":
                key, _, value = card.partition("=")
                value = f"={value}"
            if key in header or not value.startswith("= "):
                raise _OddError
            header[key] = _value(value)
    raise _OddError


def _value(text: str) -> Any:
    """Return the value of a card, from its equals sign on, as text, boolean or number; None where it has none."""
    if not text[1:].partition("/")[0].strip():
        return None
    match = _VALUE.fullmatch(text)
    if match is None:
        raise _OddError
    quoted, condition, whole, number = match.groups()
    if quoted is not None:
        return quoted.replace("''", "'").rstrip(" ")
    if condition is not None:
        return condition == "T"
    return int(whole) if whole is not None else float(number.replace("D", "E"))


def _bytes(header: Header) -> int:
    """Return the bytes of the data of an image."""
    sizes = [header.get(f"NAXIS{axis + 1}") for axis in range(_whole(header.get("NAXIS")))]
    count = int(np.prod([_whole(size) for size in sizes], dtype=np.int64)) if sizes else 0
    return abs(_whole(header.get("BITPIX"), least=-64)) // 8 * _whole(header.get("GCOUNT", 1)) * (
        _whole(header.get("PCOUNT", 0)) + count)  # fmt: skip


def _whole(value: Any, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _OddError
    return value


def _padded(count: int) -> int:
    return -(-count // _BLOCK) * _BLOCK


def _layout(header: Header) -> tuple[np.dtype, dict[str, int]]:
    """Return the type of a row, and the names of the columns with their numbers."""
    if any(key.startswith(_ODD_KEYS) or (value is None and key.startswith("T")) for key, value in header.items()):
        raise _OddError
    if header.get("PCOUNT") != 0 or header.get("GCOUNT") != 1:
        raise _OddError
    numbers = range(1, _whole(header.get("TFIELDS"), least=1) + 1)
    names = [_name(header.get(f"TTYPE{number}")) for number in numbers]
    # Names that differ in case alone are one to FITS.
    if len({name.lower() for name in names}) < len(names) or header.get("NAXIS") != 2 or header.get("BITPIX") != 8:
        raise _OddError
    kind = np.dtype([(name, *_cell(header, number)) for name, number in zip(names, numbers, strict=True)])
    _whole(header.get("NAXIS2"))
    if kind.itemsize != header.get("NAXIS1"):
        raise _OddError
    return kind, dict(zip(names, numbers, strict=True))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or value != value.strip():
        raise _OddError
    return value


def _cell(header: Header, number: int) -> tuple[Any, ...]:
    """Return the type of a column's cells, with how many a row has where these are several."""
    form, null, unit = (header.get(f"{key}{number}") for key in ("TFORM", "TNULL", "TUNIT"))
    match = _FORM.fullmatch(form.rstrip()) if isinstance(form, str) else None
    if match is None or match[1] == "0" or not isinstance(unit, str | None) or unit == "":
        raise _OddError
    count, letter = int(match[1] or 1), match[2]
    if f"TNULL{number}" in header and (letter not in "BIJK" or type(null) is not int):
        raise _OddError
    if letter == "A":
        return (f"S{count}",)
    return (_TYPES[letter],) if count == 1 else (_TYPES[letter], (count,))


def _column(rows: np.memmap, name: str, number: int, header: Header) -> Column:
    data = np.asarray(rows[name])
    letter, null = _FORM.fullmatch(header[f"TFORM{number}"].rstrip())[2], header.get(f"TNULL{number}")  # type: ignore[index]
    missing: Any = np.zeros(data.shape, dtype=bool)
    if letter == "L":
        data = data == b"T"
    elif letter == "A":
        missing = data == b""
    elif null is not None:
        missing = data == null
    elif letter in "ED":
        missing = np.isnan(data)
    return column_of(data, missing, header.get(f"TUNIT{number}"), "fits")
