"""Which trainings an experiment is made of: its points, their seeds and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catmorph.errors import UsageError, suggest
from catmorph.experiments.kinds import NAMES
from catmorph.models import MODELS
from catmorph.models.header import load_card
from catmorph.recipe import Recipe, TrainingSection
from catmorph.registry import Registry
from catmorph.workspace import safe_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from catmorph.experiments.tables import Results

Value = str | int | float
"""What a setting of a grid is: a size, a rate, the name of a stage ..."""
Setting = Mapping[str, Value]
"""Axis -> value."""

TRANSFER_TABLE = "transfer-table"
"""The experiment of two surveys, which is no grid: see `catmorph.experiments.transfer`."""
NO_BAND = "no band"
"""The point of `leave-band-out` with every band; no band can be called so."""
ZEROED, CURVE, SUBSETS = "zeroed", "curve", "subsets"
"""Wanted of a network: what is measured when each band in turn is zero; its learning curve; what is measured on the
stamps of each subset."""


@dataclass(frozen=True)
class Point:
    """One training of a grid.

    Attributes
    ----------
    setting : mapping
        What is varied, axis -> value.
    repeat : int
        Number of the split or repeat, from 0; trainings of one number share their seed whatever the setting.
    changes : mapping
        Keys of [training] that differ from the grid's.
    side : str, optional
        Side of the stamps, as ``stamp.side``; default: the recipe's.
    scheme : str, optional
        Label scheme that the network answers in, of the classes of the recipe's; default: the recipe's.
    """

    setting: Setting
    repeat: int
    changes: Mapping[str, Any]
    side: str | None = None
    scheme: str | None = None

    @property
    def name(self) -> str:
        """Name of the training, as part of file names."""
        text = "-".join([*map(str, self.setting.values()), f"{self.repeat:02d}"])
        return safe_name(text.replace(" ", "_").replace("+", ""))


@dataclass(frozen=True)
class Grid:
    """An experiment on one recipe: its trainings, in order, and what they share.

    `given` is the checkpoint that is tested as it is, instead of trainings.
    """

    experiment: Experiment
    recipe: Recipe
    section: TrainingSection
    quick: bool
    points: tuple[Point, ...]
    given: Path | None = None

    @property
    def start(self) -> Path | None:
        """The checkpoint that fine-tuned trainings start from."""
        return Path(self.section.start) if self.section.start else None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of what is varied."""
        return self.experiment.axes

    @property
    def settings(self) -> list[Setting]:
        """The settings, in order, each once."""
        return [dict(pairs) for pairs in dict.fromkeys(tuple(point.setting.items()) for point in self.points)]

    @property
    def sides(self) -> tuple[str | None, ...]:
        """The sides of stamps that are needed, each once."""
        return tuple(dict.fromkeys(point.side for point in self.points))

    def section_of(self, point: Point) -> TrainingSection:
        """Return the settings of one training, its seed included."""
        seed = training_seed(self.recipe.experiments.seed, point.repeat)
        return self.section.model_copy(update={**point.changes, "seed": seed})

    def start_of(self, point: Point) -> Path | None:
        """Return the checkpoint that one training starts from, or that is tested."""
        start = self.section_of(point).start
        return self.given or (Path(start) if start else None)

    def recipe_of(self, point: Point) -> Recipe:
        """Return the recipe whose stamps one training sees."""
        changes: dict[str, Any] = {} if point.scheme is None else {"scheme": point.scheme}
        if point.side is not None:
            changes["stamp"] = self.recipe.stamp.model_copy(update={"side": point.side})
        return self.recipe.model_copy(update=changes)


@dataclass(frozen=True)
class Experiment:
    """A kind of grid, and what is shown of its results.

    Attributes
    ----------
    name, title : str
    axes : tuple of str
        What is varied.
    repeats : str
        The key of [experiments] with the trainings a point.
    points : callable
        Gives the settings, with the changes of each.
    reference : callable
        Gives the setting that another is compared with.
    figure : callable
        Draws the results.
    conclusions : callable
        Gives what the results show, a sentence each.
    tables : callable
        Gives CSV tables beside those that all experiments have, by name.
    lines : callable
        Gives Markdown that stands on the page before the table of means.
    settings : callable, optional
        Tells the page how the networks were trained; default: as [training] says.
    wants : tuple of str
        What is measured of each network beside its metrics.
    tests : bool
        Whether it can do without training, on a checkpoint that is there.
    takes_no_start : (str, str), optional
        Why ``--from`` is refused, and what to do instead.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    repeats: str
    points: Callable[[Shape], Iterator[Point]]
    reference: Callable[[Grid, Setting], Setting | None]
    figure: Callable[[Results, Figure], None]
    conclusions: Callable[[Results], Iterable[str]]
    tables: Callable[[Results], Mapping[str, pd.DataFrame]] = lambda results: {}
    lines: Callable[[Results], Iterable[str]] = lambda results: ()
    settings: Callable[[Grid], Iterable[str]] | None = None
    wants: tuple[str, ...] = ()
    tests: bool = False
    takes_no_start: tuple[str, str] | None = None


EXPERIMENTS: Registry[Experiment] = Registry("experiment", "catmorph.experiments.kinds")
"""The experiments, by name; each is a file of that package."""


@dataclass(frozen=True)
class Shape:
    """What the points of an experiment depend on."""

    recipe: Recipe
    section: TrainingSection
    views: tuple[str, ...]
    quick: bool

    @property
    def channels(self) -> int:
        """Channels of a stamp: the bands of a view."""
        return len(next(iter(self.recipe.all_views.values())))


def training_seed(seed: int, repeat: int) -> int:
    """Return the seed of the trainings with number `repeat`, whatever else is varied.

    It decides split, initialisation and augmentation: trainings of one number differ in nothing but the setting,
    and are compared pairwise.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {repeat}".encode()).digest()[:4], "little") >> 1


