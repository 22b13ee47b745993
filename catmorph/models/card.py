"""The card of a checkpoint: what its weights are, were trained on, and may be used for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from catmorph.errors import CheckpointError, UsageError
from catmorph.recipe import NormaliseSection, Recipe, StampSection
from catmorph.recipe.pixels import USED_OPTIONS
from catmorph.schemes import load_scheme

FORMAT: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StampCard(_Part):
    """The stamp geometry a network was trained on; the fields are those of a recipe's [stamp]."""

    side: str
    pixels: int = Field(ge=1, le=4096)
    resample: str
    orientation: str
    values: str

    @classmethod
    def of(cls, section: StampSection) -> StampCard:
        """Return the geometry that `section` describes."""
        return cls(**{name: getattr(section, name) for name in cls.model_fields})


class Card(_Part):
    """What a checkpoint says of itself.

    It holds no clock, host or path, so that training twice gives the same bytes. `training` describes the
    data and settings (its key ``trained`` is False for weights that were only initialised), `metrics` the
    result on the test subset; `evaluation` the key numbers of `catmorph evaluate`. `temperature` divides the logits
    where a recipe asks for calibrated probabilities; it was fitted on the validation subset.
    """

    format: Literal[1] = FORMAT
    model: str
    title: str = ""
    purpose: str = ""
    licence: str = ""
    scheme: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=10000)
    views: tuple[str, ...] = ()
    channels: int = Field(ge=1, le=1024)
    stamp: StampCard
    normalise: NormaliseSection
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    temperature: float | None = Field(None, gt=0)
    catmorph: str = ""

    @property
    def trained(self) -> bool:
        """Whether the weights were trained, not only initialised."""
        return bool(self.training.get("trained"))


def card_for(recipe: Recipe, model: str, *, channels: int, **described: Any) -> Card:
    """Return the card of a network `model` for the stamps and labels of `recipe`.

    Parameters
    ----------
    channels : int
        Input channels of the network.
    **described
        Other fields of `Card`: title, purpose, licence, views, training, metrics.
    """
    return Card(
        model=model,
        scheme=recipe.scheme,
        classes=load_scheme(recipe.scheme).class_names,
        channels=channels,
        stamp=StampCard.of(recipe.stamp),
        normalise=recipe.normalise,
        catmorph=own_version(),
        **described,
    )


def own_version() -> str:
    """Return the version of the installed catmorph, ``unknown`` where it runs without being installed."""
    try:
        return version("catmorph")
    except PackageNotFoundError:
        return "unknown"


def check_fits(
    card: Card, recipe: Recipe, views: Sequence[str] = (), *, scheme: str | None = None, where: object = None
) -> None:
    """Check that a checkpoint suits the stamps and labels of `recipe`.

    Parameters
    ----------
    views : sequence of str
        The views it shall classify; default: all of the recipe.
    scheme : str, optional
        The label scheme it shall answer in; default: the recipe's.
    where : str or path, optional
        The checkpoint, for the message.

    Raises
    ------
    CheckpointError
        Listing everything that differs, with the checkpoint's and the recipe's value.
    """
    found = list(_differences(card, recipe, scheme or recipe.scheme, tuple(views) or tuple(recipe.all_views)))
    if found:
        raise CheckpointError(
            "does not fit the recipe: " + "; ".join(found),
            where=where,
            hint="change the recipe, or choose or train a checkpoint for it",
        )


def transfer_differences(card: Card, recipe: Recipe) -> list[str]:
    """Return a line for each value in which stamps and normalisation of a checkpoint and of `recipe` differ."""
    return [*_stamp_differences(card.stamp, recipe.stamp), *_normalise_differences(card.normalise, recipe.normalise)]


def _differences(card: Card, recipe: Recipe, scheme: str, views: tuple[str, ...]) -> Iterator[str]:
    if card.scheme != scheme:
        yield _both("scheme", card.scheme, scheme)
    else:
        names = load_scheme(scheme).class_names
        if card.classes != names:
            yield _both("classes of the scheme", ", ".join(card.classes), ", ".join(names))
    for view in views:
        bands = len(recipe.all_views[view])
        if card.channels != bands:
            yield _both(f"channels of view {view}", card.channels, bands)
    yield from _stamp_differences(card.stamp, recipe.stamp)
    yield from _normalise_differences(card.normalise, recipe.normalise)


def one_channel_count(recipe: Recipe, views: Iterable[str] = ()) -> int:
    """Return the number of bands that `views` of `recipe`, by default all, have.

    Raises
    ------
    UsageError
        When they have different numbers: one network cannot take them all.
    """
    counts = {view: len(recipe.all_views[view]) for view in views or recipe.all_views}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{view} {count}" for view, count in counts.items())
        raise UsageError(f"one network cannot take views with different numbers of bands: {listed}")
    return next(iter(counts.values()))


def _stamp_differences(card: StampCard, section: StampSection) -> Iterator[str]:
    wanted = StampCard.of(section)
    for name in StampCard.model_fields:
        mine, theirs = getattr(card, name), getattr(wanted, name)
        if mine != theirs and not (name == "side" and _same_side(mine, theirs)):
            yield _both(f"stamp.{name}", mine, theirs)


def _same_side(one: str, other: str) -> bool:
    # "4 radii" and "4.0 radii" are the same.
    sides = [StampSection(side=text) for text in (one, other)]
    return len({(side.side_value, side.side_unit) for side in sides}) == 1


def _normalise_differences(card: NormaliseSection, section: NormaliseSection) -> Iterator[str]:
    names = ["method", "fill"]
    if card.method == section.method:
        names += USED_OPTIONS.get(card.method, ())
    for name in names:
        mine, theirs = getattr(card, name), getattr(section, name)
        if mine != theirs:
            yield _both(f"normalise.{name}", mine, theirs)


def _both(name: str, mine: object, theirs: object) -> str:
    return f"{name} is {mine} in the checkpoint, {theirs} in the recipe"
