"""CSV files that leave nothing to guess, read by Arrow to the cells that astropy's reader gives.

astropy takes almost a second to import, and ten times as long for a row. What is not plain, or what the two might read
in different ways, is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from catmorph.sources.arrow import number_array, numbers_of
from catmorph.sources.light import Column, LightTable, column_of, text_column

_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.()/+-]*")
_NO_NAMES = (b"nan", b"inf", b"infinity")
"""Numbers to astropy, which takes a header with one for a row."""
_QUOTES_AND_BLANK_LINES = (b'"', b"\n\n", b"\n\r")
_HEXADECIMAL = (b"0x", b"0X")
_PADDING = (b", ", b" ,", b"\n ", b" \n", b" \r", b",\t", b"\t,", b"\n\t", b"\t\n", b"\t\r")
_SPACES = (b" ", b"\t")
_BLOCK = 1 << 20
_AHEAD = 1 << 16
"""Bytes that Arrow reads at a time: it reads 32 times as many ahead (with 256 kB 20 MB more, and no faster)."""
_LETTERS = bytes(ord("0" if letter == "0" else "1" if letter in "123456789" else "." if letter in ".eE+-" else ",")
                 for letter in map(chr, range(256)))
_LEADING_ZERO = (b",00", b",01")
"""In a file whose bytes are translated by `_LETTERS`; a regular expression takes eight times as long."""
_FAR_SPACES = (*(space.encode() for space in "\x85\xa0\u1680\u205f\u3000"), b"\xe2\x80")
"""White space beyond ASCII: astropy's readers disagree on it. The last begins all between U+2000 and U+203F."""
_ZERO_OR_NAN = r"(?i)\A[+-]?([0.]+|nan)\z"
_INTEGER = r"\A[+-]?[0-9]+\z"
_MAYBE_NUMBER = r"(?is)\A[+-]?(0x.*|[\p{Nd}._]+([edq][+-]?[\p{Nd}_]*)?|[\p{Nd}.]+[+-]\p{Nd}*|inf.*|nan.*)\z"
"""What a reader might take for a number, be it one or not."""
_MOST = 1e18
"""Integers from here on may not fit into 64 bits; they are text to astropy."""
_LEAST = float(np.finfo(np.float64).tiny)


Types = dict[str, pa.DataType | None]
"""What the columns of a file hold, by name, in order; None for one that is not read."""
_Choice = Callable[[list[str]], Collection[str]]


class _OddError(Exception):
    """A column that is not plain."""


def read_plain_csv(path: Path, labels: _Choice) -> LightTable | None:
    """Read a CSV file, or return None where it is not plain.

    Plain is: UTF-8 without a mark of it, a name for each column, as many cells in each row, and no quotes, padding
    or blank lines. Integers become int64, other numbers float64; empty cells are masked.

    Parameters
    ----------
    labels : callable
        Names of all columns -> those that label rows. In a file with leading zeros they are text.
    """
    types = plain_types(path, labels)
    if types is None:
        return None
    with pa.OSFile(str(path)) as file:
        return _light(csv.read_csv(file, **_options(types)), types)


def plain_types(path: Path, labels: _Choice, asked: _Choice = list) -> Types | None:
    """Return the names of a CSV file's columns and what they hold; None where it is not plain. See `read_plain_csv`.

    Parameters
    ----------
    asked : callable
        Names of all columns -> those to be read, among them those that label rows; the others have None for a type.
    """
    # Not through a memory map: a file that cannot be read to its end would kill the process.
    with open(path, "rb") as file:
        header = file.readline()
        names = plain_names(header)
        if names is None or not file.peek(1) or not all(_is_plain(lines, header) for lines in _lines(file)):
            return None
        try:
            types = _types(path, names, asked(names) or names)
        except (_OddError, pa.ArrowInvalid, UnicodeError):
            return None
        numeric = [name for name in labels(names) if types[name] != pa.string()]
        file.seek(0)
        if numeric and any(_has_leading_zero(lines) for lines in _lines(file)):
            types |= dict.fromkeys(numeric, pa.string())
    return types


def plain_blocks(path: Path, types: Types, rows: int) -> Iterator[LightTable]:
    """Yield the rows of a CSV file with the columns of `plain_types`, not many more than `rows` at a time."""
    held: list[pa.RecordBatch] = []
    for batch in _batches(path, types):
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield _light(pa.Table.from_batches(held), types)
            held = []
    if held:
        yield _light(pa.Table.from_batches(held), types)


def plain_names(header: bytes) -> list[str] | None:
    """Return the names in the first line of a plain CSV file; None where it is not one."""
    names = header.removesuffix(b"\n").removesuffix(b"\r").split(b",")
    plain = all(_NAME.fullmatch(name) and name.lower() not in _NO_NAMES for name in names)
    # Of one column astropy wonders whether it is one.
    return [name.decode() for name in names] if plain and len(set(names)) == len(names) > 1 else None


def _lines(file: BufferedReader) -> Iterator[bytes]:
    """Yield the lines from here on, a megabyte of whole ones at a time."""
    while lines := file.read(_BLOCK):
        yield lines + file.readline()


