"""The epochs of a training, by Lightning; nothing else imports it."""

from __future__ import annotations

import hashlib
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.labels import LabelledStamps, Split
from catmorph.recipe import TrainingSection
from catmorph.training.augment import augment

EVALUATION_BATCH = 128

Row = dict[str, float]
"""One epoch of the learning curve."""


@dataclass(frozen=True)
class Job:
    """One training: `module` is trained in place.

    `on_epoch` gets the rows of the learning curve after every epoch, `on_best` the epoch's number (from 1)
    whenever the validation loss is the best so far. `resume` is where the state after each epoch is kept;
    where the file is there already, the training goes on from it, to the same weights.
    """

    module: nn.Module
    data: LabelledStamps
    split: Split
    section: TrainingSection
    kind: str
    device: str
    progress: bool
    on_epoch: Callable[[list[Row]], None]
    on_best: Callable[[int], None]
    resume: Path | None


@dataclass(frozen=True)
class Fitted:
    """A finished training: `logits(rows)` predicts with the best weights."""

    epochs: int
    best_epoch: int
    logits: Callable[[np.ndarray], np.ndarray]


def fit(job: Job) -> Fitted:
    """Train until the last epoch or the end of patience, and take the weights of the best validation loss.

    Raises
    ------
    CatmorphError
        When the loss was never finite.
    KeyboardInterrupt
        When it was interrupted; with `Job.resume`, another call goes on after the last whole epoch.
    """
    section = job.section
    job.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = _Task(job)
    record = _Record(job)
    stop = EarlyStopping("validation_loss", patience=section.patience)
    bars: list[Callback] = [TQDMProgressBar()] if job.progress and sys.stderr.isatty() else []
    _run(_trainer(job, [stop, *bars, record]), task, job)
    if not record.best_state:
        raise CatmorphError("the validation loss was never finite", hint="lower training.learning_rate")
    job.module.load_state_dict(record.best_state)
    return Fitted(len(record.rows), record.best_epoch, task.logits)


def _run(trainer: Any, task: _Task, job: Job) -> None:
    going_on = job.resume is not None and job.resume.exists()
    numbers: Any = range(job.section.batches_per_epoch)
    rows: Any = torch.as_tensor(job.split.validation).split(EVALUATION_BATCH)
    batches, validation = (DataLoader(items, batch_size=None) for items in (numbers, rows))
    with warnings.catch_warnings():
        # Batches are drawn from memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            trainer.fit(
                task, batches, validation, ckpt_path=str(job.resume) if going_on else None, weights_only=True
            )
        except SystemExit as error:
            # Lightning ends the process when it is interrupted; that is the caller's to decide.
            raise KeyboardInterrupt from error


def _trainer(job: Job, callbacks: list[Callback]) -> Any:
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        max_epochs=job.section.epochs,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(one, TQDMProgressBar) for one in callbacks),
        num_sanity_val_steps=0,
    )


def _step_generator(*keys: int) -> torch.Generator:
    # A seed for every step: a training that goes on after an interruption draws what it would have drawn.
    seed = hashlib.sha256(repr(keys).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1)


class _Task(lightning.LightningModule):
    """Loss, optimiser and learning rate; batches are row numbers of the stamps in memory."""

    def __init__(self, job: Job):
        super().__init__()
        self.module, self.section, self.kind = job.module, job.section, job.kind
        self.inputs, self.fractions = torch.as_tensor(job.data.inputs), torch.as_tensor(job.data.fractions)
        self.rows = torch.as_tensor(job.split.training)

    def training_step(self, number: int) -> Tensor:
        """Return the loss of a batch drawn with replacement and perturbed anew."""
        generator = _step_generator(self.section.seed, self.current_epoch, int(number))
        rows = self.rows[torch.randint(len(self.rows), (self.section.batch,), generator=generator)]
        inputs, fractions = self._take(rows)
        inputs = augment(inputs, self.section, generator)
        # Dropout draws from torch's global state.
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        loss = self._loss(self.module(_channels_last(inputs)), fractions)
        self.log("training_loss", loss, on_step=False, on_epoch=True, batch_size=len(rows))
        return loss

    def validation_step(self, rows: Tensor) -> None:
        """Log loss and square error of a batch of the validation subset."""
        inputs, fractions = self._take(rows)
        logits = self.module(_channels_last(inputs))
        error = (self._probabilities(logits) - fractions).square().mean()
        self.log("validation_loss", self._loss(logits, fractions), batch_size=len(rows))
        self.log("validation_square_error", error, batch_size=len(rows))

    def configure_optimizers(self) -> Any:
        """Return Adam, with the section's course of the learning rate."""
        optimiser = torch.optim.Adam(
            self.module.parameters(), lr=self.section.learning_rate, betas=(0.9, 0.999), fused=True
        )
        if self.section.schedule == "constant":
            return optimiser
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=self.section.learning_rate,
            total_steps=self.section.epochs * self.section.batches_per_epoch,
            cycle_momentum=False,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Predict the stamps of `rows` without perturbing them: (n, class) float32."""
        self.module.eval()
        with torch.inference_mode():
            parts = [
                self.module(_channels_last(self._take(part)[0])).float().cpu()
                for part in torch.as_tensor(rows).split(EVALUATION_BATCH)
            ]
        return torch.cat(parts).numpy()

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows, device = rows.cpu(), next(self.module.parameters()).device
        return self.inputs[rows].to(device), self.fractions[rows].to(device)

    def _loss(self, logits: Tensor, fractions: Tensor) -> Tensor:
        if self.section.loss == "rmse":
            return (self._probabilities(logits) - fractions).square().mean().sqrt()
        if self.kind == "sigmoid":
            return functional.binary_cross_entropy_with_logits(logits, fractions)
        return functional.cross_entropy(logits, fractions)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.kind == "sigmoid" else logits.softmax(dim=1)


class _Record(Callback):
    """Keeps the learning curve, the best weights, and the state to go on from."""

    def __init__(self, job: Job):
        self.job = job
        self.rows: list[Row] = []
        self.best_loss, self.best_epoch = float("inf"), 0
        self.best_state: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the epoch that ended."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        loss = values["validation_loss"]
        self.rows.append({
            "epoch": trainer.current_epoch + 1,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training_loss": values["training_loss"],
            "validation_loss": loss,
            "validation_rmse": values["validation_square_error"] ** 0.5,
        })
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.rows)
            state = pl_module.module.state_dict()
            self.best_state = {name: value.detach().clone() for name, value in state.items()}
            self.job.on_best(self.best_epoch)
        if self.job.resume is not None:
            with atomic(self.job.resume) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
        self.job.on_epoch(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on needs of this."""
        return {name: getattr(self, name) for name in ("rows", "best_loss", "best_epoch", "best_state")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def _channels_last(inputs: Tensor) -> Tensor:
    # Measured on 2 cores: a training step is up to 1.5 times as fast as with contiguous channels.
    return inputs.contiguous(memory_format=torch.channels_last)
