"""The section of a recipe on images of one source each."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, PositiveInt, field_validator

from catmorph.recipe.base import SAFE_NAME, Globs, Section
from catmorph.templates import names_in, pattern_problem


class ImageSection(Section):
    """Images of one source each (JPEG, PNG or FITS cut-outs) that stamps are cut from, instead of [mosaics].

    Without `catalog.files` the images are the catalog too: a source each, without positions.
    """

    files: Globs = Field(min_length=1, description="image files, globs (** for folders within folders), folders, and "
                         "tar (also .tar.gz) and zip archives, which are read in place; relative to the recipe")
    name: str = Field("{id}", description="pattern of an image's file name without folder and ending, with {id} and, "
                      "where names hold them, {field} and {band}; with {band} (which may have a filter) each band is a "
                      "file of its own with one plane")
    field: str | None = Field(None, pattern=SAFE_NAME, description="field of the images, where neither a catalog nor "
                              "`name` says it; default: the recipe's name")
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="width and height in pixels that every image must have; others are flagged BAD_IMAGE"
    )
    planes: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="band -> number of its plane, from 1; default: the bands in their order are all planes of an "
        "image (red, green, blue of a JPEG or PNG, the planes of a FITS cube)"
    )
    hdu: int | str | None = Field(None, description="HDU of FITS cut-outs; default: the first with an image")
    pixel_scale: float | None = Field(None, gt=0, description="arcsec a pixel, for a side in arcsec or radii")

    @field_validator("files")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("a name is empty")
        return value

    @field_validator("name")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        problem = pattern_problem(value, ("id", "field", "band"))
        if problem:
            raise ValueError(problem)
        if "id" not in names_in(value) or "/" in value:
            raise ValueError(f"pattern {value!r} must hold {{id}}, and no folder")
        if re.search(r"\{(id|field)\|", value):
            raise ValueError(f"pattern {value!r}: only {{band}} can have a filter")
        return value

    @property
    def has_field(self) -> bool:
        """Whether the names of images say the field."""
        return "field" in names_in(self.name)

    @property
    def has_band(self) -> bool:
        """Whether each band is a file of its own."""
        return "band" in names_in(self.name)
