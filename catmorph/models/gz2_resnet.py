"""The residual networks of the Galaxy Zoo 2 laboratory: 37 vote fractions from a 64x64 colour image.

Keras' ResNet50 has a bias in each of its convolutions (26,560 numbers), which batch normalisation makes idle, and
halves the maps in the first 1x1 convolution of a block; timm's has no such biases and halves in the 3x3 one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, ModelSpec
from catmorph.models.backbones import LICENCE, RESNET_STAGES, create
from catmorph.models.keras_defaults import initialise

WIDTH = 2
"""Pixels of the last maps: 64 halved five times."""
DENSE = (200, 100)
"""Dense layers of the optimised network."""


class Gz2ResNet50(nn.Module):
    """ResNet50 and dense layers: (n, channels, 64, 64) to logits (n, classes).

    The 2048 x 2 x 2 maps before the dense layers are flattened in the order (channel, y, x). Layers of the residual
    network have timm's names.

    Parameters
    ----------
    widths : tuple of int
        Dense layers before the last one, each with ReLU and dropout 0.2.
    """

    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, classes: int, channels: int, widths: tuple[int, ...] = ()):
        super().__init__()
        trunk: Any = create("resnet50", 0, channels, global_pool="")
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(trunk, name))
        features = trunk.num_features * WIDTH * WIDTH
        self.dense = [f"dense{number}" for number in range(1, len(widths) + 1)]
        for name, width in zip(self.dense, widths, strict=True):
            self.add_module(name, nn.Linear(features, width).apply(initialise))
            features = width
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(features, classes).apply(initialise)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (n, channel, y, x) to logits (n, class)."""
        maps = self.maxpool(self.act1(self.bn1(self.conv1(inputs))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        features = torch.flatten(maps, 1)
        for name in self.dense:
            features = self.dropout(torch.relu(getattr(self, name)(features)))
        return self.head(features)


for _name, _title, _widths in (
    ("gz2-resnet50", "ResNet50 for the Galaxy Zoo 2 tree", ()),
    ("gz2-resnet50-tree", "ResNet50 with two dense layers for the Galaxy Zoo 2 tree", DENSE),
):
    MODELS.register(_name)(
        ModelSpec(
            name=_name,
            title=_title,
            builder=partial(Gz2ResNet50, widths=_widths),
            stages=(*RESNET_STAGES[:-1], *(f"dense{number}" for number in range(1, len(_widths) + 1)), "head"),
            channels=3,
            pixels=64,
            classes=37,
            scheme="gz2-tree" if _widths else "gz2",
            source=f"the Galaxy Zoo 2 laboratory's {'optimised ' if _widths else ''}ResNet50",
            licence=LICENCE,
            notes="37 vote fractions; red, green, blue; published with ImageNet weights"
            + ("; the scheme's re-weighting by the tree comes after the network" if _widths else ""),
            backbone="resnet50",
            narrow="gz2-narrow",
        )
    )
