"""One training of a grid: what it needs, what it measures, and the file that keeps the result."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from catmorph import training
from catmorph.errors import CatmorphError, CheckpointError
from catmorph.evaluation.run import choose_subset
from catmorph.experiments.measures import (
    Logits,
    about_positive,
    answers,
    by_view,
    metrics,
    on_subset,
    without_bands,
)
from catmorph.experiments.plan import CURVE, SUBSETS, ZEROED, Grid, Point
from catmorph.experiments.prepared import opened
from catmorph.experiments.result import is_sound
from catmorph.files import digest, digest_json, read_sealed, write_sealed
from catmorph.labels import LabelledStamps
from catmorph.labels.split import SUBSETS as SUBSET_NAMES
from catmorph.labels.split import read_split, split_path
from catmorph.models.card import own_version
from catmorph.models.header import count_weights
from catmorph.models.identity import read_network_digest
from catmorph.recipe import Recipe, TrainingSection
from catmorph.recipe.training import DESCRIPTIVE
from catmorph.schemes import load_scheme

CODE_VERSION = 1
"""Raised when what a training measures changes; part of its fingerprint."""
CHECKPOINT = "net.safetensors"
TEST_BATCH = 128


@dataclass(frozen=True)
class Task:
    """Everything a worker needs for one training: paths and settings, no pixels.

    `fingerprint` is of all that decides the result; `stamps` the folder that `prepare` filled; `wants` what is
    measured beside the metrics; `given` a checkpoint that is tested as it is, instead of a training: on `subset`, or as
    `catmorph.evaluation.run.choose_subset` chooses. `positive` is the number of a class of which every test stamp's
    probability is kept.
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
    wants: tuple[str, ...] = ()
    given: Path | None = None
    subset: str | None = None
    positive: int | None = None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, while it is there."""
        return self.folder / CHECKPOINT

    def done(self) -> dict[str, Any] | None:
        """Return the result of this very training, None where there is none, or it is damaged or of another one.

        A file whose seal fits may have been edited all the same: one that cannot be a result counts as damaged.
        """
        found = read_sealed(self.result)
        if found is None or found.get("fingerprint") != self.fingerprint or "reason" in found:
            return None
        if found.get("setting") != dict(self.point.setting) or found.get("repeat") != self.point.repeat:
            return None
        if not is_sound(found, names=answers(load_scheme(self.recipe.scheme)), needs=self._needs):
            return None
        return None if self.keep and self.given is None and not self._kept(found) else found

    def failed(self) -> str | None:
        """Return why this very training failed, None where it did not, or is not done."""
        found = read_sealed(self.result)
        if found is None or found.get("fingerprint") != self.fingerprint or "reason" not in found:
            return None
        return str(found["reason"])

    @property
    def _needs(self) -> tuple[str, ...]:
        """The entries of its result that not every training has."""
        measured = (("parameters", "subsets") if one == SUBSETS else (one,) for one in self.wants)
        told = [*("note",) * (self.given is not None), *("answers",) * (self.positive is not None)]
        return (*(name for names in measured for name in names), *told)

    def _kept(self, found: dict[str, Any]) -> bool:
        """Whether the checkpoint is there with the weights that were written; its card may have got an evaluation."""
        try:
            return read_network_digest(self.checkpoint) == found.get("checkpoint")
        except CheckpointError:
            return False


def training_fingerprint(grid: Grid, point: Point, stamps: str, start: str | None) -> str:
    """Return the sha256 of what decides the result of a training.

    Parameters
    ----------
    stamps, start : str
        Fingerprint of the labelled stamps; sha256 of the checkpoint that the training starts from, or that is tested
        as it is.
    """
    section = grid.section_of(point)
    return digest_json({
        "stamps": stamps,
        "scheme": grid.recipe_of(point).scheme,
        "section": section_key(section),
        "start": start,
        **backbone_key(section),
        **teachers_key(section),
        **code_key(),
        **({"wants": grid.experiment.wants} if grid.experiment.wants else {}),
        **({"given": True} if grid.given else {}),
    })


def section_key(section: TrainingSection) -> dict[str, Any]:
    """Return what a training's fingerprint says of its settings, of which none is a path."""
    # Trainings without teachers have always had this empty list, and stay valid.
    return section.model_dump(mode="json", exclude=DESCRIPTIVE) | {"teachers": []}


def backbone_key(section: TrainingSection) -> dict[str, str]:
    """Return what a training's fingerprint says of the weights that its backbone starts from, where it does."""
    if section.backbone is None or section.start is not None:
        return {}
    path = Path(section.backbone)
    return {"backbone": digest(path) if path.is_file() else section.backbone}


def teachers_key(section: TrainingSection) -> dict[str, list[str]]:
    """Return what a training's fingerprint says of its teachers, where it has some: their networks, in their order."""
    return {"teachers": [read_network_digest(Path(one)) for one in section.teachers]} if section.teachers else {}


