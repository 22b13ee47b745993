"""Cells between numpy and Arrow, without pandas.

`pyarrow.array`, `pyarrow.scalar` and `Array.to_numpy` import pandas, which takes half a second of processor time: a
third of reading in a small survey table. Arrow's buffers do without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

_MOST_BYTES = 2**31 - 1
"""Of text in one array of strings, whose offsets have 32 bits."""


def missing_texts(cells: np.ndarray) -> np.ndarray:
    """Return where (row,) a column of text, as objects, is None."""
    return np.asarray(cells == None, dtype=bool)  # noqa: E711


def text_array(cells: Iterable[str | None]) -> pa.Array | pa.ChunkedArray:
    """Return text as an Arrow array of strings (row,), chunked where it is longer than one can be; None is null."""
    texts = list(cells)
    missing = np.array([text is None for text in texts]) if None in texts else np.zeros(len(texts), dtype=bool)
    known: list[str] = [text or "" for text in texts] if missing.any() else texts  # type: ignore[assignment]
    joined = "".join(known)
    data = joined.encode()
    if len(data) > _MOST_BYTES and len(texts) > 1:
        half = len(texts) // 2
        parts = [text_array(part) for part in (texts[:half], texts[half:])]
        return pa.chunked_array([chunk for part in parts for chunk in getattr(part, "chunks", [part])])
    # Of ASCII text each letter is a byte.
    sizes = map(len, known if len(data) == len(joined) else [text.encode() for text in known])
    ends = np.zeros(len(texts) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(sizes, np.int32, len(texts)), out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(texts), [_validity(missing), pa.py_buffer(ends), pa.py_buffer(data)])


def number_array(cells: Any) -> pa.Array:
    """Return numbers or booleans (row,) as an Arrow array; masked cells and NaN are null."""
    data, null = np.ascontiguousarray(np.ma.getdata(cells)), np.ma.getmaskarray(cells)
    if data.dtype.kind == "f":
        null = null | np.isnan(data)
    held = np.packbits(data, bitorder="little") if data.dtype.kind == "b" else data
    return pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [_validity(null), pa.py_buffer(held)])


def _validity(null: np.ndarray) -> pa.Buffer | None:
    return pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None


def numbers_of(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers or booleans of Arrow (row,), and where they are null; there they are NaN, zero or false."""
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks == 1:
            return numbers_of(array.chunk(0))
        parts = [numbers_of(chunk) for chunk in array.chunks or [pa.nulls(0, array.type)]]
        return np.concatenate([data for data, _ in parts]), np.concatenate([null for _, null in parts])
    validity, held = array.buffers()
    null = ~_bits(validity, array) if array.null_count else np.zeros(len(array), dtype=bool)
    if pa.types.is_boolean(array.type):
        return _bits(held, array) & ~null, null
    kind = np.dtype(array.type.to_pandas_dtype())
    data = np.frombuffer(held, kind, len(array), array.offset * kind.itemsize) if len(array) else np.zeros(0, kind)
    return np.where(null, kind.type(np.nan if kind.kind == "f" else 0), data) if array.null_count else data, null


def _bits(held: pa.Buffer | None, array: pa.Array) -> np.ndarray:
    if held is None or not len(array):
        return np.ones(len(array), dtype=bool)
    bits = np.unpackbits(np.frombuffer(held, np.uint8), count=array.offset + len(array), bitorder="little")
    return bits[array.offset :].astype(bool)


def texts_of(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return strings of Arrow as objects (row,), None where they are null."""
    return np.array(array.to_pylist(), dtype=object)


def text_buffers(cells: pa.Array | pa.ChunkedArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the bytes of strings of Arrow, one after another, and where in them each ends (row,)."""
    for part in cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]:
        _, ends, data = part.buffers()
        places = np.frombuffer(ends, np.int32, len(part) + 1, 4 * part.offset).astype(np.int64)
        yield np.frombuffer(data or b"", np.uint8)[places[0] : places[-1]], places[1:] - places[0]


def long_texts(data: np.ndarray, ends: np.ndarray, valid: np.ndarray | None) -> pa.LargeStringArray:
    """Return texts (row,) of any length from their bytes and their ends in them (1 + row,), the first of which is 0.

    `valid` has a bit for each that is there, None where all are. Nothing is copied.
    """
    held = [None if valid is None else pa.py_buffer(valid), pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(ends) - 1, held)
