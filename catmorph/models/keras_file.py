"""Keras' HDF5 weight files, opened without Keras and without trust.

Only datasets that a layer names in its attribute ``weight_names`` are looked at, through hard links alone: links
into other files, virtual datasets, external storage and object references are refused, shapes are known before
anything is read, and of the model's configuration only the order of axes is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from catmorph.errors import CheckpointError, printable
from catmorph.models.header import kind_of_file

HDF5 = b"\x89HDF\r\n\x1a\n"
HINT = "a Keras weight file is written by save_weights or model.save to a name that ends in .h5 (HDF5)"
DAMAGED = "copy it again"
ROLES = {
    "kernel": "kernel", "W": "kernel", "bias": "bias", "b": "bias", "gamma": "gamma", "beta": "beta",
    "moving_mean": "mean", "running_mean": "mean", "moving_variance": "variance", "running_std": "variance",
    "running_var": "variance",
}  # fmt: skip
"""Variable name in Keras 1, 2 or 3 -> its role; Keras 1 keeps a variance under the name running_std."""
_VARIABLE = re.compile(rf"^(?P<layer>.*?)(?:^|[/_])(?P<name>{'|'.join(ROLES)})(?:_\d+)?(?::0)?$")
_BY_POSITION = {1: ("gamma", "beta", "mean", "variance"), 2: ("kernel", "bias"), 4: ("kernel", "bias")}
"""Axes of the first array -> roles of a layer whose variables have no name (``param_0`` ...)."""
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
"""HDF5 filters that are read; others would load a plugin."""


@dataclass(frozen=True)
class KerasLayer:
    """A layer with weights: its name and its datasets by role (kernel, bias, gamma, beta, mean, variance)."""

    name: str
    arrays: dict[str, h5py.Dataset]


@dataclass(frozen=True)
class KerasFile:
    """An opened file: the layers with weights in file order, and what it says of its origin (None where nothing)."""

    path: Path
    layers: tuple[KerasLayer, ...]
    backend: str | None
    version: str | None
    channels_first: bool | None


@contextmanager
def open_keras(path: Path) -> Iterator[KerasFile]:
    """Open a Keras weight file, of the weights-only or the whole-model layout.

    Raises
    ------
    CheckpointError
        When it is missing, damaged, of another kind, or reaches out of itself.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            size = file.seek(0, 2)
    except FileNotFoundError:
        raise CheckpointError("no such file", where=path) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=path) from error
    if start.startswith(HDF5[:4]) and not start.startswith(HDF5):
        raise CheckpointError("is damaged: its signature is not that of HDF5", where=path, hint=DAMAGED)
    if not start.startswith(HDF5):
        raise CheckpointError(f"is {kind_of_file(start, size)}, not an HDF5 file", where=path, hint=HINT)
    with _refusing_damage(path):
        opened = h5py.File(path, "r")
    with opened:
        with _refusing_damage(path):
            found = _file(path, opened)
        yield found


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turn what h5py raises for damaged files into an error that says so."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        # A KeyError's text is in quotes.
        reason = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        raise CheckpointError(f"is damaged: {printable(reason)[:200]}", where=path, hint=DAMAGED) from error


def read_array(path: Path, layer: KerasLayer, role: str) -> np.ndarray:
    """Read one dataset of a layer as float32; the caller has checked its shape.

    Raises
    ------
    CheckpointError
        When it cannot be read, or a number in it is not finite.
    """
    with _refusing_damage(path):
        values = np.asarray(layer.arrays[role][()], dtype=np.float32)
    if not np.isfinite(values).all():
        raise CheckpointError(f"layer {layer.name!r} has a {role} that is not finite", where=path)
    return values


def _file(path: Path, root: h5py.File) -> KerasFile:
    weights = _member(path, root, "model_weights") if "model_weights" in root else root
    if not isinstance(weights, h5py.Group) or not _names(path, weights, "layer_names"):
        new = "layers" in root or "_layer_checkpoint_dependencies" in root
        raise CheckpointError(
            "has Keras 3's own layout, not the HDF5 layout of published weights" if new else "has no Keras weights",
            where=path, hint="write it with model.save('weights.h5') in Keras" if new else HINT,
        )
    layers: list[KerasLayer] = []
    for name in _names(path, weights, "layer_names"):
        group = _member(path, weights, name)
        if not isinstance(group, h5py.Group):
            raise CheckpointError(f"layer {name!r} is no group", where=path, hint=HINT)
        layers += _layers(path, name, group)
    return KerasFile(
        path=path,
        layers=tuple(layers),
        backend=_text(path, weights, "backend"),
        version=_text(path, weights, "keras_version"),
        channels_first=_channels_first(path, root),
    )


