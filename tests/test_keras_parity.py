"""The reader of Keras weights against Keras itself (extra keras-parity)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from keras_files import write_recipe

from catmorph.cli.models import models
from catmorph.models import count_parameters
from catmorph.models.checkpoint import build_from, load_checkpoint
from catmorph.schemes import load_scheme

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra keras-parity"),
]
TOLERANCE = 1e-5
"""Largest difference of probabilities, of order one: float32 sums in another order."""
# Graph in Keras -> model asked for, model got, scheme, pixels.
CASES = {
    "clash-inception-released": ("clash-inception-released", "clash-inception-released", "clash", 80),
    "dominguez-theano": ("dominguez-cnn", "dominguez-cnn", "des-bar", 69),
    "dominguez-channels-first": ("dominguez-cnn", "dominguez-cnn-tensorflow", "des-bar", 69),
    "dominguez-channels-last": ("dominguez-cnn", "dominguez-cnn-tensorflow", "des-bar", 69),
    "gz2-cnn": ("gz2-cnn", "gz2-cnn", "gz2", 64),
}
RUNNING = {"clash": 660, "des-bar": 0, "gz2": 64}
"""Scheme -> running statistics of its network."""
# The padding of dominguez-theano is Theano's, that of the two others TensorFlow's: each is read as its own.
AS_SAVED = [graph for graph in CASES if graph != "dominguez-theano"]
AS_THEANO = [graph for graph in CASES if not graph.startswith("dominguez-channels")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return graph -> folder with what Keras saved, each made once."""

    @cache
    def make(graph):
        folder = tmp_path_factory.mktemp(graph)
        script = Path(__file__).with_name("keras_parity.py")
        environment = {**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "", "KERAS_HOME": str(folder)}
        subprocess.run([sys.executable, str(script), graph, str(folder)], check=True, env=environment)
        return folder

    return make


def weights_only(source, target, change=lambda name, values: values, backend=None):
    """Copy what model.save wrote to the layout of save_weights, which has the layers at the root."""
    with h5py.File(source) as whole, h5py.File(target, "w") as file:
        group = whole["model_weights"]
        file.attrs.update(group.attrs)
        file.attrs["backend"] = np.bytes_(backend or group.attrs["backend"])
        for layer in group.attrs["layer_names"]:
            copy = file.create_group(layer)
            names = list(group[layer].attrs["weight_names"])
            copy.attrs["weight_names"] = np.array(names, dtype="S")
            for name in names:
                copy[name] = change(name, group[layer][name][()])


def turned(name, values):
    return values[::-1, ::-1] if values.ndim == 4 else values


def check(graph, file, *options):
    folder = file.parent
    asked, got, scheme, pixels = CASES[graph]
    recipe = write_recipe(folder / "recipe.toml", scheme, pixels, bands=1 if scheme == "clash" else 3)
    output = folder / f"{file.stem}.safetensors"
    result = CliRunner().invoke(
        models, ["import-keras", str(file), "--model", asked, "-r", str(recipe), "-o", str(output), *options],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0
    checkpoint = load_checkpoint(output)
    assert checkpoint.card.model == got
    module = build_from(checkpoint).eval()
    assert count_parameters(module) == (int(np.load(folder / "parameters.npy")), RUNNING[scheme])
    stamps, wanted = np.load(folder / "stamps.npy"), np.load(folder / "outputs.npy")
    if stamps.shape[1] == stamps.shape[2]:
        stamps = stamps.transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = module(torch.from_numpy(np.ascontiguousarray(stamps))).numpy()
    found = load_scheme(scheme).probabilities(logits)
    # Weights that are read wrongly must show: the answers are not saturated and differ from stamp to stamp.
    assert wanted.max(axis=1).min() > 0.01
    assert wanted.max() < 0.99
    assert (wanted.std(axis=0) > 100 * TOLERANCE).all()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("graph", AS_SAVED)
def test_whole_model(saved, graph):
    check(graph, saved(graph) / "m.h5")


@pytest.mark.parametrize("graph", AS_SAVED)
def test_weights_only(saved, graph):
    folder = saved(graph)
    weights_only(folder / "m.h5", folder / "w.h5")
    # Weights alone do not say how maps were flattened; channels last is not what these authors did.
    check(graph, folder / "w.h5", *(["--flatten", "channels-last"] if graph == "dominguez-channels-last" else []))


@pytest.mark.parametrize("graph", AS_THEANO)
def test_kernels_made_with_theano(saved, graph):
    folder = saved(graph)
    weights_only(folder / "m.h5", folder / "t.h5", turned, backend="theano")
    check(graph, folder / "t.h5")
