"""Columns of other catalogs for the sources next to their rows on the sky (``[[catalog.match]]``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection, MatchSection
from catmorph.recipe.catalog import ColumnTable, FieldRule
from catmorph.sources import columns as cells_to
from catmorph.sources.inputs import match_files, told_of
from catmorph.sources.sky_match import SkyMatch, match_sky
from catmorph.sources.tables import column, read_table


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


def add_matched(frames: Sequence[pd.DataFrame], section: CatalogSection) -> tuple[list[MatchReport], dict[str, str]]:
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
        good = np.concatenate([frame["kind"].isna().to_numpy() for frame in frames])
        reports.append(_report(other, one, match, good))
    return reports, units


@dataclass(frozen=True)
class _Other:
    """Another catalog: where it is, positions (ICRS, degrees, row) and the columns to take, under their new names."""

    files: list[Path]
    ra: np.ndarray
    dec: np.ndarray
    columns: pd.DataFrame
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
            if getattr(values, "unit", None):
                units[called] = str(values.unit)
        parts.append((ra, dec, pd.DataFrame(taken, index=pd.RangeIndex(len(table)))))
    _make_alike([part[2] for part in parts])
    ra, dec = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    if not np.isfinite(ra).any():
        raise CatalogError(f"none of {len(ra)} rows has a position", where=", ".join(map(str, one.files)),
                           hint="check ra, dec and their units in [[catalog.match]]")
    return _Other(files, ra, dec, pd.concat([part[2] for part in parts], ignore_index=True), units)


def _positions(table: Any, one: MatchSection, path: Path) -> tuple[np.ndarray, np.ndarray]:
    reasons, degrees = cells_to.Reasons(len(table)), []
    for key in ("ra", "dec"):
        spec = getattr(one, key)
        values = column(table, spec.column, key=f"catalog.match.{key}", where=path)
        with told_of("catalog.match"):
            degrees.append(cells_to.angle(values, spec.unit, (*one.null, *spec.null), key=key, reasons=reasons))
    return cells_to.to_icrs(degrees[0], degrees[1], one.frame, reasons)


def _make_alike(frames: Sequence[pd.DataFrame]) -> None:
    """Turn columns that are numbers in one file and text in another into text."""
    for name in frames[0]:
        if len({frame[name].dtype == object for frame in frames}) > 1:
            for frame in frames:
                frame[name] = pd.Series(cells_to.texts(frame[name].to_numpy()), dtype=object)


def _matched(frames: Sequence[pd.DataFrame], other: _Other, one: MatchSection) -> SkyMatch:
    good = np.concatenate([frame["kind"].isna().to_numpy() for frame in frames])
    ra, dec = (np.where(good, np.concatenate([frame[name].to_numpy() for frame in frames]), np.nan)
               for name in ("ra", "dec"))  # fmt: skip
    names = pd.concat([frame[["field", "id"]] for frame in frames], ignore_index=True)
    same = names.groupby(["field", "id"], sort=False, dropna=False).ngroup().to_numpy()
    return match_sky((ra, dec), (other.ra, other.dec), one.radius_arcsec, one_to_one=one.one_to_one, same=same)


def _add(frames: Sequence[pd.DataFrame], other: _Other, one: MatchSection, match: SkyMatch) -> None:
    found = other.columns.reindex(match.rows)
    for name in found:
        if found[name].dtype == object:
            found[name] = found[name].where(found[name].notna(), None)
    found[one.names[""]] = match.separation_arcsec
    start = 0
    for frame in frames:
        part = found.iloc[start : start + len(frame)]
        for name in part:
            frame[name] = part[name].array
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
