"""Which trainings an experiment is made of: its points, their seeds and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catmorph.errors import UsageError, suggest
from catmorph.models import MODELS
from catmorph.models.create import check_input
from catmorph.models.header import load_card
from catmorph.recipe import Recipe, TrainingSection
from catmorph.schemes import load_scheme
from catmorph.workspace import safe_name

Value = str | int | float
"""What a setting of a grid is: a size, a rate, the name of a stage ..."""
Setting = Mapping[str, Value]
"""Axis -> value."""

FINE_TUNED, FROM_SCRATCH = "fine-tuned", "from scratch"
NOTHING = "nothing"
"""The point of `freezing` without a frozen stage."""
TRANSFER_TABLE = "transfer-table"
"""The experiment of two surveys, which is no grid: see `catmorph.experiments.transfer`."""
NO_FILTER = "no filter"
"""The point of `filter-importance` with every filter; no view can be called so."""
NO_BAND = "no band"
"""The point of `leave-band-out` with every band; no band can be called so."""
ZEROED, CURVE, SUBSETS = "zeroed", "curve", "subsets"
"""Wanted of a network: what is measured when each band in turn is zero; its learning curve; what is measured on the
stamps of each subset."""
RANDOM = "random"
"""The point of `crop-size` whose sides are drawn in training."""


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
    """A kind of grid.

    `repeats` names the key of [experiments] with the trainings a point; `points` gives the settings, with the
    changes of each; `reference` the setting that another is compared with; `wants` what is measured of each network
    beside its metrics; `tests` tells whether it can do without training, on a checkpoint that is there.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    repeats: str
    points: Callable[[Shape], Iterator[Point]]
    reference: Callable[[Grid, Setting], Setting | None]
    wants: tuple[str, ...] = ()
    tests: bool = False


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
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {name!r}", hint=suggest(name, [*EXPERIMENTS, TRANSFER_TABLE]))
    experiment = EXPERIMENTS[name]
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
        able = ", ".join(one.name for one in EXPERIMENTS.values() if one.tests)
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


def _learning_curve(shape: Shape) -> Iterator[Point]:
    starts = {FINE_TUNED: shape.section.start, FROM_SCRATCH: None}
    for size in sorted(set(shape.recipe.experiments.sizes)):
        for start, checkpoint in starts.items():
            # What is frozen is frozen at what a checkpoint holds.
            changes = {"size": size, "start": checkpoint} | ({} if checkpoint else {"freeze_before": None})
            if start == FROM_SCRATCH or checkpoint:
                yield Point({"size": size, "start": start}, 0, changes)


def _freezing(shape: Shape) -> Iterator[Point]:
    if not shape.section.start:
        raise UsageError("freezing needs a checkpoint to start from", hint="give --from or set experiments.start")
    stages = MODELS.get(shape.section.model).stages
    chosen = shape.recipe.experiments.stages
    for stage in chosen:
        if stage not in stages[1:]:
            raise UsageError(f"experiments.stages: {shape.section.model} has no stage {stage!r} to freeze before",
                             hint=suggest(stage, stages[1:]))
    chosen = chosen or tuple(stage for stage in stages if stage.startswith("inception")) or stages[1:]
    if shape.quick:
        chosen = _thinned(chosen)
    for stage in (NOTHING, *chosen):
        yield Point({"frozen before": stage}, 0, {"freeze_before": None if stage == NOTHING else stage})


def _filter_importance(shape: Shape) -> Iterator[Point]:
    if len(shape.views) < 2:
        bands = "; leave-band-out sets the bands of a stamp to zero instead" if shape.channels > 1 else ""
        raise UsageError(
            f"filter-importance needs several views: the labelled stamps are all of {shape.views[0]}{bands}"
        )
    yield Point({"without": NO_FILTER}, 0, {})
    for view in shape.views:
        yield Point({"without": view}, 0, {"leave_out": (view,)})


def _leave_band_out(shape: Shape) -> Iterator[Point]:
    if shape.channels < 2:
        raise UsageError("leave-band-out sets the bands of a stamp to zero, and the views of the recipe have one each",
                         hint="name the bands of a view in [views], or leave views out of training: filter-importance")
    # One network tells of every band: each is set to zero in the same test stamps.
    yield Point({"without": NO_BAND}, 0, {})


def _crop_size(shape: Shape) -> Iterator[Point]:
    if shape.recipe.labels.stamp_files is not None:
        raise UsageError("crop-size cuts stamps anew, and labels.stamp_files gives stamps that are cut already",
                         hint="name catalog and mosaics, and no stamp files")
    unit, wanted = shape.recipe.stamp.side_unit, shape.recipe.experiments.crop_sizes
    sides = tuple(sorted({side for side in wanted if not isinstance(side, str)}))
    for side in _thinned(sides) if shape.quick else sides:
        yield Point({"side": side}, 0, {}, side=f"{side:g} {unit}")
    if RANDOM in wanted:
        # The stamps of the largest side, of which training sees a part that is drawn anew each time.
        yield Point({"side": RANDOM}, 0, {"zoom": (sides[0] / sides[-1], 1.0)}, side=f"{sides[-1]:g} {unit}")


