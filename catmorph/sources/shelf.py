"""Rows that wait on disk until all of them are there, and can then be had in any order.

What a survey table comes to may be longer than memory, and its rows are needed by field and by their place on the sky.
The files have no names, so that nothing of them is left however the process ends.
"""

from __future__ import annotations

import os
import resource
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from catmorph.files import TEMPORARY_PREFIX, cannot_write
from catmorph.sources.arrow import long_texts, number_array, numbers_of, text_buffers, texts_of
from catmorph.sources.columns import are_mixed, texts
from catmorph.sources.rows import Cells, Rows, arrow_cells, arrow_type

BLOCK = 1 << 14
"""Rows that are looked at together, a multiple of 8: an eighth of a megabyte a column; twice as many are no faster."""


_FILES = 6
"""A column has up to three, each once more when it is mapped."""
_OTHER_FILES = 256


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of at most `BLOCK` rows, in order, that are `count` rows together."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


class Shelf:
    """Columns of one length by name, in files; rows are added in parts, and read when all are there.

    A column that is numbers in one part, and conditions or text in another, becomes text; numbers get a type that
    holds those of all parts.

    Parameters
    ----------
    folder : Path, optional
        Where the files are; default: where the system has temporary files or, where it has none, in memory.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self._parts: dict[str, _Parts] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._parts)

    def add(self, rows: Rows) -> None:
        """Add rows, with the same columns each time.

        Raises
        ------
        CatmorphError
            When the disk is full.
        """
        if self._parts and not len(rows):
            return
        if not self._count:
            # Of rows before that were none, the types do not count.
            self._parts = {name: _Parts(self._folder) for name in rows.names}
            _allow_files(_FILES * len(rows.names))
        for name, parts in self._parts.items():
            parts.add(rows[name])
        self._count += len(rows)

    def array(self, dtype: Any, count: int | None = None) -> np.ndarray:
        """Return zeros (row,), or (`count`,), in a file of their own.

        Raises
        ------
        CatmorphError
            When the disk is full.
        """
        return _File(self._folder).array(dtype, len(self) if count is None else count)

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of numbers (row,), as it is on disk; what they are where they are missing is not told."""
        return self._column(name).numbers()

    def texts(self, name: str) -> pa.LargeStringArray:
        """Return a column of text (row,), as it is on disk."""
        return self._column(name).texts()

    def type(self, name: str) -> pa.DataType:
        """Return the type of a column in Arrow."""
        return arrow_type(np.empty(0, self._column(name).dtype))

    def take(self, rows: np.ndarray, names: Sequence[str]) -> Rows:
        """Return some columns of some rows, by number."""
        return Rows({name: self._column(name).take(rows) for name in names}, len(rows))

    def table(self, rows: np.ndarray, schema: pa.Schema) -> pa.Table:
        """Return the columns that `schema` names of some rows, by number, as an Arrow table."""
        return pa.table([self._column(field.name).arrow(rows).cast(field.type) for field in schema], schema=schema)

    def _column(self, name: str) -> _Column:
        return self._parts[name].joined()


