"""What is wrong with a production before it starts, all of it at once."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from catmorph.errors import CatmorphError, ProblemsError
from catmorph.inference.classify import fingerprint_of, load_predictor
from catmorph.inference.members import Member, members, network_of, temperatures
from catmorph.inference.tasks import check_member
from catmorph.labels.rules import check_rules
from catmorph.models.header import load_card
from catmorph.recipe import Recipe, load_recipe
from catmorph.recipe.loading import WORDS
from catmorph.release.bundle import check_release
from catmorph.release.tally import all_rules
from catmorph.schemes import load_scheme
from catmorph.sources.expressions import Expression
from catmorph.sources.ingest import chunks_of, divide, files_without_rows
from catmorph.sources.inputs import catalog_files, listed_images, match_files
from catmorph.sources.mapping import map_catalog
from catmorph.sources.match import match_lines
from catmorph.sources.names import check_names
from catmorph.sources.regions import check_expressions
from catmorph.stamps.images_check import check_images
from catmorph.stamps.mef import damaged_files
from catmorph.stamps.mosaics import ImageFiles, describe_unmatched, find_mosaics
from catmorph.stamps.pixels import Mosaic
from catmorph.workspace import RunFolder


@dataclass
class Findings:
    """What `check` finds: problems stop a run, notes do not."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attempt(self, function, *arguments, **options):  # type: ignore[no-untyped-def]
        """Call a function; a one-line error becomes a problem and None is returned."""
        try:
            return function(*arguments, **options)
        except ProblemsError as error:
            found = error.problems
        except CatmorphError as error:
            found = [str(error)]
        self.problems += [problem for problem in found if problem not in self.problems]
        return None


def check_run(run: RunFolder, *, deep: bool = False) -> Findings:
    """Check recipe, catalog, every mosaic or the header of every image, and the checkpoints, without working.

    Parameters
    ----------
    deep : bool
        Also read all inputs and products of the run folder again, and compare their sha256; decode all images.
    """
    found = quick_findings(run)
    if deep:
        found.problems += [f"{path}: its bytes changed, but not its size, time and inode; touch it and run again"
                           for path in run.identities.changed_unseen()]
        found.problems += [f"{path}: is damaged: its bytes are not what was written; delete it and run again"
                           for path in [*run.ledger.damaged(), *damaged_files(run)]]
    _check_survey(run, found, deep=deep)
    if run.recipe.experiments.source is not None:
        _check_source(run, found, deep=deep)
    if found.problems and run.recipe.obtain:
        found.notes.append(f"where the data can be had: {run.recipe.obtain}")
    return found


def _check_survey(run: RunFolder, found: Findings, *, deep: bool) -> None:
    """Read the catalog, and look for the mosaics or images of its sources."""
    images = found.attempt(listed_images, run) if run.recipe.images else None
    rows = found.attempt(map_catalog, run.recipe, images) if images is not None or run.recipe.mosaics else None
    if rows is not None:
        sources = found.attempt(divide, rows, run.recipe)
        counts = rows.frame["kind"].value_counts().to_dict()
        found.notes.append(f"catalog: {len(rows.frame)} rows, {len(rows.frame) - sum(counts.values())} usable")
        found.notes += [f"catalog: {count} rows rejected: {kind}" for kind, count in sorted(counts.items())]
        found.notes += [f"catalog: {name} has no rows" for name in files_without_rows(rows, run.recipe)]
        for one in rows.matches:
            found.notes.append(f"match with {one.name}: {one.matched} rows of the catalog matched, {one.unmatched} not")
            found.notes += match_lines(one.facts())
        # Rejected rows may hold anything as field: no path is made of it.
        if run.recipe.mosaics:
            _check_mosaics(run.recipe, sorted(rows.frame.loc[rows.frame["kind"].isna(), "field"].unique()), found)
        elif sources is not None:
            images_found = found.attempt(check_images, run, chunks_of(sources[0], run.recipe), deep=deep)
            found.problems += images_found[0] if images_found else []
            found.notes += images_found[1] if images_found else []


def _check_source(run: RunFolder, found: Findings, *, deep: bool) -> None:
    """Check the recipe that ``experiments.source`` names, and whether one network can answer in both surveys."""
    source = found.attempt(load_recipe, run.recipe.experiments.source)
    if source is None:
        return
    # It looks at the networks, and torch takes seconds to import.
    from catmorph.experiments.transfer import question

    found.attempt(question, run.recipe)
    found.problems += _missing_files(run.recipe, starts=False)
    other = RunFolder(run.path.parent / source.name, source)
    theirs = training_findings(other)
    if source.labels.stamp_files is None:
        _check_survey(other, theirs, deep=deep)
    if theirs.problems and source.obtain:
        theirs.notes.append(f"where the data can be had: {source.obtain}")
    found.problems += [f"experiments.source {source.name}: {problem}" for problem in theirs.problems]
    found.notes += [f"experiments.source {source.name}: {note}" for note in theirs.notes]