def _learning_rate(shape: Shape) -> Iterator[Point]:
    for rate in sorted(set(shape.recipe.experiments.learning_rates)):
        yield Point({"learning rate": rate}, 0, {"learning_rate": rate})


def _repeat(shape: Shape) -> Iterator[Point]:
    yield Point({"trainings": "all"}, 0, {})


def _compare(shape: Shape) -> Iterator[Point]:
    own = shape.recipe.experiments
    names = own.models or tuple(own.networks)
    if len(names) < 2:
        raise UsageError(f"compare needs two networks or more, not {len(names)}",
                         hint="set experiments.models, or a table [experiments.networks.NAME] for each")
    for name in dict.fromkeys(names):
        changes = dict(own.networks.get(name, {}))
        model = changes.setdefault("model", name)
        if model not in MODELS.names():
            raise UsageError(f"experiments.models: unknown network {name!r}" if model == name
                             else f"experiments.networks.{name}: unknown model {model!r}",
                             hint=suggest(model, [*MODELS.names(), *own.networks]))
        scheme = changes.pop("scheme", None)
        recipe = _answering(shape.recipe, scheme)
        section = _changed(shape.section, name, changes)
        if shape.quick:
            quick = narrow(section) | quick_limits(section, shape.recipe)
            section, changes = section.model_copy(update=quick), changes | quick
        check_input(section.model, recipe)
        if section.start is not None and "start" in changes:
            load_card(section.start)  # refuses a file that is none before stamps are cut
        told = {key: getattr(section, key) for key in changes}
        yield Point({"network": name}, 0, {"start": None, **told}, scheme=scheme)


def _answering(recipe: Recipe, scheme: str | None) -> Recipe:
    """Return the recipe with another label scheme, which must have the same classes: the labels are the same."""
    if scheme is None:
        return recipe
    theirs, mine = load_scheme(scheme).class_names, load_scheme(recipe.scheme).class_names
    if theirs != mine:
        raise UsageError(f"scheme {scheme!r} has other classes than {recipe.scheme!r}, the recipe's: "
                         f"{', '.join(theirs[:3])} ... and {', '.join(mine[:3])} ...", where="experiments.networks",
                         hint="networks are compared on the same labels")
    return recipe.model_copy(update={"scheme": scheme})


def _changed(section: TrainingSection, name: str, changes: Mapping[str, Any]) -> TrainingSection:
    """Return the settings of a network, whose own values are checked as those of [training] are."""
    try:
        return TrainingSection.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise UsageError(f"experiments.networks.{name}.{key}: {first['msg'].removeprefix('Value error, ')}",
                         hint=f"give it as training.{key} takes it") from None


def _thinned(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the first, the last and the middle one."""
    return tuple(dict.fromkeys((values[0], values[len(values) // 2], values[-1])))


def _from_scratch(grid: Grid, setting: Setting) -> Setting:
    return {**setting, "start": FROM_SCRATCH}


def _own_side(grid: Grid, setting: Setting) -> Setting:
    return dict.fromkeys(setting, grid.recipe.stamp.side_value)


def _first_network(grid: Grid, setting: Setting) -> Setting:
    return dict(grid.points[0].setting)


def _own_rate(grid: Grid, setting: Setting) -> Setting | None:
    return {"learning rate": grid.recipe.training.learning_rate} if grid.recipe.training else None


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment("learning-curve", "Size of the training subset", ("size", "start"), "splits", _learning_curve,
                   _from_scratch),
        Experiment("freezing", "Stages that are frozen", ("frozen before",), "repeats", _freezing,
                   lambda grid, setting: {"frozen before": NOTHING}),
        Experiment("filter-importance", "Filters left out", ("without",), "splits", _filter_importance,
                   lambda grid, setting: {"without": NO_FILTER}),
        Experiment("leave-band-out", "Bands set to zero", ("without",), "repeats", _leave_band_out,
                   lambda grid, setting: {"without": NO_BAND}, wants=(ZEROED,), tests=True),
        Experiment("compare", "Networks", ("network",), "splits", _compare, _first_network, wants=(CURVE, SUBSETS)),
        Experiment("crop-size", "Side of the stamps", ("side",), "splits", _crop_size, _own_side),
        Experiment("learning-rate", "Learning rate", ("learning rate",), "splits", _learning_rate, _own_rate),
        Experiment("repeat", "Repeated trainings", ("trainings",), "repeats", _repeat, lambda grid, setting: None),
    )
}  # fmt: skip
"""The experiments, by name."""
