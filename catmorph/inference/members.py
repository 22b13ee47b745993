"""The networks of a classifier: one, or the members of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catmorph.errors import CheckpointError, ProblemsError, listed
from catmorph.models.card import Card
from catmorph.models.header import load_card
from catmorph.models.identity import read_network_digest
from catmorph.recipe import Recipe
from catmorph.workspace import Chunk, RunFolder, safe_name


@dataclass(frozen=True)
class Member:
    """One network of a classifier.

    Attributes
    ----------
    classifier : str
        Name of the classifier.
    checkpoint : Path
        Its file.
    name : str
        Its name within the ensemble: that of the file without its ending, numbered where others have the same.
        Empty for the only network of a classifier.
    folder : str
        Folder of its logits below those of the view, empty for the first member: it is where the only network of a
        classifier has its logits too, so that a second one can be added without running the first again.
    """

    classifier: str
    checkpoint: Path
    name: str = ""
    folder: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.classifier}, {self.name}" if self.name else self.classifier


def members(recipe: Recipe, classifier: str) -> tuple[Member, ...]:
    """Return the networks of `classifier`, in the order of the recipe."""
    paths = [Path(text) for text in recipe.classifiers[classifier].checkpoints]
    if len(paths) == 1:
        return (Member(classifier, paths[0]),)
    names = list(_distinct(path.stem for path in paths))
    folders = ["", *_distinct(safe_name(path.stem) for path in paths[1:])]
    return tuple(Member(classifier, *one) for one in zip(paths, names, folders, strict=True))


def all_members(recipe: Recipe) -> list[Member]:
    """Return the networks of all classifiers."""
    return [member for classifier in recipe.classifiers for member in members(recipe, classifier)]


def member_logits(run: RunFolder, member: Member, view: str, chunk: Chunk) -> Path:
    """Return the file of the member's logits."""
    return run.logits_path(member.classifier, view, chunk, member.folder)


def network_of(run: RunFolder, member: Member) -> str:
    """Return the digest of what decides the member's logits, remembered in the run folder; see `models.identity`.

    Raises
    ------
    CheckpointError
        When the checkpoint is damaged.
    """
    return run.identities.derived(member.checkpoint, "network", read_network_digest)


def remarks(recipe: Recipe, member: Member, card: Card) -> list[str]:
    """Return what its users should know: what its card says it is for, and views new to it."""
    new = [view for view in recipe.classifier_views(member.classifier) if view not in card.views]
    said = [" ".join(card.purpose.split())] if card.purpose else []
    return said + ([f"trained on {listed(card.views)}, not on {listed(new)}"] if card.views and new else [])


def temperatures(recipe: Recipe, classifier: str) -> tuple[float, ...]:
    """Return what the logits of each member of `classifier` are divided by at export.

    Raises
    ------
    ProblemsError
        Naming every checkpoint that cannot be read, or has no temperature where the recipe asks for the card's.
    """
    wanted = recipe.classifiers[classifier].temperature
    mine = members(recipe, classifier)
    if wanted != "card":
        return (wanted,) * len(mine)
    problems, found = [], []
    for member in mine:
        try:
            found.append(_card_temperature(member))
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise ProblemsError(problems)
    return tuple(found)


def all_temperatures(recipe: Recipe) -> dict[str, tuple[float, ...]]:
    """Return the `temperatures` of every classifier."""
    return {classifier: temperatures(recipe, classifier) for classifier in recipe.classifiers}


def _card_temperature(member: Member) -> float:
    temperature = load_card(member.checkpoint).temperature
    if temperature is None:
        raise CheckpointError(
            f"its card has no temperature, and classifiers.{member.classifier}.temperature is 'card'",
            where=member.checkpoint, hint="fit one with `catmorph evaluate --calibrate`, or give a number",
        )
    return temperature


def _distinct(names: Iterator[str]) -> Iterator[str]:
    """Yield `names`, numbered from the second on where one comes again; what follows changes none before it."""
    taken: set[str] = set()
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free)
        yield free
