"""A survey table to canonical rows: each with id, field, position, size and magnitude, or why it is rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection
from catmorph.sources import columns as cells_to
from catmorph.sources.arrow import missing_texts
from catmorph.sources.expressions import Expression
from catmorph.sources.rows import Rows, distinct
from catmorph.sources.tables import column
from catmorph.templates import matcher
from catmorph.workspace import field_problem

CANONICAL = ("field", "id", "cell", "file", "row", "ra", "dec", "size_arcsec", "magnitude")


@dataclass
class MappedRows:
    """Rows of a survey table.

    Attributes
    ----------
    frame : Rows
        One row for each of the table: ``field``, ``id``, ``file``, ``row`` (1-based, of the data),
        ``ra`` and ``dec`` (ICRS, degrees), ``size_arcsec``, ``magnitude``, the kept columns, and ``kind``
        (``bad_cell`` or ``cut``, None for good rows) with ``reason``.
    units : dict of str to str
        Units of kept columns that have one.
    uncut : CutColumns or None
        What the cuts are on, while they wait for the columns of other catalogs.
    """

    frame: Rows
    units: dict[str, str]
    uncut: CutColumns | None = None


def map_table(
    table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons, before: int = 0
) -> MappedRows:
    """Map a table that has `before` rows of the file before its own."""
    ids = _identifiers(table, section, path, reasons)
    fields = _fields(table, section, path, reasons)
    ra, dec = _positions(table, section, path, reasons)
    kinds = np.full(len(table), None, dtype=object)
    frame = Rows({
        "field": fields, "id": ids, "file": np.full(len(table), path.name, dtype=object),
        "row": np.arange(before + 1, before + len(table) + 1, dtype=np.int64), "ra": ra, "dec": dec,
        "size_arcsec": _size(table, section, path, reasons), "magnitude": _magnitude(table, section, path, reasons),
    })
    kept, units = _kept(table, section, path)
    for name, values in kept.items():
        frame[name] = values
    kinds[reasons.bad] = "bad_cell"
    frame["kind"], frame["reason"] = kinds, reasons.texts
    columns = CutColumns(frame, table, section)
    if section.match:
        return MappedRows(frame, units, uncut=columns)
    apply_cuts(frame, columns)
    return MappedRows(frame, units)


def _identifiers(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    values = column(table, section.id.column, key="catalog.id", where=path)
    ids = cells_to.texts(values, section.id.null)
    reasons.add(missing_texts(ids), "id is missing")
    reasons.add(cells_to.inexact(values), lambda row: f"id {ids[row]} was read as a float and may have lost digits")
    return ids


def _fields(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    fields = _field_texts(table, section, path)
    places, names = distinct(fields)
    problems = [None if name is None else field_problem(name) for name in names]
    reasons.add(missing_texts(fields), "field is missing")
    bad = np.array([problem is not None for problem in problems], dtype=bool)[places]
    reasons.add(bad, lambda row: problems[places[row]] or "")
    return fields


def _field_texts(table: Any, section: CatalogSection, path: Path) -> np.ndarray:
    rule = section.field
    if rule.column is not None:
        return cells_to.texts(column(table, rule.column, key="catalog.field", where=path))
    if rule.value is not None:
        return np.full(len(table), rule.value, dtype=object)
    match = matcher(rule.pattern or "", wildcards=True).match(path.name)
    if match is None:
        raise CatalogError(f"the file name does not match catalog.field.pattern {rule.pattern!r}", where=path)
    return np.full(len(table), match["field"], dtype=object)


def _positions(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> Any:
    degrees = []
    for key, spec in (("ra", section.ra), ("dec", section.dec)):
        if spec is None:
            return np.full(len(table), np.nan), np.full(len(table), np.nan)
        values = column(table, spec.column, key=f"catalog.{key}", where=path)
        null = (*section.null, *spec.null)
        degrees.append(cells_to.angle(values, spec.unit, null, key=key, reasons=reasons))
    return cells_to.to_icrs(degrees[0], degrees[1], section.frame, reasons)


def _size(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    if section.size is None:
        return np.full(len(table), np.nan)
    values = column(table, section.size.column, key="catalog.size", where=path)
    null = (*section.null, *section.size.null)
    return cells_to.radius_arcsec(values, section.size.unit, null, section.pixel_scale, reasons)


def _magnitude(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    if section.magnitude is None:
        return np.full(len(table), np.nan)
    values = column(table, section.magnitude.column, key="catalog.magnitude", where=path)
    magnitude, wrong = cells_to.numbers(values, (*section.null, *section.magnitude.null))
    reasons.add(wrong, lambda row: f"magnitude is not a number: {cells_to.shown(values, row)}")
    return magnitude


def _kept(table: Any, section: CatalogSection, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    kept, units = {}, {}
    for name in section.keep:
        if name in CANONICAL or name in ("kind", "reason"):
            raise CatalogError(f"kept column {name!r} has the name of one of catmorph's own", where="catalog.keep")
        values = column(table, name, key="catalog.keep", where=path)
        kept[name] = cells_to.kept_cells(cells_to.masked(values, section.null))
        if getattr(values, "unit", None) is not None:
            units[name] = str(values.unit)
    return kept, units


class CutColumns(Mapping[str, Any]):
    """The columns a cut may name, without sentinels; each is made when it is asked for.

    ``id``, ``field``, ``ra``, ``dec``, and ``size`` and ``magnitude`` where the recipe maps them, are
    catmorph's own, as are the columns of matched catalogs; the other names are the table's. `own` has the table's
    columns alone.
    """

    def __init__(self, frame: Rows, table: Any, section: CatalogSection):
        mapped = {"id": "id", "field": "field"}
        mapped |= {"ra": "ra", "dec": "dec"} if section.has_positions else {}
        mapped |= {"size": "size_arcsec"} if section.size else {}
        mapped |= {"magnitude": "magnitude"} if section.magnitude else {}
        mapped |= {name: name for one in section.match for name in one.names.values()}
        self._frame, self._mapped, self.own = frame, mapped, TableColumns(table, section)

    def __getitem__(self, name: str) -> Any:
        return self._frame[self._mapped[name]] if name in self._mapped else self.own[name]

    def __contains__(self, name: object) -> bool:
        return name in self._mapped or name in self.own

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.own, *self._mapped]))

    def __len__(self) -> int:
        return len(list(iter(self)))


class TableColumns(Mapping[str, Any]):
    """The columns of a survey table, masked where a cell is one of the recipe's sentinels.

    The identifier keeps the values that ``catalog.null`` names: 99 is a sentinel among magnitudes, not among ids.
    """

    def __init__(self, table: Any, section: CatalogSection):
        self._table, self.section = table, section
        specs = [spec for spec in (section.ra, section.dec, section.size, section.magnitude) if spec]
        self._null = {self._name(spec.column): (*section.null, *spec.null) for spec in specs}
        self._null[self._name(section.id.column)] = section.id.null

    def _name(self, name: str | int) -> str:
        return self._table.colnames[name - 1] if isinstance(name, int) else name

    def __getitem__(self, name: str) -> Any:
        values = column(self._table, name, key="catalog.cuts", where=None)
        return cells_to.masked(values, self._null.get(name, self.section.null))

    def __contains__(self, name: object) -> bool:
        return name in self._table.colnames

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.colnames)

    def __len__(self) -> int:
        return len(self._table.colnames)


def apply_cuts(frame: Rows, columns: CutColumns) -> None:
    """Mark the good rows of `frame` that fail a cut, with the first cut they fail, and whether for want of a value."""
    for text in columns.own.section.cuts:
        holds, unknown = Expression(text).judge(columns, columns.own)
        failing = ~holds & missing_texts(frame["kind"])
        frame["kind"][failing] = "cut"
        frame["reason"][failing] = f"cut: {text}"
        frame["reason"][failing & unknown] = f"cut: {text} (a value is missing)"
