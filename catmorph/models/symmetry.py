"""The eight symmetries of the square, and networks whose answer is the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, ModelSpec

ENDING = "-d4"
VIEWS = 8


def symmetries(stamps: Tensor) -> Iterator[Tensor]:
    """Yield stamps (n, channel, y, x) in the eight symmetries of the square, first as they are."""
    for turned in (stamps, stamps.flip(-1)):
        for quarters in range(4):
            yield torch.rot90(turned, quarters, dims=(-2, -1))


def pooled(spec: ModelSpec) -> ModelSpec:
    """Return the network of `spec` with its features averaged over the eight symmetries of the stamp (group D4).

    All eight go through the same weights, in one batch, in training too. What the head multiplies is averaged; as
    the head is linear, the average of its answers is the same. The names of layers and stages are those
    of `spec`: weights of one are weights of the other.
    """
    return replace(
        spec,
        name=spec.name + ENDING,
        title=f"{spec.title}, averaged over 8 rotations and mirror images",
        builder=partial(_pooled_module, spec.builder),
        notes="; ".join(filter(None, (spec.notes, "answers do not change when a stamp is turned by 90 degrees or "
                                      "mirrored; 8 times the work"))),
        keras=None,
        narrow=spec.narrow and spec.narrow + ENDING,
    )


@MODELS.family
def _pooled_by_name(name: str) -> ModelSpec | None:
    return pooled(MODELS.get(name.removesuffix(ENDING))) if name.endswith(ENDING) else None


def _pooled_module(builder: Any, classes: int, channels: int) -> nn.Module:
    module = builder(classes, channels)
    # Hooks and not a module around it: the names of the layers stay.
    module.register_forward_pre_hook(_spread)
    module.register_forward_hook(_average)
    return module


def _spread(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    stamps = torch.cat(list(symmetries(inputs[0])))
    return (stamps.contiguous(memory_format=torch.channels_last),)


def _average(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    views = logits.float().unflatten(0, (VIEWS, -1))
    # Sums depend on their order in the last bits; turning a stamp changes the order of the views.
    return views.sort(dim=0).values.mean(dim=0)
