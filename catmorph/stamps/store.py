"""Shards: one HDF5 file for the stamps of one chunk in one view. See docs/formats.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.lifetime import undisturbed
from catmorph.stamps import compiled
from catmorph.stamps.sink import Sink

SHARD_FORMAT = 1
TOP_FIRST = "top_first"
"""Attribute of shards whose stamps all have their top row first, else a dataset; without either none has."""

_CHECKSUM = 4
"""Bytes that HDF5's Fletcher-32 filter puts behind a block, the lowest first."""

STAMPS_A_CHUNK = 32
"""Stamps in an HDF5 chunk: chunks of 1 write a third as fast; larger ones read more than is asked for."""


@dataclass(frozen=True)
class ShardContent:
    """What a shard holds: n sources of a chunk, of which m have pixels.

    Attributes
    ----------
    ids : list of str (n)
    flags : uint32 array (n,)
        Bits of `catmorph.quality.Flag`.
    rows : int32 array (n,)
        Index into `stamps`, -1 where there are no pixels.
    bad_fraction, signal : float32 array (n,)
    centre : float64 array (n, channel, 2)
        Mosaic pixel x, y (0-based centres) under the stamp's centre.
    pixel_scale : float32 array (n, channel)
        Side of a mosaic pixel in arcsec.
    mosaic : int16 array (n, channel)
        Index into `mosaics`, -1 for none.
    stamps : float32 array (m, channel, y, x)
        NaN where invalid.
    mosaics : list of str
        File names.
    axes : float64 array (n, 2, 2), optional
        Arcsec towards (east, north) a stamp pixel along (x, y); NaN where there are no pixels. None: the stamps
        are not from the sky's places.
    top_first : bool array (m, channel), optional
        Whether the first row of pixels is the top one, see `catmorph.stamps.upright`. None: the last is, everywhere.
    """

    ids: list[str]
    flags: np.ndarray
    rows: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    centre: np.ndarray
    pixel_scale: np.ndarray
    mosaic: np.ndarray
    stamps: np.ndarray
    mosaics: list[str]
    axes: np.ndarray | None = None
    top_first: np.ndarray | None = None

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return stamps (row, channel, y, x) float32 by their `rows`, as `Shard.read` does."""
        return self.stamps[rows]


_COLUMNS = ("flags", "rows", "bad_fraction", "signal", "centre", "pixel_scale", "mosaic")


class Shard:
    """An open shard; the columns of `ShardContent` are attributes, pixels are read on demand."""

    def __init__(self, file: h5py.File, path: Path):
        self._file, self._path = file, path
        self.attributes: dict[str, Any] = json.loads(file.attrs["catmorph"])
        self.ids = [text.decode() for text in file["id"][:]]
        self.mosaics: list[str] = self.attributes["mosaics"]
        for name in _COLUMNS:
            setattr(self, name, file[name][:])
        self.axes = file["axes"][:] if "axes" in file else None
        # Most shards hold files of one kind, of which the attribute says enough.
        every = np.full(file["stamps"].shape[:2], bool(self.attributes.get(TOP_FIRST)))
        self.top_first: np.ndarray = file[TOP_FIRST][:].astype(bool) if TOP_FIRST in file else every

    flags: np.ndarray
    rows: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    centre: np.ndarray
    pixel_scale: np.ndarray
    mosaic: np.ndarray
    axes: np.ndarray | None

    def read(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return stamps (row, channel, y, x) float32 by their `rows` (indices into the stamps, or a slice)."""
        try:
            if isinstance(rows, slice):
                return self._file["stamps"][rows]
            rows = np.asarray(rows)
            order = np.unique(rows)
            return self._file["stamps"][order][np.searchsorted(order, rows)]
        except OSError as error:
            raise damaged(self._path, error) from error


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard for reading.

    Raises
    ------
    CatmorphError
        When it is missing or damaged.
    """
    if not path.exists():
        raise CatmorphError("there are no stamps", where=path, hint="run `catmorph cutouts`")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise damaged(path, error) from error
    with file:
        try:
            shard = Shard(file, path)
        except (OSError, KeyError, ValueError) as error:
            raise damaged(path, error) from error
        yield shard


def damaged(path: Path, error: Exception) -> CatmorphError:
    """Return the one-line error for a shard that cannot be read."""
    return CatmorphError(f"is damaged: {error}", where=path, hint="delete it and run `catmorph cutouts`")


def write_shard(path: Path, content: ShardContent, attributes: Mapping[str, Any]) -> None:
    """Write a shard, whole or not at all, with a checksum on every block; same content, same bytes."""
    every = {TOP_FIRST: True} if content.top_first is not None and content.top_first.all() else {}
    text = json.dumps({"format": SHARD_FORMAT, "mosaics": content.mosaics, **attributes, **every}, sort_keys=True)
    with atomic(path) as temporary, closing(Sink(temporary)) as sink:
        with undisturbed(), h5py.File(sink, "w", libver=("v110", "v110")) as file:
            file.attrs["catmorph"] = text
            _write_columns(file, content)
            _write_stamps(file, content.stamps)
        sink.check()


def _write_columns(file: h5py.File, content: ShardContent) -> None:
    ids = np.array([identifier.encode() for identifier in content.ids], dtype=bytes)
    columns = {"id": ids if len(ids) else np.empty(0, "S1"), **{name: getattr(content, name) for name in _COLUMNS}}
    if content.axes is not None:
        columns["axes"] = content.axes
    if content.top_first is not None and not content.top_first.all():
        columns[TOP_FIRST] = content.top_first.astype(np.uint8)
    for name, values in columns.items():
        _write(file, name, values, values.shape if values.size else None)


def _write_stamps(file: h5py.File, stamps: np.ndarray) -> None:
    """Write the stamps in blocks; their checksums by compiled code, in a fifth of the time that HDF5 takes."""
    chunks = (min(STAMPS_A_CHUNK, len(stamps)), *stamps.shape[1:])
    if compiled.kernel is None or not stamps.size:
        _write(file, "stamps", stamps, chunks if stamps.size else None)
        return
    dataset = file.create_dataset("stamps", stamps.shape, stamps.dtype, chunks=chunks, fletcher32=True)
    block = np.zeros(int(np.prod(chunks)) * stamps.itemsize + _CHECKSUM, np.uint8)
    pixels = block[:-_CHECKSUM].view(stamps.dtype).reshape(chunks)
    for first in range(0, len(stamps), len(pixels)):
        some = stamps[first : first + len(pixels)]
        pixels[: len(some)], pixels[len(some) :] = some, 0
        block[-_CHECKSUM:].view("<u4")[0] = compiled.kernel.fletcher32(pixels)
        dataset.id.write_direct_chunk((first, 0, 0, 0), block)
    dataset.id.close()


def _write(file: h5py.File, name: str, values: np.ndarray, chunks: tuple[int, ...] | None) -> None:
    dataset = file.create_dataset(name, data=values, chunks=chunks, fletcher32=chunks is not None)
    # What is open is written later, elsewhere in the file: whoever looks at the frames of this thread (a profiler, as
    # Dask's workers have) keeps it open.
    dataset.id.close()
