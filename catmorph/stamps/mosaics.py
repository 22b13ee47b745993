"""Which mosaic files belong to a field and band."""

from __future__ import annotations

import glob
import os

from catmorph.errors import RecipeError
from catmorph.recipe import Recipe
from catmorph.stamps.pixels import ImageFiles
from catmorph.templates import fill


def find_mosaics(recipe: Recipe, field: str, band: str) -> tuple[ImageFiles, ...]:
    """Return the mosaics of a field and band, sorted by name; none where the patterns match nothing.

    Raises
    ------
    RecipeError
        When the weight or flag maps are not as many as the mosaics.
    """
    section = recipe.mosaics
    images = [path for pattern in section.pattern for path in _matches(recipe, pattern, field, band)]
    weights = _maps(recipe, "weight", section.weight, field, band, images)
    flags = _maps(recipe, "flag", section.flag, field, band, images)
    return tuple(
        ImageFiles(image=image, hdu=section.hdu, weight=weight, weight_hdu=section.weight_hdu, flag=flag,
                   flag_hdu=section.flag_hdu, flag_bits=section.flag_bits, blank=section.blank)
        for image, weight, flag in zip(dict.fromkeys(images), weights, flags, strict=True)
    )


def _matches(recipe: Recipe, pattern: str, field: str, band: str) -> list[str]:
    # Field names come from catalogs: they are taken literally, never as a glob.
    filled = fill(pattern, {"field": glob.escape(field), "band": glob.escape(recipe.file_band(band))})
    return sorted(path for path in glob.glob(filled) if os.path.isfile(path))


def _maps(recipe: Recipe, kind: str, pattern: str | None, field: str, band: str, images: list[str]) -> list[str | None]:
    count = len(dict.fromkeys(images))
    if pattern is None:
        return [None] * count
    found = _matches(recipe, pattern, field, band)
    if len(found) != count:
        raise RecipeError(f"{len(found)} {kind} maps for {count} mosaics of field {field!r}, band {band!r}",
                          where=f"mosaics.{kind}", hint="there must be one for each mosaic")
    return list(found)
