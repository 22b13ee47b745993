"""The custom network of the Galaxy Zoo 2 laboratory: 37 vote fractions from a 64x64 colour image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, KerasGraph, ModelSpec
from catmorph.models.keras_defaults import EPSILON, MOMENTUM, initialise


class Gz2Widths(NamedTuple):
    """Channels of the convolutions, widths of the dense layers, and dropout."""

    channels: tuple[int, int, int] = (32, 64, 128)
    dense: tuple[int, int] = (128, 64)
    dropout: float = 0.2


PUBLISHED = Gz2Widths()


class Gz2Cnn(nn.Module):
    """Three convolutions and three dense layers: (n, channels, 64, 64) to logits (n, classes).

    Batch normalisation is in the first convolution only, before its ReLU. The 128 x 9 x 9 maps before the dense
    layers are flattened in the order (channel, y, x).
    """

    def __init__(self, classes: int, channels: int, widths: Gz2Widths = PUBLISHED):
        super().__init__()
        one, two, three = widths.channels
        self.conv1 = nn.Sequential()
        self.conv1.add_module("conv", nn.Conv2d(channels, one, 3))
        self.conv1.add_module("norm", nn.BatchNorm2d(one, eps=EPSILON, momentum=MOMENTUM))
        self.conv2 = nn.Conv2d(one, two, 3)
        self.conv3 = nn.Conv2d(two, three, 6)
        self.pool = nn.MaxPool2d(2)
        self.dense1 = nn.Linear(three * 9 * 9, widths.dense[0])
        self.dense2 = nn.Linear(*widths.dense)
        self.head = nn.Linear(widths.dense[1], classes)
        self.dropout = nn.Dropout(widths.dropout)
        self.apply(initialise)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (n, channel, y, x) to logits (n, class)."""
        maps = self.dropout(self.pool(torch.relu(self.conv1(inputs))))
        maps = self.dropout(self.pool(torch.relu(self.conv2(maps))))
        maps = self.dropout(torch.relu(self.conv3(maps)))
        features = self.dropout(torch.relu(self.dense1(torch.flatten(maps, 1))))
        features = self.dropout(torch.relu(self.dense2(features)))
        return self.head(features)


MODELS.register("gz2-cnn")(
    ModelSpec(
        name="gz2-cnn",
        title="Three-convolution network for the Galaxy Zoo 2 tree",
        builder=Gz2Cnn,
        stages=("conv1", "conv2", "conv3", "dense1", "dense2", "head"),
        channels=3,
        pixels=64,
        classes=37,
        scheme="gz2",
        narrow="gz2-narrow",
        source="the Galaxy Zoo 2 laboratory's custom network",
        licence="BSD-3-Clause (written from the document's description; no code or weights of its author)",
        notes="37 independent vote fractions; red, green, blue",
        keras=KerasGraph(
            layers=("conv1.conv", "conv1.norm", "conv2", "conv3", "dense1", "dense2", "head"),
            flattened="dense1",
            maps=(128, 9, 9),
            channels_first=False,
        ),
    )
)
