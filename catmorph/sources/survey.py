"""All survey tables of a recipe, or its list of images, as canonical rows on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catmorph.errors import CatalogError
from catmorph.recipe import CatalogSection, Recipe
from catmorph.sources.arrow import missing_texts
from catmorph.sources.columns import Reasons
from catmorph.sources.images import IMAGE_COLUMNS, ImageList, list_images
from catmorph.sources.inputs import catalog_files
from catmorph.sources.light import LightTable, column_of
from catmorph.sources.mapping import MappedRows, apply_cuts, map_table
from catmorph.sources.match import MatchReport, add_matched
from catmorph.sources.rows import Rows
from catmorph.sources.shelf import Shelf
from catmorph.sources.tables import read_blocks

_BLOCK = 1 << 13
"""Rows of a survey table that are mapped together: some 5 MB as Python's objects; more are no faster."""


@dataclass
class Survey:
    """All rows of the survey tables, on disk.

    Attributes
    ----------
    rows : Shelf
        The columns of `MappedRows`.
    units : dict of str to str
        Units of kept columns that have one.
    matches : list of MatchReport
        What became of the matches with other catalogs.
    rejected : Counter of str
        Number of rejected rows by kind.
    files : set of str
        Names of the files that have rows.
    """

    rows: Shelf
    units: dict[str, str] = field(default_factory=dict)
    matches: list[MatchReport] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)

    def add(self, part: MappedRows) -> None:
        """Add rows, after those that are there."""
        self.add_units(part.units, part.frame)
        self.rows.add(part.frame)
        self.rejected.update(part.frame["kind"][~missing_texts(part.frame["kind"])].tolist())
        self.files.update(part.frame["file"].tolist())

    def add_units(self, units: Mapping[str, str], frame: Rows) -> None:
        """Add units of columns of `frame`; a column has the same in all files."""
        for name, unit in units.items():
            if self.units.setdefault(name, unit) != unit:
                raise CatalogError(
                    f"column {name!r} has unit {unit} here, but {self.units[name]} in another catalog file",
                    where=frame["file"][0] if len(frame) else None,
                )


def map_catalog(recipe: Recipe, images: ImageList | None = None, folder: Path | None = None) -> Survey:
    """Read and map all catalog files of `recipe` or, where it names none, its images (`images`: as listed already).

    Parameters
    ----------
    folder : Path, optional
        Where the rows are kept, in files without names; default: where the system has temporary files.

    Raises
    ------
    CatalogError
        When a file or column cannot be read, there are no rows, or every row is bad.
    """
    section, survey = recipe.catalog, Survey(Shelf(folder))
    parts = _map_files(section) if section.files else iter([_map_images(images or list_images(recipe), recipe)])
    for part in _matched(list(parts), survey, section) if section.match else parts:
        survey.add(part)
    if not len(survey.rows) and not section.allow_empty:
        raise CatalogError("the catalog has no rows", where=", ".join(catalog_paths(recipe)))
    if len(survey.rows) and survey.rejected["bad_cell"] == len(survey.rows):
        first = survey.rows.take(np.zeros(1, np.int64), ("file", "row", "reason"))
        name = first["file"][0]
        paths = catalog_files(section) if section.files else []
        path = next((path for path in paths if path.name == name), name)
        raise CatalogError(f"every row is bad, row {first['row'][0]}: {first['reason'][0]}", where=path,
                           hint="check the columns and units in [catalog]")
    return survey


def _matched(mapped: list[MappedRows], survey: Survey, section: CatalogSection) -> list[MappedRows]:
    """Add the columns of other catalogs, over all rows at once, and apply the cuts that waited for them."""
    for part in mapped:
        own = [name for one in section.match for name in one.names.values() if part.uncut and name in part.uncut.own]
        if own:
            raise CatalogError(f"the survey table has a column {own[0]!r} of its own", where="catalog.match",
                               hint="set a prefix for the matched columns")
    survey.matches, found = add_matched([part.frame for part in mapped], section)
    for part in mapped:
        assert part.uncut is not None, "cuts wait where there are matches"
        part.units |= found
        apply_cuts(part.frame, part.uncut)
        part.uncut = None
    return mapped


def catalog_paths(recipe: Recipe) -> tuple[str, ...]:
    """Return what the recipe names as its catalog: tables, or images."""
    return recipe.catalog.files or (recipe.images.files if recipe.images else ())


def _map_files(section: CatalogSection) -> Iterator[MappedRows]:
    for path in catalog_files(section):
        rows = 0
        for table in read_blocks(path, section, _BLOCK):
            yield map_table(table, section, path, Reasons(len(table)), rows)
            rows += len(table)


def _map_images(images: ImageList, recipe: Recipe) -> MappedRows:
    """Map the list of images: each is row 1 of itself."""
    section = recipe.catalog
    listed = {name: images.sources[name].to_numpy(object) for name in IMAGE_COLUMNS}
    table = LightTable({name: column_of(cells, np.zeros(len(cells), dtype=bool)) for name, cells in listed.items()},
                       len(images.sources))
    reasons = Reasons(len(table))
    # pandas 3 has NaN for a missing text.
    reasons.add(images.sources["id"].isna().to_numpy(), f"its name does not fit images.name {images.section.name!r}")
    rows = map_table(table, section, Path("images"), reasons)
    rows.frame["file"], rows.frame["row"] = listed["file"], np.ones(len(table), dtype=np.int64)
    return rows
