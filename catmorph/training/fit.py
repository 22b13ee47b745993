"""The training loop: labelled stamps in, checkpoint and learning curve out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catmorph.errors import UsageError
from catmorph.evaluation.metrics import summary
from catmorph.files import digest_json, write_bytes
from catmorph.labels import LabelledStamps, Split, split_sources
from catmorph.models import build
from catmorph.models.card import Card, card_for
from catmorph.models.checkpoint import round_weights, save_checkpoint
from catmorph.models.create import check_input
from catmorph.models.device import resolve_device
from catmorph.recipe import Recipe, TrainingSection
from catmorph.schemes import Scheme, load_scheme

DESCRIPTIVE = ("output", "title", "licence", "purpose")
"""Fields of the section that say where or what, and do not change the weights."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training made: the two files, the card with its metrics, and how it went."""

    checkpoint: Path
    curve: Path
    card: Card
    epochs: int
    best_epoch: int

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the test subset."""
        return self.card.metrics


def train(
    data: LabelledStamps,
    recipe: Recipe,
    section: TrainingSection,
    *,
    device: str = "auto",
    threads: int | None = None,
    log_dir: Path | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a network on `data` and write its checkpoint to ``section.output``.

    The learning curve is written beside the checkpoint, as ``<name>.curve.csv``, after every epoch. On a
    processor the same data, recipe, versions and number of threads give the same bytes.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where the network runs; auto takes the GPU where there is one.
    threads : int, optional
        Threads of the processor; default: torch's own choice.
    log_dir : path, optional
        Folder for ``best.safetensors``, the best weights so far, and for the state after the last epoch: the
        same call after an interruption goes on from there and ends with the same bytes.
    progress : bool
        Show a progress bar, where stderr is a terminal.

    Raises
    ------
    UsageError
        When Lightning is not installed, or the data and the recipe do not fit together.
    """
    loop = _import_loop()
    log_dir = None if log_dir is None else Path(log_dir)
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        # Dropout draws from torch's global state, which is given back as it was.
        with torch.random.fork_rng(devices=[]):
            return _train(loop, data, recipe, section, device=device, log_dir=log_dir, progress=progress)
    finally:
        torch.set_num_threads(before)


def _train(
    loop: Any, data: LabelledStamps, recipe: Recipe, section: TrainingSection, *, device: str,
    log_dir: Path | None, progress: bool,
) -> TrainingResult:
    scheme = load_scheme(recipe.scheme)
    _check(data, recipe, section, len(scheme.classes))
    split = split_sources(data, section)
    module = build(section.model, classes=len(scheme.classes), channels=data.inputs.shape[1], seed=section.seed)
    output = Path(section.output)
    curve = output.with_suffix(".curve.csv")

    def on_epoch(rows: list[dict[str, float]]) -> None:
        write_bytes(curve, _as_csv(rows))

    def on_best(epoch: int) -> None:
        if log_dir is not None:
            save_checkpoint(log_dir / "best.safetensors", module, _card(data, recipe, section, split, epoch, {}))

    resume = None if log_dir is None else log_dir / f"resume-{_fingerprint(data, recipe, section)[:16]}.ckpt"
    fitted = loop.fit(loop.Job(
        module, data, split, section, kind=scheme.kind, device=resolve_device(device), progress=progress,
        on_epoch=on_epoch, on_best=on_best, resume=resume,
    ))
    round_weights(module, section.saved_precision)
    metrics = _test(fitted.logits(split.test), data, split, scheme)
    card = _card(data, recipe, section, split, fitted.best_epoch, metrics)
    save_checkpoint(output, module, card, section.saved_precision)
    for path in log_dir.glob("resume-*.ckpt") if log_dir is not None else ():
        path.unlink()
    return TrainingResult(output, curve, card, fitted.epochs, fitted.best_epoch)


def _test(logits: np.ndarray, data: LabelledStamps, split: Split, scheme: Scheme) -> dict[str, Any]:
    votes = None if data.votes is None else data.votes[split.test]
    return summary(scheme.probabilities(logits), data.fractions[split.test], scheme.class_names, votes)


def _fingerprint(data: LabelledStamps, recipe: Recipe, section: TrainingSection) -> str:
    """Return the sha256 of what decides the weights: a training goes on only from its own state."""
    arrays = (data.inputs, data.fractions, data.sources)
    return digest_json({
        "arrays": [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in arrays],
        "section": section.model_dump(mode="json", exclude=set(DESCRIPTIVE)),
        "fields": sorted(set(map(str, data.fields))),
        "scheme": recipe.scheme,
        "torch": torch.__version__,
    })


def _import_loop() -> Any:
    try:
        import lightning  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("training needs Lightning", hint="pip install 'catmorph[train]'") from error
    from catmorph.training import loop

    return loop


def _check(data: LabelledStamps, recipe: Recipe, section: TrainingSection, classes: int) -> None:
    check_input(section.model, recipe)
    pixels = recipe.stamp.pixels
    if data.inputs.shape[2:] != (pixels, pixels):
        raise UsageError(f"stamps are {data.inputs.shape[2:]} pixels, the recipe's are ({pixels}, {pixels})")
    if data.fractions.shape[1] != classes:
        raise UsageError(f"labels have {data.fractions.shape[1]} classes, scheme {recipe.scheme!r} has {classes}")
    bad = int(np.count_nonzero(~np.isfinite(data.inputs).all(axis=(1, 2, 3))))
    if bad:
        raise UsageError(f"{bad} of {len(data)} stamps hold NaN or infinity", hint="leave out blocked stamps")


def _card(
    data: LabelledStamps, recipe: Recipe, section: TrainingSection, split: Split, epoch: int,
    metrics: dict[str, Any],
) -> Card:
    settings = section.model_dump(mode="json", exclude={*DESCRIPTIVE, "model"})
    training = {
        "trained": True,
        "stamps": split.counts(),
        "sources": int(data.sources.max()) + 1,
        "best_epoch": epoch,
        "labels": Path(recipe.labels.table or "").name,
        "settings": settings,
    }
    return card_for(
        recipe, section.model, channels=data.inputs.shape[1], views=data.view_names, title=section.title,
        purpose=section.purpose, licence=section.licence, training=training, metrics=metrics,
    )


def _as_csv(rows: list[dict[str, float]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    return ("\n".join(lines) + "\n").encode()
