"""The planes of an image of one source: JPEG and PNG through Pillow, FITS cut-outs through astropy."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from PIL import Image

from catmorph.errors import MosaicError
from catmorph.quality import Flag
from catmorph.stamps.pixels import check_complete, read_errors

MOST_BYTES = 1 << 28
"""Bytes that an image may have, packed and unpacked: 256 MB."""

MOST_PIXELS = 1 << 26
"""Pixels that an image may have, in all its planes: 67 million."""

_JPEG, _PNG, _GZIP, _FITS = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b", b"SIMPLE  ="
_PNG_DEPTH = 24
"""Byte of a PNG that holds the bits a channel. Pillow turns colours of 16 bits into 8 without a word."""

_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError,
                  OverflowError, MemoryError, struct.error, zlib.error)
_KINDS = {
    "CMYK": "is CMYK, not RGB", "LA": "has an alpha channel", "RGBA": "has an alpha channel",
    "PA": "has an alpha channel", "1": "is black and white, with 1 bit a pixel",
}


class ImageError(Exception):
    """Why an image cannot be used; that will not pass as long as its bytes are the same.

    Attributes
    ----------
    reason : str
    flag : Flag
        BAD_IMAGE, or UNREADABLE where it is damaged.
    """

    def __init__(self, reason: str, flag: Flag = Flag.BAD_IMAGE):
        super().__init__(reason)
        self.reason, self.flag = reason, flag


def decode(data: bytes, hdu: int | str | None = None) -> np.ndarray:
    """Return the planes of an image as stored, told by its bytes, not its name.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG or FITS file; FITS may be gzipped or tile-compressed.
    hdu : int, str or None
        HDU of a FITS file; None takes the first image.

    Returns
    -------
    array (plane, y, x)
        Of JPEG and PNG 8-bit values, one grey plane or red, green, blue, the top row first; a palette is replaced by
        its colours, while EXIF orientation, colour profile and gamma are not looked at. Of FITS the physical values,
        BLANK as NaN, the row with y = 1 first.

    Raises
    ------
    ImageError
        When it is damaged, or of a kind that has no such planes.
    """
    if top_first(data):
        return _picture(data)
    _refuse_other(data)
    return _cube(_unzipped(data) if data.startswith(_GZIP) else data, hdu)


def top_first(data: bytes) -> bool:
    """Whether the first row that `decode` returns is the top one: of JPEG and PNG, not of FITS."""
    return data.startswith((_JPEG, _PNG))


def shape_of(data: bytes, hdu: int | str | None = None) -> tuple[int, int, int]:
    """Return the shape (plane, y, x) that `decode` would return; the pixels of JPEG and PNG are not decoded."""
    if not top_first(data):
        planes, height, width = decode(data, hdu).shape
        return planes, height, width
    with _opened(data) as image:
        width, height = image.size
        return 1 if image.mode == "L" else 3, height, width


def _refuse_other(data: bytes) -> None:
    if not data:
        raise ImageError("is empty", Flag.UNREADABLE)
    if data.startswith((_GZIP, _FITS)):
        return
    lowered = data[:200].lstrip().lower()
    if lowered.startswith((b"<!doctype", b"<html")):
        raise ImageError("is a web page saved under an image's name")
    raise ImageError("is no JPEG, PNG or FITS image")


def _picture(data: bytes) -> np.ndarray:
    with _opened(data) as image:
        image.load()
        pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open a JPEG or PNG of a kind that can be used; what goes wrong within the block is an `ImageError`."""
    if data.startswith(_PNG) and data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10":
        raise ImageError("has 16 bits a channel, not 8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                _refuse_kind(image)
                yield image
    except Image.DecompressionBombError:
        raise ImageError(f"has more than {MOST_PIXELS:,} pixels") from None
    except _PILLOW_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        # What Pillow says of a file in memory names an object.
        text = "not a whole image" if "BytesIO" in text else text
        raise ImageError(f"cannot be decoded: {text}", Flag.UNREADABLE) from error


def _refuse_kind(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ImageError(f"has more than {MOST_PIXELS:,} pixels")
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("holds several pictures (an animation)")
    if image.mode not in ("L", "RGB", "P"):
        raise ImageError(_KINDS.get(image.mode, f"is of the kind {image.mode}, neither 8-bit grey nor RGB"))
    if "transparency" in image.info:
        raise ImageError("has transparent pixels")


def _unzipped(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data, MOST_BYTES + 1)
    except zlib.error as error:
        raise ImageError(f"cannot be unpacked: {error}", Flag.UNREADABLE) from error
    if len(plain) > MOST_BYTES:
        raise ImageError(f"has more than {MOST_BYTES:,} bytes")
    if not unpacker.eof:
        raise ImageError("is truncated", Flag.UNREADABLE)
    if not plain.startswith(_FITS):
        raise ImageError("is no JPEG, PNG or FITS image")
    return plain


def _cube(data: bytes, hdu: int | str | None) -> np.ndarray:
    try:
        with read_errors("", "cannot be read as FITS"), warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(io.BytesIO(data), memmap=False) as file:
                index = _image_index(file, hdu)
                check_complete(file, index, len(data), "")
                values = np.array(file[index].data)
    except MosaicError as error:
        raise ImageError(error.message, Flag.UNREADABLE) from error
    return values.reshape(-1, *values.shape[-2:])


def _image_index(file: fits.HDUList, hdu: int | str | None) -> int:
    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
    if hdu is None:
        index = next((i for i, unit in enumerate(file) if isinstance(unit, kinds) and len(unit.shape) >= 2), None)
        if index is None:
            raise ImageError("has no two-dimensional image")
    else:
        try:
            index = file.index_of(hdu)
            unit = file[index]
        except (KeyError, IndexError):
            raise ImageError(f"has no HDU {hdu!r}") from None
        if not isinstance(unit, kinds) or len(unit.shape) < 2:
            raise ImageError(f"its HDU {hdu!r} is no image")
    shape = file[index].shape
    if min(shape) < 1:
        raise ImageError("has no pixels")
    if sum(length > 1 for length in shape[:-2]) > 1:
        raise ImageError(f"has {len(shape)} axes, not two or three")
    if np.prod(shape, dtype=object) > MOST_PIXELS:
        raise ImageError(f"has more than {MOST_PIXELS:,} pixels")
    return index
