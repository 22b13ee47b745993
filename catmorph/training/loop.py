"""The epochs of a training, by Lightning; nothing else imports it."""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from catmorph.errors import SHOWN, CatmorphError, listed
from catmorph.files import atomic
from catmorph.labels import LabelledStamps, Split
from catmorph.labels.tables import with_rows
from catmorph.recipe import LabelsSection, TrainingSection
from catmorph.schemes import Scheme
from catmorph.training.augment import mixed, mixing_share, perturbations, resample
from catmorph.training.average import RunningAverage
from catmorph.training.course import one_cycle, optimiser_for, schedule_for
from catmorph.training.history import History, Row, accuracy
from catmorph.training.losses import loss_for, probabilities
from catmorph.training.teach import Teachers

EVALUATION_BATCH = 128
FINITE_EVERY = 16
"""Steps on a GPU between two looks at the loss: each look waits for the GPU."""


class Keeper(Protocol):
    """Where a training leaves what it has; with several GPUs it must be picklable."""

    def on_epoch(self, rows: list[Row]) -> None:
        """Keep the learning curve; called after every epoch."""

    def on_best(self, epoch: int, module: nn.Module) -> None:
        """Keep the weights of `module`, the best so far, of epoch 1 or later."""

    def where(self) -> str:
        """Return where the best weights so far are, as the end of a sentence."""


@dataclass(frozen=True)
class Job:
    """One training: `module` is trained in place.

    `frozen` names the stages whose parameters and running statistics stay as they are; `weights` are those of the
    classes, None for equal ones. `resume` is where the state after each epoch is kept; where the file is there
    already, the training goes on from it, to the same weights. `labels` says which table named the stamps.
    """

    module: nn.Module
    data: LabelledStamps
    split: Split
    section: TrainingSection
    scheme: Scheme
    device: str
    precision: str
    progress: bool
    keeper: Keeper
    resume: Path | None
    frozen: tuple[str, ...] = ()
    weights: np.ndarray | None = None
    teachers: Teachers | None = None
    labels: LabelsSection | None = None


@dataclass(frozen=True)
class Fitted:
    """A finished training, with the best weights in the module."""

    history: History
    task: _Task
    device: str

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Predict the stamps of `rows` without perturbing them: (n, class) float32."""
        self.task.module.to(self.device).eval()
        with torch.inference_mode():
            parts = [self.task.predict(part).float().cpu() for part in torch.as_tensor(rows).split(EVALUATION_BATCH)]
        return torch.cat(parts).numpy()


def fit(job: Job) -> Fitted:
    """Train until the last epoch or the end of patience, and take the weights of the best epoch.

    Raises
    ------
    CatmorphError
        When a loss is not finite, or a file cannot be written.
    KeyboardInterrupt
        When it was interrupted; with `Job.resume`, another call goes on after the last whole epoch.
    """
    job.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = _Task(job)
    with tempfile.TemporaryDirectory() as folder:
        # With several GPUs the history is in another process, and comes back through this file.
        resume = job.resume or (Path(folder) / "state.ckpt" if job.section.devices > 1 else None)
        record = _Record(job, resume)
        if resume is not None and resume.exists():
            record.load_state_dict(read_history(resume))
        if not record.history.ended(job.section):
            _run(task, record, job, resume)
            if job.section.devices > 1 and resume is not None:
                record.load_state_dict(read_history(resume))
    job.module.load_state_dict(record.history.best_state)
    task.average = None
    return Fitted(record.history, task, job.device)


def read_history(path: Path) -> dict[str, Any]:
    """Return the part of a training's state that is the `History`; nothing in the file is run.

    Raises
    ------
    CatmorphError
        When the file is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["callbacks"][_Record.__qualname__]
        return {name: state[name] for name in vars(History())}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CatmorphError(f"is no state of a training, or damaged: {reason}", where=path,
                            hint="train anew with --fresh") from error


def _run(task: _Task, record: _Record, job: Job, resume: Path | None) -> None:
    bars: list[Callback] = [TQDMProgressBar()] if job.progress and sys.stderr.isatty() else []
    trainer = _trainer(job, [*bars, record])
    going_on = str(resume) if resume is not None and resume.exists() else None
    numbers: Any = range(job.section.batches_per_epoch)
    rows: Any = torch.as_tensor(job.split.validation).split(EVALUATION_BATCH)
    batches, validation = (DataLoader(items, batch_size=None) for items in (numbers, rows))
    with warnings.catch_warnings():
        # Batches are drawn from memory: worker processes would only copy them. Frozen stages are meant to be frozen.
        for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*eval mode at the start.*"):
            warnings.filterwarnings("ignore", message=message)
        try:
            trainer.fit(task, batches, validation, ckpt_path=going_on, weights_only=True)
        except SystemExit as error:
            # Lightning ends the process when it is interrupted; that is the caller's to decide.
            raise KeyboardInterrupt from error


