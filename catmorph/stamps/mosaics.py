"""Which mosaic files belong to a field and band."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from catmorph.errors import CatmorphError, RecipeError, one_line
from catmorph.patience import patiently
from catmorph.templates import fill

if TYPE_CHECKING:
    from catmorph.recipe import MosaicSection, Recipe

_WILDCARD = re.compile(r"(\*+|\?|\[!?\]?[^\]]*\])")


@dataclass(frozen=True)
class ImageFiles:
    """One mosaic: the science image and its optional weight and flag maps, with their HDUs."""

    image: str
    hdu: int | str | None = None
    weight: str | None = None
    weight_hdu: int | str | None = None
    flag: str | None = None
    flag_hdu: int | str | None = None
    flag_bits: int | None = None
    blank: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The science image's file name."""
        return os.path.basename(self.image)

    @property
    def paths(self) -> tuple[str, ...]:
        """All files it is made of."""
        return tuple(path for path in (self.image, self.weight, self.flag) if path)


def find_mosaics(recipe: Recipe, field: str, band: str) -> tuple[ImageFiles, ...]:
    """Return the mosaics of a field and band, by pattern and name; none where the patterns match nothing.

    Raises
    ------
    RecipeError
        When the weight or flag maps are not as many as the mosaics, or cannot be paired with them.
    """
    section = _section(recipe)
    for name in recipe.file_bands(band):
        place = _Place(field, name)
        images = list(dict.fromkeys(path for pattern in section.pattern for path in _matches(pattern, place)))
        if images:
            break
    weights = _maps(recipe, "weight", section.weight, place, images)
    flags = _maps(recipe, "flag", section.flag, place, images)
    return tuple(
        ImageFiles(image=image, hdu=section.hdu, weight=weight, weight_hdu=section.weight_hdu, flag=flag,
                   flag_hdu=section.flag_hdu, flag_bits=section.flag_bits, blank=section.blank)
        for image, weight, flag in zip(images, weights, flags, strict=True)
    )


def mosaics_of_any_field(recipe: Recipe, band: str) -> tuple[ImageFiles, ...]:
    """Return the mosaics of a band without their maps, for when the fields are not known."""
    section = _section(recipe)
    images = dict.fromkeys(
        path for name in recipe.file_bands(band) for pattern in section.pattern
        for path in _matches(pattern, _Place(None, name))
    )
    return tuple(ImageFiles(image=image, hdu=section.hdu, blank=section.blank) for image in images)


class _Place(NamedTuple):
    """What stands for {field} and {band} in file names; None: any field."""

    field: str | None
    band: str


def _section(recipe: Recipe) -> MosaicSection:
    assert recipe.mosaics is not None
    return recipe.mosaics


def describe_unmatched(recipe: Recipe, bands: Iterable[str]) -> str:
    """Say that no mosaic of these bands was found for any field."""
    names = list(bands)
    what = "any band" if len(names) == len(recipe.bands.names) else f"band {', '.join(names)}"
    return one_line(f"no mosaic of {what} matches for any field", where=", ".join(_section(recipe).pattern),
                    hint="check mosaics.pattern and bands.files in the recipe")


def _matches(pattern: str, place: _Place) -> list[str]:
    # A dangling link is kept: it is a mosaic that cannot be read, not a field without one.
    filled = _filled(pattern, place)
    _refuse_unreadable_folder(filled)
    return sorted(path for path in glob.glob(filled) if not os.path.isdir(path))


def _refuse_unreadable_folder(pattern: str) -> None:
    """Raise where a folder is there but cannot be read: glob takes it for one without mosaics."""
    folder, _, _ = _WILDCARD.sub("\0", os.path.dirname(pattern)).partition("\0")
    folder = folder if folder == os.path.dirname(pattern) else os.path.dirname(folder)
    try:
        patiently(lambda: os.scandir(folder or ".").close())
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise CatmorphError(f"the folder of mosaics cannot be read: {error.strerror}", where=folder,
                            hint="run again when it can") from error


def _filled(pattern: str, place: _Place) -> str:
    # Field names come from catalogs: they are taken literally, never as a glob.
    return fill(pattern, {name: "*" if text is None else glob.escape(text) for name, text in place._asdict().items()})


def _maps(recipe: Recipe, kind: str, pattern: str | None, place: _Place, images: list[str]) -> list[str | None]:
    """Return the map of each image: the one whose wildcards stand for the same as in the image's name."""
    if pattern is None:
        return [None] * len(images)
    found = _matches(pattern, place)
    if len(found) != len(images):
        raise RecipeError(f"{len(found)} {kind} maps for {len(images)} mosaics of field {place.field!r}, "
                          f"band {place.band!r}", where=f"mosaics.{kind}", hint="there must be one for each mosaic")
    if len(images) == 1:
        return [found[0]]
    image_globs = [_filled(one, place) for one in _section(recipe).pattern]
    by_wildcards = {_wildcards([_filled(pattern, place)], path): path for path in found}
    paired = [by_wildcards.get(_wildcards(image_globs, image)) for image in images]
    if None in paired or len(set(paired)) != len(images):
        raise RecipeError(f"cannot tell which {kind} map belongs to which of the {len(images)} mosaics of "
                          f"field {place.field!r}, band {place.band!r}", where=f"mosaics.{kind}",
                          hint="let its wildcards stand for the same as those of mosaics.pattern")
    return list(paired)


def _wildcards(patterns: Iterable[str], path: str) -> tuple[str, ...]:
    """Return what the wildcards of the first glob of `patterns` that fits `path` stand for."""
    for pattern in patterns:
        parts = _WILDCARD.split(pattern)
        expression = "".join(
            re.escape(part) if place % 2 == 0 else _meaning(part) for place, part in enumerate(parts)
        )
        match = re.fullmatch(expression, path, re.DOTALL)
        if match:
            return match.groups()
    return ()


def _meaning(wildcard: str) -> str:
    if wildcard in ("[*]", "[?]", "[[]"):
        return re.escape(wildcard[1])  # as glob.escape writes a character that stands for itself
    if wildcard.startswith("["):
        inside = wildcard[1:-1]
        return f"([^{re.escape(inside[1:])}])" if inside.startswith("!") else f"([{inside}])"
    return "([^/])" if wildcard == "?" else "([^/]*)"