def plan(
    name: str, recipe: Recipe, *, quick: bool = False, start: Path | None = None, views: Sequence[str] = (),
    given: Path | None = None,
) -> Grid:
    """Return the grid of experiment `name` on `recipe`.

    Parameters
    ----------
    quick : bool
        The smaller grid of ``experiments.quick``.
    start : path, optional
        Checkpoint that fine-tuned trainings start from; default: ``experiments.start``, else ``training.start``.
    views : sequence of str, optional
        Views with labelled stamps; default: all of the recipe.
    given : path, optional
        Checkpoint that is tested as it is: nothing is trained.

    Raises
    ------
    UsageError
        For an unknown experiment, a recipe without [training], an experiment that needs a checkpoint to start
        from, several views, several bands, or mosaics, where there are none, or that cannot test a given checkpoint.
    """
    if name not in NAMES:
        raise UsageError(f"unknown experiment {name!r}", hint=suggest(name, [*NAMES, TRANSFER_TABLE]))
    experiment = EXPERIMENTS.get(name)
    section = _section(recipe, quick, start) if given is None else _tested(experiment, given)
    shape = Shape(recipe, section, tuple(views) or tuple(recipe.all_views), quick)
    repeats = getattr(recipe.experiments, experiment.repeats)
    if given is not None:
        repeats = 1
    elif quick:
        repeats = min(repeats, recipe.experiments.quick.repeats)
    points = tuple(
        replace(point, repeat=repeat)
        for point in experiment.points(shape) for repeat in range(repeats)
    )  # fmt: skip
    return Grid(experiment, recipe, section, quick and given is None, points, given)


def _tested(experiment: Experiment, given: Path) -> TrainingSection:
    """Return what stands for the settings of a training where a checkpoint is tested as it is."""
    if not experiment.tests:
        able = ", ".join(name for name in NAMES if EXPERIMENTS.get(name).tests)
        raise UsageError(f"{experiment.name} is made of trainings, and cannot test a checkpoint that is there",
                         hint=f"--checkpoint is for {able}; --from names the checkpoint that trainings start from")
    return TrainingSection(model=load_card(given).model, output=str(given))


def _section(recipe: Recipe, quick: bool, start: Path | None) -> TrainingSection:
    """Return what all trainings share: [training], with the start, its network and the quick limits."""
    section = recipe.training
    if section is None:
        raise UsageError("the recipe has no [training] section", hint="the trainings of a grid are as it says")
    found = start or recipe.experiments.start or section.start
    changes: dict[str, Any] = {"start": str(found) if found else None}
    if found:
        changes["model"] = load_card(found).model
    elif quick:
        changes |= narrow(section)
    return section.model_copy(update=changes | (quick_limits(section, recipe) if quick else {}))


def narrow(section: TrainingSection) -> dict[str, Any]:
    """Return what makes a training one of the network's narrow variant; nothing where there is none."""
    found = MODELS.get(section.model).narrow
    # Weights of a backbone do not fit the narrow network, and without them there is nothing to freeze.
    return {"model": found, "backbone": None, "freeze_before": None} if found else {}


def quick_limits(section: TrainingSection, recipe: Recipe) -> dict[str, Any]:
    """Return what ``experiments.quick`` changes in the settings of a training."""
    limits = recipe.experiments.quick
    lower = {key: min(getattr(section, key), getattr(limits, key))
             for key in ("epochs", "batches_per_epoch", "batch", "patience")}  # fmt: skip
    return lower | {"learning_rate": limits.learning_rate}


def thinned(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the first, the last and the middle one."""
    return tuple(dict.fromkeys((values[0], values[len(values) // 2], values[-1])))
