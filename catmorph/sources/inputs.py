"""What the sources are made from: the catalog's files, and whether those are the ones that were read in.

Nothing here reads a table: stages that only ask whether their sources are still valid need not import what does.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from catmorph.errors import CatalogError
from catmorph.ledger import Parts, State
from catmorph.recipe import CatalogSection, MatchSection
from catmorph.workspace import RunFolder

if TYPE_CHECKING:
    from catmorph.sources.images import ImageList

CODE_VERSION = 4
"""Raised when this stage's results change; part of its fingerprint."""


def catalog_files(section: CatalogSection | MatchSection) -> list[Path]:
    """Return the catalog files that the recipe names, globs expanded and sorted.

    Raises
    ------
    CatalogError
        When a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in section.files:
        matches = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        # A dangling link of a glob is kept, and fails when it is read: its rows must not just be missing.
        files = [Path(match) for match in matches if not os.path.isdir(match)]
        if not files:
            if os.path.isdir(pattern):
                raise CatalogError("is a folder", where=pattern, hint="name its files in catalog.files, such as *.cat")
            raise CatalogError("no such catalog file", where=pattern, hint="check catalog.files in the recipe",
                               absent=True)
        for file in files:
            if file.exists() and not file.is_file():
                raise CatalogError("is no file, but a pipe or a device", where=str(file),
                                   hint="check catalog.files in the recipe")
        found += [file for file in files if file not in found]
    return found


@contextmanager
def told_of(section: str) -> Iterator[None]:
    """Let errors of reading a table speak of recipe section `section` where they would of ``catalog``."""
    try:
        yield
    except CatalogError as error:
        message, hint = (text and text.replace("catalog.", f"{section}.") for text in (error.message, error.hint))
        raise CatalogError(message or "", where=error.where, hint=hint, absent=error.absent) from error


def match_files(section: MatchSection) -> list[Path]:
    """Return the files of the other catalog, globs expanded and sorted.

    Raises
    ------
    CatalogError
        When a pattern matches nothing.
    """
    with told_of("catalog.match"):
        return catalog_files(section)


def ingest_parts(run: RunFolder) -> Parts:
    """Return the inputs that decide the sources: catalog files or names of images, catalog section, chunk size."""
    section = run.recipe.catalog
    files: dict[str, str] = {} if section.files else {"list of images": listed_images(run).digest}
    seen: Counter[str] = Counter()
    for path in catalog_files(section):
        # Files of different folders may share a name; where the folders are does not matter.
        seen[path.name] += 1
        ordinal = f" ({seen[path.name]})" if seen[path.name] > 1 else ""
        files[f"catalog {path.name}{ordinal}"] = run.identities.of(path)
    for number, one in enumerate(section.match, start=1):
        files |= {f"match {number} {place} {path.name}": run.identities.of(path)
                  for place, path in enumerate(match_files(one), start=1)}
    # A recipe without a match has the fingerprint that it had before there were any.
    settings = section.model_dump(mode="json", exclude={"files"} if section.match else {"files", "match"})
    for one in settings.get("match", ()):
        del one["files"]
    return Parts({**files, "[catalog]": settings, "run.chunk_rows": run.recipe.run.chunk_rows, "code": CODE_VERSION})


def listed_images(run: RunFolder) -> ImageList:
    """Return the images of the recipe, listed once for a command."""
    if "images" not in run.memory:
        from catmorph.sources.images import list_images

        run.memory["images"] = list_images(run.recipe)
    return run.memory["images"]


def ingest_state(run: RunFolder) -> State:
    """Return whether the sources are there and still valid."""
    sources = run.sources_path()
    if sources.exists() or run.ledger.read(sources):
        for product in (run.plan_path(), run.rejected_path()):
            if not product.exists():
                return State("missing", f"{product.name} is missing")
    return run.ledger.state(sources, ingest_parts(run))
