"""Copies of a backbone side by side, three bands each, as Wei et al. (2020) gave five bands to networks for colour.

The paper does not say how many outputs each copy has before the joint multiplication. With nothing in between, the
two matrices multiply to one: any number from that of the classes on gives the same set of functions, and
that is what each copy has here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from catmorph.models import MODELS, ModelSpec
from catmorph.models.backbones import BACKBONES, LICENCE, SMALLEST, create

COLOURS = 3
"""Channels of each copy."""


class Copies(nn.Module):
    """Networks side by side, which share no weights: (n, channels, y, x) to (n, copies * outputs).

    The first takes channels 1-3, the second 4-6, and so on; what lacks in the last one is zero.

    Parameters
    ----------
    builder : callable
        Makes one copy.
    """

    def __init__(self, builder: Callable[[], nn.Module], channels: int):
        super().__init__()
        self.channels = math.ceil(channels / COLOURS) * COLOURS
        for number in range(self.channels // COLOURS):
            self.add_module(str(number), builder())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map stamps (n, channel, y, x) to the outputs of all copies (n, copies * outputs)."""
        filled = functional.pad(inputs, (0, 0, 0, 0, 0, self.channels - inputs.shape[1]))
        parts = filled.split(COLOURS, dim=1)
        return torch.cat([copy(part) for copy, part in zip(self.children(), parts, strict=True)], dim=1)


class Twin(nn.Module):
    """Copies of a backbone and the joint matrix: (n, channels, y, x) to logits (n, classes).

    Parameters
    ----------
    builder : callable
        ``(outputs, channels)`` to one copy.
    """

    def __init__(self, classes: int, channels: int, builder: Callable[[int, int], nn.Module]):
        super().__init__()
        self.copies = Copies(partial(builder, classes, COLOURS), channels)
        self.head = nn.Linear(classes * len(list(self.copies.children())), classes, bias=False)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The copies, each of which sees pixels, by the names they have in this network."""
        return {f"copies.{name}": copy for name, copy in self.copies.named_children()}

    def forward(self, inputs: Tensor) -> Tensor:
        """Map stamps (n, channel, y, x) to logits (n, class)."""
        return self.head(self.copies(inputs))


def _copy(name: str, classes: int, channels: int) -> nn.Module:
    return create(name, classes, channels)


for _backbone in ("resnet18", "vgg19_bn"):
    MODELS.register(f"twin-{_backbone}")(
        ModelSpec(
            name=f"twin-{_backbone}",
            title=f"Copies of {_backbone} with three bands each",
            builder=partial(Twin, builder=partial(_copy, _backbone)),
            stages=("copies", "head"),
            channels=5,
            pixels=299,
            classes=4,
            scheme="phangs",
            source=f"Wei et al. 2020; {BACKBONES[_backbone][1]}",
            licence=LICENCE,
            notes="bands 1-3, and 4-5 with a channel of zeros; their outputs joined by a matrix; published with "
            "ImageNet weights. Any number of bands",
            smallest=SMALLEST,
            backbone=_backbone,
            narrow="twin-narrow",
        )
    )
