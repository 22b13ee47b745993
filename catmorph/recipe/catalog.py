"""The catalog section of a recipe: the survey table and how its columns are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from catmorph.errors import suggest
from catmorph.recipe.base import PATTERN_WORDS, PREFIX, SAFE_NAME, Globs, Null, Section, SectionError, Strings
from catmorph.templates import names_in

POSITION_UNITS = ("deg", "rad", "hourangle", "sexagesimal", "arcmin", "arcsec", "mas")
SIZE_UNITS = ("arcsec", "arcmin", "deg", "rad", "mas", "pixels")


def _as_column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str | int) else value


class ColumnTable(Section):
    """A catalog column (`id`, `ra`, `dec`, `size`, `magnitude`), where its name alone does not say all."""

    column: str | int = Field(description="column name, or 1-based column number of a table without header")
    unit: str | None = Field(
        None,
        description="unit, where the file does not say or says it wrong: deg, rad, hourangle, 'sexagesimal' "
        "for positions; arcsec, arcmin, deg or 'pixels' for sizes. Default: that of the file; where it has none, "
        "positions are in deg and sizes in arcsec",
    )
    null: Null = Field((), description="cell values that mean 'missing', such as -99")


Column = Annotated[ColumnTable, BeforeValidator(_as_column)]
"""A catalog column: a name, a 1-based number, or a table with `column`, `unit` and `null`."""


class FieldRule(Section):
    """Where the field (cluster, pointing) of a row comes from: exactly one of the three."""

    value: str | None = Field(None, description="the same field for all rows")
    column: str | int | None = Field(None, description="a column of the table")
    pattern: str | None = Field(None, description="a pattern of the file name, such as '{field}_molino.cat'; * "
                                "stands for any text")

    @model_validator(mode="after")
    def _one(self) -> FieldRule:
        if sum(x is not None for x in (self.value, self.column, self.pattern)) != 1:
            raise ValueError("give exactly one of value, column and pattern")
        if self.pattern is not None and names_in(self.pattern) != {"field"}:
            raise ValueError("the pattern must hold {field} and no other placeholder")
        if self.value is not None and not re.fullmatch(SAFE_NAME, self.value):
            raise ValueError(f"field {self.value!r} {PATTERN_WORDS[SAFE_NAME]}")
        return self


OWN_NAMES = ("field", "id", "cell", "file", "row", "ra", "dec", "size", "size_arcsec", "magnitude", "kind", "reason")
"""Names that are taken among the columns of the sources, and in cuts."""

LISTED_KEYS = ("cuts", "keep", "duplicates", "allow_empty")
"""Keys of [catalog] that mean something where the images are the catalog."""


class MatchSection(Section):
    """Another catalog, whose columns are taken for the sources next to its rows on the sky; any number of them."""

    files: Globs = Field(min_length=1, description="table files or globs, relative to the recipe; together one table")
    format: str | None = Field(None, description="as catalog.format")
    hdu: int | str | None = Field(None, description="as catalog.hdu")
    ra: Column = Field(description="right ascension (or Galactic longitude)")
    dec: Column = Field(description="declination (or Galactic latitude)")
    frame: Literal["icrs", "fk5", "fk4", "galactic"] = Field("icrs", description="frame of these positions")
    null: Null = Field((), description="cell values that mean 'missing', in every column")
    columns: Strings = Field(
        (), description="columns to take (col1, col2 ... without a header), for catalog.cuts, labels and the release; "
        "missing where a source has no row"
    )
    prefix: str = Field(
        "", pattern=PREFIX,
        description="what their names get in front; the separation is called `<prefix>separation_arcsec`"
    )
    radius_arcsec: float = Field(gt=0, le=600, description="how far a row may be from its source")
    one_to_one: bool = Field(
        True, description="a row goes to one source only: pairs are taken by rising separation; else each source takes "
        "the nearest row, whoever else has it"
    )

    @property
    def names(self) -> dict[str, str]:
        """Name of each column that is taken -> its name among the sources, the separation last (under ``""``)."""
        return {name: f"{self.prefix}{name}" for name in self.columns} | {"": f"{self.prefix}separation_arcsec"}


class CatalogSection(Section):
    """The survey table and how its columns are read."""

    files: Globs = Field((), description="table files or globs, relative to the recipe; may be left out with "
                         "[images], which then are the catalog, with the columns id, field, file and folder for "
                         "`cuts` and `keep`")
    format: str | None = Field(
        None,
        description="astropy's format name (fits, ascii.ecsv, votable, ascii.ipac, ascii.csv, ascii.cds, "
        "ascii.no_header ...), 'parquet', or 'r' (R write.table); by default told from the file",
    )
    hdu: int | str | None = Field(None, description="number or name of the table's HDU, or table in a VOTable")
    field: FieldRule = Field(FieldRule(column="field"), description="where the field of a row comes from: "
                             "{ value = 'NAME' }, { column = 'NAME' } or { pattern = '{field}.cat' }; required with "
                             "`files`")
    id: Column = Field(ColumnTable(column="id"), description="source identifier, unique within its field; required "
                       "with `files`")
    ra: Column | None = Field(None, description="right ascension (or Galactic longitude where frame is galactic); may "
                              "be left out, with dec, where there are [images]")
    dec: Column | None = Field(None, description="declination (or Galactic latitude)")
    frame: Literal["icrs", "fk5", "fk4", "galactic"] = Field(
        "icrs", description="frame of the positions; all are turned into ICRS"
    )
    size: Column | None = Field(None, description="radius that sets the stamp's side, e.g. the Petrosian radius")
    pixel_scale: float | None = Field(None, gt=0, description="arcsec a native pixel, for sizes in pixels")
    magnitude: Column | None = Field(None, description="magnitude, for cuts, duplicates and summaries")
    keep: Strings = Field((), description="other columns to carry into sources.parquet, for release.columns, groups, "
                          "rules and labels")
    null: Null = Field(
        (), description="cell values that mean 'missing', in every column but those of id and field"
    )
    cuts: Strings = Field(
        (),
        description="expressions a row must satisfy, on the table's columns (col1, col2 ... without a header) and "
        "on id, field, ra, dec, size (arcsec) and magnitude, e.g. 'magnitude < 24.5 and FLAG == 0'. These six mean "
        "what the recipe maps, also where the table has a column of that name, which is then col(\"ra\"); size and "
        "magnitude are the table's own where the recipe maps none. What depends on a missing value is neither true "
        "nor false, and a row passes only where the whole is true; missing(NAME) asks for it",
    )
    duplicates: Literal["refuse", "first", "brightest"] = Field(
        "refuse", description="what happens to rows of one field with the same id: stop, or keep one"
    )
    allow_empty: bool = Field(False, description="accept a catalog of which no row is left")
    match: tuple[MatchSection, ...] = Field((), description="other catalogs to match on the sky")

    @model_validator(mode="after")
    def _units(self) -> CatalogSection:
        problems = []
        for key, units in (("id", ()), ("ra", POSITION_UNITS), ("dec", POSITION_UNITS), ("size", SIZE_UNITS),
                           ("magnitude", ())):
            column = getattr(self, key)
            if column is not None and column.unit is not None and column.unit not in units:
                problems.append(f"catalog.{key}.unit: unknown unit {column.unit!r}, {suggest(column.unit, units)}"
                                if units else f"catalog.{key}.unit: {key} takes no unit")
        if (self.ra is None) != (self.dec is None):
            problems.append(f"catalog.{'ra' if self.ra is None else 'dec'}: missing; ra and dec go together")
        if self.size is not None and self.size.unit == "pixels" and self.pixel_scale is None:
            problems.append("catalog.pixel_scale: sizes are in pixels, so it (arcsec a pixel) must be given")
        problems += self._match_problems()
        if problems:
            raise SectionError(problems)
        return self

    def _match_problems(self) -> Iterator[str]:
        if self.match and self.ra is None:
            yield "catalog.match: sources without catalog.ra and dec cannot be matched on the sky"
        for number, one in enumerate(self.match):
            for key in ("ra", "dec"):
                unit = getattr(one, key).unit
                if unit is not None and unit not in POSITION_UNITS:
                    yield f"catalog.match.{number}.{key}.unit: unknown unit {unit!r}, {suggest(unit, POSITION_UNITS)}"
        taken = [one.prefix + name for one in self.match for name in one.columns]
        names = Counter([*self.keep, *OWN_NAMES, *taken, *(one.names[""] for one in self.match)])
        for name, count in names.items():
            if count > 1 and (name in taken or any(name == one.names[""] for one in self.match)):
                yield f"catalog.match: the sources would have two columns {name!r}; set a prefix"

    @property
    def carried(self) -> tuple[str, ...]:
        """The columns that the sources have besides catmorph's own: those kept and those matched."""
        return (*self.keep, *(name for one in self.match for name in one.names.values()))

    @property
    def columns(self) -> dict[str, str | int | None]:
        """The column that each key maps, of those that the section has; None for a field that is not from a column."""
        specs = {key: getattr(self, key) for key in ("id", "field", "ra", "dec", "size", "magnitude")}
        return {key: spec.column for key, spec in specs.items() if spec is not None}

    @property
    def has_positions(self) -> bool:
        """Whether the sources have places on the sky."""
        return self.ra is not None
