"""`catmorph check`: everything that can be wrong with a recipe and its files, found without working."""

from __future__ import annotations

import math

from catmorph.preflight import Findings, missing_files, quick_findings, training_findings
from catmorph.recipe import Recipe, load_recipe
from catmorph.release.summary import FAULTY_KINDS
from catmorph.sources.division import Division, divide
from catmorph.sources.ingest import chunks_of, files_without_rows
from catmorph.sources.inputs import listed_images
from catmorph.sources.match import match_lines
from catmorph.sources.survey import map_catalog
from catmorph.stamps.images_check import check_images
from catmorph.stamps.mef import damaged_files
from catmorph.stamps.mosaics import ImageFiles, describe_unmatched, find_mosaics, mosaics_of_any_field
from catmorph.stamps.pixels import Mosaic
from catmorph.workspace import RunFolder


def check_run(run: RunFolder, *, deep: bool = False) -> Findings:
    """Check recipe, catalog, every mosaic or the header of every image, and the checkpoints, without working.

    Parameters
    ----------
    deep : bool
        Also read all inputs and products of the run folder again, and compare their sha256; decode all images.
    """
    found = quick_findings(run, trains=True)
    if deep:
        found.problems += [f"{path}: its bytes changed, but not its size, time and inode; touch it and run again"
                           for path in run.identities.changed_unseen()]
        found.problems += [f"{path}: is damaged: its bytes are not what was written; delete it and run again"
                           for path in [*run.ledger.damaged(), *damaged_files(run)]]
    _check_survey(run, found, deep=deep)
    if run.recipe.experiments.source is not None:
        _check_source(run, found, deep=deep)
    _say_where(run.recipe, found)
    return found


def _say_where(recipe: Recipe, found: Findings) -> None:
    """Note where the data of a recipe can be had, where some are not there."""
    if recipe.obtain and found.absent:
        found.notes.append(f"where the data can be had: {recipe.obtain}")


def _check_survey(run: RunFolder, found: Findings, *, deep: bool) -> None:
    """Read the catalog, and look for the mosaics or images of its sources."""
    images = found.attempt(listed_images, run) if run.recipe.images else None
    survey = found.attempt(map_catalog, run.recipe, images) if images is not None or run.recipe.mosaics else None
    if survey is not None:
        division = found.attempt(divide, survey, run.recipe)
        rejected = survey.rejected if division is None else division.rejected
        rows = len(survey.rows)
        found.notes.append(f"catalog: {rows} rows, {rows - sum(rejected.values())} usable")
        found.notes += [f"catalog: {count} rows rejected: {kind}" for kind, count in sorted(rejected.items())]
        faulty = sum(rejected.get(kind, 0) for kind in FAULTY_KINDS)
        if rows and faulty / rows > run.recipe.run.tolerance:
            found.notes.append(f"catalog: {faulty / rows:.2%} of the rows have a fault, more than run.tolerance "
                               f"({run.recipe.run.tolerance:.2%}): a run will end with status 3")
        found.notes += [f"catalog: {name} has no rows" for name in files_without_rows(survey, run.recipe)]
        for one in survey.matches:
            found.notes.append(f"match with {one.name}: {one.matched} rows of the catalog matched, {one.unmatched} not")
            found.notes += match_lines(one.facts())
        if division is not None and run.recipe.stamp.side_unit == "radii":
            found.notes.append(_sides(division, run.recipe.stamp.side_value))
        # Rejected rows may hold anything as field: no path is made of it.
        fields = sorted(Division(survey).fields if division is None else division.fields)
        if run.recipe.mosaics:
            _check_mosaics(run.recipe, fields, found)
        elif division is not None:
            images_found = found.attempt(check_images, run, chunks_of(division, run.recipe), deep=deep)
            found.problems += images_found[0] if images_found else []
            found.notes += images_found[1] if images_found else []
    elif run.recipe.mosaics:
        _check_any_mosaics(run.recipe, found)


def _sides(division: Division, radii: float) -> str:
    """Tell how wide stamps of so many radii are, and how many sources have no size."""
    least, most, without = math.inf, 0.0, 0
    for rows in division.sources():
        sizes = division.rows.take(rows, ["size_arcsec"])["size_arcsec"]
        there = sizes[sizes > 0]
        without += len(sizes) - len(there)
        least, most = min(least, there.min(initial=math.inf)), max(most, there.max(initial=0.0))
    wide = f"{radii * least:.3g} to {radii * most:.3g} arcsec wide" if most else "none"
    return f"stamps: {wide}" + (f"; {without} of the sources have no size above 0" if without else "")


def _check_source(run: RunFolder, found: Findings, *, deep: bool) -> None:
    """Check the recipe that ``experiments.source`` names, and whether one network can answer in both surveys."""
    source = found.attempt(load_recipe, run.recipe.experiments.source)
    if source is None:
        return
    # It looks at the networks, and torch takes seconds to import.
    from catmorph.experiments.transfer import question

    found.attempt(question, run.recipe)
    found.add_absent(missing_files(run.recipe, starts=False))
    other = RunFolder(run.path.parent / source.name, source)
    theirs = training_findings(other)
    if source.labels.stamp_files is None:
        _check_survey(other, theirs, deep=deep)
    _say_where(source, theirs)
    found.problems += [f"experiments.source {source.name}: {problem}" for problem in theirs.problems]
    found.notes += [f"experiments.source {source.name}: {note}" for note in theirs.notes]


def _check_mosaics(recipe: Recipe, fields: list[str], found: Findings) -> None:
    unmatched = []
    for band in recipe.bands.names if fields else ():
        # None where something else is wrong, which is told.
        tiles = {name: found.attempt(find_mosaics, recipe, name, band) for name in fields}
        missing = [name for name, files in tiles.items() if files is not None and not files]
        if len(missing) == len(fields):
            unmatched.append(band)
        elif missing:
            found.notes.append(f"band {band}: no mosaic for {len(missing)} of {len(fields)} fields: "
                               + ", ".join(missing[:5]))
        for files in tiles.values():
            for tile in files or ():
                found.attempt(_open, tile)
    _tell_unmatched(recipe, unmatched, found)


def _check_any_mosaics(recipe: Recipe, found: Findings) -> None:
    """Look at the mosaics as far as that can be done without the fields of a catalog."""
    unmatched = []
    for band in recipe.bands.names:
        tiles = found.attempt(mosaics_of_any_field, recipe, band)
        if tiles == ():
            unmatched.append(band)
        for tile in tiles or ():
            found.attempt(_open, tile)
    _tell_unmatched(recipe, unmatched, found)


def _tell_unmatched(recipe: Recipe, bands: list[str], found: Findings) -> None:
    if not bands:
        return
    text = describe_unmatched(recipe, bands)
    if len(bands) == len(recipe.bands.names):
        found.add_absent([text])
    else:
        found.notes.append(text)


def _open(tile: ImageFiles) -> None:
    Mosaic(tile).close()
