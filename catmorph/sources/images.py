"""The images that a recipe's [images] names: which there are, where, and of which source and band each is."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from catmorph.errors import CatalogError
from catmorph.files import digest_json
from catmorph.recipe import ImageSection, Recipe
from catmorph.sources.archives import Member, is_archive, scan
from catmorph.templates import fill_some, matcher

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz")
"""Endings of images in folders and archives; a file that the recipe names itself may have any."""

IMAGE_COLUMNS = ("id", "field", "file", "folder")
"""Columns of the list of images that stands for a survey table."""

LOOSE = -1
"""`method` of an image that is a file of its own."""

_NOTHING = Member("", 0, -1, -1, LOOSE, -1)


class Found(NamedTuple):
    """A file that may be an image: the label of its folder or archive, its name within, its path, its member."""

    root: str
    name: str
    path: str
    member: Member


@dataclass(frozen=True)
class ImageList:
    """The images of a recipe, in its order: by folder or archive, then by name.

    Attributes
    ----------
    frame : DataFrame
        One row an image: ``field``, ``id`` (None where its name does not fit the pattern), ``band`` ("" where an image
        holds all), ``file`` (folder or archive and name), ``folder`` (the last one that holds it), ``path`` (of the
        file or archive), ``member`` (name in the archive), and ``offset``, ``packed``, ``size``, ``method``, ``check``
        as `catmorph.sources.archives.Member` has them.
    warnings : list of str
        What was left out that a user should know.
    notes : list of str
        What was left out besides.
    """

    frame: pd.DataFrame
    section: ImageSection
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the names of all images, in order; not of what is in them."""
        return digest_json([list(self.frame[name]) for name in ("field", "id", "band", "file")])

    @cached_property
    def sources(self) -> pd.DataFrame:
        """The sources that the images show, a row each: ``id``, ``field``, ``file``, ``folder``.

        With a file a band it is that of the first band there is, once for each folder. Where the name of an image
        does not fit the pattern, `id` is None.
        """
        frame = self.frame
        if self.section.has_band:
            key = frame["field"] + "\0" + frame["id"] + "\0" + frame["file"].str.rpartition("/")[0]
            frame = frame[key.isna() | ~key.duplicated()]
        return frame[[*IMAGE_COLUMNS]].reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.frame)


