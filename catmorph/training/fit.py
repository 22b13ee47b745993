"""The training loop: labelled stamps in, checkpoint and learning curve out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from catmorph.errors import UsageError, listed
from catmorph.evaluation.metrics import summary
from catmorph.files import digest_json, refuse_folders, refuse_unwritable, write_bytes
from catmorph.labels import LabelledStamps, Split, split_sources
from catmorph.labels.split import split_path, write_split
from catmorph.models import MODELS, build
from catmorph.models.account import Transfer
from catmorph.models.card import Card, card_for, one_channel_count
from catmorph.models.checkpoint import round_weights, save_checkpoint
from catmorph.models.create import check_input
from catmorph.models.device import resolve_device, resolve_precision
from catmorph.models.header import refuse_other_file
from catmorph.models.pretrained import load_backbone, refuse_bad_source
from catmorph.recipe import Recipe, TrainingSection
from catmorph.recipe.training import DESCRIPTIVE
from catmorph.schemes import Scheme, load_scheme
from catmorph.training import CODE_VERSION
from catmorph.training.losses import LOSSES, class_weights, loss_for
from catmorph.training.normed import add_batch_norms, fold_batch_norms, folded_copy
from catmorph.training.teach import Teachers, load_teachers
from catmorph.training.transfer import frozen_stages, refuse_unknown_stage, transfer


@dataclass(frozen=True)
class TrainingResult:
    """What a training made, and how it went.

    `checkpoint`, `curve` (CSV), `figure` (PNG) and `split_file` are files; `test_logits` (n, class) float32 are
    those of the stamps ``split.test``, in that order; `start` says what was taken from another checkpoint, None
    for a training from scratch; `notes` are for the user, a line each.
    """

    checkpoint: Path
    curve: Path
    card: Card
    epochs: int
    best_epoch: int
    figure: Path
    split_file: Path
    split: Split
    test_logits: np.ndarray
    start: Transfer | None = None
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the test subset."""
        return self.card.metrics


@dataclass(frozen=True)
class _Plan:
    """A training that can begin: everything is checked."""

    data: LabelledStamps
    recipe: Recipe
    section: TrainingSection
    scheme: Scheme
    split: Split
    module: nn.Module
    start: Transfer | None
    frozen: tuple[str, ...]
    weights: np.ndarray | None
    device: str
    precision: str
    teachers: Teachers | None
    notes: tuple[str, ...] = field(default=())

    def card(self, epoch: int, metrics: dict[str, Any]) -> Card:
        """Return the card of the weights after `epoch`."""
        section = self.section
        settings = section.model_dump(mode="json", exclude={*DESCRIPTIVE, "model"})
        training: dict[str, Any] = {
            "trained": True,
            "stamps": self.split.counts(),
            "sources": int(self.data.sources.max()) + 1,
            "best_epoch": epoch,
            "labels": Path(self.recipe.labels.table or "").name,
            "settings": settings | {"precision": self.precision},
        }
        if self.start is not None:
            training["start"] = self.start.to_card()
        if self.teachers is not None:
            training["teachers"] = self.teachers.to_card()
        return card_for(
            self.recipe, section.model, channels=self.data.inputs.shape[1], views=self.data.view_names,
            title=section.title, purpose=section.purpose, licence=section.licence, training=training, metrics=metrics,
        )

    def fingerprint(self) -> str:
        """Return the sha256 of what decides the weights: a training goes on only from its own state."""
        data, split = self.data, self.split
        arrays = (data.inputs, data.fractions, split.training, split.validation, split.test,
                  np.zeros(0) if data.votes is None else np.asarray(data.votes, np.float64))
        return digest_json({
            "arrays": [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in arrays],
            "section": self.section.model_dump(mode="json", exclude=DESCRIPTIVE),
            "precision": self.precision,
            "start": None if self.start is None else self.start.sha256,
            "teachers": [] if self.teachers is None else self.teachers.to_card(),
            "scheme": self.recipe.scheme,
            "torch": torch.__version__, "code": CODE_VERSION,
        })


@dataclass(frozen=True)
class _Keeper:
    """Writes the learning curve, and the best weights with a card that lacks the test."""

    curve: Path
    best: Path | None
    card: Card

    def on_epoch(self, rows: list[dict[str, float]]) -> None:
        write_bytes(self.curve, _as_csv(rows))

    def on_best(self, epoch: int, module: nn.Module) -> None:
        if self.best is not None:
            training = self.card.training | {"best_epoch": epoch}
            save_checkpoint(self.best, folded_copy(module), self.card.model_copy(update={"training": training}))

    def where(self) -> str:
        if self.best is None or not self.best.exists():
            return "no epoch was finished before"
        return f"the best weights so far are in {self.best}"


