"""Architectures, one family a file, and checkpoints: weights with a card that says what they are for.

Importing this package does not import torch; building a network does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catmorph.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class KerasGraph:
    """How weights of a network lie in Keras' HDF5 files, for `catmorph.models.keras_weights`.

    Parameters
    ----------
    layers : tuple of str
        The layers with weights (convolutions, batch normalisations, dense layers), as names of the module, in the
        order of Keras' graph: by depth, and at one depth as the branches are concatenated.
    flattened : str
        The dense layer that takes flattened maps.
    maps : tuple of int
        The (channels, y, x) of those maps.
    channels_first : bool
        Whether the authors flattened them in the order (channel, y, x), not (y, x, channel).
    normalise : str
        The normalisation (`[normalise] method`) nearest to the authors', where there is one.
    backends : dict
        Model for files of a backend, where ``same`` padding of even kernels makes networks of different backends
        different: keys theano, tensorflow.
    """

    layers: tuple[str, ...]
    flattened: str
    maps: tuple[int, int, int]
    channels_first: bool
    normalise: str = ""
    backends: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """What an architecture is, as data.

    `builder` takes ``(classes, channels)`` and returns a module that maps float32
    (n, channels, `pixels`, `pixels`), axes (stamp, channel, y, x), to logits (n, classes). Where `smallest` is given
    the network takes stamps of any size from that many pixels on, and `pixels` is only the usual one. `stages` names
    the children of that module that have parameters, in forward order; the last one is the head. `scheme` is empty
    for networks that were not made for one. `backbone` is timm's name of the network that the module holds, once or
    in copies, for `catmorph.models.pretrained`; `narrow` the name of a network with few parameters that may stand in
    for this one in quick trials. `keras` is there where Keras weights of the network can be read.
    """

    name: str
    title: str
    builder: Callable[[int, int], nn.Module]
    stages: tuple[str, ...]
    channels: int
    pixels: int
    classes: int
    scheme: str
    source: str
    licence: str
    notes: str = ""
    keras: KerasGraph | None = None
    smallest: int | None = None
    backbone: str = ""
    narrow: str = ""

    @property
    def sizes(self) -> str:
        """The stamp sizes that the network takes, in words."""
        return f"{self.pixels} pixels" if self.smallest is None else f"any size from {self.smallest} pixels"

    def takes(self, pixels: int) -> bool:
        """Whether the network takes stamps of that size."""
        return pixels == self.pixels if self.smallest is None else pixels >= self.smallest


MODELS: Registry[ModelSpec] = Registry("model", "catmorph.models")


def build(
    name: str, *, classes: int | None = None, channels: int | None = None, seed: int | None = None
) -> nn.Module:
    """Build architecture `name`, freshly initialised.

    Parameters
    ----------
    name : str
        A name of `MODELS`.
    classes, channels : int, optional
        Outputs and input channels; default: as published.
    seed : int, optional
        Seed of the initialisation. The caller's random state is left as it was; without a seed it is used.

    Raises
    ------
    UsageError
        For an unknown name; the message names the nearest or lists the valid ones.
    """
    import torch

    spec = MODELS.get(name)
    classes = spec.classes if classes is None else classes
    channels = spec.channels if channels is None else channels
    if seed is None:
        return spec.builder(classes, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.builder(classes, channels)


def parameters_of(name: str, *, classes: int | None = None, channels: int | None = None) -> tuple[int, int]:
    """Count the parameters of architecture `name` as `count_parameters` does, without the room for them."""
    import torch

    with torch.device("meta"):
        return count_parameters(build(name, classes=classes, channels=channels))


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count parameters as Keras does.

    Returns
    -------
    parameters : int
        Trainable parameters plus the running statistics of batch normalisation.
    running_statistics : int
        The running means and variances among them.
    """
    from torch import nn

    trainable = sum(parameter.numel() for parameter in module.parameters())
    running = sum(
        buffer.numel()
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for buffer in (layer.running_mean, layer.running_var)
        if buffer is not None
    )
    return trainable + running, running