def list_images(recipe: Recipe) -> ImageList:
    """List the images of a recipe.

    Raises
    ------
    CatalogError
        When a file, folder or archive is missing or cannot be listed, or none holds an image.
    """
    # Half a second to import, which a recipe with mosaics does without.
    import pandas as pd

    section = recipe.images
    assert section is not None
    listing = _Listing()
    found = list(listing.all(section.files))
    if not found:
        raise CatalogError("there is no image", where=", ".join(section.files),
                           hint=f"known are files that end in {', '.join(ENDINGS)}")
    columns: dict[str, Any] = {
        "file": [_text(f"{one.root}/{one.name}") for one in found], "path": [one.path for one in found],
        "folder": [_text(os.path.basename(os.path.dirname(f"{one.root}/{one.name}"))) for one in found],
        "member": [one.member.name for one in found],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    for name in ("offset", "packed", "size", "method", "check"):
        frame[name] = np.array([getattr(one.member, name) for one in found], dtype=np.int64)
    _name(frame, recipe, section)
    other = frame["band"].isna()
    if other.any():
        listing.notes.append(f"images: {other.sum()} are of other bands than {', '.join(recipe.bands.names)}")
    frame = frame[~other].reset_index(drop=True)
    return ImageList(frame, section, listing.warnings, listing.notes)


class _Listing:
    """Goes through what a recipe names, and notes what it leaves out."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._roots: dict[str, str] = {}
        self._labels: Counter[str] = Counter()
        self._seen: set[str] = set()

    def all(self, patterns: Sequence[str]) -> Iterator[Found]:
        """Yield all files, each once."""
        for pattern in patterns:
            matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
            if not matches:
                raise CatalogError("no such images", where=pattern, hint="check images.files in the recipe",
                                   absent=True)
            for path in matches:
                yield from self._of(path)

    def _of(self, path: str) -> Iterator[Found]:
        if os.path.isdir(path):
            yield from self._folder(path)
        elif is_archive(path):
            yield from self._archive(path)
        else:
            yield from self._file(self._root(os.path.dirname(path)), path, os.path.basename(path))

    def _folder(self, folder: str) -> Iterator[Found]:
        root, skipped = self._root(folder), 0
        for place, folders, names in os.walk(folder, onerror=_refuse_folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            within = os.path.relpath(place, folder)
            for name in sorted(names):
                if _is_image(name):
                    yield from self._file(root, os.path.join(place, name), os.path.normpath(os.path.join(within, name)))
                else:
                    skipped += 1
        self._note_skipped(folder, skipped)

    def _file(self, root: str, path: str, name: str) -> Iterator[Found]:
        if path in self._seen:
            return
        self._seen.add(path)
        if _is_special(path):
            self.warnings.append(f"{path}: is no regular file, and is left out")
        else:
            yield Found(root, name, path, _NOTHING)

    def _archive(self, path: str) -> Iterator[Found]:
        if path in self._seen:
            return
        self._seen.add(path)
        root, contents = self._root(path), scan(path)
        for reason, count in sorted(contents.refused.items()):
            self.warnings.append(f"{path}: {count} members are left out: each {reason}")
        members = [member for member in contents.members if _is_image(os.path.basename(member.name))]
        self._note_skipped(path, len(contents.members) - len(members))
        for member in members:
            yield Found(root, member.name, path, member)

    def _root(self, path: str) -> str:
        """Return the name of a folder or archive, with its number where several have the same."""
        if path not in self._roots:
            name = os.path.basename(os.path.abspath(path)) or "images"
            self._labels[name] += 1
            self._roots[path] = name + (f" ({self._labels[name]})" if self._labels[name] > 1 else "")
        return self._roots[path]

    def _note_skipped(self, path: str, count: int) -> None:
        if count:
            self.notes.append(f"{path}: {count} files are no images by their names, and are left out")


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _is_special(path: str) -> bool:
    """Return whether a file is a device, pipe or socket; a link that leads nowhere is an image that cannot be read."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _refuse_folder(error: OSError) -> None:
    raise CatalogError(f"the folder of images cannot be read: {error.strerror}", where=error.filename) from error


def stem(name: str) -> str:
    """Return the base name of an image without its ending."""
    base = os.path.basename(name)
    known = [ending for ending in ENDINGS if base.lower().endswith(ending)]
    return base[: -len(max(known, key=len))] if known else os.path.splitext(base)[0]


def _text(name: str) -> str:
    """Return a file name as text that can be written: bytes that are no UTF-8 become a replacement character."""
    return name if _is_text(name) else os.fsencode(name).decode("utf-8", "replace")


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _name(frame: pd.DataFrame, recipe: Recipe, section: ImageSection) -> None:
    """Add field, id and band to the images, as their names say; a band that the recipe has not is None."""
    import pandas as pd

    rest = section.field or recipe.name
    expressions = _expressions(recipe, section)
    # A path that is no UTF-8 cannot be written down, and so is no source's.
    parts = [_parts(stem(file) if _is_text(path) else "", expressions)
             for file, path in zip(frame["file"], frame["path"], strict=True)]
    frame["id"] = pd.Series([part[0] for part in parts], dtype=object)
    frame["field"] = pd.Series([rest if part[0] and not section.has_field else part[1] for part in parts], dtype=object)
    frame["band"] = pd.Series([part[2] for part in parts], dtype=object)


def _expressions(recipe: Recipe, section: ImageSection) -> list[tuple[str | None, re.Pattern[str]]]:
    """Return band and regular expression of the names of images: of each band, then of any other band."""
    if not section.has_band:
        return [("", matcher(section.name))]
    known: list[tuple[str | None, re.Pattern[str]]] = [
        (band, matcher(fill_some(section.name, {"band": name})))
        for band in recipe.bands.names for name in recipe.file_bands(band)
    ]
    return [*known, (None, matcher(re.sub(r"\{band\|[a-z]+\}", "{band}", section.name)))]


def _parts(name: str, expressions: Sequence[tuple[str | None, re.Pattern[str]]]) -> tuple[Any, Any, Any]:
    """Return id, field and band in a name; without an id where it does not fit."""
    if name.isprintable():
        for band, expression in expressions:
            match = expression.match(name)
            if match:
                return match["id"], match.groupdict().get("field"), band
    return None, None, ""
