"""The commands that train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session, device_option, run_options, worker_option
from catmorph.cli.labelled import gather
from catmorph.errors import UsageError

if TYPE_CHECKING:
    from catmorph.training.fit import TrainingResult


def _training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--fresh", is_flag=True, help="Start anew instead of going on where a training was interrupted."),
        click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads of the training."),
        device_option("Where the network is trained"),
        worker_option,
    ):
        function = option(function)
    return function


@click.command(epilog="Example: catmorph train training.toml --threads 2")
@_training_options
@run_options(argument=True, json=True)
def train(
    session: Session, workers: int, scheduler: str | None, device: str, threads: int | None, fresh: bool
) -> None:
    """Train a checkpoint from labelled stamps.

    The [training] section of RECIPE (default: $CATMORPH_RECIPE, else ./catmorph.toml) has the settings, its
    [labels] section the labels. Stamps that are not cut yet are cut first. The checkpoint's card gets the metrics of
    the test subset; the learning curve (CSV, PNG) and the split are written beside it.
    """
    _train(session, {}, workers, scheduler, device=device, threads=threads, fresh=fresh)


@click.command(epilog="Example: catmorph finetune training.toml --from candels.safetensors --freeze-before inception3")
@click.option("--from", "start", type=click.Path(path_type=Path), metavar="CHECKPOINT",
              help="Checkpoint to start from [default: the recipe's training.start].")
@click.option("--freeze-before", metavar="STAGE",
              help="Train this stage of the network and those after it only [default: the recipe's].")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Checkpoint to write [default: the recipe's training.output].")
@_training_options
@run_options(argument=True, json=True)
def finetune(
    session: Session, start: Path | None, freeze_before: str | None, output: Path | None,
    workers: int, scheduler: str | None, device: str, threads: int | None, fresh: bool,
) -> None:
    """Train on, from the weights of another checkpoint.

    As `catmorph train`, but layers of equal name and shape are taken from CHECKPOINT; where the classes differ, the
    head is new. An account of what was taken is printed and kept in the new checkpoint's card. `catmorph models
    show` lists the stages of a network.
    """
    changed = {"start": start, "freeze_before": freeze_before, "output": output}
    update = {name: str(value) for name, value in changed.items() if value is not None}
    _train(session, update, workers, scheduler, device=device, threads=threads, fresh=fresh, starts=True)


def _train(
    session: Session, update: dict[str, str], workers: int, scheduler: str | None, *, starts: bool = False,
    **options: Any,
) -> None:
    folder, section = session.run, session.recipe.training
    if section is None:
        raise UsageError("the recipe has no [training] section", where=session.recipe_path,
                         hint="give it one with an output, or --set training.output=FILE.safetensors")
    section = section.model_copy(update=update)
    if starts and section.start is None:
        raise UsageError("no checkpoint to start from", hint="give --from, or set training.start")
    if section.start is not None:
        from catmorph.models.header import load_card

        if Path(section.start).resolve() == Path(section.output).resolve():
            raise UsageError("the new checkpoint would replace the one it starts from", where=section.output,
                             hint="give --output")
        load_card(section.start)  # refuses a file that is none before stamps are cut
    from catmorph.models.device import resolve_device
    from catmorph.training.fit import refuse_misfits
    from catmorph.training.fit import train as train_checkpoint

    resolve_device(options["device"])  # refuses a GPU that is not there before stamps are cut
    refuse_misfits(session.recipe, section)

    with folder.lock():
        data = gather(session, workers=workers, scheduler=scheduler)
        result = train_checkpoint(data, session.recipe, section, log_dir=Path(folder.path) / "training",
                                  progress=session.shows_progress, **options)
    _report(session, result)


def _report(session: Session, result: TrainingResult) -> None:
    for line in (*(result.start.warnings if result.start else ()), *result.notes):
        session.warn(line)
    if result.start is not None:
        session.say(f"start: {result.start.title or result.start.sha256[:16]}")
        for line in result.start.report():
            session.say(line)
    counts = result.split.counts()
    session.say("stamps: {training:,} training, {validation:,} validation, {test:,} test; ".format(**counts)
                + f"split: {result.split_file}")
    session.say(f"trained {result.epochs} epochs, best {result.best_epoch}; learning curve: {result.curve}, "
                f"{result.figure.name}")
    for name, value in result.metrics.items():
        if isinstance(value, float):
            session.say(f"{name}: {value:.4f}")
    if session.json:
        files = {name: str(getattr(result, name)) for name in ("checkpoint", "curve", "figure", "split_file")}
        start = result.start.to_card() if result.start else None
        click.echo(json.dumps({**files, "epochs": result.epochs, "best_epoch": result.best_epoch, "stamps": counts,
                               "start": start, "metrics": result.metrics}, indent=2))
    else:
        click.echo(result.checkpoint)
