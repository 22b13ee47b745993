"""Small recipes and Keras weight files, written with h5py alone."""

from __future__ import annotations

import h5py
import numpy as np
from torch import nn

NAMES = {  # Keras version -> (kernel, bias, gamma, beta, mean, variance)
    1: ("W", "b", "gamma", "beta", "running_mean", "running_std"),
    2: ("kernel:0", "bias:0", "gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"),
    3: ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"),
}


def write_recipe(path, scheme, pixels, *, bands, normalise="bytescale"):
    """Write a recipe whose one view has `bands` bands."""
    names = [f"B{number}" for number in range(bands)]
    path.write_text(
        f'name = "published"\nscheme = "{scheme}"\n'
        '[catalog]\nfiles = "*.csv"\nfield = { pattern = "{field}.csv" }\n'
        'id = "ID"\nra = "RA"\ndec = "DEC"\n'
        f'[bands]\nnames = {names}\n[views]\nall = {names}\n[mosaics]\npattern = "{{field}}_{{band}}.fits"\n'
        f'[stamp]\nside = "10 arcsec"\npixels = {pixels}\n[normalise]\nmethod = "{normalise}"\n'
    )
    return path


def arrays_of(layer, *, version=2, theano=False, channels_first=True, maps=None):
    """Return the variables of a layer of torch as Keras stores them: (name, array) in Keras' order."""
    kernel, bias, *norm = NAMES[version]
    weight = layer.weight.detach().numpy()
    if isinstance(layer, nn.BatchNorm2d):
        values = (weight, layer.bias.detach().numpy(), layer.running_mean.numpy(), layer.running_var.numpy())
        return list(zip(norm, values, strict=True))
    if isinstance(layer, nn.Conv2d):
        turned = np.rot90(weight, 2, axes=(2, 3)) if theano else weight
        stored = turned if version == 1 and channels_first else np.moveaxis(turned, (0, 1), (3, 2))
    else:
        stored = weight.T
        if maps is not None and not channels_first:
            channels, height, width = maps
            order = np.arange(channels * height * width).reshape(maps).transpose(1, 2, 0).ravel()
            stored = stored[order]
    return [(kernel, np.ascontiguousarray(stored)), (bias, layer.bias.detach().numpy())]


def write_keras(path, module, graph, *, version=2, backend="tensorflow", channels_first=True, whole=False, config=None):
    """Write the weights of `module` as Keras of that version does, with a layer that has none in between."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        if whole and config is not None:
            file.attrs["model_config"] = config
        names = []
        for number, name in enumerate(graph.layers):
            layer = module.get_submodule(name)
            maps = graph.maps if name == graph.flattened else None
            label = f"{type(layer).__name__.lower()}_{number + 1}"
            names += [label, f"activation_{number + 1}"]
            group.create_group(names[-1]).attrs["weight_names"] = np.zeros(0)
            inner = group.create_group(label)
            variables = arrays_of(
                layer, version=version, theano=backend == "theano", channels_first=channels_first, maps=maps
            )
            texts = [f"{label}_{text}" if version == 1 else f"{label}/{text}" for text, _ in variables]
            inner.attrs["weight_names"] = np.array(texts, dtype="S")
            for text, (_, values) in zip(texts, variables, strict=True):
                inner[text] = values
        group.attrs["layer_names"] = np.array(names, dtype="S")
        if backend:
            group.attrs["backend"] = np.bytes_(backend)
        if version > 1:
            group.attrs["keras_version"] = np.bytes_(f"{version}.2.0")
    return path