def _layers(path: Path, name: str, group: h5py.Group) -> list[KerasLayer]:
    """Return the layers of a group: one, or several where it is a model inside the model."""
    found: dict[str, dict[str, h5py.Dataset]] = {}
    unnamed: list[h5py.Dataset] = []
    for variable in _names(path, group, "weight_names"):
        dataset = _member(path, group, variable)
        _check_dataset(path, variable, dataset)
        match = _VARIABLE.match(variable)
        if match is None and re.fullmatch(r"param_\d+", variable):
            unnamed.append(dataset)
            continue
        if match is None:
            raise CheckpointError(f"layer {name!r} has a variable {variable!r} of an unknown kind", where=path)
        arrays, role = found.setdefault(match["layer"], {}), ROLES[match["name"]]
        if role in arrays:
            raise CheckpointError(f"layer {name!r} has two variables for its {role}", where=path)
        arrays[role] = dataset
    if unnamed:
        roles = _BY_POSITION.get(unnamed[0].ndim, ())
        if found or len(roles) != len(unnamed):
            raise CheckpointError(f"layer {name!r} has {len(unnamed)} variables without a name", where=path)
        found[""] = dict(zip(roles, unnamed, strict=True))
    one = len(found) == 1
    return [KerasLayer(name if one else inner or name, arrays) for inner, arrays in found.items()]


def _member(path: Path, group: h5py.Group, name: str) -> Any:
    """Return what lies at `name` (parts between slashes) below `group`, through hard links only."""
    found: Any = group
    for part in (part for part in name.split("/") if part):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise CheckpointError(f"names {name!r}, which is not in it", where=path, hint=DAMAGED)
        if not isinstance(link, h5py.HardLink):
            kind = "another file" if isinstance(link, h5py.ExternalLink) else "elsewhere"
            raise CheckpointError(f"{name!r} is a link to {kind}", where=path, hint="weights must lie in the file")
        found = found[part]
    return found


def _check_dataset(path: Path, name: str, dataset: Any) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise CheckpointError(f"{name!r} is no array", where=path, hint=HINT)
    if dataset.is_virtual or dataset.external:
        raise CheckpointError(f"{name!r} lies in another file", where=path, hint="weights must lie in the file")
    if dataset.dtype.kind != "f" or dataset.shape is None:
        raise CheckpointError(f"{name!r} has no floating-point numbers but {dataset.dtype}", where=path, hint=HINT)
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if not filters <= FILTERS:
        raise CheckpointError(f"{name!r} is compressed by an unknown filter", where=path, hint="repack it with gzip")
    # A chunk is held in memory whole, however few of its numbers are asked for.
    if dataset.chunks and math.prod(dataset.chunks) > max(dataset.size, 2**20):
        raise CheckpointError(f"{name!r} has chunks larger than itself", where=path, hint="repack it")


def _names(path: Path, group: h5py.Group, name: str) -> list[str]:
    """Return the texts of attribute `name`, which Keras splits into name0, name1 ... where it is long."""
    if name in group.attrs:
        return _texts(path, group, name)
    texts: list[str] = []
    part = 0
    while f"{name}{part}" in group.attrs:
        texts += _texts(path, group, f"{name}{part}")
        part += 1
    return texts


def _texts(path: Path, group: h5py.Group, name: str) -> list[str]:
    values = np.ravel(group.attrs[name]).tolist()
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    # Keras writes an empty list as an array of numbers.
    if not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"has an attribute {name} that is no text", where=path, hint=HINT)
    return texts


def _text(path: Path, group: h5py.Group, name: str) -> str | None:
    texts = _texts(path, group, name) if name in group.attrs else []
    return texts[0] if texts else None


def _channels_first(path: Path, root: h5py.File) -> bool | None:
    """Return the order of axes that a whole-model file's configuration gives to all its convolutions, or None."""
    try:
        config = json.loads(_text(path, root, "model_config") or "null")
        orders = {str(order) for order in _values(config, ("data_format", "dim_ordering"))}
    except (ValueError, RecursionError):
        return None
    if orders <= {"channels_first", "th"} and orders:
        return True
    return False if orders <= {"channels_last", "tf"} and orders else None


def _values(config: Any, keys: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(config, dict):
        yield from (config[key] for key in keys if config.get(key))
    inner = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for value in inner:
        yield from _values(value, keys)
