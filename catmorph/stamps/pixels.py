"""Windows of FITS images, plain, gzipped or tile-compressed, with invalid pixels as NaN."""

from __future__ import annotations

import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fitsio
import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, FITSFixedWarning, WcsError
from astropy.wcs.utils import wcs_to_celestial_frame

from catmorph.errors import MosaicError, suggest
from catmorph.stamps.mosaics import ImageFiles

Window = Callable[[slice, slice], np.ndarray]
"""Reads rows and columns (y, x) of an image as physical values, in any dtype; the array is the caller's to write on."""

_READ_COST = 20_000
"""A read costs as much as this many pixels that are read one after another: 50 microseconds beside 2.5 ns a pixel."""

_BLOCK = 2880
_GZIP = b"\x1f\x8b"
_READ_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, VerifyError, AttributeError, zlib.error)
_PLAIN_NAME = re.compile(r"[\w./=,@:-]{1,1000}")
"""File names that cfitsio takes literally: [ ] ( ) + * ! # and spaces can be its filters, and it has a limit."""


class Image:
    """One two-dimensional image of a FITS file.

    Parameters
    ----------
    path : str
        The file: plain, ``.gz`` or tile-compressed FITS.
    hdu : int, str or None
        Number or name of the HDU; None takes the first with a two-dimensional image.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns, (ny, nx).
    header : astropy.io.fits.Header

    Raises
    ------
    MosaicError
        When the file is missing, not FITS, truncated, or has no such image.
    """

    def __init__(self, path: str, hdu: int | str | None = None):
        self.path = path
        is_gzip = _check_is_fits(path)
        with read_errors(path, "cannot be read as FITS"), warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            # Raw integers: scaling is done a window at a time, not over the whole image.
            self._file = fits.open(path, memmap=not is_gzip, do_not_scale_image_data=True)
            try:
                index = _image_index(self._file, hdu, path)
                unit = self._file[index]
                self.header = unit.header.copy()
                self.shape: tuple[int, int] = tuple(unit.shape)[-2:]
                if not is_gzip:
                    check_complete(self._file, index, os.path.getsize(path), path)
                offset = None if is_gzip else self._file.fileinfo(index)["datLoc"]
                self._read, self._release = _reader(unit, index, path, offset)
                self._tile = _tile_shape(unit)
            except BaseException:
                self._file.close()
                raise

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (y, x) as native-endian values, physical (scaled), blanks as NaN.

        Raises
        ------
        MosaicError
            When the bytes cannot be read or decompressed.
        """
        with read_errors(self.path, "pixels cannot be read"):
            return self._read(rows, columns)

    def cost(self, first: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Return the work (...) of reading windows from `first` to `past` (..., 2) x, y, in pixels read in a row.

        Of an image in tiles whole ones are read.
        """
        tile = np.array(self._tile[::-1])
        return _READ_COST + ((-(-past // tile) - first // tile) * tile).prod(axis=-1).astype(float)

    def close(self) -> None:
        """Close the file; no window can be read any more."""
        self._release()
        self._read = _closed
        self._file.close()


class Mosaic:
    """A science image with its world coordinates and validity maps.

    Parameters
    ----------
    files : ImageFiles

    Attributes
    ----------
    shape : (int, int)
        Rows and columns, (ny, nx).
    wcs : astropy.wcs.WCS
        The full celestial world coordinate system, distortions included.
    """

    def __init__(self, files: ImageFiles):
        self.files = files
        self._opened: list[Image] = []
        try:
            self._image = self._open(files.image, files.hdu)
            self.shape = self._image.shape
            self.wcs = _celestial_wcs(self._image)
            self._weight = self._map(files.weight, files.weight_hdu)
            self._flag = self._map(files.flag, files.flag_hdu)
        except BaseException:
            self.close()
            raise

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Return science pixels (y, x) as float32, NaN where blank, not finite, unweighted or flagged."""
        pixels = self._image.window(rows, columns)
        with np.errstate(over="ignore"):
            values = pixels.astype(np.float32, copy=False)
            invalid = np.isinf(values)  # NaN is NaN already
            for blank in self.files.blank:
                invalid |= pixels == blank
        if self._weight is not None:
            weight = self._weight.window(rows, columns)
            invalid |= ~(weight > 0) | ~np.isfinite(weight)
        if self._flag is not None:
            invalid |= _is_flagged(self._flag.window(rows, columns), self.files.flag_bits)
        if invalid.any():
            values[invalid] = np.nan
        return values

    def cost(self, first: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Return the work (...) of reading windows of all its maps, see `Image.cost`."""
        return np.sum([image.cost(first, past) for image in self._opened], axis=0)

    def close(self) -> None:
        """Close the files."""
        for image in self._opened:
            image.close()

    def _open(self, path: str, hdu: int | str | None) -> Image:
        image = Image(path, hdu)
        self._opened.append(image)
        return image

    def _map(self, path: str | None, hdu: int | str | None) -> Image | None:
        if path is None:
            return None
        image = self._open(path, hdu)
        if image.shape != self.shape:
            raise MosaicError(f"has shape {image.shape}, its mosaic {self.shape}", where=path)
        return image


def _is_flagged(flags: np.ndarray, bits: int | None) -> np.ndarray:
    """Return where `flags` (integers, perhaps stored as floats; NaN is no flag) have one of `bits` set."""
    if flags.dtype.kind == "f":
        flags = np.nan_to_num(flags, posinf=0, neginf=0).astype(np.int64)
    if bits is None:
        return flags != 0
    # The highest bit of signed integers is their sign.
    unsigned = flags.astype(f"u{flags.dtype.itemsize}")
    return (unsigned & unsigned.dtype.type(bits & np.iinfo(unsigned.dtype).max)) != 0


@contextmanager
def read_errors(path: str, what: str) -> Iterator[None]:
    """Turn what astropy, fitsio and zlib raise on bad bytes into a `MosaicError`."""
    try:
        yield
    except MosaicError:
        raise
    except _READ_ERRORS as error:
        raise MosaicError(f"{what}: {_first_line(error)}", where=path) from error
    except Exception as error:
        # astropy's decompressors raise a class of their own, which has no public name.
        if type(error).__name__ != "CfitsioException":
            raise
        raise MosaicError(f"{what}: {_first_line(error)}", where=path) from error


def _closed(rows: slice, columns: slice) -> np.ndarray:
    raise ValueError("the image is closed")


def _check_is_fits(path: str) -> bool:
    """Refuse what is not FITS by its first bytes; return whether the file is gzipped."""
    try:
        # Opening a named pipe would wait for ever; opening a folder says what it is.
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise MosaicError("is no file, but a pipe or a device", where=path, hint="check mosaics.pattern")
        with open(path, "rb") as file:
            start = file.read(80)
    except OSError as error:
        raise MosaicError(f"cannot be opened: {error.strerror}", where=path) from error
    if not start:
        raise MosaicError("is empty", where=path)
    if start.startswith(_GZIP):
        return True
    if not start.startswith(b"SIMPLE  ="):
        lowered = start.lstrip().lower()
        what = "a web page saved under a FITS name" if lowered.startswith((b"<!doctype", b"<html")) else "not FITS"
        raise MosaicError(f"is {what}", where=path, hint="download it again")
    return False


def _image_index(file: fits.HDUList, hdu: int | str | None, path: str) -> int:
    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
    images = [i for i, unit in enumerate(file) if isinstance(unit, kinds) and len(unit.shape) >= 2]
    if hdu is None:
        for index in images:
            if _is_flat(file[index]):
                return index
        raise MosaicError("has no two-dimensional image", where=path)
    try:
        index = file.index_of(hdu)
        unit = file[index]
    except (KeyError, IndexError):
        names = [unit.name or str(i) for i, unit in enumerate(file)]
        raise MosaicError(f"has no HDU {hdu!r}", where=path, hint=suggest(hdu, names)) from None
    if not isinstance(unit, kinds) or not unit.shape or not _is_flat(unit):
        raise MosaicError(f"HDU {hdu!r} is no two-dimensional image", where=path)
    return index


def _is_flat(unit: Any) -> bool:
    shape = unit.shape
    return len(shape) >= 2 and all(length == 1 for length in shape[:-2]) and min(shape[-2:]) > 0


def _reader(unit: Any, index: int, path: str, offset: int | None) -> tuple[Window, Callable[[], None]]:
    """Return the function that reads windows, and the one that lets go of what it holds open."""
    if not isinstance(unit, fits.CompImageHDU):
        if offset is None:
            data = unit.data.reshape(unit.shape[-2:])
            return _plain_reader(unit.header, lambda rows, columns: data[rows, columns].copy()), _nothing
        raw = _RawPixels(path, offset, unit.header["BITPIX"], tuple(unit.shape)[-2:])
        return _plain_reader(unit.header, raw.window), raw.close
    integer_blank = unit.header["BITPIX"] > 0 and ("BLANK" in unit.header or "ZBLANK" in unit.header)
    if integer_blank or len(unit.shape) != 2 or not _is_plain_name(path):
        return _section_reader(unit), _nothing
    file = fitsio.FITS(os.path.abspath(path))
    handle = file[index]

    def read(rows: slice, columns: slice) -> np.ndarray:
        return handle[rows, columns]

    return read, file.close


def _nothing() -> None:
    pass


def _tile_shape(unit: Any) -> tuple[int, int]:
    """Return rows and columns of the tiles in which an HDU is compressed; of plain pixels (1, 1)."""
    if not isinstance(unit, fits.CompImageHDU):
        return 1, 1
    return tuple(unit.tile_shape)[-2:]


def _is_plain_name(path: str) -> bool:
    return _PLAIN_NAME.fullmatch(os.path.abspath(path)) is not None


def check_complete(file: fits.HDUList, index: int, size: int, path: str) -> None:
    """Raise `MosaicError` where the data of an HDU go on beyond the `size` bytes of its file."""
    info, unit = file.fileinfo(index), file[index]
    # The padding of the last block is often missing and does no harm; data that are missing do.
    if isinstance(unit, fits.CompImageHDU):
        data = info["datSpan"] - (_BLOCK - 1)
    else:
        data = abs(unit.header["BITPIX"]) // 8 * int(np.prod(unit.shape))
    needed = info["datLoc"] + data
    if size < needed:
        raise MosaicError(f"is truncated: {size} of at least {needed} bytes", where=path, hint="download it again")


class _RawPixels:
    """The bytes of an uncompressed image, read a row of a window at a time.

    A memory map would end the process (SIGBUS) where a disk fails, or a file is cut short meanwhile.
    """

    def __init__(self, path: str, offset: int, bitpix: int, shape: tuple[int, int]):
        self._path, self._offset, self._shape = path, offset, shape
        self._dtype = np.dtype(f">{'f' if bitpix < 0 else 'u' if bitpix == 8 else 'i'}{abs(bitpix) // 8}")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (y, x) as stored, big-endian."""
        (first, last, _), (left, right, _) = rows.indices(self._shape[0]), columns.indices(self._shape[1])
        height, width, size = max(last - first, 0), max(right - left, 0), self._dtype.itemsize
        line, start = self._shape[1] * size, self._offset + left * size
        pixels = np.empty((height, width), self._dtype)
        if pixels.size:
            lines = pixels.data.cast("B")
            length = width * size
            places = range(start + first * line, start + last * line, line)
            if width == self._shape[1]:
                length, places = length * height, places[:1]
            for number, place in enumerate(places):
                self._fill(lines[number * length : (number + 1) * length], place)
        return pixels

    def _fill(self, part: memoryview, place: int) -> None:
        """Read bytes of the file from `place` on into `part`; the system may read less than asked for at a time."""
        while part:
            count = os.preadv(self._descriptor, [part], place)
            if not count:
                raise MosaicError("has become shorter while it was read", where=self._path)
            part, place = part[count:], place + count

    def close(self) -> None:
        """Close the file, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _plain_reader(header: fits.Header, stored: Window) -> Window:
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    blank = header.get("BLANK") if header["BITPIX"] > 0 else None

    def read(rows: slice, columns: slice) -> np.ndarray:
        raw = stored(rows, columns)
        if not raw.dtype.isnative:
            raw = raw.byteswap(inplace=raw.flags.writeable).view(raw.dtype.newbyteorder("="))
        if scale == 1 and zero == 0 and blank is None:
            return raw
        values = raw * float(scale) + float(zero)
        if blank is not None:
            values[raw == blank] = np.nan
        return values

    return read


def _section_reader(unit: Any) -> Window:
    scale, zero = unit.header.get("BSCALE", 1), unit.header.get("BZERO", 0)
    blank = unit.header.get("BLANK", unit.header.get("ZBLANK")) if unit.header["BITPIX"] > 0 else None
    leading = (0,) * (len(unit.shape) - 2)

    def read(rows: slice, columns: slice) -> np.ndarray:
        raw = np.asarray(unit.section[(*leading, rows, columns)])
        if raw.dtype.kind == "f":
            return raw
        values = raw * float(scale) + float(zero)
        if blank is not None:
            values[raw == blank] = np.nan
        return values

    return read


def _celestial_wcs(image: Image) -> WCS:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(image.header, fobj=image._file)
            celestial = None
            if wcs.has_celestial:
                wcs.wcs.set()
                # Making another one takes a third of the time to open a mosaic.
                celestial = wcs if wcs.naxis == 2 and wcs.wcs.lng == 0 else wcs.celestial
                celestial.wcs.set()
                wcs_to_celestial_frame(celestial)
    except (WcsError, *_READ_ERRORS) as error:
        raise MosaicError(f"has a world coordinate system that cannot be read: {_last_line(error)}",
                          where=image.path) from error
    if celestial is None:
        raise MosaicError("has no celestial world coordinate system (CTYPE1/2 such as RA---TAN, DEC--TAN)",
                          where=image.path, hint="choose another HDU with mosaics.hdu")
    problem = _problem(wcs, celestial)
    if problem:
        raise MosaicError(problem, where=image.path)
    return celestial


def _problem(wcs: WCS, celestial: WCS) -> str | None:
    if {wcs.wcs.lng, wcs.wcs.lat} != {0, 1}:
        return "has its celestial coordinates on other axes than the first two"
    if celestial.wcs.lngtyp not in ("RA", "GLON"):
        # astropy takes ecliptic and planetary coordinates for equatorial ones.
        return (f"has {celestial.wcs.lngtyp}/{celestial.wcs.lattyp} as celestial coordinates; "
                "known are RA/DEC and GLON/GLAT")
    matrix = celestial.pixel_scale_matrix
    if not abs(np.linalg.det(matrix)) > 1e-12 * np.square(matrix).sum():
        return "has a singular CD or PC matrix in its world coordinate system"
    return None


def _first_line(error: BaseException) -> str:
    return _lines(error)[0]


def _last_line(error: BaseException) -> str:
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
