"""The Inception network of Perez-Carrasco et al. (2019), Table 1: five classes from one 80x80 stamp.

Each layer is convolution -> ReLU -> batch normalisation, as in the authors' code; batch normalisation stops
before module 4. Table 1 prints a width of 128 for the 1x1 branch of module 4, which contradicts its own 512
output channels; the authors' code has 160, which gives 512, and so has this network. Module 1 has 240 and
module 5 544 output channels by their widths, where the table prints 256 and 512: the widths are kept.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, ModelSpec

EPSILON = 1e-3
"""Keras' default, used by the authors."""
MOMENTUM = 0.01
"""Weight of a new batch in the running statistics; Keras calls this momentum 0.99."""


class Widths(NamedTuple):
    """Output channels of an inception module's six convolutions, in the order of Table 1's columns."""

    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    conv1: int
    pool: int

    @property
    def out(self) -> int:
        """Channels of the concatenated output."""
        return self.conv3 + self.conv5 + self.pool + self.conv1

    def divided(self, divisor: int) -> Widths:
        """Return the widths of a network that is `divisor` times narrower."""
        return Widths(*(width // divisor for width in self))


TABLE_1 = (
    Widths(96, 128, 16, 16, 64, 32),
    Widths(128, 192, 32, 96, 128, 64),
    Widths(96, 208, 16, 48, 192, 64),
    Widths(112, 224, 24, 64, 160, 64),
    Widths(144, 288, 32, 64, 128, 64),
    Widths(144, 288, 32, 64, 112, 64),
)


def _convolution(channels: int, width: int, kernel: int, *, norm: bool, same: bool = True) -> nn.Sequential:
    layer = nn.Sequential()
    layer.add_module("conv", nn.Conv2d(channels, width, kernel, padding=kernel // 2 if same else 0))
    layer.add_module("relu", nn.ReLU(inplace=True))
    if norm:
        layer.add_module("norm", nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM))
    return layer


class Inception(nn.Module):
    """One inception module: four branches at one size, concatenated as 3x3, 5x5, pool, 1x1."""

    def __init__(self, channels: int, widths: Widths, *, norm: bool):
        super().__init__()
        self.reduce3 = _convolution(channels, widths.reduce3, 1, norm=norm)
        self.conv3 = _convolution(widths.reduce3, widths.conv3, 3, norm=norm)
        self.reduce5 = _convolution(channels, widths.reduce5, 1, norm=norm)
        self.conv5 = _convolution(widths.reduce5, widths.conv5, 5, norm=norm)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.convp = _convolution(channels, widths.pool, 1, norm=norm)
        self.conv1 = _convolution(channels, widths.conv1, 1, norm=norm)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, channels, y, x) to (n, widths.out, y, x)."""
        branches = (
            self.conv3(self.reduce3(inputs)),
            self.conv5(self.reduce5(inputs)),
            self.convp(self.pool(inputs)),
            self.conv1(inputs),
        )
        return torch.cat(branches, dim=1)


class ClashInception(nn.Module):
    """Table 1 of Perez-Carrasco et al. (2019): (n, channels, 80, 80) to logits (n, classes).

    The 256 x 2 x 2 maps before the dense layers are flattened in the order (channel, y, x). Every width is
    divided by `divisor`, except the numbers of channels and classes.
    """

    inception1: Inception
    inception2: Inception
    inception3: Inception
    inception4: Inception
    inception5: Inception
    inception6: Inception

    def __init__(self, classes: int, channels: int, divisor: int = 1):
        super().__init__()
        width, features = 128 // divisor, 1024 // divisor
        self.conv1 = _convolution(channels, 64 // divisor, 7, norm=True, same=False)
        self.conv2 = _convolution(64 // divisor, width, 6, norm=True, same=False)
        for number, table in enumerate(TABLE_1, start=1):
            widths = table.divided(divisor)
            self.add_module(f"inception{number}", Inception(width, widths, norm=number < 4))
            width = widths.out
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AvgPool2d(2)
        self.conv3 = _convolution(width, 256 // divisor, 1, norm=False)
        self.dense1 = nn.Linear(features, features)
        self.dense2 = nn.Linear(features, features)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(features, classes)
        self.apply(_initialise)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map stamps (n, channel, y, x) to logits (n, class)."""
        maps = self.pool(self.conv1(inputs))
        maps = self.pool(self.conv2(maps))
        maps = self.pool(self.inception2(self.inception1(maps)))
        maps = self.pool(self.inception5(self.inception4(self.inception3(maps))))
        maps = self.conv3(self.average(self.inception6(maps)))
        features = torch.flatten(maps, 1)
        features = self.dropout(torch.relu(self.dense1(features)))
        features = self.dropout(torch.relu(self.dense2(features)))
        return self.head(features)


def _initialise(layer: nn.Module) -> None:
    # Keras' defaults: Glorot's uniform kernels, zero biases.
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


STAGES = (
    "conv1", "conv2", *(f"inception{number}" for number in range(1, 7)), "conv3", "dense1", "dense2", "head"
)  # fmt: skip

MODELS.register("clash-inception")(
    ModelSpec(
        name="clash-inception",
        title="Inception network for CLASH morphologies",
        builder=ClashInception,
        stages=STAGES,
        channels=1,
        pixels=80,
        classes=5,
        scheme="clash",
        source="Perez-Carrasco et al. 2019, Table 1 (module 4 with 160 1x1 filters, as in the authors' code)",
        licence="BSD-3-Clause (written from the paper's description; no code or weights of its authors)",
        notes="convolution -> ReLU -> batch normalisation; no batch normalisation from module 4 on",
    )
)
MODELS.register("clash-inception-narrow")(
    ModelSpec(
        name="clash-inception-narrow",
        title="clash-inception with a quarter of each width",
        builder=partial(ClashInception, divisor=4),
        stages=STAGES,
        channels=1,
        pixels=80,
        classes=5,
        scheme="clash",
        source="clash-inception, narrowed",
        licence="BSD-3-Clause",
        notes="not published; for quick experiments and tests",
    )
)
