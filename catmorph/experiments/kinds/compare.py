"""Several networks, trained on the same splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from catmorph.errors import UsageError, suggest
from catmorph.experiments.conclusions import best_and_differences
from catmorph.experiments.drawing import CYCLE
from catmorph.experiments.networks import network_rows, networks_table
from catmorph.experiments.plan import (
    CURVE,
    EXPERIMENTS,
    SUBSETS,
    Experiment,
    Grid,
    Point,
    Setting,
    Shape,
    narrow,
    quick_limits,
)
from catmorph.experiments.tables import Results
from catmorph.models import MODELS
from catmorph.models.create import check_input
from catmorph.models.header import load_card
from catmorph.recipe import Recipe, TrainingSection
from catmorph.release.text import markdown_table
from catmorph.schemes import load_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _points(shape: Shape) -> Iterator[Point]:
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


def _first_network(grid: Grid, setting: Setting) -> Setting:
    return dict(grid.points[0].setting)


def _networks(grid: Grid) -> Iterator[str]:
    for setting in grid.settings:
        point = next(one for one in grid.points if one.setting == setting)
        one = grid.section_of(point)
        start = grid.start_of(point) or (Path(one.backbone) if one.backbone else None)
        begins = f"starting from {start.name}" if start else "from scratch"
        yield (f"{setting['network']}: {one.model}, {begins}, scheme {grid.recipe_of(point).scheme}, at most "
               f"{one.epochs} epochs of {one.batches_per_epoch} batches of {one.batch}, {one.optimiser}, learning rate "
               f"{one.learning_rate:g} ({one.schedule}), loss {one.loss}")  # fmt: skip


def _draw(results: Results, figure: Figure) -> None:
    """The learning curves of the networks: RMSE and accuracy of validation, and accuracy of training."""
    figure.set_size_inches(8.8, 4.2)
    left, right = figure.subplots(1, 2)
    for number, setting in enumerate(results.settings):
        colour = CYCLE[number % len(CYCLE)]
        found = [one for one in results.found if dict(one["setting"]) == setting and one.get("curve")]
        for place, one in enumerate(found):
            curve = {name: [row[name] for row in one["curve"]] for name in one["curve"][0]}
            # One line to read, those of the other splits behind it.
            strength = {"color": colour, "alpha": 1.0 if place == 0 else 0.3, "linewidth": 1.5 if place == 0 else 0.8}
            named = str(setting["network"]) if place == 0 else None
            left.plot(curve["epoch"], curve["validation_rmse"], label=named, **strength)
            right.plot(curve["epoch"], curve["validation_accuracy"], label=named, **strength)
            right.plot(curve["epoch"], curve["training_accuracy"], linestyle=":", **strength)
            best = one["best_epoch"] - 1
            left.plot(curve["epoch"][best], curve["validation_rmse"][best], "o", color=colour, alpha=strength["alpha"])
    left.set_ylabel("validation RMSE (mark: the epoch that is kept)")
    right.set_ylabel("accuracy (dotted: training, as perturbed)")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=8)


def _conclusions(results: Results) -> Iterator[str]:
    yield from best_and_differences(results)
    if "mean_label_rmse" in results.table.columns:
        level = float(results.table["mean_label_rmse"].mean())
        yield f"Always answering the mean label of the test stamps has the RMSE {level:.4f}."


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    return {"networks": networks_table(results)}


def _lines(results: Results) -> Iterator[str]:
    yield "Networks, mean ± standard deviation over the trainings; stamps are not perturbed:"
    yield ""
    yield from (*markdown_table(*network_rows(results)), "")


EXPERIMENTS.register("compare")(
    Experiment(
        name="compare",
        title="Networks",
        axes=("network",),
        repeats="splits",
        points=_points,
        reference=_first_network,
        figure=_draw,
        conclusions=_conclusions,
        tables=_tables,
        lines=_lines,
        settings=_networks,
        wants=(CURVE, SUBSETS),
        takes_no_start=("each network starts as its own table says", "set start in [experiments.networks.NAME]"),
    )
)
