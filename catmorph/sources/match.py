"""Columns of other catalogs for the sources next to their rows on the sky (``[[catalog.match]]``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection, MatchSection
from catmorph.recipe.catalog import ColumnTable, FieldRule
from catmorph.sources import columns as cells_to
from catmorph.sources.arrow import missing_texts
from catmorph.sources.inputs import match_files, told_of
from catmorph.sources.rows import Rows, joined, numbered
from catmorph.sources.tables import column, read_table

if TYPE_CHECKING:
    from catmorph.sources.sky_match import SkyMatch


@dataclass(frozen=True)
class MatchReport:
    """What became of a match: rows of the other catalog, those without position, and sources by what they found.

    ``matched`` have a row, ``unmatched`` none within the radius, ``contested`` none because another source is nearer to
    each of them; of the matched, ``several`` had more than one within the radius, and ``shared`` is the number of rows
    that several sources have.
    """

    name: str
    rows: int
    without_position: int
    matched: int
    unmatched: int
    contested: int
    several: int
    shared: int
    median_arcsec: float | None

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def match_lines(facts: dict[str, Any]) -> list[str]:
    """Return what a user should look at of a match, from `MatchReport.facts`."""
    named = {
        "several": "sources have several rows of it within the radius: they took the nearest that was left",
        "contested": "sources have rows within the radius that other sources are nearer to: they took none",
        "shared": "rows went to several sources each",
        "without_position": "rows have no position",
    }
    return [f"match with {facts['name']}: {facts[key]:,} {text}" for key, text in named.items() if facts[key]]


def add_matched(frames: Sequence[Rows], section: CatalogSection) -> tuple[list[MatchReport], dict[str, str]]:
    """Add the columns of every match to `frames`, the mapped rows of each catalog file, together one catalog.

    Rows of a bad cell match nothing. Rows of one field and id are one source, and may share a row.

    Returns
    -------
    reports : list of MatchReport
    units : dict of str to str
        Units of the added columns that have one.

    Raises
    ------
    CatalogError
        When a file or column of the other catalog cannot be read, or no row has a position.
    """
    reports: list[MatchReport] = []
    units: dict[str, str] = {}
    for one in section.match:
        other = _read(one)
        units |= other.units
        match = _matched(frames, other, one)
        _add(frames, other, one, match)
        good = np.concatenate([missing_texts(frame["kind"]) for frame in frames])
        reports.append(_report(other, one, match, good))
    return reports, units


@dataclass(frozen=True)
class _Other:
    """Another catalog: where it is, positions (ICRS, degrees, row) and the columns to take, under their new names."""

    files: list[Path]
    ra: np.ndarray
    dec: np.ndarray
    columns: Rows
    units: dict[str, str]


def reading(one: MatchSection) -> CatalogSection:
    """Return how the catalog reader reads the other catalog: positions stand for the identifiers it need not have."""
    return CatalogSection(files=one.files, format=one.format, hdu=one.hdu, field=FieldRule(value="any"),
                          id=ColumnTable(column=one.ra.column), ra=one.ra, dec=one.dec)


def _read(one: MatchSection) -> _Other:
    how, parts = reading(one), []
    files, units = match_files(one), dict[str, str]()
    for path in files:
        with told_of("catalog.match"):
            table = read_table(path, how)
        ra, dec, taken = *_positions(table, one, path), {}
        for name, called in one.names.items():
            if not name:
                continue
            values = column(table, name, key="catalog.match.columns", where=path)
            taken[called] = cells_to.kept_cells(cells_to.masked(values, one.null))
            if getattr(values, "unit", None) is not None:
                units[called] = str(values.unit)
        parts.append((ra, dec, Rows(taken, len(table))))
    cells_to.make_alike([part[2] for part in parts], parts[0][2].names)
    ra, dec = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    if not np.isfinite(ra).any():
        raise CatalogError(f"none of {len(ra)} rows has a position", where=", ".join(map(str, one.files)),
                           hint="check ra, dec and their units in [[catalog.match]]")
    return _Other(files, ra, dec, joined([part[2] for part in parts]), units)


def _positions(table: Any, one: MatchSection, path: Path) -> tuple[np.ndarray, np.ndarray]:
    reasons, degrees = cells_to.Reasons(len(table)), []
    for key in ("ra", "dec"):
        spec = getattr(one, key)
        values = column(table, spec.column, key=f"catalog.match.{key}", where=path)
        with told_of("catalog.match"):
            degrees.append(cells_to.angle(values, spec.unit, (*one.null, *spec.null), key=key, reasons=reasons))
    return cells_to.to_icrs(degrees[0], degrees[1], one.frame, reasons)


def _matched(frames: Sequence[Rows], other: _Other, one: MatchSection) -> SkyMatch:
    # astropy.coordinates takes half a second to import, which a catalog without matches does without.
    from catmorph.sources.sky_match import match_sky

    both = joined([frame.only(["field", "id", "ra", "dec", "kind"]) for frame in frames])
    good = missing_texts(both["kind"])
    ra, dec = (np.where(good, both[name], np.nan) for name in ("ra", "dec"))
    same = numbered(both["field"], both["id"])
    return match_sky((ra, dec), (other.ra, other.dec), one.radius_arcsec, one_to_one=one.one_to_one, same=same)


def _add(frames: Sequence[Rows], other: _Other, one: MatchSection, match: SkyMatch) -> None:
    found = other.columns.take(match.rows)
    found[one.names[""]] = match.separation_arcsec
    start = 0
    for frame in frames:
        part = found.take(np.arange(start, start + len(frame)))
        for name in part.names:
            frame[name] = part[name]
        start += len(frame)


def _report(other: _Other, one: MatchSection, match: SkyMatch, good: np.ndarray) -> MatchReport:
    has = match.rows >= 0
    names = Counter(path.name for path in other.files)
    return MatchReport(
        name=", ".join(names) if len(names) <= 3 else f"{len(other.files)} files of {one.files[0]}",
        rows=len(other.ra), without_position=int(np.isnan(other.ra).sum()), matched=int(has.sum()),
        unmatched=int((good & (match.within == 0)).sum()), contested=int(match.contested.sum()),
        several=int((has & (match.within > 1)).sum()), shared=match.shared,
        median_arcsec=float(np.median(match.separation_arcsec[has])) if has.any() else None,
    )  # fmt: skip
