"""The Inception networks of Perez-Carrasco et al. (2019), Table 1: five classes from one 80x80 stamp.

Each layer is convolution -> ReLU -> batch normalisation, as in the authors' code; batch normalisation stops
before module 4. Table 1 prints a width of 128 for the 1x1 branch of module 4, which contradicts its own 512
output channels; the authors' code has 160, which gives 512, and so has this network. Module 1 has 240 and
module 5 544 output channels by their widths, where the table prints 256 and 512: the widths are kept.

The authors' released graph, which their weight files belong to, is another one: module 3 concatenates its 3x3
branch twice, its 5x5 branch is not used, and batch normalisation, meant for the channels, runs over the image's x.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, KerasGraph, ModelSpec
from catmorph.models.keras_defaults import EPSILON, MOMENTUM, initialise

Norm = Callable[[int], nn.Module | None]
"""Channels -> the layer after a convolution's ReLU, None for none."""


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


class WidthNorm(nn.BatchNorm2d):
    """Batch normalisation over the x axis of (n, channel, y, x): one mean and variance for each of `pixels` columns."""

    def __init__(self, pixels: int):
        super().__init__(pixels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, channel, y, x) to the same shape."""
        return super().forward(inputs.transpose(1, 3)).transpose(1, 3)


def _convolution(channels: int, width: int, kernel: int, *, norm: nn.Module | None, same: bool = True) -> nn.Sequential:
    layer = nn.Sequential()
    layer.add_module("conv", nn.Conv2d(channels, width, kernel, padding=kernel // 2 if same else 0))
    layer.add_module("relu", nn.ReLU(inplace=True))
    if norm is not None:
        layer.add_module("norm", norm)
    return layer


def _concatenated(*maps: Tensor) -> Tensor:
    """Return maps (n, channel, y, x) behind one another in their channels.

    Of its gradient each would get a slice that is laid out like the whole; batch norms take 3 to 7 times as long to go
    back from such a one as from a dense one, a quarter of a step in bfloat16 (torch 2.12, 2 cores).
    """
    for one in maps:
        if one.requires_grad:
            one.register_hook(_dense)
    return torch.cat(maps, dim=1)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class Inception(nn.Module):
    """One inception module: four branches at one size, concatenated as 3x3, 5x5, pool, 1x1.

    Parameters
    ----------
    channels : int
        Channels in.
    widths : Widths
        Output channels of the convolutions.
    norm : callable
        What stands after each convolution's ReLU.
    doubled : bool
        The 3x3 branch stands where the 5x5 branch should be, which is not there.
    """

    def __init__(self, channels: int, widths: Widths, *, norm: Norm, doubled: bool = False):
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
            return _convolution(inputs, outputs, kernel, norm=norm(outputs))

        self.doubled = doubled
        self.out = widths.out + (widths.conv3 - widths.conv5 if doubled else 0)
        self.reduce3 = convolution(channels, widths.reduce3, 1)
        self.conv3 = convolution(widths.reduce3, widths.conv3, 3)
        if not doubled:
            self.reduce5 = convolution(channels, widths.reduce5, 1)
            self.conv5 = convolution(widths.reduce5, widths.conv5, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.convp = convolution(channels, widths.pool, 1)
        self.conv1 = convolution(channels, widths.conv1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, channels, y, x) to (n, self.out, y, x)."""
        three = self.conv3(self.reduce3(inputs))
        five = three if self.doubled else self.conv5(self.reduce5(inputs))
        return _concatenated(three, five, self.convp(self.pool(inputs)), self.conv1(inputs))


def _channel_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def _width_norm(pixels: int) -> Norm:
    return lambda channels: WidthNorm(pixels)


def _no_norm(channels: int) -> None:
    return None


CHANNEL_NORMS: dict[str, Norm] = dict.fromkeys(
    ("conv1", "conv2", "inception1", "inception2", "inception3"), _channel_norm
)
WIDTH_NORMS = {name: _width_norm(pixels) for name, pixels in zip(CHANNEL_NORMS, (74, 32, 16, 16, 8), strict=True)}
"""Stage -> channels -> its batch normalisation; the released graph's are as long as the maps are wide."""
DOUBLED = "inception3"
"""Module of the released graph whose 3x3 branch is concatenated twice."""


class ClashInception(nn.Module):
    """Table 1 of Perez-Carrasco et al. (2019): (n, channels, 80, 80) to logits (n, classes).

    The 256 x 2 x 2 maps before the dense layers are flattened in the order (channel, y, x). Every width is
    divided by `divisor`, except the numbers of channels and classes. `released` is the graph of the authors' weights.
    """

    inception1: Inception
    inception2: Inception
    inception3: Inception
    inception4: Inception
    inception5: Inception
    inception6: Inception

    def __init__(self, classes: int, channels: int, divisor: int = 1, released: bool = False):
        super().__init__()
        width, features = 128 // divisor, 1024 // divisor
        norms = WIDTH_NORMS if released else CHANNEL_NORMS
        self.conv1 = _convolution(channels, 64 // divisor, 7, norm=norms["conv1"](64 // divisor), same=False)
        self.conv2 = _convolution(64 // divisor, width, 6, norm=norms["conv2"](width), same=False)
        for number, table in enumerate(TABLE_1, start=1):
            name = f"inception{number}"
            doubled = released and name == DOUBLED
            module = Inception(width, table.divided(divisor), norm=norms.get(name, _no_norm), doubled=doubled)
            self.add_module(name, module)
            width = module.out
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AvgPool2d(2)
        self.conv3 = _convolution(width, 256 // divisor, 1, norm=None)
        self.dense1 = nn.Linear(features, features)
        self.dense2 = nn.Linear(features, features)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(features, classes)
        self.apply(initialise)

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


STAGES = (
    "conv1", "conv2", *(f"inception{number}" for number in range(1, 7)), "conv3", "dense1", "dense2", "head"
)  # fmt: skip



def _keras_layers() -> tuple[str, ...]:
    """Return the layers of the released graph in Keras' order: by depth, within one as concatenated."""
    names = ["conv1.conv", "conv1.norm", "conv2.conv", "conv2.norm"]
    for number in range(1, 7):
        stage = f"inception{number}"
        kinds = ("conv", "norm") if stage in WIDTH_NORMS else ("conv",)
        dead = ("reduce5", "conv5") if stage == DOUBLED else ()
        for branches in (("reduce3", "reduce5"), ("conv3", "conv5", "convp", "conv1")):
            names += [f"{stage}.{one}.{kind}" for kind in kinds for one in branches if one not in dead]
    return (*names, "conv3.conv", "dense1", "dense2", "head")


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
        narrow="clash-inception-narrow",
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
MODELS.register("clash-inception-released")(
    ModelSpec(
        name="clash-inception-released",
        title="Inception network of the released CLASH weights",
        builder=partial(ClashInception, released=True),
        stages=STAGES,
        channels=1,
        pixels=80,
        classes=5,
        scheme="clash",
        source="Perez-Carrasco et al. 2019, the graph that their published weights belong to",
        licence="BSD-3-Clause (written from a description; no code or weights of its authors)",
        notes="module 3 concatenates its 3x3 branch twice; batch normalisation runs over the image's x axis. For "
        "the published weights; train clash-inception",
        keras=KerasGraph(
            layers=_keras_layers(), flattened="dense1", maps=(256, 2, 2), channels_first=True, normalise="bytescale"
        ),
    )
)
