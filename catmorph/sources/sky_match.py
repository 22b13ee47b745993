"""Which rows of two tables lie next to one another on the sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky


@dataclass(frozen=True)
class SkyMatch:
    """For each row of the first table its row of the second.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        -1 where there is none.
    separation_arcsec : ndarray of float64, shape (n,)
        NaN where there is none.
    within : ndarray of int, shape (n,)
        How many rows of the second table are within the radius.
    contested : ndarray of bool, shape (n,)
        Where all of those within the radius went to other rows, which are nearer to them.
    shared : int
        Rows of the second table that several rows of the first have.
    """

    rows: np.ndarray
    separation_arcsec: np.ndarray
    within: np.ndarray
    contested: np.ndarray
    shared: int


def match_sky(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    radius_arcsec: float,
    *,
    one_to_one: bool = True,
    same: np.ndarray | None = None,
) -> SkyMatch:
    """Match positions to the nearest ones within a radius.

    Parameters
    ----------
    first, second : pair of ndarray of float64, shape (n,), (m,)
        Right ascension and declination (ICRS, degrees); NaN matches nothing.
    radius_arcsec : float
        Largest great-circle separation.
    one_to_one : bool
        Give each row of the second table away once: pairs are taken by rising separation, and of equal ones by row, so
        that a row may get one that is not its nearest, or none. Else each row of the first has its nearest.
    same : ndarray of int, shape (n,), optional
        Rows of the first table with one number are one thing, and may share a row of the second.
    """
    count = len(first[0])
    near, far, separation = _pairs(first, second, radius_arcsec)
    rows, distance = np.full(count, -1, dtype=np.int64), np.full(count, np.nan)
    within = np.bincount(near, minlength=count)
    same = np.arange(count) if same is None else same
    owner = np.full(len(second[0]), -1, dtype=np.int64)
    for one, other, arcsec in zip(near.tolist(), far.tolist(), separation.tolist(), strict=True):
        if rows[one] >= 0 or (one_to_one and owner[other] not in (-1, same[one])):
            continue
        rows[one], distance[one], owner[other] = other, arcsec, same[one]
    taken = rows[rows >= 0]
    shared = np.unique(np.stack([taken, same[rows >= 0]]), axis=1)[0]
    return SkyMatch(rows, distance, within, (rows < 0) & (within > 0), len(shared) - len(np.unique(shared)))


def _pairs(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], radius_arcsec: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of all pairs within the radius and their separations, by separation, then by rows."""
    known = [np.flatnonzero(np.isfinite(ra) & np.isfinite(dec)) for ra, dec in (first, second)]
    if not all(len(rows) for rows in known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    here, there = (SkyCoord(ra[rows] * u.deg, dec[rows] * u.deg)
                   for (ra, dec), rows in zip((first, second), known, strict=True))  # fmt: skip
    near, far, angle, _ = search_around_sky(here, there, radius_arcsec * u.arcsec)
    near, far, arcsec = known[0][near], known[1][far], angle.to_value(u.arcsec)
    order = np.lexsort((far, near, arcsec))
    return near[order], far[order], arcsec[order]
