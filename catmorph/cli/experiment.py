"""The command that does grids of trainings."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session, device_option, run_options, usable_cores
from catmorph.cli.labelled import gather
from catmorph.errors import UsageError
from catmorph.experiments.kinds import NAMES

if TYPE_CHECKING:
    from catmorph.experiments.plan import Grid
    from catmorph.experiments.run import Stamps
    from catmorph.labels import LabelledStamps


_HELP = f"""Do a grid of trainings, with tables and a figure.

NAME is {", ".join(NAMES)} or transfer-table; RECIPE (default: $CATMORPH_RECIPE, else ./catmorph.toml) has the
sections [training] and [experiments]; transfer-table takes several, one a question. Trainings that are done are kept:
the same command goes on after an interruption. Exit status 1 when a training failed; the others are done all the same.
"""


@click.command(
    help=_HELP, epilog="Example: catmorph experiment learning-curve clash.toml --from candels.safetensors --quick"
)
@click.argument("name", metavar="NAME")
@click.option("--quick", is_flag=True, help="Fewer and shorter trainings, as experiments.quick says, of a narrow "
              "network where there is one and no --from.")
@click.option("--from", "start", type=click.Path(path_type=Path), metavar="CHECKPOINT",
              help="Checkpoint that fine-tuned trainings start from [default: experiments.start].")
@click.option("--checkpoint", "given", type=click.Path(path_type=Path), metavar="CHECKPOINT",
              help="leave-band-out: the network to look at; nothing is trained.")
@click.option("--workers", type=click.IntRange(1), metavar="N",
              help="Trainings at a time, and processes that cut stamps [default: the cores this process may use; "
              "with a GPU 1].")
@click.option("--threads", type=click.IntRange(1), metavar="N", default=1,
              help="Processor threads of a training [default: 1].")
@click.option("--keep", is_flag=True, help="Keep the checkpoint, split and learning curve of every training.")
@click.option("--dry-run", is_flag=True, help="Only list the grid, and how many of its trainings are done.")
@device_option("Where the networks are trained")
@run_options(argument=True, json=True)
@click.argument("more", metavar="[RECIPE]...", nargs=-1, type=click.Path(path_type=Path))
def experiment(
    session: Session, name: str, more: tuple[Path, ...], quick: bool, start: Path | None, given: Path | None,
    workers: int | None, threads: int, keep: bool, dry_run: bool, device: str,
) -> int:
    """Do a grid of trainings, with tables and a figure."""
    from catmorph.experiments.plan import TRANSFER_TABLE, plan
    from catmorph.experiments.run import (
        Settings,
        common_stamps,
        grid_folder,
        grid_tasks,
        held,
        refuse_failures,
        refuse_impossible,
        refuse_without_lightning,
        results_of,
        run_grid,
    )
    from catmorph.experiments.summary import write_all

    _refuse_misuse(name, more, start, given)
    settings = Settings(_workers(workers, device, dry_run), threads, device, keep, session.shows_progress)
    if name == TRANSFER_TABLE:
        from catmorph.cli.transfer_table import transfer_table

        return transfer_table(session, more, settings, quick=quick, dry_run=dry_run)
    planned = partial(plan, name, session.recipe, quick=quick, start=start, given=given)
    grid = planned()
    folder = grid_folder(grid)
    if dry_run:
        return _list(session, grid, folder, keep)
    if given is None:
        refuse_without_lightning()
    with held(folder):
        stamps = common_stamps(_stamps(session, grid, folder, settings.workers))
        grid = planned(views=_views(session, stamps))
        refuse_impossible(grid, stamps)
        account = run_grid(grid, stamps, folder, settings, session.say)
        report = write_all(grid, results_of(grid_tasks(grid, stamps, folder, settings)), account, folder)
    if session.json:
        click.echo(json.dumps(report, indent=2, sort_keys=True))
    elif not session.quiet:
        _tell(report)
    refuse_failures(account, folder)
    return 0


def _refuse_misuse(name: str, more: tuple[Path, ...], start: Path | None, given: Path | None) -> None:
    """Refuse arguments that an experiment has no use for, rather than pass over them."""
    from catmorph.experiments.plan import EXPERIMENTS, TRANSFER_TABLE

    if name != TRANSFER_TABLE and more:
        raise UsageError(f"{name} takes one recipe, and {1 + len(more)} are given",
                         hint=f"only {TRANSFER_TABLE} takes several")
    if start is not None and name in NAMES and (refused := EXPERIMENTS.get(name).takes_no_start):
        raise UsageError(f"{name} takes no --from: {refused[0]}", hint=refused[1])
    for option, value in (("--from", start), ("--checkpoint", given)):
        if name == TRANSFER_TABLE and value is not None:
            raise UsageError(f"{TRANSFER_TABLE} trains the network it starts from, and takes no {option}",
                             hint="set training.start in the source recipe to begin with a checkpoint")


def _workers(given: int | None, device: str, dry_run: bool) -> int:
    """Return how many trainings run at a time; a GPU that is not there is refused before stamps are cut."""
    if dry_run:
        return given or 1
    from catmorph.models.device import resolve_device

    found = resolve_device(device)
    return given or (1 if found == "cuda" else usable_cores())


def _session(session: Session, grid: Grid, folder: Path, side: str | None) -> Session:
    """Return the session whose run folder has stamps of `side`; those of other sides than the recipe's lie apart."""
    from catmorph.workspace import safe_name

    own = session.recipe.stamp
    if side is None or side == f"{own.side_value:g} {own.side_unit}":
        return session
    workdir = folder.parent / "crops" / safe_name(side.replace(" ", "-"))
    return replace(session, workdir=workdir, overrides=(*session.overrides, f'stamp.side="{side}"'))