def _is_plain(lines: bytes, header: bytes) -> bool:
    if lines[:1] in (b"\n", b"\r", *_SPACES) or lines[-1:] in _SPACES:
        return False
    if any(odd in lines for odd in (*_QUOTES_AND_BLANK_LINES, *_HEXADECIMAL)):
        return False
    if any(space in lines for space in _SPACES) and any(padding in lines for padding in _PADDING):
        return False
    if not lines.isascii() and any(space in lines for space in _FAR_SPACES):
        return False
    ends, returns = lines.count(b"\n"), lines.count(b"\r")
    if header.endswith(b"\r\n"):
        if not ends == returns == lines.count(b"\r\n"):
            return False
    elif returns:
        return False
    return int((np.frombuffer(lines, np.uint8) < 32).sum()) == ends + returns + lines.count(b"\t")


def _has_leading_zero(lines: bytes) -> bool:
    letters = b"," + lines.translate(_LETTERS)
    return any(zero in letters for zero in _LEADING_ZERO)


def _options(types: Types) -> dict[str, Any]:
    read = {name: kind for name, kind in types.items() if kind is not None}
    return {
        "read_options": csv.ReadOptions(column_names=list(types), skip_rows=1, block_size=_AHEAD),
        "parse_options": csv.ParseOptions(quote_char=False, double_quote=False),
        "convert_options": csv.ConvertOptions(column_types=read, include_columns=list(read), strings_can_be_null=True,
                                              null_values=[""]),
    }  # fmt: skip


def _batches(path: Path, types: Types) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file, csv.open_csv(file, **_options(types)) as batches:
        yield from batches


def _light(cells: pa.Table, names: Iterable[str]) -> LightTable:
    made = {name: partial(_column, one) for name, one in zip(cells.schema.names, cells.columns, strict=True)}
    return LightTable({name: made.get(name) for name in names}, cells.num_rows)


def _column(cells: pa.Array | pa.ChunkedArray) -> Column:
    return text_column(cells) if cells.type == pa.string() else column_of(*numbers_of(cells))


def _types(path: Path, names: list[str], chosen: Collection[str]) -> Types:
    """Return what each of the chosen columns holds: int64 or float64 where all its cells are that, else text.

    Raises
    ------
    _OddError
        Where readers do not agree on that.
    """
    seen = {name: _Seen() for name in names if name in chosen}
    for batch in _batches(path, {name: pa.string() if name in seen else None for name in names}):
        for one, cells in zip(seen.values(), batch.columns, strict=True):
            one.add(cells)
    return {name: seen[name].type() if name in seen else None for name in names}


class _Seen:
    """What the cells of a column so far are.

    Attributes
    ----------
    integers, floats, numbers : bool
        Whether all of them are integers, are floats, and may be numbers to some reader.
    safe : bool
        Whether any reader makes the same floats of them.
    whole : bool
        Whether all of them are written as integers, be they too large for one.
    """

    def __init__(self) -> None:
        self.integers = self.floats = self.numbers = self.safe = self.whole = True

    def add(self, cells: pa.Array) -> None:
        """Look at more cells, as text."""
        if self.integers:
            try:
                self._add_integers(numbers_of(cells.cast(pa.int64()))[0])
                return
            except pa.ArrowInvalid:
                self.integers = False
        if not self.numbers:
            return
        try:
            data, missing = numbers_of(cells.cast(pa.float64()))
        except pa.ArrowInvalid:
            self.floats, self.numbers = False, _all(_MAYBE_NUMBER, cells)
            return
        data = np.where(missing, 0.0, data)
        self.safe = self.safe and _is_safe(data, cells)
        self.whole = self.whole and bool((data == np.floor(data)).all()) and _all(_INTEGER, cells)

    def _add_integers(self, data: np.ndarray) -> None:
        # As floats they would be among those that are not safe; the least integer has no absolute value.
        self.safe = self.safe and not ((data >= _MOST) | (data <= -_MOST)).any()

    def type(self) -> pa.DataType:
        """Return the type of the column."""
        if self.integers:
            return pa.int64()
        if not self.numbers:
            return pa.string()
        if not self.floats or not self.safe or self.whole:
            raise _OddError
        return pa.float64()


def _is_safe(data: np.ndarray, cells: pa.Array) -> bool:
    """Return whether floats (row,) are what any reader makes of them: in range; zero or NaN only where written so."""
    size = np.abs(data)
    if (size >= _MOST).any() or ((size < _LEAST) & (size > 0)).any():
        return False
    # Of 1e-400 nothing is left, which astropy tells from zero; and to Arrow nan(1) is NaN.
    return _all(_ZERO_OR_NAN, cells.take(number_array(np.flatnonzero((size == 0) | np.isnan(size)))))


def _all(expression: str, cells: pa.Array) -> bool:
    """Return whether all cells that are there match."""
    return bool(pc.all(pc.match_substring_regex(cells, expression), min_count=0).as_py())
