"""The experiment of two surveys: what a network of one is worth in the other, and what a few labels there add.

Five networks answer one question, as Table 2 of Dominguez Sanchez et al. (2019): (0) that of the source survey on the
source survey, (a) the same on the target survey, (b) fine-tuned there, (c) fine-tuned there in its dense layers
only, and (d) one trained there from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.errors import UsageError, suggest
from catmorph.experiments.plan import TRANSFER_TABLE, narrow, quick_limits
from catmorph.models import MODELS
from catmorph.models.create import check_input
from catmorph.recipe import Recipe, TrainingSection, load_recipe
from catmorph.schemes import Scheme, load_scheme

SOURCE, APPLIED, ALL_LAYERS, DENSE, SCRATCH = "0", "a", "b", "c", "d"
"""The five networks, by the names of the published table."""
NETWORKS = (SOURCE, APPLIED, ALL_LAYERS, DENSE, SCRATCH)
FIRST = (SOURCE, SCRATCH)
"""Those that need no other; the rest start from the source network."""


@dataclass(frozen=True)
class Question:
    """One question asked in two surveys.

    Attributes
    ----------
    target, source : Recipe
    target_section, source_section : TrainingSection
        Settings of the trainings in the target survey from scratch, and in the source survey.
    positive : int
        Number of the class that counts as yes.
    dense : str
        The stage before which all is frozen in (c).
    quick : bool
    """

    target: Recipe
    source: Recipe
    target_section: TrainingSection
    source_section: TrainingSection
    positive: int
    dense: str
    quick: bool

    @property
    def scheme(self) -> Scheme:
        """The label scheme of the target survey; that of the source has the same classes."""
        return load_scheme(self.target.scheme)

    @property
    def title(self) -> str:
        """What is asked, in words."""
        return self.scheme.classes[self.positive].title

    @property
    def folder(self) -> Path:
        """Where the results lie: below ``experiments.folder``."""
        name = TRANSFER_TABLE + ("-quick" if self.quick else "")
        return Path(self.target.experiments.folder or "experiments").absolute() / self.target.name / name

    def describe(self, network: str) -> str:
        """Return one of `NETWORKS` in words."""
        source, target = self.source.name, self.target.name
        return {
            SOURCE: f"network of {source} on {source}",
            APPLIED: f"network of {source} on {target}",
            ALL_LAYERS: f"fine-tuned on {target}, all layers",
            DENSE: f"fine-tuned on {target}, from {self.dense} on",
            SCRATCH: f"{target} from scratch",
        }[network]

    def section(self, network: str, start: Path) -> TrainingSection:
        """Return the settings of a training; `start` is the checkpoint of the source network."""
        if network in (SOURCE, APPLIED):
            return self.source_section
        changes: dict[str, dict[str, Any]] = {
            ALL_LAYERS: {"start": str(start), "freeze_before": None},
            DENSE: {"start": str(start), "freeze_before": self.dense},
            SCRATCH: {},
        }
        return self.target_section.model_copy(update=changes[network])


def question(recipe: Recipe, *, quick: bool = False) -> Question:
    """Return the question that `recipe`, of the target survey, asks with ``experiments.source``.

    Raises
    ------
    RecipeError
        When the source recipe is missing or not valid.
    UsageError
        When a recipe has no [training], the two do not suit each other, or a class or stage is not known.
    """
    own = recipe.experiments
    if own.source is None:
        raise UsageError(f"{TRANSFER_TABLE} needs a second survey", where=recipe.name,
                         hint="set experiments.source to the recipe of the survey that the network comes from")
    source = load_recipe(own.source)
    section = _section(recipe, own.target_size, recipe, quick)
    source_section = _section(source, own.source_size, recipe, quick)
    _refuse_unlike(recipe, source, section, source_section)
    scheme = load_scheme(recipe.scheme)
    positive = len(scheme.class_names) - 1 if own.positive is None else scheme.index(own.positive)
    return Question(recipe, source, section, source_section, positive, _dense_stage(recipe, section.model), quick)


def _section(recipe: Recipe, size: int | None, target: Recipe, quick: bool) -> TrainingSection:
    section = recipe.training
    if section is None:
        raise UsageError("the recipe has no [training] section", where=recipe.name,
                         hint=f"{TRANSFER_TABLE} trains in both surveys, each as its own recipe says")
    changes: dict[str, Any] = {} if size is None else {"size": size}
    if recipe is target:
        changes |= {"start": None, "freeze_before": None}
    if quick:
        changes |= {**narrow(section), **quick_limits(section, target)}
    return section.model_copy(update=changes)


def _refuse_unlike(
    target: Recipe, source: Recipe, target_section: TrainingSection, source_section: TrainingSection
) -> None:
    if source.name == target.name:
        raise UsageError(f"both recipes are called {source.name!r}: their run folders would be one", where=source.name,
                         hint="set name in the source recipe")
    pairs = {
        "networks (training.model)": (source_section.model, target_section.model),
        "classes (scheme)": tuple(", ".join(load_scheme(one.scheme).class_names) for one in (source, target)),
        "bands of a stamp": tuple(_channels(one) for one in (source, target)),
        "stamp sizes (stamp.pixels)": (source.stamp.pixels, target.stamp.pixels),
    }
    for what, (theirs, mine) in pairs.items():
        if theirs != mine:
            raise UsageError(f"the two recipes have different {what}: {theirs} ({source.name}) and {mine} "
                             f"({target.name})", hint="one network must answer the same question in both")
    for section, recipe in ((target_section, target), (source_section, source)):
        check_input(section.model, recipe)


def _channels(recipe: Recipe) -> str:
    return "/".join(map(str, sorted({len(bands) for bands in recipe.all_views.values()})))


def _dense_stage(recipe: Recipe, model: str) -> str:
    stages, wanted = MODELS.get(model).stages, recipe.experiments.dense_stage
    if wanted is None:
        return next((stage for stage in stages if stage.startswith("dense")), stages[-1])
    if wanted not in stages[1:]:
        raise UsageError(f"experiments.dense_stage: {model} has no stage {wanted!r} to freeze before",
                         hint=suggest(wanted, stages[1:]))
    return wanted
