"""The section of a recipe on human labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from catmorph.recipe.base import Section
from catmorph.templates import pattern_problem


class LabelsSection(Section):
    """Where the labels of stamps are, how they name stamps, and how votes become labels."""

    table: str | None = Field(None, description="label table (CSV) with a column of vote fractions for each class")
    stamp: str = Field("{field}_{view|lower}_{id}", description="how the label table names a stamp")
    id_column: str = Field("ID", description="column of the label table with that name")
    votes_column: str | None = Field(None, description="column with the number of votes, for the noise floor")
    stamp_files: str | None = Field(
        None, description="FITS files (a glob) with one stamp each, named as in the label table, to use instead of "
        "stamps cut from the mosaics"
    )
    minimum_votes: int = Field(5, ge=1, description="subjects with fewer votes get no label")
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