def _stamps(session: Session, grid: Grid, folder: Path, workers: int) -> Stamps:
    found: dict[str | None, LabelledStamps] = {}
    for side in grid.sides:
        one = _session(session, grid, folder, side)
        if side is not None:
            session.say(f"stamps of {side}: {one.run.path}")
        with one.run.lock():
            found[side] = gather(one, workers=workers, scheduler=None)
    return found


def _views(session: Session, stamps: Stamps) -> tuple[str, ...]:
    """Return the views with labelled stamps, in the recipe's order."""
    there = {view for data in stamps.values() for view in data.view_names}
    return tuple(view for view in session.recipe.all_views if view in there)


def _list(session: Session, grid: Grid, folder: Path, keep: bool) -> int:
    """Print the settings of the grid with their trainings, done and in all; nothing is written or cut."""
    from catmorph.experiments.plan import plan
    from catmorph.experiments.run import Settings, common_stamps, grid_tasks
    from catmorph.experiments.tables import label
    from catmorph.release.text import text_table

    stamps = _stamps_there(session, grid, folder)
    done: Counter[str] = Counter()
    if stamps is not None:
        grid = plan(grid.experiment.name, session.recipe, quick=grid.quick, start=grid.start,
                    views=_views(session, stamps), given=grid.given)  # fmt: skip
        tasks = grid_tasks(grid, common_stamps(stamps), folder, Settings(keep=keep))
        done.update(label(task.point.setting) for task in tasks if task.done() is not None)
    totals = Counter(label(point.setting) for point in grid.points)
    if session.json:
        points = [{"setting": dict(one), "done": done[label(one)], "trainings": totals[label(one)]}
                  for one in grid.settings]  # fmt: skip
        report = {"experiment": grid.experiment.name, "quick": grid.quick, "folder": str(folder), "points": points,
                  "trainings": {"done": done.total(), "total": totals.total()}}  # fmt: skip
        click.echo(json.dumps(report, indent=2, sort_keys=True))
        return 0
    rows: list[list[object]] = [[label(one), done[label(one)], totals[label(one)]] for one in grid.settings]
    header = [", ".join(grid.axes), "done", "trainings"]
    click.echo("\n".join(text_table(header, [*rows, ["all", done.total(), totals.total()]])))
    return 0


def _stamps_there(session: Session, grid: Grid, folder: Path) -> Stamps | None:
    """Return the labelled stamps, None where not all are cut yet."""
    from catmorph.errors import CatmorphError, UsageError
    from catmorph.labels import labelled_stamps

    found: dict[str | None, LabelledStamps] = {}
    for side in grid.sides:
        run = _session(session, grid, folder, side).run
        if run.recipe.labels.stamp_files is None and not run.plan_path().exists():
            return None
        try:
            found[side], _ = labelled_stamps(run)
        except UsageError:
            raise
        except CatmorphError:
            return None
    return found


def _tell(report: dict[str, Any]) -> None:
    from catmorph.release.text import text_table

    rows = []
    for point in report["points"]:
        values = ["" if one["mean"] is None else f"{one['mean']:.4f}" + (f" +- {one['std']:.4f}" if one["std"] else "")
                  for one in point["measures"].values()]  # fmt: skip
        rows.append([", ".join(map(str, point["setting"].values())), point["measures"]["rmse"]["n"], *values])
    if rows:
        names = list(report["points"][0]["measures"])
        click.echo("\n".join(text_table([", ".join(report["points"][0]["setting"]), "n", *names], rows)))
        click.echo("mean +- standard deviation over n trainings")
    for line in report["conclusions"]:
        click.echo(line)
    click.echo(next(path for path in report["files"] if path.endswith("summary.md")))