def _trainer(job: Job, callbacks: list[Callback]) -> Any:
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=job.section.devices,
        # Processes that start the command again would find the run folder locked.
        strategy="auto" if job.section.devices == 1 else "ddp_spawn",
        use_distributed_sampler=False,
        precision="bf16-mixed" if job.precision == "bfloat16" else "32-true",
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
    """Loss, optimiser and learning rate; batches are row numbers of the stamps in memory.

    With several GPUs each takes its part of the same batch, and all of the validation subset.
    """

    def __init__(self, job: Job):
        super().__init__()
        self.module, self.section, self.form = job.module, job.section, job.scheme.form
        self.keeper, self.frozen = job.keeper, [getattr(job.module, name) for name in job.frozen]
        self.inputs, self.fractions = torch.as_tensor(job.data.inputs), torch.as_tensor(job.data.fractions)
        self.votes = None if job.data.votes is None else torch.as_tensor(np.asarray(job.data.votes, np.float64))
        self.names, self.labels = job.data.called, job.labels
        self.rows = torch.as_tensor(job.split.training)
        # A child module, so that Lightning keeps it in the state to go on from.
        self.average = RunningAverage(job.module, job.section.average) if job.section.average else None
        self.loss = loss_for(job.section, job.scheme, job.weights)
        # Not child modules: they are not trained, and no part of the state to go on from.
        self.teachers, self.taught_by = job.teachers, [] if job.teachers is None else job.teachers.networks()
        self.schedule: Any = None
        self.schedule_state: dict[str, Any] | None = None
        self.unseen: list[tuple[int, Tensor, Tensor]] = []
        self.validated: list[tuple[Tensor, Tensor]] = []
        for stage in self.frozen:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> _Task:
        """Set the mode; frozen stages keep that of evaluation, so that their running statistics stay."""
        super().train(mode)
        for stage in self.frozen:
            stage.eval()
        return self

    def on_fit_start(self) -> None:
        """Move teachers to the device, and the stamps where they take up less than half of the GPU's free memory."""
        for teacher in self.taught_by:
            teacher.to(self.device)
        size = self.inputs.numel() * self.inputs.element_size()
        if self.device.type == "cuda" and size < torch.cuda.mem_get_info(self.device)[0] / 2:
            self.inputs = self.inputs.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Take the mode of training."""
        self.train()

    def training_step(self, number: int) -> Tensor:
        """Return the loss of a batch drawn with replacement and perturbed anew."""
        section, rank, parts = self.section, self.global_rank, self.trainer.world_size
        generator = _step_generator(section.seed, self.current_epoch, int(number))
        rows = self.rows[torch.randint(len(self.rows), (section.batch,), generator=generator)][rank::parts]
        matrices = perturbations(section.batch, self.inputs.shape[-2:], section, generator)[rank::parts]
        # Dropout draws from torch's global state.
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)) + rank)
        stamps = resample(self._stamps(rows), matrices)
        fractions, votes = self._labels(rows)
        if section.mix:
            share = mixing_share(section.mix, generator)
            stamps, fractions = mixed(stamps, share), mixed(fractions, share)
        stamps = _channels_last(stamps)
        if self.teachers is not None:
            fractions = self.teachers.labels(self.taught_by, stamps, fractions)
        logits = self.module(stamps)
        loss = self.loss(logits, fractions, votes)
        self.unseen.append((int(number), rows, loss.detach()))
        if self.device.type == "cpu" or len(self.unseen) >= FINITE_EVERY:
            self._look_at_losses()
        right = accuracy(probabilities(logits.detach(), self.form), fractions)
        for name, value in (("training_loss", loss), ("training_accuracy", right)):
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(rows), sync_dist=parts > 1)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Let the averaged weights follow those of the step that was taken."""
        if self.average is not None:
            self.average.follow(self.module)

    def on_train_epoch_end(self) -> None:
        """Look at the last losses."""
        self._look_at_losses()

    def _look_at_losses(self) -> None:
        unseen, self.unseen = self.unseen, []
        if not unseen:
            return
        finite = torch.isfinite(torch.stack([loss for _, _, loss in unseen])).tolist()
        for good, (number, rows, loss) in zip(finite, unseen, strict=True):
            if not good:
                raise self._not_finite(f"the training loss is {float(loss)} in epoch {self.current_epoch + 1}, step "
                                       f"{number + 1} of {self.section.batches_per_epoch}; stamps of the batch", rows)

    def _not_finite(self, what: str, rows: Tensor) -> CatmorphError:
        """Return the error for a loss of the stamps `rows` that is not finite."""
        names = self.names[rows.numpy()]
        shown = listed(with_rows(self.labels, names[:SHOWN]), len(names))
        return CatmorphError(f"{what}: {shown}; {self.keeper.where()}",
                             where=self.labels.table if self.labels else None,
                             hint="lower training.learning_rate, or look at these stamps")

    def validation_step(self, rows: Tensor) -> None:
        """Predict a batch of the validation subset."""
        self.validated.append((rows.cpu(), self.predict(rows).float()))

    def on_validation_epoch_end(self) -> None:
        """Log loss, square error and accuracy of the validation subset."""
        parts, self.validated = self.validated, []
        rows, logits = torch.cat([rows for rows, _ in parts]), torch.cat([logits for _, logits in parts])
        fractions, votes = self._labels(rows)
        loss = self.loss(logits, fractions, votes)
        if not torch.isfinite(loss):
            # A likelihood may be infinite though every answer is finite: then all stamps are to be looked at.
            bad = rows[~torch.isfinite(logits).all(dim=1).cpu()]
            raise self._not_finite(f"the validation loss is {float(loss)} after epoch {self.current_epoch + 1}; stamps",
                                   bad if len(bad) else rows)
        self.log("validation_loss", loss.float())
        predicted = probabilities(logits, self.form)
        self.log("validation_square_error", (predicted - fractions).square().mean())
        self.log("validation_accuracy", accuracy(predicted, fractions))

    def configure_optimizers(self) -> Any:
        """Return the optimiser of what is not frozen, with the section's course of the learning rate."""
        section = self.section
        optimiser = optimiser_for(section, [one for one in self.module.parameters() if one.requires_grad])
        if section.schedule == "one-cycle":
            schedule = one_cycle(section, optimiser)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        self.schedule = schedule_for(section, optimiser)
        if self.schedule is not None and self.schedule_state is not None:
            self.schedule.load_state_dict(self.schedule_state)
        return optimiser

    def step_schedule(self, row: Row) -> None:
        """Set the learning rate of the next epoch; `row` is that of the epoch that ended."""
        if self.section.schedule == "plateau":
            self.schedule.step(row[f"validation_{self.section.plateau_watches}"])
        elif self.schedule is not None:
            self.schedule.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of a schedule that Lightning does not step."""
        if self.schedule is not None:
            checkpoint["schedule"] = self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the state of the schedule, which is not there yet."""
        self.schedule_state = checkpoint.get("schedule")

    @property
    def judged(self) -> nn.Module:
        """The network whose weights are validated and kept: the averaged one, where there is one."""
        return self.module if self.average is None else self.average.module

    def predict(self, rows: Tensor) -> Tensor:
        """Return the logits of the stamps of `rows`, unperturbed."""
        return self.judged(_channels_last(self._stamps(rows)))

    def _stamps(self, rows: Tensor) -> Tensor:
        device = next(self.module.parameters()).device
        return self.inputs[rows.to(self.inputs.device)].to(device)

    def _labels(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        rows, device = rows.cpu(), next(self.module.parameters()).device
        return self.fractions[rows].to(device), None if self.votes is None else self.votes[rows].to(device)


class _Record(Callback):
    """Keeps the learning curve, the best weights, and the state to go on from."""

    def __init__(self, job: Job, resume: Path | None):
        self.section, self.keeper, self.resume = job.section, job.keeper, resume
        self.history = History()

    @property
    def state_key(self) -> str:
        """Name of this in the file of the state."""
        return _Record.__qualname__

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the epoch that ended."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        history, row = self.history, {
            "epoch": trainer.current_epoch + 1,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training_loss": values["training_loss"],
            "validation_loss": values["validation_loss"],
            "validation_rmse": values["validation_square_error"] ** 0.5,
            "training_accuracy": values["training_accuracy"],
            "validation_accuracy": values["validation_accuracy"],
        }
        pl_module.step_schedule(row)
        if history.add(row, self.section):
            state = pl_module.judged.state_dict()
            history.best_state = {name: value.detach().clone() for name, value in state.items()}
            if trainer.is_global_zero:
                self.keeper.on_best(history.best_epoch, pl_module.judged)
        if self.resume is not None:
            self._save(trainer)
        if trainer.is_global_zero:
            self.keeper.on_epoch(history.rows)
        trainer.should_stop = history.ended(self.section)

    def _save(self, trainer: Any) -> None:
        # Every process takes part in the saving, the first one writes.
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.resume, weights_only=False)
            return
        with atomic(self.resume) as temporary:  # type: ignore[arg-type]
            trainer.save_checkpoint(temporary, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on needs of this."""
        return dict(vars(self.history))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.history = History(**{name: state_dict[name] for name in vars(History())})


def _channels_last(inputs: Tensor) -> Tensor:
    # Measured on 2 cores: a training step is up to 1.5 times as fast as with contiguous channels.
    return inputs.contiguous(memory_format=torch.channels_last)
