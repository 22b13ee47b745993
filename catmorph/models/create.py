"""Untrained checkpoints, for trials of the pipeline."""

from __future__ import annotations

from pathlib import Path

from catmorph.errors import UsageError
from catmorph.models import MODELS, build
from catmorph.models.account import Transfer
from catmorph.models.card import Card, card_for, one_channel_count
from catmorph.models.checkpoint import save_checkpoint
from catmorph.models.header import refuse_other_file
from catmorph.models.pretrained import load_backbone
from catmorph.recipe import Recipe

PURPOSE = "UNTRAINED: random weights, for trying the pipeline only; its probabilities mean nothing"
BACKBONE_PURPOSE = "UNTRAINED: the weights of a backbone and random last layers, to train from"


def create_untrained(
    name: str, recipe: Recipe, output: Path, *, seed: int = 0, backbone: str | None = None
) -> tuple[Card, Transfer | None]:
    """Write a checkpoint of freshly initialised weights whose card fits `recipe`.

    Parameters
    ----------
    backbone : str, optional
        Weights of the network's backbone, see `catmorph.models.pretrained.load_backbone`.

    Returns
    -------
    card : Card
    taken : Transfer or None
        What was taken from `backbone`.

    Raises
    ------
    CheckpointError
        When `backbone` is no file of weights, or of another network.
    UsageError
        When `output` is there and no checkpoint, there is no such architecture, the views have different numbers of
        bands, or the recipe's stamps are not of the size the architecture takes.
    """
    channels = one_channel_count(recipe)
    check_input(name, recipe)
    refuse_other_file(output)
    card = card_for(
        recipe, name, channels=channels, views=(), title=f"untrained {name}", purpose=PURPOSE,
        training={"trained": False, "seed": seed},
    )
    module, taken = build(name, classes=len(card.classes), channels=channels, seed=seed), None
    if backbone is not None:
        taken = load_backbone(module, MODELS.get(name), backbone)
        card = card.model_copy(update={"purpose": BACKBONE_PURPOSE,
                                       "training": card.training | {"backbone": taken.to_card()}})
    save_checkpoint(output, module, card)
    return card, taken


def check_input(name: str, recipe: Recipe) -> None:
    """Check that the recipe's stamps have the size that architecture `name` takes."""
    spec, pixels = MODELS.get(name), recipe.stamp.pixels
    if spec.takes(pixels):
        return
    if spec.smallest is None:
        raise UsageError(
            f"stamps of the recipe have {pixels} pixels, {name} takes {spec.pixels}",
            hint=f"set stamp.pixels = {spec.pixels}",
        )
    raise UsageError(
        f"stamps of the recipe have {pixels} pixels, {name} takes {spec.sizes}", hint="set stamp.pixels"
    )
