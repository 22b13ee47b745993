"""One training of a grid: what it needs, what it measures, and the file that keeps the result."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catmorph.errors import CatmorphError
from catmorph.evaluation.metrics import authors_rmse, rmse
from catmorph.experiments.plan import Grid, Point
from catmorph.experiments.prepared import opened
from catmorph.files import digest_json, read_sealed, write_sealed
from catmorph.labels import LabelledStamps
from catmorph.models.card import own_version
from catmorph.recipe import Recipe, TrainingSection
from catmorph.schemes import load_scheme

if TYPE_CHECKING:
    from catmorph.training.fit import TrainingResult

CODE_VERSION = 1
"""Raised when what a training measures changes; part of its fingerprint."""
DESCRIPTIVE = {"output", "title", "licence", "purpose", "start"}
"""Keys of [training] that say where or what; the start counts by its bytes."""


CHECKPOINT = "net.safetensors"


@dataclass(frozen=True)
class Task:
    """Everything a worker needs for one training: paths and settings, no pixels.

    `fingerprint` is of all that decides the result; `stamps` the folder that `prepare` filled.
    """

    point: Point
    stamps: Path
    recipe: Recipe
    section: TrainingSection
    fingerprint: str
    result: Path
    folder: Path
    device: str
    threads: int
    keep: bool

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, while it is there."""
        return self.folder / CHECKPOINT

    def done(self) -> dict[str, Any] | None:
        """Return the result of this very training, None where there is none, or it is damaged or of another one."""
        found = read_sealed(self.result)
        if found is None or found.get("fingerprint") != self.fingerprint or "reason" in found:
            return None
        return None if self.keep and not self.checkpoint.exists() else found


def training_fingerprint(grid: Grid, point: Point, stamps: str, start: str | None) -> str:
    """Return the sha256 of what decides the result of a training.

    Parameters
    ----------
    stamps, start : str
        Fingerprint of the labelled stamps; sha256 of the checkpoint that fine-tuned trainings start from.
    """
    section = grid.section_of(point)
    return digest_json({
        "stamps": stamps,
        "scheme": grid.recipe.scheme,
        "section": section.model_dump(mode="json", exclude=DESCRIPTIVE),
        "start": start if section.start else None,
        "code": CODE_VERSION,
        "versions": versions(),
    })


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {"catmorph": own_version(), "torch": version("torch")}


def train_point(task: Task) -> dict[str, Any]:
    """Train and test one network, keep the result in ``task.result``, and return it.

    A training that fails is a result too, with its reason. On a processor, one that was interrupted goes on where it
    was; with the same number of threads it ends with the same numbers.
    """
    start = time.monotonic()
    found: dict[str, Any] = {
        "fingerprint": task.fingerprint, "setting": dict(task.point.setting), "repeat": task.point.repeat,
        "seed": task.section.seed, "versions": versions(), "threads": task.threads,
    }  # fmt: skip
    try:
        found |= _train(task)
    except (CatmorphError, MemoryError, RuntimeError) as error:
        found["reason"] = " ".join(str(error).split()) or type(error).__name__
    found["seconds"] = round(time.monotonic() - start, 3)
    write_sealed(task.result, found)
    if task.keep and "reason" not in found:
        shutil.rmtree(task.folder / "state", ignore_errors=True)
    else:
        shutil.rmtree(task.folder, ignore_errors=True)
    return found


def _train(task: Task) -> dict[str, Any]:
    # Lightning and torch take seconds to import.
    from catmorph.models.device import resolve_device
    from catmorph.training.fit import train

    device = resolve_device(task.device)
    data = opened(task.stamps)
    # A GPU trains faster than the state of every epoch is written.
    state = task.folder / "state" if device == "cpu" else None
    section = task.section.model_copy(update={"output": str(task.checkpoint)})
    result = train(data, task.recipe, section, device=device, threads=task.threads, log_dir=state, progress=False)
    return {
        "metrics": result.metrics,
        "views": _by_view(task, data, result),
        "zeroed": _zeroed(task, data, result, device),
        "validation": _at_best(result.curve, result.best_epoch),
        "stamps": result.split.counts(),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "device": device,
    }


def _by_view(task: Task, data: LabelledStamps, result: TrainingResult) -> dict[str, Any]:
    """Return both RMSEs of the test stamps of each view."""
    predicted = load_scheme(task.recipe.scheme).probabilities(result.test_logits)
    fractions, views = data.fractions[result.split.test], np.asarray(data.views)[result.split.test].astype(str)
    found = {}
    for view in sorted(set(views)):
        rows = views == view
        found[view] = _errors(predicted[rows], fractions[rows])
    return found


def _zeroed(task: Task, data: LabelledStamps, result: TrainingResult, device: str) -> list[dict[str, Any]]:
    """Return both RMSEs of the test stamps with one band set to zero, for each band of a stamp with several."""
    if "without" not in task.point.setting or data.inputs.shape[1] == 1:
        return []
    from catmorph.inference.predict import Predictor
    from catmorph.models.checkpoint import load_checkpoint

    predictor = Predictor(load_checkpoint(task.checkpoint), device=device, precision="float32", batch=128)
    scheme, rows = load_scheme(task.recipe.scheme), result.split.test
    found = []
    for channel, band in enumerate(channel_names(task.recipe)):
        inputs = np.array(data.inputs[rows])
        inputs[:, channel] = 0.0
        found.append({"band": band, **_errors(scheme.probabilities(predictor.logits(inputs)), data.fractions[rows])})
    return found


def channel_names(recipe: Recipe) -> tuple[str, ...]:
    """Return what the channels of a stamp are called: the band, or the bands of several views."""
    return tuple("/".join(dict.fromkeys(bands)) for bands in zip(*recipe.all_views.values(), strict=True))


def _errors(predicted: np.ndarray, fractions: np.ndarray) -> dict[str, Any]:
    return {
        "stamps": len(fractions),
        "rmse": round(rmse(predicted, fractions), 6),
        "rmse_authors": round(authors_rmse(predicted, fractions), 6),
    }


def _at_best(curve: Path, epoch: int) -> Mapping[str, float]:
    """Return loss and RMSE of the validation subset at the epoch whose weights were taken."""
    with open(curve, newline="") as file:
        row = next(row for row in csv.DictReader(file) if int(row["epoch"]) == epoch)
    return {name.removeprefix("validation_"): float(row[name]) for name in ("validation_loss", "validation_rmse")}
