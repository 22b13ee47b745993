"""Catalog cells to numbers, positions and sizes with units; what is wrong with a cell is said, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import FK4, FK5, ICRS, Angle, Galactic, SkyCoord

from catmorph.errors import CatalogError

FRAMES: dict[str, Any] = {"icrs": ICRS, "fk5": FK5, "fk4": FK4, "galactic": Galactic}


class Reasons:
    """Why rows are bad: the first reason given for each.

    Parameters
    ----------
    count : int
        Number of rows.
    """

    def __init__(self, count: int):
        self.texts: list[str | None] = [None] * count

    def add(self, bad: np.ndarray, text: str | list[str]) -> None:
        """Mark the rows where `bad` holds; `text` is one reason or one a row."""
        for row in np.flatnonzero(bad):
            if self.texts[row] is None:
                self.texts[row] = text if isinstance(text, str) else text[row]

    @property
    def bad(self) -> np.ndarray:
        """Booleans (row,): which rows have a reason."""
        return np.array([text is not None for text in self.texts], dtype=bool)


def numbers(values: Any, null: tuple[float | str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as float64 (row,), NaN where missing, and where a cell is no number, as booleans."""
    data = np.asarray(np.ma.getdata(values))
    missing = np.array(np.broadcast_to(np.ma.getmaskarray(np.ma.asarray(values)), (len(data),)))
    if data.dtype.kind in "fiub":
        result = data.astype(np.float64)
        wrong = np.zeros(len(data), dtype=bool)
    else:
        result, wrong = _parse(data)
    for value in null:
        if isinstance(value, str):
            missing |= np.array([_text(cell) == value for cell in data], dtype=bool)
        else:
            missing |= result == value
    result[missing | ~np.isfinite(result)] = np.nan
    return result, wrong & ~missing


def _text(cell: Any) -> str:
    return cell.decode("utf-8", "replace").strip() if isinstance(cell, bytes) else str(cell).strip()


def _parse(cells: Any) -> tuple[np.ndarray, np.ndarray]:
    result = np.full(len(cells), np.nan)
    wrong = np.zeros(len(cells), dtype=bool)
    for row, cell in enumerate(cells):
        text = _text(cell)
        try:
            result[row] = float(text)
        except ValueError:
            wrong[row] = text.lower() not in ("", "na", "null", "none", "--", "n/a")
    return result, wrong


def angle(values: Any, unit: str | None, null: tuple[float | str, ...], *, key: str, reasons: Reasons) -> np.ndarray:
    """Return a coordinate column as degrees (row,), NaN where it is bad; bad cells go into `reasons`.

    Parameters
    ----------
    unit : str or None
        A unit astropy knows, ``sexagesimal``, or None for the column's own (degrees without one).
    key : str
        ``ra`` or ``dec``: sexagesimal right ascensions are hours.
    """
    if unit == "sexagesimal":
        return _sexagesimal(values, key, reasons)
    degrees, wrong = numbers(values, null)
    reasons.add(wrong, [f"{key} is not a number: {_text(cell)!r}" for cell in np.ma.getdata(values)])
    reasons.add(np.isnan(degrees), f"{key} is missing")
    return degrees * _factor(values, unit, "deg", key)


def _sexagesimal(values: Any, key: str, reasons: Reasons) -> np.ndarray:
    unit = u.hourangle if key == "ra" else u.deg
    result = np.full(len(values), np.nan)
    texts = [_text(cell) for cell in np.ma.getdata(values)]
    for row, text in enumerate(texts):
        try:
            result[row] = Angle(text, unit=unit).deg
        except (ValueError, TypeError, u.UnitsError):
            continue
    reasons.add(np.isnan(result), [f"{key} is not sexagesimal: {text!r}" for text in texts])
    return result


def radius_arcsec(values: Any, unit: str | None, null: tuple[float | str, ...], pixel_scale: float | None,
                  reasons: Reasons) -> np.ndarray:
    """Return a size column in arcsec (row,), NaN where missing or not positive (flagged when it is cut)."""
    size, wrong = numbers(values, null)
    reasons.add(wrong, [f"size is not a number: {_text(cell)!r}" for cell in np.ma.getdata(values)])
    own = str(getattr(values, "unit", None) or "")
    if (unit or own) in ("pixels", "pixel", "pix"):
        if pixel_scale is None:
            raise CatalogError("sizes are in pixels", hint="give catalog.pixel_scale (arcsec a pixel)")
        size = size * pixel_scale
    else:
        size = size * _factor(values, unit, "arcsec", "size")
    size[~(size > 0)] = np.nan
    return size


def _factor(values: Any, unit: str | None, target: str, key: str) -> float:
    given = unit or getattr(values, "unit", None) or target
    try:
        return float(u.Unit(given).to(target))
    except (ValueError, TypeError, u.UnitConversionError):
        raise CatalogError(
            f"catalog.{key} has unit {str(given)!r}, which is not an angle", hint=f"set catalog.{key}.unit"
        ) from None


def to_icrs(longitude: np.ndarray, latitude: np.ndarray, frame: str, reasons: Reasons) -> tuple[np.ndarray, np.ndarray]:
    """Check ranges and turn positions (row,) in degrees into ICRS right ascension (0..360) and declination."""
    off = (longitude < -180) | (longitude > 360)
    reasons.add(off, [f"ra {value:g} deg is outside -180..360" for value in longitude])
    low = (latitude < -90) | (latitude > 90)
    reasons.add(low, [f"dec {value:g} deg is outside -90..90" for value in latitude])
    good = ~(off | low | np.isnan(longitude) | np.isnan(latitude))
    ra, dec = np.full(len(longitude), np.nan), np.full(len(longitude), np.nan)
    if frame == "icrs":
        ra[good], dec[good] = longitude[good] % 360.0, latitude[good]
    elif good.any():
        position = SkyCoord(longitude[good] * u.deg, latitude[good] * u.deg, frame=FRAMES[frame]()).icrs
        ra[good], dec[good] = position.ra.deg, position.dec.deg
    return ra, dec
