"""`cut_images`: the stamps of a chunk from images of one source each."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from catmorph.patience import patiently
from catmorph.quality import BLOCKING, Flag
from catmorph.sources.archives import Archive, Member
from catmorph.sources.images import LOOSE
from catmorph.stamps.cut import Cut, Placement, cut_stamp
from catmorph.stamps.images import MOST_BYTES, ImageError, decode, top_first
from catmorph.stamps.judge import judge
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.signal import signal_to_noise
from catmorph.stamps.store import ShardContent

if TYPE_CHECKING:
    from catmorph.recipe import ImageSection

_ARCHIVE_ERRORS = (EOFError, zlib.error, ValueError, gzip.BadGzipFile)


@dataclass(frozen=True)
class ImagePlan:
    """What decides the stamps of a chunk of images besides its sources.

    Attributes
    ----------
    files : DataFrame
        The images of the chunk, rows of `catmorph.sources.images.ImageList.frame`.
    index : array (file, source)
        Row of `files` that shows a source, -1 for none; one file, or one a channel.
    planes : tuple of int
        Plane (from 0) of each channel.
    count : int or None
        Planes that every image must have; None: as many as the last of `planes` asks for, or more.
    """

    files: pd.DataFrame
    index: np.ndarray
    planes: tuple[int, ...]
    count: int | None
    section: ImageSection
    stamp: StampSettings

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ImageError` where an image of `shape` (plane, y, x) is not what the recipe says."""
        count, height, width = shape
        size = self.section.size
        if size is not None and (width, height) != tuple(size):
            raise ImageError(f"has {width} x {height} pixels, not {size[0]} x {size[1]}")
        if self.count is not None and count != self.count:
            raise ImageError(f"has {_planes(count)}, not {self.count}")
        if count <= max(self.planes):
            raise ImageError(f"has {_planes(count)}, not at least {max(self.planes) + 1}")


def _planes(count: int) -> str:
    return f"{count} plane{'s' if count > 1 else ''}"


@dataclass(frozen=True)
class Failures:
    """Images that gave no stamp: file and reason. `passing` may be read another time, `lasting` only when changed."""

    passing: list[tuple[str, str]]
    lasting: list[tuple[str, str]]


class ImageReader:
    """Reads the bytes of images: of files, and of members of archives, which stay open meanwhile."""

    def __init__(self) -> None:
        self._archives: dict[str, Archive] = {}

    def read(self, entry: Any) -> bytes:
        """Return the bytes of an image.

        Parameters
        ----------
        entry : named tuple
            A row of `catmorph.sources.images.ImageList.frame`.

        Raises
        ------
        ImageError
            When it is too large, or damaged in its archive.
        OSError
            When the file or archive cannot be read.
        """
        return patiently(lambda: self._file(entry.path) if entry.method == LOOSE else self._member(entry))

    def _file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ImageError(f"has more than {MOST_BYTES:,} bytes")
        return data

    def _member(self, entry: Any) -> bytes:
        if max(entry.size, entry.packed) > MOST_BYTES:
            raise ImageError(f"has more than {MOST_BYTES:,} bytes")
        archive = self._archives.setdefault(entry.path, Archive(entry.path))
        try:
            return archive.read(Member(entry.member, *(getattr(entry, name) for name in Member._fields[1:])))
        except _ARCHIVE_ERRORS as error:
            raise ImageError(f"cannot be read from its archive: {error}", Flag.UNREADABLE) from error

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives.values():
            archive.close()