def code_key() -> dict[str, Any]:
    """Return what a training's fingerprint says of the code: what trains and what measures, and torch.

    A new version of catmorph that trains and measures as the last one leaves the results of grids valid.
    """
    return {"code": {"measures": CODE_VERSION, "training": training.CODE_VERSION}, "torch": version("torch")}


def versions() -> dict[str, str]:
    """Return the versions of what computes, for reports."""
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
        found |= _outcome(task)
    except (CatmorphError, MemoryError, RuntimeError) as error:
        found["reason"] = " ".join(str(error).split()) or type(error).__name__
    found["seconds"] = round(time.monotonic() - start, 3)
    if task.keep and task.given is None and "reason" not in found:
        found["checkpoint"] = read_network_digest(task.checkpoint)
    write_sealed(task.result, found)
    if task.keep and "reason" not in found:
        shutil.rmtree(task.folder / "state", ignore_errors=True)
    else:
        shutil.rmtree(task.folder, ignore_errors=True)
    return found


def _outcome(task: Task) -> dict[str, Any]:
    # Lightning and torch take seconds to import.
    from catmorph.models.device import resolve_device

    device = resolve_device(task.device)
    data = opened(task.stamps)
    tested = _given(task, data, device) if task.given else _trained(task, data, device)
    predicted = load_scheme(task.recipe.scheme).probabilities(tested.logits)
    return {
        "metrics": tested.metrics,
        "views": by_view(predicted, data, tested.rows),
        "device": device,
        **tested.told,
        **_wanted(task, data, tested, device),
    }


@dataclass(frozen=True)
class _Tested:
    """A network that was tested: its file, the rows of the test stamps, their logits, and what else is told of it."""

    checkpoint: Path
    rows: np.ndarray
    logits: np.ndarray
    metrics: dict[str, Any]
    told: dict[str, Any]


def _trained(task: Task, data: LabelledStamps, device: str) -> _Tested:
    from catmorph.training.fit import train

    # A GPU trains faster than the state of every epoch is written.
    state = task.folder / "state" if device == "cpu" else None
    section = task.section.model_copy(update={"output": str(task.checkpoint)})
    result = train(data, task.recipe, section, device=device, threads=task.threads, log_dir=state, progress=False)
    told = {
        "validation": _at_best(result.curve, result.best_epoch), "stamps": result.split.counts(),
        "epochs": result.epochs, "best_epoch": result.best_epoch,
    }  # fmt: skip
    return _Tested(task.checkpoint, result.split.test, result.test_logits, result.metrics, told)


def _given(task: Task, data: LabelledStamps, device: str) -> _Tested:
    """Test a checkpoint that is there: on the test subset of its split file, without one on all stamps."""
    given = cast(Path, task.given)
    scheme, chosen = load_scheme(task.recipe.scheme), choose_subset(given, data, task.subset)
    logits = _predictor(given, device)(np.asarray(data.inputs[chosen.rows]))
    found = metrics(scheme.probabilities(logits), data, chosen.rows, scheme)
    told = {"validation": {}, "stamps": {"test": len(chosen.rows)}, "epochs": 0, "best_epoch": 0,
            "note": chosen.note}  # fmt: skip
    return _Tested(given, chosen.rows, logits, found, told)


def _wanted(task: Task, data: LabelledStamps, tested: _Tested, device: str) -> dict[str, Any]:
    """Return what the experiment wants to know beside the metrics."""
    found: dict[str, Any] = {}
    scheme = load_scheme(task.recipe.scheme)
    if task.positive is not None:
        predicted, fractions = scheme.probabilities(tested.logits), data.fractions[tested.rows]
        found["answers"] = about_positive(predicted, fractions, tested.rows, scheme, task.positive)
    predict = _predictor(tested.checkpoint, device) if {ZEROED, SUBSETS} & set(task.wants) else None
    if CURVE in task.wants:
        found["curve"] = _rows_of(tested.checkpoint.with_suffix(".curve.csv"))
    if predict and SUBSETS in task.wants:
        split = read_split(split_path(tested.checkpoint), data)
        found["parameters"] = count_weights(tested.checkpoint)[0]
        found["subsets"] = {name: on_subset(predict, data, getattr(split, name), scheme) for name in SUBSET_NAMES}
    if predict and ZEROED in task.wants:
        found["zeroed"] = without_bands(predict, data, tested.rows, task.recipe, scheme)
    return found


def _predictor(checkpoint: Path, device: str) -> Logits:
    from catmorph.inference.predict import Predictor
    from catmorph.models.checkpoint import load_checkpoint

    return Predictor(load_checkpoint(checkpoint), device=device, precision="float32", batch=TEST_BATCH).logits


def _rows_of(curve: Path) -> list[dict[str, float]]:
    """Return the learning curve, a row an epoch."""
    with open(curve, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _at_best(curve: Path, epoch: int) -> Mapping[str, float]:
    """Return loss and RMSE of the validation subset at the epoch whose weights were taken."""
    row = next(row for row in _rows_of(curve) if int(row["epoch"]) == epoch)
    return {name.removeprefix("validation_"): row[name] for name in ("validation_loss", "validation_rmse")}