def train(
    data: LabelledStamps,
    recipe: Recipe,
    section: TrainingSection,
    *,
    device: str = "auto",
    threads: int | None = None,
    log_dir: Path | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train a network on `data` and write its checkpoint to ``section.output``.

    The learning curve is written beside the checkpoint, as ``<name>.curve.csv``, after every epoch, its figure and the
    split (`catmorph.labels.split.write_split`) at the end. On a
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
    fresh : bool
        Start anew, whatever state of this training `log_dir` holds.
    progress : bool
        Show a progress bar, where stderr is a terminal.

    Raises
    ------
    UsageError
        When Lightning is not installed, or the data and the recipe do not fit together.
    CheckpointError
        When the training cannot start from ``section.start`` or ``section.backbone``.
    CatmorphError
        When a loss is not finite or a file cannot be written; the last good weights and state are kept.
    """
    loop = _import_loop()
    log_dir = None if log_dir is None else Path(log_dir)
    if log_dir is not None:
        refuse_unwritable(log_dir)
        refuse_folders([log_dir / "best.safetensors"])
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        # Dropout draws from torch's global state, which is given back as it was.
        with torch.random.fork_rng(devices=[]):
            plan = _plan(data, recipe, section, device)
            return _train(loop, plan, log_dir, fresh=fresh, progress=progress)
    finally:
        torch.set_num_threads(before)


def refuse_misfits(recipe: Recipe, section: TrainingSection) -> None:
    """Find what cannot end well before stamps are cut: see `train` for the errors."""
    check_input(section.model, recipe)
    one_channel_count(recipe)
    scheme = load_scheme(recipe.scheme)
    if not isinstance(section.class_weights, str):
        class_weights(section.class_weights, np.ones((1, len(scheme.classes))), scheme)
    loss_for(section, scheme)
    _refuse_combinations(section)
    load_teachers(section.teachers, section.teacher_share, recipe)
    if section.batch_norm:
        with torch.device("meta"):
            _adapt(build(section.model, classes=len(scheme.classes)), section)
    refuse_unknown_stage(section.model, section.freeze_before)
    if section.start is None and section.backbone is not None:
        refuse_bad_source(MODELS.get(section.model), section.backbone)
    output = Path(section.output)
    refuse_unwritable(output.parent)
    refuse_other_file(output)
    refuse_folders([output.with_suffix(".curve.csv"), output.with_suffix(".curve.png"), split_path(output)])


def _plan(data: LabelledStamps, recipe: Recipe, section: TrainingSection, device: str) -> _Plan:
    scheme = load_scheme(recipe.scheme)
    device = resolve_device(device)
    _check(data, recipe, section, len(scheme.classes))
    _refuse_combinations(section)
    _check_devices(section, device)
    split = split_sources(data, section)
    fractions = data.fractions[split.training]
    _check_classes(fractions, scheme, recipe.labels.table)
    weights = class_weights(section.class_weights, fractions, scheme)
    loss_for(section, scheme, weights)
    module = build(section.model, classes=len(scheme.classes), channels=data.inputs.shape[1], seed=section.seed)
    start = _start(module, recipe, section)
    _adapt(module, section)
    return _Plan(
        data, recipe, section, scheme, split, module, start, frozen_stages(section.model, section.freeze_before, start),
        weights, device, resolve_precision(section.precision, device),
        load_teachers(section.teachers, section.teacher_share, recipe), _notes(fractions, scheme, section),
    )


def _refuse_combinations(section: TrainingSection) -> None:
    if section.mix and LOSSES[section.loss].needs_votes:
        raise UsageError(f"training.loss {section.loss!r} counts votes, which mixed stamps have not",
                         where="training.mix", hint="choose another loss, or mix = 0")
    if Path(section.output).resolve() in {Path(one).resolve() for one in section.teachers}:
        raise UsageError(f"the new checkpoint {section.output} would replace one of its teachers",
                         where="training.teachers", hint="give --output")
    if section.batch_norm and (section.start is not None or section.backbone is not None):
        raise UsageError("fresh batch norms would undo what the weights it starts from do",
                         where="training.batch_norm", hint="leave out it, or training.start and training.backbone")


def _adapt(module: nn.Module, section: TrainingSection) -> None:
    """Give `module` what it has in training only."""
    if section.batch_norm:
        add_batch_norms(module, MODELS.get(section.model).stages[-1])
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p *= section.dropout


def _start(module: nn.Module, recipe: Recipe, section: TrainingSection) -> Transfer | None:
    if section.start is not None:
        return transfer(module, recipe, section.model, section.start)
    if section.backbone is not None:
        return load_backbone(module, MODELS.get(section.model), section.backbone)
    return None


def _train(loop: Any, plan: _Plan, log_dir: Path | None, *, fresh: bool, progress: bool) -> TrainingResult:
    # matplotlib takes a second to import.
    from catmorph.training.figure import draw_curve

    section, split, output = plan.section, plan.split, Path(plan.section.output)
    curve, figure = output.with_suffix(".curve.csv"), output.with_suffix(".curve.png")
    resume = None if log_dir is None else log_dir / f"resume-{plan.fingerprint()[:16]}.ckpt"
    best = None if log_dir is None else log_dir / "best.safetensors"
    if resume is not None and (fresh or not resume.exists()):
        # What another training left there would be taken for this one's.
        for path in (resume, log_dir / "best.safetensors"):  # type: ignore[operator]
            path.unlink(missing_ok=True)
    fitted = loop.fit(loop.Job(
        plan.module, plan.data, split, section, plan.scheme, device=plan.device, precision=plan.precision,
        progress=progress, keeper=_Keeper(curve, best, plan.card(0, {})), resume=resume, frozen=plan.frozen,
        weights=plan.weights, teachers=plan.teachers, labels=plan.recipe.labels,
    ))
    history = fitted.history
    fold_batch_norms(plan.module)
    round_weights(plan.module, section.saved_precision)
    logits = fitted.logits(split.test)
    card = plan.card(history.best_epoch, _test(logits, plan.data, split, plan.scheme))
    draw_curve(figure, history.rows, history.best_epoch, section.loss)
    # A training that was interrupted after its last epoch has not always written this.
    write_bytes(curve, _as_csv(history.rows))
    write_split(split_path(output), plan.data, split)
    save_checkpoint(output, plan.module, card, section.saved_precision)
    for path in log_dir.glob("resume-*.ckpt") if log_dir is not None else ():
        path.unlink()
    return TrainingResult(
        output, curve, card, len(history.rows), history.best_epoch, figure, split_path(output), split, logits,
        plan.start, plan.notes,
    )


def _test(logits: np.ndarray, data: LabelledStamps, split: Split, scheme: Scheme) -> dict[str, Any]:
    votes = None if data.votes is None else data.votes[split.test]
    return summary(scheme.probabilities(logits), data.fractions[split.test], scheme.class_names, votes)


def _import_loop() -> Any:
    try:
        import lightning  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("training needs Lightning", hint="pip install 'catmorph[train]'") from error
    from catmorph.training import loop

    return loop


def _check_devices(section: TrainingSection, device: str) -> None:
    if section.devices == 1:
        return
    found = torch.cuda.device_count() if device == "cuda" else 0
    if found < section.devices:
        raise UsageError(f"training.devices is {section.devices}, and torch finds {found} GPUs here",
                         hint=f"set training.devices = {max(found, 1)}")
    if section.batch % section.devices:
        raise UsageError(f"a batch of {section.batch} stamps cannot be shared equally by {section.devices} GPUs",
                         where="training.batch", hint=f"choose a multiple of {section.devices}")


def _check_classes(fractions: np.ndarray, scheme: Scheme, where: str | None) -> None:
    if scheme.kind == "softmax":
        most = np.unique(np.argmax(fractions, axis=1))
        if len(most) == 1:
            raise UsageError(
                f"all {len(fractions)} stamps of the training subset have one class, {scheme.class_names[most[0]]!r}",
                where=where, hint="label stamps of other classes too",
            )
    elif np.ptp(fractions, axis=0).max(initial=0) == 0:
        raise UsageError(f"all {len(fractions)} stamps of the training subset have the same label",
                         where=where, hint="label stamps of other classes too")


def _notes(fractions: np.ndarray, scheme: Scheme, section: TrainingSection) -> tuple[str, ...]:
    absent = [name for name, most in zip(scheme.class_names, fractions.max(axis=0), strict=True) if not most > 0]
    notes = [f"no stamp of the training subset has a vote for {', '.join(absent)}"] if absent else []
    if section.size is not None and section.size < section.batch:
        notes.append(f"a batch of {section.batch} holds each of {section.size} stamps more than once")
    return tuple(notes)


def _check(data: LabelledStamps, recipe: Recipe, section: TrainingSection, classes: int) -> None:
    check_input(section.model, recipe)
    pixels = recipe.stamp.pixels
    if data.inputs.shape[2:] != (pixels, pixels):
        raise UsageError(f"stamps are {data.inputs.shape[2:]} pixels, the recipe's are ({pixels}, {pixels})")
    if data.fractions.shape[1] != classes:
        raise UsageError(f"labels have {data.fractions.shape[1]} classes, scheme {recipe.scheme!r} has {classes}")
    bad = np.flatnonzero(~np.isfinite(data.inputs).all(axis=(1, 2, 3)))
    if len(bad):
        raise UsageError(f"{len(bad)} of {len(data)} stamps hold NaN or infinity: {_first(data, bad)}",
                         hint="leave out blocked stamps")
    if not LOSSES[section.loss].needs_votes:
        return
    if data.votes is None:
        raise UsageError(f"training.loss {section.loss!r} needs the number of votes", hint="set labels.votes_column")
    few = np.flatnonzero(~(np.asarray(data.votes, np.float64) > 0))
    if len(few):
        raise UsageError(f"{len(few)} of {len(data)} stamps have no votes: {_first(data, few)}",
                         where="labels.votes_column", hint="leave them out of the label table, or choose another loss")


def _first(data: LabelledStamps, rows: np.ndarray) -> str:
    return listed(data.called[rows])


def _as_csv(rows: list[dict[str, float]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    return ("\n".join(lines) + "\n").encode()
