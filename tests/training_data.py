"""Labelled stamps and trainings of the narrow network that take about a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catmorph.labels import LabelledStamps
from catmorph.recipe import Recipe, TrainingSection, load_recipe
from catmorph.training import fit


def recipe() -> Recipe:
    return load_recipe("configs/clash.toml")


def stamps(count: int = 40, classes: int = 5, channels: int = 1) -> LabelledStamps:
    """Return noise on a level that tells the class; seven votes each."""
    random = np.random.default_rng(3)
    kinds = np.arange(count) % classes
    inputs = random.normal(0, 0.1, (count, channels, 80, 80)) + kinds[:, None, None, None] / 5
    counts = np.eye(classes)[kinds] * 5 + np.eye(classes)[random.integers(classes, size=(count, 2))].sum(axis=1)
    return LabelledStamps(
        inputs.astype(np.float32), (counts / 7).astype(np.float32), np.array(["a"] * count),
        np.arange(count).astype(str), np.array(["F160W"] * count), np.full(count, 7.0),
        names=np.array([f"a_f160w_{i}" for i in range(count)]),
    )


def section(folder: Path, **options: object) -> TrainingSection:
    small = {"model": "clash-inception-narrow", "epochs": 3, "batches_per_epoch": 2, "batch": 8, "learning_rate": 1e-3,
             "validation": 0.2, "test": 0.2, "seed": 5, "output": str(folder / "net.safetensors")}
    return TrainingSection(**(small | options))


def train(settings: TrainingSection, data: LabelledStamps | None = None, *, of: Recipe | None = None,
          **options: object) -> fit.TrainingResult:
    return fit.train(stamps() if data is None else data, of or recipe(), settings, device="cpu", threads=1,
                     progress=False, **options)
