"""The commands that do the work: run, ingest, cutouts, classify, status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session, device_options, run_options, worker_option

if TYPE_CHECKING:
    from catmorph.pipeline import StageReport

EXCEEDS_TOLERANCE = 3
"""Exit status: done, with more faulty rows than the recipe tolerates."""

band_option = click.option("--band", "bands", multiple=True, metavar="BAND",
                           help="Only this band or view, repeatable [default: all].")


@click.command(epilog="Example: catmorph run configs/samples/clash.toml --workers 2")
@worker_option
@device_options
@run_options(argument=True, json=True)
def run(session: Session, workers: int, scheduler: str | None, device: str, precision: str | None) -> int:
    """Do everything, from survey table to release.

    These are the stages ingest, cutouts, classify, export and summarize of RECIPE (default: $CATMORPH_RECIPE,
    else ./catmorph.toml). What is already in the run folder and still valid is kept, so that the same command
    goes on after an interruption, and does only what is needed after a change.
    """
    from catmorph import pipeline
    from catmorph.preflight import refuse_problems

    folder, shown = session.run, session.shows_progress
    refuse_problems(folder, device=device, precision=precision)
    with folder.lock():
        pipeline.prepare(folder)
        tell(session, pipeline.run_ingest(folder))
        tell(session, pipeline.run_cutouts(folder, workers=workers, scheduler=scheduler, shown=shown))
        tell(session, pipeline.run_classify(folder, device=device, precision=precision, shown=shown))
        result = pipeline.run_release(folder)
        summary = pipeline.run_summary(folder)
    if session.json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        session.say(summary.text())
        for path in result.paths:
            click.echo(path)
    return outcome(session, summary)


@click.command(epilog="Example: catmorph ingest -r clash.toml")
@run_options
def ingest(session: Session) -> None:
    """Read the survey table into canonical sources.

    Writes sources.parquet, rejected.parquet (row, id and reason) and the chunk plan, plan.parquet.
    """
    from catmorph import pipeline

    with session.run.lock():
        pipeline.prepare(session.run)
        tell(session, pipeline.run_ingest(session.run))


@click.command(epilog="Example: catmorph cutouts -r clash.toml --band F160W --workers 2")
@band_option
@worker_option
@run_options
def cutouts(session: Session, bands: tuple[str, ...], workers: int, scheduler: str | None) -> None:
    """Cut the stamps.

    Writes stamps/<view>/<field>-<cell>.h5, one shard a view and chunk.
    """
    from catmorph import pipeline

    pipeline.refuse_before_work(session.run, bands)
    with session.run.lock():
        pipeline.prepare(session.run)
        warn_of_changes(session)
        tell(session, pipeline.run_cutouts(session.run, bands, workers=workers, scheduler=scheduler,
                                           shown=session.shows_progress))


@click.command(epilog="Example: catmorph classify -r clash.toml --band F160W --device cpu")
@band_option
@device_options
@run_options
def classify(session: Session, bands: tuple[str, ...], device: str, precision: str | None) -> None:
    """Run the networks over the stamps.

    Writes logits/<classifier>/<view>/<field>-<cell>.parquet, one row a source of the chunk.
    """
    from catmorph import pipeline

    pipeline.refuse_before_work(session.run, bands)
    with session.run.lock():
        pipeline.prepare(session.run)
        warn_of_changes(session)
        tell(session, pipeline.run_classify(session.run, bands, device=device, precision=precision,
                                            shown=session.shows_progress))


@click.command(epilog="Example: catmorph status -r clash.toml --json")
@run_options(json=True)
def status(session: Session) -> None:
    """Show what is done, stale or missing, and what failed.

    One line a stage and view, with the reasons and the quality flags. It changes nothing and takes no lock.
    """
    from catmorph.status import status_of

    found = status_of(session.run)
    click.echo(json.dumps(found.to_json(), indent=2) if session.json else found.text())


def tell(session: Session, report: StageReport) -> None:
    """Print what a stage did, and warn of the mosaics that it could not read."""
    session.say(report.line())
    if session.verbose:
        for why, count in report.why.most_common():
            session.say(f"  made because: {why} ({count})")
    for text in report.warnings:
        session.warn(text)
    for mosaic, reason in sorted(report.failures.items()):
        session.warn(f"{mosaic}: {reason}; its sources are flagged UNREADABLE")


def outcome(session: Session, summary: Any) -> int:
    """Return the exit status; say why where it is not 0."""
    if not summary.exceeds_tolerance:
        return 0
    click.echo(
        f"catmorph: done, but {summary.fault_fraction:.2%} of the rows have a fault, more than run.tolerance "
        f"{session.recipe.run.tolerance:.2%}; see {session.run.release_folder() / 'summary.md'}", err=True,
    )
    return EXCEEDS_TOLERANCE


def warn_of_changes(session: Session) -> None:
    """Warn where the catalog is no more the one that was read in."""
    from catmorph import pipeline

    why = pipeline.catalog_changes(session.run)
    if why:
        session.warn(f"the sources are those of the last `catmorph ingest`, but {why}")
