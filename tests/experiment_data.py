"""Small labelled stamps that a network can learn from, and a recipe for grids on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catmorph.labels import LabelledStamps
from catmorph.models.create import create_untrained
from catmorph.recipe import load_recipe

SMALL = (
    "training.model=clash-inception-narrow", "training.epochs=1", "training.batches_per_epoch=2", "training.batch=8",
    "training.learning_rate=1e-3", "training.validation=8", "training.test=12",
    "experiments.splits=2", "experiments.repeats=2", "experiments.sizes=[8, 16]",
)  # fmt: skip


def stamps(sources=24, views=("F475W", "F160W"), channels=1, seed=3):
    """Two stamps a source: brighter for each class in turn, in noise."""
    random = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(sources) % 5, len(views))
    inputs = random.normal(0, 0.1, (len(kinds), channels, 80, 80)) + kinds[:, None, None, None] / 5
    return LabelledStamps(
        inputs.astype(np.float32), (0.9 * np.eye(5)[kinds] + 0.02).astype(np.float32),
        fields=np.full(len(kinds), "a"), ids=np.repeat(np.arange(sources).astype(str), len(views)),
        views=np.tile(views, sources), votes=np.full(len(kinds), 7.0),
    )  # fmt: skip


def recipe_in(folder: Path, *overrides: str):
    """Return the CLASH recipe with small trainings and results below `folder`."""
    own = (f"training.output={folder / 'net.safetensors'}", f"experiments.folder={folder / 'grids'}")
    return load_recipe("configs/clash.toml", [*own, *SMALL, *overrides])


def start_in(folder: Path) -> Path:
    """Write a checkpoint that trainings can start from."""
    path = folder / "start.safetensors"
    create_untrained("clash-inception-narrow", recipe_in(folder), path, seed=9)
    return path