class _Parts:
    """The cells of a column, those of each type by themselves, and which came when."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._columns: dict[np.dtype, _Column] = {}
        self._came: list[tuple[np.dtype, int]] = []

    def add(self, cells: Cells) -> None:
        dtype = cells.dtype
        self._columns.setdefault(dtype, _Column(self._folder, dtype)).add(cells)
        before = self._came.pop()[1] if self._came and self._came[-1][0] == dtype else 0
        self._came.append((dtype, before + len(cells)))

    def joined(self) -> _Column:
        """Return all cells as one column: text where some are numbers and others are not."""
        if len(self._columns) > 1:
            mixed = are_mixed(self._columns)
            dtype = np.dtype(object) if mixed else np.result_type(*self._columns)
            column = _Column(self._folder, dtype)
            for cells in self._in_order():
                column.add(texts(cells) if mixed else _as_type(cells, dtype))
            self._columns, self._came = {dtype: column}, [(dtype, len(column))]
        return next(iter(self._columns.values()))

    def _in_order(self) -> Iterator[Cells]:
        places = dict.fromkeys(self._columns, 0)
        for dtype, count in self._came:
            for rows in blocks(count):
                yield self._columns[dtype].take(places[dtype] + np.arange(rows.start, rows.stop))
            places[dtype] += count


class _Column:
    """Cells of one type (row,): numbers, or the bytes of texts and where they end; and which cells are missing."""

    def __init__(self, folder: Path | None, dtype: np.dtype):
        self.dtype, self._count = dtype, 0
        self._cells, self._ends, self._missing = (_File(folder) for _ in range(3))
        self._texts: pa.LargeStringArray | None = None

    def __len__(self) -> int:
        return self._count

    def add(self, cells: Cells) -> None:
        if self.dtype == object:
            missing = self._add_texts(cells)
        else:
            self._cells.write(np.ascontiguousarray(np.ma.getdata(cells)))
            missing = np.ma.getmaskarray(cells)
        if missing.any():
            self._missing.write(missing, at=self._count)
        self._count += len(cells)

    def _add_texts(self, cells: np.ndarray) -> np.ndarray:
        array = arrow_cells(cells)
        if not self._count:
            self._ends.write(np.zeros(1, np.int64))
        for data, ends in text_buffers(array):
            self._ends.write(ends + self._cells.size)
            self._cells.write(data)
        return numbers_of(array.is_null())[0]

    def numbers(self) -> np.ndarray:
        return self._cells.array(self.dtype, self._count)

    def texts(self) -> pa.LargeStringArray:
        if self._texts is None:
            data = self._cells.array(np.uint8, self._cells.size)
            self._texts = long_texts(data, self._ends.array(np.int64, self._count + 1), self._valid())
        return self._texts

    def take(self, rows: np.ndarray) -> Cells:
        if self.dtype == object:
            return texts_of(self.texts().take(number_array(rows)))
        data = self.numbers()[rows]
        missing = self._missing.array(np.bool_, self._count)[rows] if self._missing.size else np.ma.nomask
        return np.ma.array(data, mask=missing) if np.any(missing) else data

    def arrow(self, rows: np.ndarray) -> pa.Array:
        return self.texts().take(number_array(rows)) if self.dtype == object else number_array(self.take(rows))

    def _valid(self) -> np.ndarray | None:
        """Return a bit for each row that is not missing; None where all are there."""
        if not self._missing.size:
            return None
        missing = self._missing.array(np.bool_, self._count)
        return np.concatenate([np.packbits(~missing[part], bitorder="little") for part in blocks(self._count)])


def _as_type(cells: Cells, dtype: np.dtype) -> Cells:
    changed = cells.astype(dtype)
    return np.ma.filled(changed, np.nan) if dtype.kind == "f" else changed


def _allow_files(count: int) -> None:
    """Let this process have some more files open, where it may: 1,024 is a usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _File:
    """A file without a name that grows, and then is an array."""

    def __init__(self, folder: Path | None):
        self._folder, self.size = folder, 0
        self._file: IO[bytes] | None = None
        self._array: np.ndarray | None = None

    def write(self, data: np.ndarray, at: int = 0) -> None:
        """Add bytes at the end, or after zeros up to `at`."""
        with self._told():
            file = self._open()
            self._fill(file, at)
            file.write(data.data)
            self.size += data.nbytes

    def array(self, dtype: Any, count: int) -> np.ndarray:
        """Return all as an array (`count`,), with zeros where the file is shorter; nothing is added from here on."""
        if self._array is None:
            if not count:
                return np.zeros(0, dtype)
            with self._told(), self._open() as file:
                self._fill(file, count * np.dtype(dtype).itemsize)
                file.flush()
                self._array = np.memmap(file, dtype, "r+", shape=(count,))
        return self._array

    def _fill(self, file: IO[bytes], size: int) -> None:
        """Write zeros up to a size: where they cannot be, that is told; in what is mapped, it would end the process."""
        for part in blocks(size - self.size):
            file.write(bytes(part.stop - part.start))
        self.size = max(size, self.size)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = _unnamed(self._folder)
            # A column that nobody asks for is closed with the shelf.
            weakref.finalize(self, _close, self._file)
        return self._file

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = Path(tempfile.gettempdir()) if self._folder is None else self._folder
            raise cannot_write(where, error) from error


def _unnamed(folder: Path | None) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder)
    except FileNotFoundError:
        if folder is not None or not hasattr(os, "memfd_create"):
            raise
        return open(os.memfd_create("catmorph"), "w+b")


def _close(file: IO[bytes]) -> None:
    # On a full disk what waits to be written cannot be, which was told.
    with suppress(OSError):
        file.close()
