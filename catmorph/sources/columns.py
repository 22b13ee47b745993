"""Catalog cells to numbers, text, positions and sizes with units; what is wrong with a cell is said, row by row."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.errors import CatalogError
from catmorph.sources.arrow import missing_texts, number_array, numbers_of, text_array, texts_of
from catmorph.sources.rows import Rows

PIXEL_UNITS = ("pixels", "pixel", "pix")
_NO_NUMBERS = ("nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
MISSING_TEXTS = frozenset(("", "na", "null", "none", "--", "n/a", *_NO_NUMBERS))
"""What stands for 'no number' in a text column, in lower case."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eEdD][+-]?[0-9]+)?")
_SEXAGESIMAL = re.compile(r"([+-]?)([0-9]{1,3})[:hd\s]\s*([0-9]{1,2})[:m'\s]\s*([0-9]{1,2}(?:\.[0-9]*)?)[s\"]?")
_EXACT = 2.0**53
_FACTORS = {
    ("deg", "deg"): 1.0, ("arcmin", "deg"): 1 / 60, ("arcsec", "deg"): 1 / 3600,
    ("deg", "arcsec"): 3600.0, ("arcmin", "arcsec"): 60.0, ("arcsec", "arcsec"): 1.0,
}
"""Unit of a column and wanted unit -> factor, to the bit as astropy has it, which takes half a second to import."""

Null = Sequence[float | str]


class Reasons:
    """Why rows are bad: the first reason given for each.

    Parameters
    ----------
    count : int
        Number of rows.

    Attributes
    ----------
    bad : ndarray of bool, shape (row,)
        Which rows have a reason.
    texts : ndarray of object, shape (row,)
        The reasons, None for good rows.
    """

    def __init__(self, count: int):
        self.bad = np.zeros(count, dtype=bool)
        self.texts = np.full(count, None, dtype=object)

    def add(self, bad: np.ndarray, text: str | Callable[[int], str]) -> None:
        """Mark the rows where `bad` holds; `text` is one reason, or gives the reason of a row (0-based)."""
        for row in np.flatnonzero(bad & ~self.bad):
            self.texts[row] = text if isinstance(text, str) else text(int(row))
        self.bad |= bad


def masked(values: Any, null: Null = ()) -> np.ma.MaskedArray:
    """Return a column as numbers, booleans or text (objects), masked where it has no value.

    No value is: a masked cell, NaN, infinity, text without characters, or one of `null`. Text is stripped.
    """
    data = np.asarray(np.ma.getdata(values))
    missing = np.array(np.broadcast_to(np.ma.getmaskarray(np.ma.asarray(values)), data.shape))
    if data.dtype.kind not in "fiub":
        data = _as_text(data)
        missing |= missing_texts(data)
        for text in _null_texts(null):
            missing |= np.asarray(data == text, dtype=bool)
        return np.ma.array(data, mask=missing)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    if data.dtype.kind == "f":
        missing |= ~np.isfinite(data)
    for value in _null_numbers(null):
        # In the column's own precision: a float32 -99.9 is not the float64 one.
        missing |= data == (data.dtype.type(value) if data.dtype.kind == "f" else value)
    return np.ma.array(data, mask=missing)


def _null_numbers(null: Null) -> list[float]:
    return [float(value) for value in null if not isinstance(value, str) or _NUMBER.fullmatch(value)]


def _null_texts(null: Null) -> set[str]:
    texts = {value.strip() for value in null if isinstance(value, str)}
    return texts | {form for value in null if not isinstance(value, str) for form in (str(value), f"{value:.15g}")}


def _as_text(data: np.ndarray) -> np.ndarray:
    """Return cells as stripped text (objects), None where nothing is left."""
    cells = data.tolist()
    if data.dtype.kind == "S":
        cells = [cell.decode("utf-8", "replace") for cell in cells]
    try:
        stripped = [None if cell is None else cell.strip() for cell in cells]
        "".join(filter(None, stripped)).encode()
    except (AttributeError, TypeError, UnicodeError):
        stripped = [_decoded(cell).strip() for cell in cells]
    return np.array([cell or None for cell in stripped], dtype=object)


