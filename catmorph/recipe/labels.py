"""The section of a recipe on human labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from catmorph.errors import suggest
from catmorph.recipe.base import PathMark, Section, SectionError, as_tuple
from catmorph.recipe.catalog import POSITION_UNITS, Column
from catmorph.templates import pattern_problem

Columns = Annotated[tuple[str | int, ...], BeforeValidator(as_tuple)]
"""Some columns, by name or 1-based number; a single one may be given without brackets."""


class LabelsSection(Section):
    """Where the labels of stamps are, how they name stamps, and how votes become labels."""

    table: Annotated[str | None, PathMark()] = Field(
        None, description="label table: a column of vote fractions for each class, or labels.class_column; without it "
        "labels come from the sources (labels.class_column, labels.rules)"
    )
    format: str | None = Field(
        None, description="astropy's format name of the label table, as catalog.format; default: CSV with a header, or "
        "what the file name says; without a header where labels.id_column (or ra) is a number"
    )
    hdu: int | str | None = Field(None, description="number or name of the label table's HDU, as catalog.hdu")
    stamp: str = Field("{field}_{view|lower}_{id}", description="how the label table names a stamp")
    id_column: str | int = Field("ID", description="column of the label table with that name")
    votes_column: str | int | None = Field(
        None, description="column with the number of votes, for the noise floor and labels.minimum_votes"
    )
    class_column: Columns = Field(
        (), description="columns that hold a class each (its name, code, label or title, or an answer of "
        "labels.answers), one for each person who looked; of the label table, or of the sources (kept columns) where "
        "there is none"
    )
    votes: Literal["mean", "mode"] = Field(
        "mean", description="`mean`: labels are vote fractions; `mode`: 1 for the class of most votes and 0 for the "
        "others (yes/no questions: 1 from half of the votes on; trees: 1 for the answers on the way down)"
    )
    ties: Literal["refuse", "first"] = Field(
        "refuse", description="with labels.votes = `mode`, a label whose classes are tied for most votes is left out, "
        "or has the first of them"
    )
    minimum_agreement: float | None = Field(
        None, ge=0.5, lt=1, description="keep only labels of which one class has more than this fraction (yes/no "
        "questions and trees: each answer has more than this or less than 1 minus this), and at least "
        "labels.minimum_votes votes, where labels.votes_column or several experts tell them"
    )
    rules: dict[str, str] = Field(
        {}, description="class -> expression on the columns of the sources (as catalog.cuts, with the kept columns), "
        "for sources without another label: the class of the one rule that is true; a yes/no question is no where its "
        "rule is false"
    )
    ra: Column | None = Field(None, description="right ascension in the label table, to find sources by position "
                              "instead of by name")
    dec: Column | None = Field(None, description="declination in the label table")
    frame: Literal["icrs", "fk5", "fk4", "galactic"] = Field("icrs", description="frame of these positions")
    match_radius_arcsec: float = Field(
        1.0, gt=0, le=600, description="how far a label may be from its source; each has the nearest of the other"
    )
    stamp_files: Annotated[str | None, PathMark(is_pattern=True)] = Field(
        None, description="FITS files (a glob) with one stamp each, named as in the label table, to use instead of "
        "stamps cut from the mosaics"
    )
    minimum_votes: int = Field(
        5, ge=1, description="subjects with fewer votes get no label; in label tables only with "
        "labels.minimum_agreement"
    )
    workflow: str | None = Field(
        None, description="Zooniverse workflow (its number) whose classifications count; needed where an export has "
        "several"
    )
    task: str | None = Field(
        None, description="task of that workflow that asks for the class, such as `T0`; needed where there are several"
    )
    subject_key: str = Field(
        "#stamp", description="metadata of a Zooniverse subject that names its stamp; leading # ! / % do not matter"
    )
    answers: dict[str, str] = Field(
        {}, description="answer -> class of the scheme, for answers that are no class's name, label or title; an empty "
        "class leaves the answer out"
    )
    stretches: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (95.0, 99.5), min_length=1, max_length=4, description="per cent of the pixels between black and white, one "
        "panel of a subject each"
    )

    @field_validator("stamp")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        problem = pattern_problem(value, ("field", "id", "view"))
        if problem:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> LabelsSection:
        problems = list(self._problems())
        if problems:
            raise SectionError(problems)
        return self

    def _problems(self) -> Iterator[str]:
        if (self.ra is None) != (self.dec is None):
            yield "labels.ra and labels.dec: give both or none"
        for key in ("ra", "dec"):
            column = getattr(self, key)
            if column is not None and column.unit is not None and column.unit not in POSITION_UNITS:
                yield f"labels.{key}.unit: unknown unit {column.unit!r}, {suggest(column.unit, POSITION_UNITS)}"
        if len(set(self.class_column)) < len(self.class_column):
            yield "labels.class_column: names a column twice"
        if self.stamp_files is not None and (self.rules or self.ra is not None):
            yield "labels.stamp_files: stamp files have no positions and columns for labels.ra or labels.rules"

    @property
    def from_sources(self) -> bool:
        """Whether labels come from the sources' own columns."""
        return bool(self.rules) or (self.table is None and bool(self.class_column))
