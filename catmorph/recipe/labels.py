"""The section of a recipe on human labels."""

from __future__ import annotations

from pydantic import Field

from catmorph.recipe.base import Section


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
