"""Rows that wait on disk until all of them are there, and can then be had in any order.

What a survey table comes to may be longer than memory, and its rows are needed by field and by their place on the sky.
The files have no names, so that nothing of them is left however the process ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from catmorph.files import TEMPORARY_PREFIX, cannot_write
from catmorph.sources.arrow import long_texts, number_array, numbers_of, text_buffers, texts_of
from catmorph.sources.columns import texts
from catmorph.sources.rows import Cells, Rows, arrow_cells, arrow_type

BLOCK = 1 << 14
"""Rows that are looked at together: an eighth of a megabyte a column; twice as many are no faster, for 15 MB in all."""


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
        Where the files are; default: where the system has temporary files.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._columns: dict[str, list[_Column]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._columns)

    def add(self, rows: Rows) -> None:
        """Add rows, with the same columns each time.

        Raises
        ------
        CatmorphError
            When the disk is full.
        """
        if self._columns and not len(rows):
            return
        for name in rows.names:
            parts, kind = self._columns.setdefault(name, []), rows[name].dtype
            if not self._count:
                # Of rows before that were none, the types do not count.
                parts[:] = [_Column(self._folder, kind)]
            elif parts[-1].dtype != kind:
                parts.append(_Column(self._folder, kind))
            parts[-1].add(rows[name])
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
        parts = self._columns[name]
        if len(parts) > 1:
            parts[:] = [_alike(self._folder, parts)]
        return parts[0]


class _Column:
    """Cells of one type (row,): numbers, or the bytes of texts and where they end; and which cells are missing."""

    def __init__(self, folder: Path, dtype: np.dtype):
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


def _alike(folder: Path, parts: Sequence[_Column]) -> _Column:
    """Return the cells of all parts as one column: text where they are numbers and something else."""
    kinds = {{"O": "text", "b": "condition"}.get(part.dtype.kind, "number") for part in parts}
    dtype = np.dtype(object) if len(kinds) > 1 else np.result_type(*(part.dtype for part in parts))
    column = _Column(folder, dtype)
    for part in parts:
        for rows in blocks(len(part)):
            cells = part.take(np.arange(rows.start, rows.stop))
            column.add(texts(cells) if len(kinds) > 1 else _as_type(cells, dtype))
    return column


def _as_type(cells: Cells, dtype: np.dtype) -> Cells:
    changed = cells.astype(dtype)
    return np.ma.filled(changed, np.nan) if dtype.kind == "f" else changed


class _File:
    """A file without a name that grows, and then is an array."""

    def __init__(self, folder: Path):
        self._folder, self.size = folder, 0
        self._file: IO[bytes] | None = None
        self._array: np.ndarray | None = None

    def write(self, data: np.ndarray, at: int | None = None) -> None:
        """Add bytes at the end, or after zeros up to `at`."""
        with self._told():
            file = self._open()
            if at is not None:
                file.seek(at)
                self.size = at
            file.write(data.data)
            self.size += data.nbytes

    def array(self, dtype: Any, count: int) -> np.ndarray:
        """Return all as an array (`count`,), with zeros where the file is shorter; nothing is added from here on."""
        if self._array is None:
            if not count:
                return np.zeros(0, dtype)
            with self._told(), self._open() as file:
                # Zeros that cannot be written are told; a write to what is mapped would end the process.
                for _ in blocks(count * np.dtype(dtype).itemsize - file.seek(0, os.SEEK_END)):
                    file.write(bytes(BLOCK))
                file.flush()
                self._array = np.memmap(file, dtype, "r+", shape=(count,))
        return self._array

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=self._folder)  # noqa: SIM115
            # A column that nobody asks for is closed with the shelf.
            weakref.finalize(self, self._file.close)
        return self._file

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._folder, error) from error