class _Plane:
    """A plane of a decoded image, in the way `cut_stamp` reads mosaics."""

    def __init__(self, values: np.ndarray):
        self._values = values
        self.shape: tuple[int, int] = values.shape

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (y, x) as float32, NaN where not finite."""
        with np.errstate(over="ignore"):
            pixels = self._values[rows, columns].astype(np.float32)
        if self._values.dtype.kind == "f":
            pixels[~np.isfinite(pixels)] = np.nan
        return pixels


def cut_images(plan: ImagePlan, sources: Mapping[str, np.ndarray]) -> tuple[ShardContent, Failures]:
    """Cut the stamps of a chunk from the middle of its sources' images.

    Parameters
    ----------
    plan : ImagePlan
    sources : mapping
        ``id`` (source,) text; ``size_arcsec`` (source,), NaN where missing.

    Returns
    -------
    ShardContent
        One row a source, pixels for those without a blocking flag; ``centre`` is the middle of the image, and
        ``mosaic`` an index into the folders and archives.
    Failures

    Notes
    -----
    Images are read in the order in which they lie in their archives, each once. A stamp depends on its own image
    and size alone, bit for bit.
    """
    cutter = _Cutter(plan, np.asarray(sources["size_arcsec"], float))
    with closing(ImageReader()) as reader:
        for file, source in _reading_order(plan):
            cutter.add(file, source, reader)
    return cutter.content([str(identifier) for identifier in sources["id"]]), cutter.failures


def _reading_order(plan: ImagePlan) -> list[tuple[int, int]]:
    file, source = np.nonzero(plan.index >= 0)
    rows = plan.index[file, source]
    paths = pd.factorize(plan.files["path"])[0][rows]
    order = np.lexsort((file, source, plan.files["offset"].to_numpy()[rows], paths))
    return list(zip(file[order].tolist(), source[order].tolist(), strict=True))


class _Cutter:
    """Cuts image by image and collects the rows of the shard."""

    def __init__(self, plan: ImagePlan, size_arcsec: np.ndarray):
        self.plan, self.stamp, self.size_arcsec = plan, plan.stamp, size_arcsec
        count, channels = len(size_arcsec), len(plan.planes)
        self.failures = Failures([], [])
        self.flags = np.zeros(count, np.uint32)
        self.missing = np.broadcast_to(plan.index < 0, (channels, count)).T.copy()
        self.bad_fraction = np.full((count, channels), np.nan, np.float32)
        self.signal = np.full((count, channels), np.nan, np.float32)
        self.top_first, self.seen = np.zeros((2, count, channels), bool)
        self.centre = np.full((count, channels, 2), np.nan)
        self.pixel_scale = np.full((count, channels), np.nan, np.float32)
        self.stamps = np.full((count, channels, self.stamp.pixels, self.stamp.pixels), np.nan, np.float32)
        self._files: list[Any] = list(plan.files.itertuples(index=False))
        roots = plan.files["file"].str.partition("/")[0]
        self.root, self.roots = pd.factorize(roots)
        self.mosaic = np.full((count, channels), -1, np.int16)
        self._shape: dict[int, tuple[int, int]] = {}
        self._limit = self.stamp.may_be_missing(channels)
        self.flags[self._lacking()] |= np.uint32(Flag.NO_MOSAIC)

    def _lacking(self) -> np.ndarray:
        """Return which sources lack more bands than may be missing."""
        return np.count_nonzero(self.missing, axis=1) > self._limit

    def add(self, file: int, source: int, reader: ImageReader) -> None:
        """Cut the channels of a source that one file holds; note why where it cannot be."""
        if self.flags[source] & BLOCKING:
            return
        row = int(self.plan.index[file, source])
        name = self._files[row].file
        try:
            data = reader.read(self._files[row])
            planes = decode(data, self.plan.section.hdu)
            self.plan.check(planes.shape)
            self._same_shape(source, planes)
        except ImageError as fault:
            self.flags[source] |= fault.flag
            self.failures.lasting.append((name, fault.reason))
            return
        except OSError as error:
            self.flags[source] |= Flag.UNREADABLE
            self.failures.passing.append((name, f"cannot be opened: {error.strerror or error}"))
            return
        single = len(self.plan.index) == 1
        for channel in range(len(self.plan.planes)) if single else (file,):
            self.top_first[source, channel], self.seen[source, channel] = top_first(data), True
            self._note_place(source, channel, row, planes.shape[1:])
            self._cut(source, channel, planes[self.plan.planes[channel]])

    def _same_shape(self, source: int, planes: np.ndarray) -> None:
        height, width = planes.shape[1:]
        first = self._shape.setdefault(source, (height, width))
        if first != (height, width):
            raise ImageError(f"has {width} x {height} pixels, another band {first[1]} x {first[0]}")

    def _note_place(self, source: int, channel: int, row: int, shape: tuple[int, ...]) -> None:
        self.centre[source, channel] = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        self.pixel_scale[source, channel] = self.plan.section.pixel_scale or np.nan
        self.mosaic[source, channel] = self.root[row] if self.root[row] <= np.iinfo(np.int16).max else -1

    def _side_pixels(self, source: int, shape: tuple[int, ...]) -> float:
        value, unit = self.stamp.side_value, self.stamp.side_unit
        if unit == "image":
            return value * min(shape)
        if unit == "radii":
            value *= float(self.size_arcsec[source])
        return value if unit == "pixels" else value / (self.plan.section.pixel_scale or np.nan)

    def _cut(self, source: int, channel: int, plane: np.ndarray) -> None:
        side = self._side_pixels(source, plane.shape)
        if not self.stamp.min_side_pixels <= side <= self.stamp.max_side_pixels:
            self.flags[source] |= Flag.BAD_SIZE
            return
        step = side / self.stamp.pixels
        x, y = map(float, self.centre[source, channel])
        cut = cut_stamp(_Plane(plane), Placement((x, y), np.diag([step, step]), self.stamp.pixels), self.stamp.resample)
        if self.stamp.values == "flux":
            cut = Cut(cut.pixels * np.float32(step**2), cut.bad_fraction, cut.off_fraction, cut.centre_valid)
        verdict = judge(cut, self.stamp)
        if verdict & Flag.NO_DATA and self._limit:
            self.missing[source, channel] = True
            return
        self.flags[source] |= verdict
        self.stamps[source, channel] = cut.pixels
        self.bad_fraction[source, channel] = cut.bad_fraction
        self.signal[source, channel] = signal_to_noise(cut.pixels)

    def content(self, ids: list[str]) -> ShardContent:
        """Return the shard's content."""
        self.flags[self._lacking() & ((self.flags & np.uint32(BLOCKING)) == 0)] |= np.uint32(Flag.NO_DATA)
        kept = (self.flags & np.uint32(BLOCKING)) == 0
        self.flags[kept & self.missing.any(axis=1)] |= np.uint32(Flag.MISSING_BAND)
        rows = np.full(len(ids), -1, np.int32)
        rows[kept] = np.arange(np.count_nonzero(kept))
        self.bad_fraction[~kept] = self.signal[~kept] = np.nan
        # The largest of the channels, NaN only where all are; fmax knows no warning.
        bad_fraction, signal = (np.fmax.reduce(values, axis=1) for values in (self.bad_fraction, self.signal))
        if self.stamp.min_signal is not None:
            self.flags[kept & ~(signal >= self.stamp.min_signal)] |= np.uint32(Flag.LOW_SIGNAL)
        # A band that has no file is as the others.
        alike = (self.top_first | ~self.seen).all(axis=1, keepdims=True)
        first_rows = np.where(self.seen, self.top_first, alike)[kept]
        return ShardContent(
            ids=ids, flags=self.flags, rows=rows, bad_fraction=bad_fraction, signal=signal,
            centre=self.centre, pixel_scale=self.pixel_scale, mosaic=self.mosaic,
            stamps=self.stamps if kept.all() else self.stamps[kept], mosaics=[str(root) for root in self.roots],
            top_first=first_rows if first_rows.any() else None,
        )
