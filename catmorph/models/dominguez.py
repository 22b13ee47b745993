"""The network of Dominguez Sanchez et al. (2018, 2019): one yes/no question from three bands of 69x69 pixels.

The authors trained one network a question with Keras 1 on Theano. ``Same`` padding of the even kernels (6x6, 2x2)
puts the extra row and column at the top and left there, TensorFlow puts them at the bottom and right: the two
networks differ by a pixel, and weights of one are wrong in the other.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from catmorph.models import MODELS, KerasGraph, ModelSpec
from catmorph.models.keras_defaults import initialise
from catmorph.models.symmetry import pooled

WIDTH = 17
"""Pixels of the last maps: 69 halved twice, rounded down."""


class DominguezWidths(NamedTuple):
    """Channels of the convolutions, width of the dense layer, and dropout.

    The three rates are those after the first convolution, after each other one, and before the head.
    """

    channels: tuple[int, int, int, int] = (32, 64, 128, 128)
    dense: int = 64
    dropout: tuple[float, float, float] = (0.5, 0.25, 0.5)


PUBLISHED = DominguezWidths()


def _convolution(channels: int, width: int, kernel: int, *, extra_first: bool) -> nn.Sequential:
    less, more = (kernel - 1) // 2, kernel // 2
    before, after = (more, less) if extra_first else (less, more)
    layer = nn.Sequential()
    layer.add_module("pad", nn.ZeroPad2d((before, after, before, after)))
    layer.add_module("conv", nn.Conv2d(channels, width, kernel))
    layer.add_module("relu", nn.ReLU(inplace=True))
    return layer


class DominguezCnn(nn.Module):
    """Section 3 of Dominguez Sanchez et al. (2019): (n, channels, 69, 69) to logits (n, classes).

    Parameters
    ----------
    extra_first : bool
        Whether ``same`` padding of an even kernel has its extra pixel at the top and left.
    widths : DominguezWidths
        The published ones, or others.

    Notes
    -----
    The 128 x 17 x 17 maps before the dense layer are flattened in the order (channel, y, x).
    """

    def __init__(
        self, classes: int, channels: int, *, extra_first: bool, widths: DominguezWidths = PUBLISHED
    ):
        super().__init__()
        one, two, three, four = widths.channels
        self.conv1 = _convolution(channels, one, 6, extra_first=extra_first)
        self.dropout1 = nn.Dropout(widths.dropout[0])
        self.conv2 = _convolution(one, two, 5, extra_first=extra_first)
        self.conv3 = _convolution(two, three, 2, extra_first=extra_first)
        self.conv4 = _convolution(three, four, 3, extra_first=extra_first)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(widths.dropout[1])
        self.dense = nn.Linear(four * WIDTH * WIDTH, widths.dense)
        self.dropout2 = nn.Dropout(widths.dropout[2])
        self.head = nn.Linear(widths.dense, classes)
        self.apply(initialise)
        # Keras 1's init="uniform".
        nn.init.uniform_(self.head.weight, -0.05, 0.05)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map stamps (n, channel, y, x) to logits (n, class)."""
        maps = self.dropout1(self.conv1(inputs))
        maps = self.dropout(self.pool(self.conv2(maps)))
        maps = self.dropout(self.pool(self.conv3(maps)))
        maps = self.dropout(self.conv4(maps))
        features = self.dropout2(torch.relu(self.dense(torch.flatten(maps, 1))))
        return self.head(features)


BACKENDS = {"theano": "dominguez-cnn", "tensorflow": "dominguez-cnn-tensorflow"}
for _backend, _name in BACKENDS.items():
    MODELS.register(_name)(
        ModelSpec(
            name=_name,
            title="Four-convolution network for one yes/no question"
            + (", with TensorFlow's padding" if _backend == "tensorflow" else ""),
            builder=partial(DominguezCnn, extra_first=_backend == "theano"),
            stages=("conv1", "conv2", "conv3", "conv4", "dense", "head"),
            channels=3,
            pixels=69,
            classes=1,
            scheme="des-disk",
            narrow="dominguez-narrow",
            source="Dominguez Sanchez et al. 2019, Sect. 3",
            licence="BSD-3-Clause (written from the paper's description; no code or weights of its authors)",
            notes="one network a question (schemes des-disk, des-edge-on, des-bar); bands g, r, i; same padding of "
            f"even kernels as {'Theano' if _backend == 'theano' else 'TensorFlow'} does it",
            keras=KerasGraph(
                layers=("conv1.conv", "conv2.conv", "conv3.conv", "conv4.conv", "dense", "head"),
                flattened="dense",
                maps=(128, WIDTH, WIDTH),
                channels_first=True,
                backends=BACKENDS,
            ),
        )
    )
MODELS.register("dominguez-cnn-d4")(pooled(MODELS.registered("dominguez-cnn")))
