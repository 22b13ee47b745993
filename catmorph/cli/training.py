"""The command that trains."""

from __future__ import annotations

from pathlib import Path

import click

from catmorph.cli.common import Session, device_option, run_options, worker_option
from catmorph.cli.labelled import gather
from catmorph.errors import UsageError


@click.command(epilog="Example: catmorph train training.toml --threads 2")
@worker_option
@device_option("Where the network is trained")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads of the training.")
@run_options(argument=True)
def train(session: Session, workers: int, scheduler: str | None, device: str, threads: int | None) -> None:
    """Train a checkpoint from labelled stamps.

    The [training] section of RECIPE (default: $CATMORPH_RECIPE, else ./catmorph.toml) names the labels and
    settings. Stamps that are not cut yet are cut first. The checkpoint's card gets the metrics of the test subset.
    """
    from catmorph.training.fit import train as train_checkpoint

    folder, section = session.run, session.recipe.training
    if section is None:
        raise UsageError("the recipe has no [training] section", where=session.recipe_path)
    with folder.lock():
        data = gather(session, workers=workers, scheduler=scheduler)
        result = train_checkpoint(data, session.recipe, section, device=device, threads=threads,
                                  log_dir=Path(folder.path) / "training", progress=session.shows_progress)
    session.say(f"trained {result.epochs} epochs, best {result.best_epoch}; learning curve: {result.curve}")
    for name, value in result.metrics.items():
        if isinstance(value, float):
            session.say(f"{name}: {value:.4f}")
    click.echo(result.checkpoint)
