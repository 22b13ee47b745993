"""What is wrong with a production before it starts, all of it at once; `catmorph.check` reads the inputs too."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catmorph.errors import CatmorphError, ProblemsError
from catmorph.inference.classify import fingerprint_of, load_predictor
from catmorph.inference.members import Member, members, network_of, remarks, temperatures
from catmorph.inference.tasks import check_member
from catmorph.models.card import one_channel_count
from catmorph.models.header import load_card
from catmorph.recipe import Recipe
from catmorph.recipe.base import PathMark
from catmorph.recipe.paths import paths_in
from catmorph.release.bundle import check_release
from catmorph.release.tally import all_rules
from catmorph.schemes import load_scheme
from catmorph.sources.expressions import Expression
from catmorph.sources.inputs import catalog_files, listed_images, match_files
from catmorph.sources.names import check_names
from catmorph.sources.regions import check_expressions
from catmorph.workspace import RunFolder


@dataclass
class Findings:
    """What `check` finds: problems stop a run, notes do not; `absent` is whether one is that a file is not there."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: bool = False

    def attempt(self, function, *arguments, **options):  # type: ignore[no-untyped-def]
        """Call a function; a one-line error becomes a problem and None is returned."""
        try:
            return function(*arguments, **options)
        except ProblemsError as error:
            found = error.problems
        except CatmorphError as error:
            found = [str(error)]
            self.absent |= error.absent
        self.problems += [problem for problem in found if problem not in self.problems]
        return None

    def add_absent(self, problems: Iterable[str]) -> None:
        """Add lines about files that are not there."""
        added = list(problems)
        self.problems += added
        self.absent |= bool(added)


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
    _check_labels(run.recipe, found)
    found.add_absent(missing_files(run.recipe, starts=starts))
    return found


def missing_files(
    recipe: Recipe, *, starts: bool = True, sections: Sequence[str] = ("labels", "training")
) -> list[str]:
    """Return a line for each file that `sections` name and that is not there; `starts` as in `training_findings`."""
    values = recipe.model_dump(mode="json", include=set(sections))
    return [f"{path}: no such file; it is {key} of {recipe.name}" for key, path, mark in paths_in(values)
            if mark.looked_for and (starts or key != "training.start") and not _is_there(path, mark)]  # fmt: skip


def _is_there(path: str, mark: PathMark) -> bool:
    return bool(glob.glob(path, recursive=True)) if mark.is_pattern else os.path.isfile(path)


def quick_findings(
    run: RunFolder, *, device: str = "auto", precision: str | None = None, weights: bool = True, trains: bool = False
) -> Findings:
    """Check what can be seen without reading the catalog: files, columns, cuts, release, checkpoints, run folder.

    Parameters
    ----------
    trains : bool
        Let a recipe that says how to train do without a classifier, or without the checkpoint that it makes.
    weights : bool
        Make the networks of the checkpoints on `device`; else only their cards are looked at, without torch.
    """
    found, recipe = Findings(), run.recipe
    _check_tables(run, found)
    _check_labels(recipe, found)
    if recipe.experiments.source is None:
        found.notes += [f"{line}, for training and evaluation" for line in missing_files(recipe)]
    found.notes += [f"{line}, for experiments" for line in missing_files(recipe, sections=["experiments"])]
    if recipe.training is not None:
        trained = Findings()
        trained.attempt(one_channel_count, recipe)
        found.notes += [f"training: {problem}" for problem in trained.problems]
    found.attempt(check_expressions, recipe.evaluation)
    if recipe.classifiers:
        found.attempt(check_release, recipe)
    elif trains and recipe.training is not None:
        found.notes.append("the recipe names no classifier: it is for training, not for a catalog")
    else:
        found.problems.append("the recipe names no classifier; add [classifiers.NAME] with a checkpoint")
    found.attempt(all_rules, recipe)
    made = _not_yet_made(recipe) if trains else None
    for name in recipe.classifiers:
        if made is not None and made in recipe.classifiers[name].checkpoints:
            found.notes.append(f"{made}: is not there yet, `catmorph train` makes it; classifiers.{name} needs it")
            continue
        sound = _check_cards(run, name, found)
        for member in sound if weights else ():
            found.attempt(_load, run, member, device=device, precision=precision)
    found.attempt(_check_writable, run)
    return found


def _not_yet_made(recipe: Recipe) -> str | None:
    """Return the checkpoint that the recipe's training will make, unless it is there."""
    output = None if recipe.training is None else recipe.training.output
    return None if output is None or os.path.exists(output) else output


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


def _check_labels(recipe: Recipe, found: Findings) -> None:
    """Check the rules and answers of labels, where the recipe has some."""
    if recipe.labels.rules or recipe.labels.answers:
        # Half a second to import, which a production does without.
        from catmorph.labels.rules import check_rules

        found.attempt(check_rules, recipe.labels, load_scheme(recipe.scheme))


def _check_cards(run: RunFolder, name: str, found: Findings) -> list[Member]:
    """Return the members of classifier `name` whose file is whole, fits, and is another network than the others."""
    known: dict[str, Member] = {}
    for member in members(run.recipe, name):
        card = found.attempt(load_card, member.checkpoint)
        network = card and found.attempt(network_of, run, member)
        if card and network:
            found.attempt(check_member, card, run, member)
            found.notes += [f"{member.checkpoint}: {remark}" for remark in remarks(run.recipe, member, card)]
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
    run.refuse_strangers()
    folder = run.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CatmorphError("the folder cannot be made or written", where=run.path,
                            hint="choose another -w/--workdir")