def _decoded(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    # NaN is not equal to itself.
    missing = cell is None or (isinstance(cell, float) and cell != cell)
    return "" if missing else str(cell).encode("utf-8", "replace").decode("utf-8")


def texts(values: Any, null: Null = ()) -> np.ndarray:
    """Return a column as text (objects, row), None where missing; a float without fraction is written as integer."""
    cells = masked(values, null)
    data, missing = cells.data, np.ma.getmaskarray(cells)
    if data.dtype.kind in "iub":
        data = texts_of(number_array(data).cast(pa.string()))
    elif data.dtype.kind == "f":
        # An identifier that a reader took for a float: 12.0 is "12".
        shortest = (str(cell).removesuffix(".0") if abs(cell) < _EXACT else f"{cell:.0f}" for cell in data.tolist())
        data = np.array(list(shortest), dtype=object)
    return _without(data, missing)


def kept_cells(cells: np.ma.MaskedArray) -> Any:
    """Return cells from `masked` as a column of `Rows`; integers stay integers where some are missing."""
    if cells.dtype.kind == "f":
        return cells.filled(np.nan)
    if cells.dtype.kind == "O":
        return _without(cells.data, np.ma.getmaskarray(cells))
    if cells.dtype == np.uint64 and (cells.data > np.iinfo(np.int64).max).any():
        return texts(cells)
    return cells if cells.dtype.kind == "b" else cells.astype(np.int64)


def make_alike(tables: Sequence[Rows], names: Iterable[str]) -> None:
    """Turn columns that are numbers in one table, and conditions or text in another, into text."""
    for name in names:
        if are_mixed(one[name].dtype for one in tables):
            for one in tables:
                one[name] = texts(one[name])


def are_mixed(dtypes: Iterable[np.dtype]) -> bool:
    """Return whether columns of these types are not all numbers, nor all conditions, nor all text."""
    return len({{"O": "text", "b": "condition"}.get(dtype.kind, "number") for dtype in dtypes}) > 1


def _without(data: np.ndarray, missing: np.ndarray) -> np.ndarray:
    cells = data.astype(object)
    cells[missing] = None
    return cells


def inexact(values: Any) -> np.ndarray:
    """Return where (row,) a float is so large that it may have lost digits of the integer it was."""
    data = np.ma.getdata(values)
    return np.abs(data) >= _EXACT if data.dtype.kind == "f" else np.zeros(len(data), dtype=bool)


def numbers(values: Any, null: Null = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as float64 (row,), NaN where missing, and where a cell is no number, as booleans."""
    cells = masked(values, null)
    missing = np.ma.getmaskarray(cells)
    if cells.dtype.kind in "fiub":
        result, wrong = cells.data.astype(np.float64), np.zeros(len(cells), dtype=bool)
    else:
        result, wrong = _parse(_without(cells.data, missing))
        missing = missing | np.isin(result, _null_numbers(null))
    result[missing | ~np.isfinite(result)] = np.nan
    return result, wrong & ~missing


def _parse(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wrong = np.zeros(len(cells), dtype=bool)
    try:
        parsed, missing = numbers_of(text_array(cells.tolist()).cast(pa.float64()))
    except pa.ArrowInvalid:
        pass  # at least one cell needs a closer look
    else:
        # So does what Arrow has words for: whether it is a number does not depend on the other cells.
        if np.isfinite(parsed[~missing]).all():
            return parsed.copy(), wrong
    result = np.full(len(cells), np.nan)
    for row, text in enumerate(cells):
        if text is None:
            continue
        if _NUMBER.fullmatch(text):
            result[row] = float(text.replace("D", "e").replace("d", "e"))
        else:
            wrong[row] = text.lower() not in MISSING_TEXTS
    return result, wrong


def shown(values: Any, row: int) -> str:
    """Return the cell of a row as it is quoted in messages."""
    text = _decoded(np.ma.getdata(values)[row]).strip()
    return repr(text if len(text) <= 40 else text[:37] + "...")


def angle(values: Any, unit: str | None, null: Null, *, key: str, reasons: Reasons) -> np.ndarray:
    """Return a coordinate column as degrees (row,), NaN where it is bad; bad cells go into `reasons`.

    Parameters
    ----------
    unit : str or None
        A unit astropy knows, ``sexagesimal``, or None for the column's own (degrees without one).
    key : str
        ``ra`` or ``dec``: sexagesimal right ascensions are hours.
    """
    if unit == "sexagesimal":
        return _sexagesimal(texts(values, null), key, reasons)
    degrees, wrong = numbers(values, null)

    def reason(row: int) -> str:
        cell = shown(values, row)
        hint = f" (sexagesimal? set catalog.{key}.unit)" if _SEXAGESIMAL.fullmatch(cell.strip("'\"")) else ""
        return f"{key} is not a number: {cell}{hint}"

    reasons.add(wrong, reason)
    reasons.add(np.isnan(degrees), f"{key} is missing")
    return degrees * _factor(values, unit, "deg", key)


def _sexagesimal(cells: np.ndarray, key: str, reasons: Reasons) -> np.ndarray:
    reasons.add(missing_texts(cells), f"{key} is missing")
    result = np.array([np.nan if text is None else _sexagesimal_degrees(text, key) for text in cells], dtype=float)
    reasons.add(np.isnan(result), lambda row: f"{key} is not sexagesimal: {shown(cells, row)}")
    return result


def _sexagesimal_degrees(text: str, key: str) -> float:
    match = _SEXAGESIMAL.fullmatch(text)
    hours = key == "ra" and not (match and "d" in text)
    if match:
        sign, whole, minutes, seconds = match.groups()
        if float(minutes) > 60 or float(seconds) > 60:
            return np.nan
        value = int(whole) + int(minutes) / 60.0 + float(seconds) / 3600.0
        return (-value if sign == "-" else value) * (15.0 if hours else 1.0)
    # Half a second to import, which cells in the common notations do without; so below.
    from astropy import units as u
    from astropy.coordinates import Angle
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            return float(Angle(text, unit=u.hourangle if hours else u.deg).deg)
    except (ValueError, TypeError, u.UnitsError):
        return np.nan


def radius_arcsec(values: Any, unit: str | None, null: Null, pixel_scale: float | None, reasons: Reasons) -> np.ndarray:
    """Return a size column in arcsec (row,), NaN where missing or not positive (flagged when it is cut)."""
    size, wrong = numbers(values, null)
    reasons.add(wrong, lambda row: f"size is not a number: {shown(values, row)}")
    if (unit or str(getattr(values, "unit", None) or "")) in PIXEL_UNITS:
        if pixel_scale is None:
            raise CatalogError("sizes are in pixels", hint="give catalog.pixel_scale (arcsec a pixel)")
        size = size * pixel_scale
    else:
        size = size * _factor(values, unit, "arcsec", "size")
    size[~(size > 0)] = np.nan
    return size


def _factor(values: Any, unit: str | None, target: str, key: str) -> float:
    own = getattr(values, "unit", None)
    given = unit or (target if own is None else own)
    if (str(given), target) in _FACTORS:
        return _FACTORS[str(given), target]
    from astropy import units as u

    try:
        return float(u.Unit(given).to(target))
    except (ValueError, TypeError, u.UnitConversionError):
        raise CatalogError(
            f"catalog.{key} has unit {str(given)!r}, which is not an angle", hint=f"set catalog.{key}.unit"
        ) from None


def to_icrs(longitude: np.ndarray, latitude: np.ndarray, frame: str, reasons: Reasons) -> tuple[np.ndarray, np.ndarray]:
    """Check ranges and turn positions (row,) in degrees into ICRS right ascension [0, 360) and declination."""
    off = (longitude < -180) | (longitude > 360)
    reasons.add(off, lambda row: f"ra {longitude[row]:g} deg is outside -180..360")
    low = (latitude < -90) | (latitude > 90)
    reasons.add(low, lambda row: f"dec {latitude[row]:g} deg is outside -90..90")
    good = ~(off | low | np.isnan(longitude) | np.isnan(latitude))
    ra, dec = np.full(len(longitude), np.nan), np.full(len(longitude), np.nan)
    if frame == "icrs":
        ra[good], dec[good] = longitude[good] % 360.0, latitude[good]
    elif good.any():
        from astropy import units as u
        from astropy.coordinates import SkyCoord

        position = SkyCoord(longitude[good] * u.deg, latitude[good] * u.deg, frame=frame).icrs
        ra[good], dec[good] = position.ra.deg, position.dec.deg
    ra[ra >= 360.0] = 0.0  # of -1e-20 the remainder is rounded to 360
    return ra, dec
