"""Doing the trainings of a grid that are not done yet, and writing what came of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from catmorph.engine import run_tasks
from catmorph.errors import CatmorphError, UsageError
from catmorph.experiments.plan import Grid
from catmorph.experiments.prepared import fingerprint, keep_only, prepare
from catmorph.experiments.trainings import CHECKPOINT, Task, train_point, training_fingerprint
from catmorph.files import digest, remove_partial_files
from catmorph.labels import LabelledStamps, split_sources
from catmorph.models.card import check_fits
from catmorph.models.header import load_card
from catmorph.progress import progress
from catmorph.recipe import TrainingSection
from catmorph.workspace import hold, safe_name

A_TRAINING_SECONDS = 60.0
"""What a training takes at least, to tell the engine that worker processes pay."""

Stamps = Mapping[str | None, LabelledStamps]
"""Side of the stamps (None: the recipe's) -> labelled stamps."""


@dataclass(frozen=True)
class Settings:
    """How trainings are done, beside what decides their results.

    `threads` are processor threads of one training, `keep` whether checkpoints are kept.
    """

    workers: int = 1
    threads: int = 1
    device: str = "auto"
    keep: bool = False
    shown: bool = False


@dataclass(frozen=True)
class Account:
    """The trainings of a grid by what became of them; `failures` maps a training's name to the reason."""

    total: int
    kept: int
    made: int
    failures: dict[str, str]


def grid_folder(grid: Grid) -> Path:
    """Return where the results of a grid lie: below ``experiments.folder``; those of the quick grid apart."""
    name = grid.experiment.name + ("-quick" if grid.quick else "")
    if grid.given is not None:
        name = safe_name(f"{name}-{grid.given.stem}")
    return Path(grid.recipe.experiments.folder or "experiments").absolute() / grid.recipe.name / name


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder of an experiment, as a run folder is held."""
    return hold(folder, "choose another experiments.folder")


def grid_tasks(grid: Grid, stamps: Stamps, folder: Path, settings: Settings) -> list[Task]:
    """Return the trainings of `grid` as tasks; nothing is written."""
    keys = {side: fingerprint(data) for side, data in stamps.items()}
    starts = {grid.start_of(point) for point in grid.points}
    sha256 = {path: digest(path) if path else None for path in starts}
    return [
        Task(
            point=point, stamps=folder / "stamps" / keys[point.side][:16], recipe=grid.recipe_of(point),
            section=grid.section_of(point),
            fingerprint=training_fingerprint(grid, point, keys[point.side], sha256[grid.start_of(point)]),
            result=folder / "results" / f"{point.name}.json", folder=folder / "trainings" / point.name,
            device=settings.device, threads=settings.threads, keep=settings.keep,
            wants=grid.experiment.wants, given=grid.given,
        )
        for point in grid.points
    ]  # fmt: skip


def common_stamps(stamps: Stamps) -> Stamps:
    """Return the stamps that are there at every side, in one order, so that all have the same splits."""
    if len(stamps) == 1:
        return stamps
    keys = {side: list(zip(data.fields, data.ids, data.views, strict=True)) for side, data in stamps.items()}
    common = sorted(set.intersection(*map(set, keys.values())))
    if not common:
        raise UsageError("no labelled stamp is sound at every side", hint="change experiments.crop_sizes")
    rows = {side: {key: row for row, key in enumerate(found)} for side, found in keys.items()}
    return {side: data.take(np.array([rows[side][key] for key in common])) for side, data in stamps.items()}


def refuse_impossible(grid: Grid, stamps: Stamps) -> None:
    """Divide the stamps as every training will, or look whether they suit the checkpoint that is tested.

    Raises
    ------
    UsageError
        When there are not stamps enough.
    CheckpointError
        When the checkpoint does not fit the recipe.
    """
    if grid.given is not None:
        views = {view for data in stamps.values() for view in data.view_names}
        check_fits(load_card(grid.given), grid.recipe, sorted(views), where=grid.given)
        return
    seen = set()
    for point in grid.points:
        section = grid.section_of(point)
        key = point.side, section.seed, section.size, section.leave_out
        if key not in seen:
            _divide(stamps[point.side], section, grid)
        seen.add(key)


def _divide(data: LabelledStamps, section: TrainingSection, grid: Grid) -> None:
    try:
        split_sources(data, section)
    except UsageError as error:
        if section.size == grid.section.size:
            raise
        raise UsageError(error.message, where=error.where,
                         hint=f"{error.hint}; training.size is one of experiments.sizes here") from None


def refuse_without_lightning() -> None:
    """Raise a UsageError where Lightning is not installed: every training would fail."""
    if find_spec("lightning") is None:
        raise UsageError("training needs Lightning", hint="pip install 'catmorph[train]'")


def run_grid(
    grid: Grid, stamps: Stamps, folder: Path, settings: Settings, say: Callable[[str], None] = lambda text: None
) -> Account:
    """Do the trainings whose result is not there, or is damaged or of other data, settings or versions.

    Interrupted, the same call goes on. The results depend neither on their order nor on the number of workers.
    Trainings that failed are tried again.

    Parameters
    ----------
    stamps : mapping
        Labelled stamps for every side of the grid.
    say : callable
        Told how much is left, and how long that takes once a training is done.
    """
    remove_partial_files(folder)
    tasks = grid_tasks(grid, stamps, folder, settings)
    todo = [task for task in tasks if task.done() is None]
    prepared = {task.stamps for task in tasks}
    if todo:
        keep_only(folder / "stamps", prepared)
        for data in stamps.values():
            prepare(data, folder / "stamps")
    _remove_strangers(folder, {task.point.name for task in todo})
    if todo:
        say(f"{grid.experiment.name}: {len(tasks) - len(todo)} of {len(tasks)} trainings are done, {len(todo)} to do")
    do_tasks(todo, settings, say)
    failures = {task.point.name: reason for task in tasks if (reason := task.failed())}
    return Account(len(tasks), len(tasks) - len(todo), len(todo) - len(failures), failures)


def do_tasks(todo: Sequence[Task], settings: Settings, say: Callable[[str], None]) -> None:
    """Do trainings, `Settings.workers` at a time, and say after the first how long the others take."""
    results = run_tasks(train_point, todo, workers=settings.workers,
                        estimated_seconds=A_TRAINING_SECONDS * len(todo))  # fmt: skip
    left = len(todo)
    try:
        # Closing the generator ends its worker processes, also where this loop is left early.
        with closing(progress(results, total=len(todo), label="trainings", shown=settings.shown)) as shown:
            for found in shown:
                left -= 1
                if left == len(todo) - 1 and left:
                    say(time_left(left, found["seconds"], min(settings.workers, left)))
    finally:
        results.close()


def time_left(trainings: int, seconds: float, workers: int) -> str:
    """Say how long `trainings` take of which one took `seconds`."""
    total = trainings * seconds / workers
    unit, size = next((unit, size) for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0))
                      if total >= 1.5 * size or unit == "s")  # fmt: skip
    beside = f", {workers} at a time" if workers > 1 else ""
    counted = f"{trainings} training{'s' if trainings > 1 else ''}"
    return f"{counted}, about {total / size:.0f} {unit} at {seconds:.0f} s a training{beside}"


def _remove_strangers(folder: Path, going_on: set[str]) -> None:
    """Remove what unfinished trainings left that are not to go on; checkpoints that were kept stay."""
    for path in (folder / "trainings").glob("*"):
        if path.name not in going_on and not (path / CHECKPOINT).exists():
            shutil.rmtree(path, ignore_errors=True)


def refuse_failures(account: Account, folder: Path) -> None:
    """Raise a CatmorphError when trainings failed."""
    if account.failures:
        name, reason = next(iter(account.failures.items()))
        raise CatmorphError(
            f"{len(account.failures)} of {account.total} trainings failed, the first of them {name}: {reason}",
            where=folder, hint="summary.md names them all; run again to try them again",
        )


def results_of(tasks: list[Task]) -> list[dict[str, Any]]:
    """Return the results that are there, in the order of the grid."""
    return [found for task in tasks if (found := task.done()) is not None]
