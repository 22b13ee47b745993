"""Binary tables of FITS whose columns lie in the file as they are meant; cells are those that astropy's reader gives.

That is a header of simple cards (FITS standard 4.0, sections 4.1 and 7.3) and numpy's view of the rows, for which
astropy takes a second to import. Whatever else a FITS file may hold is left to astropy.
"""

from __future__ import annotations

import math
import re
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from catmorph.errors import CatalogError
from catmorph.sources.light import Column, LightTable, column_of

Header = dict[str, Any]

_BLOCK = 2880
_CARD = 80
_AT_ONCE = 1 << 22
"""Bytes of rows that are read at a time."""
_MOST_BLOCKS = 4000
"""Of a header; thousands of columns fit."""
_MOST_BYTES = 2**62
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
    with open(path, "rb") as file:
        try:
            start, header = _first_table(file)
            rows = _Rows(path, start, header)
        except _OddError:
            return None
    if rows.count < 1 or start + _padded(rows.kind.itemsize * rows.count) > path.stat().st_size:
        return None
    return LightTable({name: partial(rows.column, name) for name in rows.numbers}, rows.count)


def plain_fits_names(path: Path) -> list[str] | None:
    """Return the names of the columns of the first table of a FITS file; None where it is not plain."""
    with open(path, "rb") as file:
        try:
            return list(_Rows(path, *_first_table(file)).numbers)
        except _OddError:
            return None


class _Rows:
    """The rows of a binary table: where they start, how many there are, of which type, and the numbers of columns."""

    def __init__(self, path: Path, start: int, header: Header):
        self.path, self.start, self.header = path, start, header
        self.kind, self.numbers = _layout(header)
        self.count: int = header["NAXIS2"]

    def column(self, name: str) -> Column:
        """Read a column."""
        data, number = self._read(name), self.numbers[name]
        letter, null = self.header[f"TFORM{number}"].rstrip()[-1], self.header.get(f"TNULL{number}")
        missing: Any = np.zeros(data.shape, dtype=bool)
        if letter == "L":
            data = data == b"T"
        elif letter == "A":
            missing = data == b""
        elif null is not None:
            missing = data == null
        elif letter in "ED":
            missing = np.isnan(data)
        return column_of(data, missing, self.header.get(f"TUNIT{number}"), "fits")

    def _read(self, name: str) -> np.ndarray:
        # Not through a memory map: a file that cannot be read to its end would kill the process.
        data = np.empty(self.count, self.kind[name])
        step = max(1, _AT_ONCE // self.kind.itemsize)
        try:
            with open(self.path, "rb") as file:
                file.seek(self.start)
                for row in range(0, self.count, step):
                    part = data[row : row + step]
                    part[:] = np.frombuffer(file.read(len(part) * self.kind.itemsize), self.kind, len(part))[name]
        except (OSError, ValueError) as error:
            raise CatalogError(f"cannot be read to its end: {error}", where=self.path) from error
        return data


def _first_table(file: BufferedReader) -> tuple[int, Header]:
    """Return where the rows of the first table start, and its header."""
    place = 0
    while True:
        start, header = _header(file, place)
        extension = str(header.get("XTENSION", "IMAGE")).rstrip()
        if extension == "BINTABLE":
            return start, header
        place_after = start + _padded(_bytes(header))
        if (place == 0) != (header.get("SIMPLE") is True) or extension != "IMAGE" or place_after > _MOST_BYTES:
            raise _OddError
        place = place_after


def _header(file: BufferedReader, place: int) -> tuple[int, Header]:
    """Return where the header at `place` ends, and its keys with a value."""
    header: Header = {}
    file.seek(place)
    for number in range(_MOST_BLOCKS):
        try:
            text = file.read(_BLOCK).decode("ascii")
        except UnicodeDecodeError:
            raise _OddError from None
        if len(text) < _BLOCK:
            raise _OddError
        for card in (text[first : first + _CARD] for first in range(0, _BLOCK, _CARD)):
            key, value = card[:8].rstrip(), card[8:]
            if key == "END":
                if text.rpartition("END")[2].strip():
                    raise _OddError
                return place + (number + 1) * _BLOCK, header
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
    count = math.prod(map(_whole, sizes)) if sizes else 0
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
