"""Which rows of a survey are sources: those that are good, one of each field and id."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection, Recipe
from catmorph.sources.arrow import missing_texts, numbers_of, texts_of
from catmorph.sources.ranked import Ranked
from catmorph.sources.rows import distinct, numbered
from catmorph.sources.shelf import blocks
from catmorph.sources.survey import Survey, catalog_paths

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: its multiples are far apart."""


class Division:
    """The rows of a survey, divided into sources and rejected rows.

    Attributes
    ----------
    survey : Survey
    good : ndarray of bool, shape (row,)
        Which rows are sources; on disk.
    fields : list of str
        The fields of all good rows, as they come.
    codes : ndarray of int32, shape (row,)
        Which of `fields` a good row is of; on disk.
    duplicates : int
        Number of good rows that were rejected for another of the same field and id.
    """

    def __init__(self, survey: Survey):
        self.survey, self.rows, self.duplicates = survey, survey.rows, 0
        self.good, self.codes = self.rows.array(np.bool_), self.rows.array(np.int32)
        places: dict[str, int] = {}
        kinds, fields = self.rows.texts("kind"), self.rows.texts("field")
        for part in blocks(len(self.rows)):
            self.good[part] = numbers_of(kinds[part].is_null())[0]
            rows = np.flatnonzero(self.good[part])
            numbers, names = distinct(texts_of(fields[part])[rows])
            codes = np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int32)
            self.codes[part.start + rows] = codes[numbers]
        self.fields = list(places)

    def __len__(self) -> int:
        """Return the number of sources."""
        return len(self.rows) - sum(self.rejected.values())

    @property
    def rejected(self) -> dict[str, int]:
        """The number of rejected rows by kind, by name of the kind."""
        duplicates = {"duplicate": self.duplicates} if self.duplicates else {}
        return dict(sorted((self.survey.rejected | duplicates).items()))

    def sources(self) -> Iterator[np.ndarray]:
        """Yield the sources (row,), by rising number of their row."""
        return (part.start + np.flatnonzero(self.good[part]) for part in blocks(len(self.rows)))

    def rejected_tables(self, schema: pa.Schema, section: CatalogSection) -> Iterator[pa.Table]:
        """Yield tables of the rejected rows, with the columns of `schema`, in order."""
        for part in blocks(len(self.rows)):
            cells = self.rows.take(part.start + np.flatnonzero(~self.good[part]), schema.names)
            duplicate = missing_texts(cells["kind"])
            cells["kind"][duplicate] = "duplicate"
            cells["reason"][duplicate] = f"duplicate id; kept the {section.duplicates}"
            if len(cells):
                yield cells.table(schema)


def divide(survey: Survey, recipe: Recipe) -> Division:
    """Divide the rows of a survey into sources and rejected rows.

    Raises
    ------
    CatalogError
        When ids are duplicate where the recipe refuses them, or no row is left.
    """
    division = Division(survey)
    _mark_duplicates(division, recipe.catalog)
    if not len(division) and not recipe.catalog.allow_empty:
        counts = ", ".join(f"{count} {kind}" for kind, count in division.rejected.items())
        raise CatalogError(f"no row of the catalog is left ({counts})", where=", ".join(catalog_paths(recipe)),
                           hint="check catalog.cuts, or set catalog.allow_empty = true")
    return division


def _mark_duplicates(division: Division, section: CatalogSection) -> None:
    hashed = ((rows, _hashes(division, rows)) for rows in division.sources())
    repeated = 0
    for rows in Ranked(division.rows, len(division), hashed, 64).repeated():
        others = _others(division, rows, section)
        division.good[others] = False
        repeated += len(others)
    if repeated and section.duplicates == "refuse":
        raise _refused(division, repeated)
    division.duplicates = repeated


def _hashes(division: Division, rows: np.ndarray) -> np.ndarray:
    """Return a number for each row (row,), the same for the same field and id; seldom for others."""
    ids = division.rows.take(rows, ["id"])["id"].tolist()
    return np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64) ^ (
        division.codes[rows].astype(np.uint64) * _GOLDEN
    )


def _others(division: Division, rows: np.ndarray, section: CatalogSection) -> np.ndarray:
    """Return those of `rows`, by number, that have the field and id of another of them, which is kept."""
    cells = division.rows.take(rows, ["id", "file", "row", "magnitude"])
    order = np.arange(len(rows))
    if section.duplicates == "brightest":
        files = {name: place for place, name in enumerate(sorted(division.survey.files))}
        places = np.array([files[name] for name in cells["file"].tolist()], dtype=np.int64)
        order = np.lexsort((cells["row"], places, cells["magnitude"]))
    first = np.unique(numbered(division.codes[rows[order]], cells["id"][order]), return_index=True)[1]
    return rows[np.delete(order, first)]


def _refused(division: Division, count: int) -> CatalogError:
    names = ("field", "id", "file", "row")
    shown: list[tuple[str, str, str, int]] = []
    for part in blocks(len(division.rows)):
        kinds = division.rows.texts("kind")[part]
        rows = part.start + np.flatnonzero(~division.good[part] & numbers_of(kinds.is_null())[0])
        cells = division.rows.take(rows[: 5 - len(shown)], names)
        shown += zip(*(cells[name].tolist() for name in names), strict=True)
    file = shown[0][2]
    named = "; ".join(f"{field} {name} ({'' if where == file else f'{where}, '}row {row})"
                      for field, name, where, row in shown)
    return CatalogError(f"{count} duplicate ids: {named}", where=file,
                        hint="set catalog.duplicates to 'first' or 'brightest' to keep one of each")
