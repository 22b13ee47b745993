"""Weights of the published networks from Keras' HDF5 files into checkpoints.

Three things differ between a Keras file and a module of torch: the axes of kernels; convolutions of Theano, which
turns kernels by 180 degrees; and the order in which maps are flattened before a dense layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from catmorph.errors import CheckpointError, UsageError, suggest
from catmorph.files import digest
from catmorph.models import MODELS, KerasGraph, ModelSpec, build
from catmorph.models.card import Card, card_for, one_channel_count
from catmorph.models.checkpoint import save_checkpoint
from catmorph.models.create import check_input
from catmorph.models.header import refuse_other_file
from catmorph.models.keras_file import KerasFile, KerasLayer, open_keras, read_array
from catmorph.recipe import Recipe

CORRELATING = ("tensorflow", "torch", "jax")
"""Backends that convolve without turning kernels, and pad as TensorFlow does."""
LICENCE = "not stated in the file; the weights are their authors', ask them before passing them on"
OTHER = "the weights belong to another network, or the recipe has other classes or bands than they have"
ROLES = {
    nn.Conv2d: {"kernel": "weight", "bias": "bias"},
    nn.Linear: {"kernel": "weight", "bias": "bias"},
    nn.BatchNorm2d: {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"},
}
"""Kind of layer -> role in the file -> tensor of the module."""


@dataclass(frozen=True)
class Origin:
    """How a file's numbers are to be read.

    Parameters
    ----------
    theano : bool
        Whether its kernels are turned by 180 degrees.
    channels_first : bool
        Whether maps were flattened in the order (channel, y, x), not (y, x, channel).
    """

    theano: bool
    channels_first: bool


def import_keras(
    path: Path,
    name: str,
    recipe: Recipe,
    output: Path,
    *,
    backend: str | None = None,
    channels_first: bool | None = None,
    licence: str = "",
) -> Card:
    """Write the weights of a Keras HDF5 file as a checkpoint whose card fits `recipe`.

    Parameters
    ----------
    name : str
        A model that has Keras weights; where the backend decides between two, either.
    backend : str, optional
        theano or tensorflow, whose convolutions the kernels were made for; default: what the file says.
    channels_first : bool, optional
        The order in which maps were flattened; default: what the file says, else the authors'.
    licence : str
        Licence of the weights, for the card.

    Returns
    -------
    Card
        Its `model` is the one that the backend decided for.

    Raises
    ------
    UsageError
        For an unknown model, one without Keras weights, stamps of another size than it takes, or an output that is
        the file itself, or there and no checkpoint.
    CheckpointError
        When the file is not one of Keras, is damaged, does not say its backend, or does not fit: the first layer
        that differs is named with both shapes.
    """
    graph = keras_graph(MODELS.get(name))
    if output.resolve() == path.resolve():
        raise UsageError("the checkpoint would replace the file it is made from", where=path, hint="give another -o")
    refuse_other_file(output)
    with open_keras(path) as file:
        family = backend or _backend(file)
        name = graph.backends.get(family, name)
        check_input(name, recipe)
        card = card_for(
            recipe, name, channels=one_channel_count(recipe), title=f"{name}, published weights",
            purpose="weights of the authors, imported", licence=licence or LICENCE,
        )
        origin = Origin(family == "theano", _order(file, graph, channels_first))
        module = build(name, classes=len(card.classes), channels=card.channels, seed=0)
        state = read_weights(file, module, graph, origin)
    module.load_state_dict(state, strict=True)
    training = {
        "trained": True, "imported": path.name, "sha256": digest(path), "backend": family,
        "keras_version": file.version or "not stated",
        "flattened": "channels first" if origin.channels_first else "channels last",
    }  # fmt: skip
    card = card.model_copy(update={"training": training})
    save_checkpoint(output, module, card)
    return card


def keras_graph(spec: ModelSpec) -> KerasGraph:
    """Return how Keras weights of an architecture lie in a file; UsageError where there are none."""
    if spec.keras is None:
        names = [name for name in MODELS.names() if MODELS.get(name).keras]
        raise UsageError(f"model {spec.name!r} has no Keras weights", hint=suggest(spec.name + "-released", names))
    return spec.keras


def read_weights(file: KerasFile, module: nn.Module, graph: KerasGraph, origin: Origin) -> dict[str, Tensor]:
    """Return a state of `module` with the weights of `file`; every layer is checked before the first is read.

    Raises
    ------
    CheckpointError
        Naming the first layer that differs.
    """
    for number, path in enumerate(graph.layers):
        _check_layer(file, number, path, module.get_submodule(path))
    if len(file.layers) > len(graph.layers):
        extra = file.layers[len(graph.layers)]
        raise CheckpointError(
            f"has {len(file.layers)} layers with weights, the model {len(graph.layers)}; the first more is "
            f"{extra.name!r}", where=file.path, hint=OTHER,
        )
    state = module.state_dict()
    for layer, path in zip(file.layers, graph.layers, strict=True):
        roles = ROLES[_kind(module.get_submodule(path))]
        for role, tensor in roles.items():
            values = read_array(file.path, layer, role)
            if role == "variance" and (values < 0).any():
                raise CheckpointError(f"layer {layer.name!r} has a negative variance", where=file.path)
            if role == "kernel":
                maps = graph.maps if path == graph.flattened and not origin.channels_first else None
                values = _kernel(values, state[f"{path}.{tensor}"].shape, origin, maps)
            state[f"{path}.{tensor}"] = torch.from_numpy(np.array(values, order="C"))
    return state


def _kernel(values: np.ndarray, shape: torch.Size, origin: Origin, maps: tuple[int, int, int] | None) -> np.ndarray:
    """Turn a kernel of the file into a weight of torch: (out, in, y, x) or (out, in)."""
    if values.ndim == 4:
        # Keras 1 with channels first keeps torch's axes.
        values = values if _is_keras_1(values.shape, shape) else values.transpose(3, 2, 0, 1)
        return values[:, :, ::-1, ::-1] if origin.theano else values
    if maps is not None:
        channels, height, width = maps
        values = values.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(values.shape)
    return values.T


def _is_keras_1(found: tuple[int, ...], wanted: torch.Size) -> bool:
    return found == tuple(wanted) and found != _file_shape("kernel", wanted)


def _check_layer(file: KerasFile, number: int, path: str, layer: nn.Module) -> None:
    """Check that layer `number` of the file has the variables and shapes of `layer`."""
    if number >= len(file.layers):
        raise CheckpointError(
            f"ends after {len(file.layers)} layers with weights; there is none for {path!r}",
            where=file.path, hint=OTHER,
        )
    found, roles = file.layers[number], ROLES[_kind(layer)]
    if set(found.arrays) != set(roles):
        raise _differs(file, found, path, ", ".join(found.arrays), ", ".join(roles))
    for role, tensor in roles.items():
        shape = tuple(found.arrays[role].shape)
        wanted = layer.get_parameter(tensor) if tensor in ("weight", "bias") else layer.get_buffer(tensor)
        keras_1 = role == "kernel" and _old(file) and _is_keras_1(shape, wanted.shape) and wanted.ndim == 4
        if shape != _file_shape(role, wanted.shape) and not keras_1:
            mine, theirs = ("x".join(map(str, one)) for one in (shape, _file_shape(role, wanted.shape)))
            raise _differs(file, found, path, f"{role} {mine}", f"{role} {theirs}")


def _differs(file: KerasFile, layer: KerasLayer, path: str, mine: str, theirs: str) -> CheckpointError:
    return CheckpointError(
        f"layer {layer.name!r} has {mine} where the model's {path!r} has {theirs}", where=file.path, hint=OTHER
    )


def _file_shape(role: str, shape: torch.Size) -> tuple[int, ...]:
    """Return the shape in a file of Keras 2 for a tensor of torch: (y, x, in, out) or (in, out) for kernels."""
    if role == "kernel" and len(shape) == 4:
        return (shape[2], shape[3], shape[1], shape[0])
    return tuple(reversed(shape)) if role == "kernel" else tuple(shape)


def _kind(layer: nn.Module) -> type[nn.Module]:
    return next(kind for kind in ROLES if isinstance(layer, kind))


def _old(file: KerasFile) -> bool:
    # Keras itself takes a file without a version for one of Keras 1.
    return (file.version or "1").split(".")[0] == "1"


def _backend(file: KerasFile) -> str:
    if file.backend == "theano":
        return "theano"
    if file.backend in CORRELATING:
        return "tensorflow"
    said = "does not say" if file.backend is None else f"says {file.backend!r} for"
    raise CheckpointError(
        f"{said} the backend its kernels were made with", where=file.path, hint="give --backend theano or tensorflow"
    )


def _order(file: KerasFile, graph: KerasGraph, channels_first: bool | None) -> bool:
    """Return whether maps were flattened channels first: as asked, else as the file says, else as the authors did."""
    if channels_first is not None:
        return channels_first
    if file.channels_first is not None:
        return file.channels_first
    first = next((layer.arrays["kernel"] for layer in file.layers if "kernel" in layer.arrays), None)
    if first is not None and first.ndim == 4 and _old(file):
        # Kernels of Keras 1 lie as (out, in, y, x) where channels come first; the two kernel axes are equal.
        return bool(first.shape[2] == first.shape[3] and first.shape[0] != first.shape[1])
    return graph.channels_first