def training_findings(run: RunFolder, *, starts: bool = True) -> Findings:
    """Check what a training needs and can be seen without reading the catalog: tables, images, labels, weights.

    Parameters
    ----------
    starts : bool
        Whether it starts as the recipe says: the trainings of a target survey start from the source's network.
    """
    found = Findings()
    if run.recipe.labels.stamp_files is None:
        _check_tables(run, found)
    found.attempt(check_rules, run.recipe.labels, load_scheme(run.recipe.scheme))
    found.problems += _missing_files(run.recipe, starts=starts)
    return found


def _missing_files(recipe: Recipe, *, starts: bool) -> list[str]:
    """Return a line for each file of labels and trainings that there is not."""
    section, training = recipe.labels, recipe.training
    named = {"labels.table": section.table}
    if training is not None:
        named |= {"training.start": training.start if starts else None, "training.backbone": training.backbone}
    words = {value for _, value in WORDS}
    problems = [f"{path}: no such file; it is {key} of {recipe.name}" for key, path in named.items()
                if path is not None and path not in words and not Path(path).is_file()]  # fmt: skip
    if section.stamp_files is not None and not glob.glob(section.stamp_files, recursive=True):
        problems.append(f"{section.stamp_files}: no such file; it is labels.stamp_files of {recipe.name}")
    return problems


def quick_findings(
    run: RunFolder, *, device: str = "auto", precision: str | None = None, weights: bool = True
) -> Findings:
    """Check what can be seen without reading the catalog: files, columns, cuts, release, checkpoints, run folder.

    Parameters
    ----------
    weights : bool
        Make the networks of the checkpoints on `device`; else only their cards are looked at, without torch.
    """
    found, recipe = Findings(), run.recipe
    _check_tables(run, found)
    found.attempt(check_rules, recipe.labels, load_scheme(recipe.scheme))
    found.attempt(check_expressions, recipe.evaluation)
    if recipe.classifiers:
        found.attempt(check_release, recipe)
    else:
        found.problems.append("the recipe names no classifier; add [classifiers.NAME] with a checkpoint")
    found.attempt(all_rules, recipe)
    for name in recipe.classifiers:
        sound = _check_cards(run, name, found)
        for member in sound if weights else ():
            found.attempt(_load, run, member, device=device, precision=precision)
    found.attempt(_check_writable, run)
    return found


def _check_tables(run: RunFolder, found: Findings) -> None:
    """Look for the files of the catalog, its matches and images, and for the columns that the recipe names."""
    recipe = run.recipe
    if recipe.catalog.files:
        found.attempt(catalog_files, recipe.catalog)
    if recipe.images:
        found.attempt(listed_images, run)
    for one in recipe.catalog.match:
        found.attempt(match_files, one)
    for text in recipe.catalog.cuts:
        found.attempt(Expression, text)
    found.attempt(check_names, recipe)


def _check_cards(run: RunFolder, name: str, found: Findings) -> list[Member]:
    """Return the members of classifier `name` whose file is whole, fits, and is another network than the others."""
    known: dict[str, Member] = {}
    for member in members(run.recipe, name):
        card = found.attempt(load_card, member.checkpoint)
        network = card and found.attempt(network_of, run, member)
        if card and network:
            found.attempt(check_member, card, run, member)
            _refuse_twin(known.setdefault(network, member), member, found)
    found.attempt(temperatures, run.recipe, name)
    return list(known.values())


def _load(run: RunFolder, member: Member, *, device: str, precision: str | None) -> None:
    """Make the network of a member, unless that was done with the same bytes before: importing torch takes seconds."""
    fingerprint = fingerprint_of(run, member, device=device, precision=precision)

    def made(_: Path) -> str:
        load_predictor(run, member, device=device, precision=precision)
        return "yes"

    run.identities.derived(member.checkpoint, f"made as {fingerprint}", made)


def _refuse_twin(twin: Member, member: Member, found: Findings) -> None:
    if twin is not member:
        found.problems.append(f"{member.checkpoint}: holds the same network as {twin.checkpoint}; "
                              f"name it once in classifiers.{member.classifier}.checkpoint")


def refuse_problems(
    run: RunFolder, *, device: str = "auto", precision: str | None = None, weights: bool = True
) -> None:
    """Raise a `ProblemsError` with everything that `quick_findings` finds."""
    problems = quick_findings(run, device=device, precision=precision, weights=weights).problems
    if problems:
        raise ProblemsError(problems)


def _check_writable(run: RunFolder) -> None:
    folder = run.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CatmorphError("the run folder cannot be made or written", where=run.path,
                            hint="choose another -w/--workdir")


def _check_mosaics(recipe: Recipe, fields: list[str], found: Findings) -> None:
    unmatched = []
    for band in recipe.bands.names:
        tiles = {name: found.attempt(find_mosaics, recipe, name, band) or () for name in fields}
        missing = [name for name, files in tiles.items() if not files]
        if len(missing) == len(fields):
            unmatched.append(band)
        elif missing:
            found.notes.append(f"band {band}: no mosaic for {len(missing)} of {len(fields)} fields: "
                               + ", ".join(missing[:5]))
        for files in tiles.values():
            for tile in files:
                found.attempt(_open, tile)
    if unmatched:
        everything = len(unmatched) == len(recipe.bands.names)
        (found.problems if everything else found.notes).append(describe_unmatched(recipe, unmatched))


def _open(tile: ImageFiles) -> None:
    Mosaic(tile).close()


