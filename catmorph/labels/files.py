"""Labelled stamps that are files already: one FITS image a stamp, named as the label table names it."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catmorph.errors import CatalogError, MosaicError, UsageError, listed
from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.tables import LabelMatch, LabelTable, match_labels
from catmorph.recipe import Recipe, StampSection
from catmorph.stamps.cut import Placement, cut_stamp
from catmorph.stamps.normalise import normalise
from catmorph.stamps.pixels import Image
from catmorph.templates import fill_some, matcher

_SUFFIX = re.compile(r"\.(fits|fit|fts|fz)(\.gz|\.fz)?$", re.IGNORECASE)


@dataclass(frozen=True)
class _StampName:
    """What the name of a stamp says."""

    field: str
    identifier: str
    view: str


def labelled_stamp_files(recipe: Recipe, table: LabelTable) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps among the files of ``labels.stamp_files`` that have a label.

    The whole image becomes the stamp, resampled as the recipe's [stamp] says. Files that cannot be read, are
    not square, or have more invalid pixels than ``stamp.max_bad_fraction`` are left out and reported.

    Parameters
    ----------
    table : LabelTable
        Its names are the names of the files, without folder and ending.

    Returns
    -------
    stamps : LabelledStamps
    left_over : list of str
        One line for each kind of file or label that was left out, with their number and the first five.

    Raises
    ------
    CatalogError
        When no file has a label, a labelled name does not follow ``labels.stamp``, or two files have one name.
    UsageError
        When there is no file, or the recipe has views of several bands.
    """
    files = _files(recipe)
    match = match_labels(table, list(files))
    named = list(files)
    chosen = [named[i] for i in match.stamps]
    parsed = _parsed(chosen, recipe, table.path)
    cut, problems = _cut_all([files[name] for name in chosen], recipe.stamp)
    usable = np.array([stamp is not None for stamp in cut])
    if not usable.any():
        raise CatalogError(f"no stamp file can be used: {problems[0]}", where=recipe.labels.stamp_files)
    rows = match.labels[usable]
    kept = [name for name, good in zip(parsed, usable, strict=True) if good]
    data = LabelledStamps(
        inputs=normalise(np.stack([stamp for stamp in cut if stamp is not None])[:, None], recipe.normalise),
        fractions=table.fractions[rows],
        fields=np.array([one.field for one in kept]),
        ids=np.array([one.identifier for one in kept]),
        views=np.array([one.view for one in kept]),
        votes=None if table.votes is None else table.votes[rows],
        names=np.array([name for name, good in zip(chosen, usable, strict=True) if good]),
    )
    return data, [*_report(match), *problems]


def _report(match: LabelMatch) -> list[str]:
    return [line.replace("stamps have no label", "stamp files have no label") for line in match.report()]


def _files(recipe: Recipe) -> dict[str, Path]:
    pattern = recipe.labels.stamp_files or ""
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    if not paths:
        raise UsageError("no file fits labels.stamp_files", where=pattern)
    several = [view for view, bands in recipe.all_views.items() if len(bands) > 1]
    if several:
        raise UsageError(f"labels.stamp_files holds stamps of one band; view {several[0]!r} has several")
    files: dict[str, Path] = {}
    for path in paths:
        name = _SUFFIX.sub("", path.name)
        if name in files:
            raise CatalogError(f"is another file of the stamp {name!r}, beside {files[name]}", where=path)
        files[name] = path
    return files


def _parsed(names: Sequence[str], recipe: Recipe, where: Path) -> list[_StampName]:
    # One expression a view: a field's name may hold what separates it from the view's.
    views = {view: matcher(fill_some(recipe.labels.stamp, {"view": view})) for view in recipe.all_views}
    parsed = [_parse(name, views) for name in names]
    wrong = [name for name, one in zip(names, parsed, strict=True) if one is None]
    if wrong:
        raise CatalogError(
            f"{len(wrong)} names do not follow the pattern {recipe.labels.stamp!r} with a view of the recipe: "
            f"{listed(wrong)}",
            where=where, hint="set labels.stamp and bands.names",
        )
    return [one for one in parsed if one is not None]


def _parse(name: str, views: dict[str, re.Pattern[str]]) -> _StampName | None:
    for view, pattern in views.items():
        found = pattern.match(name)
        if found:
            groups = found.groupdict()
            return _StampName(groups.get("field", ""), groups.get("id", name), view)
    return None


def _cut_all(paths: Sequence[Path], section: StampSection) -> tuple[list[np.ndarray | None], list[str]]:
    stamps: list[np.ndarray | None] = []
    reasons: dict[str, list[str]] = {}
    for path in paths:
        try:
            stamps.append(_cut(path, section))
        except MosaicError as error:
            stamps.append(None)
            reasons.setdefault(error.message, []).append(path.name)
    lines = []
    for reason, names in reasons.items():
        lines.append(f"{len(names)} stamp files left out ({reason}): {listed(names)}")
    return stamps, lines


def _cut(path: Path, section: StampSection) -> np.ndarray:
    """Resample a whole image to a stamp (y, x) float32, NaN where invalid."""
    image = Image(str(path))
    try:
        height, width = image.shape
        if height != width:
            raise MosaicError("is not square", where=path)
        step = width / section.pixels
        centre = ((width - 1) / 2, (height - 1) / 2)
        cut = cut_stamp(image, Placement(centre, np.diag([step, step]), section.pixels), section.resample)
    finally:
        image.close()
    if cut.bad_fraction > section.max_bad_fraction:
        raise MosaicError("more invalid pixels than stamp.max_bad_fraction", where=path)
    return cut.pixels * np.float32(step**2 if section.values == "flux" else 1)
