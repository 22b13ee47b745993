"""Starting a training from the weights of a checkpoint, with an account of what was taken."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from catmorph.errors import CheckpointError, UsageError, listed, suggest
from catmorph.models import MODELS
from catmorph.models.account import Transfer, by_layer, shape_in_words
from catmorph.models.card import Card, transfer_differences
from catmorph.models.checkpoint import Checkpoint, load_checkpoint
from catmorph.recipe import Recipe
from catmorph.schemes import load_scheme


def transfer(module: nn.Module, recipe: Recipe, model: str, path: str | Path) -> Transfer:
    """Put the weights of the checkpoint at `path` into `module`, layer by layer where name and shape are equal.

    The head is taken only where the classes are the same; where they differ, or a layer has another shape (such
    as the first one, when the number of channels differs), the layer stays as it was initialised. Stamps of
    another geometry or normalisation are no error: that is what transfer is for; they are told.

    Parameters
    ----------
    module : nn.Module
        A freshly built network of architecture `model`; changed in place.
    recipe : Recipe
        Its stamps and label scheme are those of the training.

    Raises
    ------
    CheckpointError
        When the file is no checkpoint, a layer holds NaN or infinity, or not one layer fits.
    """
    checkpoint = load_checkpoint(path)
    _check_finite(checkpoint)
    theirs, mine = by_layer(checkpoint.state), by_layer(module.state_dict())
    fresh = {}
    for layer, tensors in mine.items():
        why = _obstacle(layer, tensors, theirs.get(layer), checkpoint.card, recipe, model)
        if why:
            fresh[layer] = why
    taken = tuple(layer for layer in mine if layer not in fresh)
    if not taken:
        raise CheckpointError(f"has no layer in common with {model} (it is a {checkpoint.card.model})", where=path,
                              hint="start from a checkpoint of the same architecture, or leave out training.start")
    state = {name: value for layer in taken for name, value in theirs[layer].items()}
    module.load_state_dict(state, strict=False)
    return Transfer(
        title=checkpoint.card.title, sha256=checkpoint.digest, taken=taken,
        parameters=sum(value.numel() for value in state.values() if value.is_floating_point()), fresh=fresh,
        unused=tuple(layer for layer in theirs if layer not in mine), warnings=tuple(_warnings(checkpoint, recipe)),
    )


def frozen_stages(model: str, freeze_before: str | None, start: Transfer | None) -> tuple[str, ...]:
    """Return the stages of architecture `model` before `freeze_before`, whose weights stay as they are.

    Raises
    ------
    UsageError
        When there is no such stage, or a layer that would be frozen was not taken from a checkpoint.
    """
    if freeze_before is None:
        return ()
    refuse_unknown_stage(model, freeze_before)
    stages = MODELS.get(model).stages
    frozen = stages[: stages.index(freeze_before)]
    if frozen and start is None:
        raise UsageError("without training.start the frozen layers would keep their random weights",
                         where="training.freeze_before", hint="set training.start, or train all stages")
    random = [layer for layer in (start.fresh if start else ()) if layer.partition(".")[0] in frozen]
    if random:
        raise UsageError(f"{listed(random)} would be frozen with random weights: not taken from the checkpoint",
                         where="training.freeze_before", hint="freeze less")
    return frozen


def refuse_unknown_stage(model: str, freeze_before: str | None) -> None:
    """Raise a UsageError, with the nearest name, when architecture `model` has no such stage."""
    stages = MODELS.get(model).stages
    if freeze_before is not None and freeze_before not in stages:
        raise UsageError(f"{model} has no stage {freeze_before!r}", where="training.freeze_before",
                         hint=suggest(freeze_before, stages))


def _obstacle(
    layer: str, mine: dict[str, Tensor], theirs: dict[str, Tensor] | None, card: Card, recipe: Recipe, model: str
) -> str:
    """Return why a layer cannot be taken, or nothing."""
    classes = load_scheme(recipe.scheme).class_names
    stages = MODELS.get(model).stages
    if layer.partition(".")[0] == stages[-1] and card.classes != classes:
        if len(card.classes) != len(classes):
            return f"{len(card.classes)} -> {len(classes)} classes"
        return "other classes"
    if theirs is None:
        return "not in the checkpoint"
    if mine.keys() != theirs.keys():
        return "other parts"
    for name, value in mine.items():
        other = theirs[name]
        if value.shape != other.shape:
            first = layer.partition(".")[0] == stages[0] and value.ndim == 4
            if first and other.ndim == 4 and value.shape[1] != other.shape[1]:
                return f"{other.shape[1]} -> {value.shape[1]} channels"
            return f"{shape_in_words(other)} -> {shape_in_words(value)}"
    return ""


def _warnings(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    lines = [] if checkpoint.card.trained else ["the weights of the checkpoint were never trained"]
    return lines + transfer_differences(checkpoint.card, recipe)


def _check_finite(checkpoint: Checkpoint) -> None:
    bad = [name for name, value in checkpoint.state.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"holds NaN or infinity in {listed(bad)}", where=checkpoint.path)
