"""The commands that do the work: run, ingest, cutouts, classify, status."""

from __future__ import annotations

import json
from typing import Any

import click

from catmorph import pipeline
from catmorph.cli.common import Session, device_options, run_options, worker_option
from catmorph.preflight import refuse_problems
from catmorph.status import Status, status_of

EXCEEDS_TOLERANCE = 3

band_option = click.option("--band", "bands", multiple=True, metavar="BAND",
                           help="Only this band (or view); repeatable.")


def _tell(session: Session, report: pipeline.StageReport) -> None:
    session.say(report.line())
    for mosaic, reason in sorted(report.failures.items()):
        click.echo(f"catmorph: warning: {mosaic}: {reason}; its sources are flagged UNREADABLE", err=True)


@click.command(epilog="Example: catmorph run configs/samples/clash.toml --workers 2")
@run_options(argument=True, json=True)
@worker_option
@device_options
def run(session: Session, workers: int, scheduler: str | None, device: str, precision: str | None) -> int:
    """Do everything: ingest, cutouts, classify, export, summarize.

    What is already in the run folder and still valid is kept, so the same command goes on after an
    interruption and does only the needed work after a change.
    """
    folder = session.run
    refuse_problems(folder)
    with folder.lock():
        pipeline.prepare(folder)
        _tell(session, pipeline.run_ingest(folder))
        shown = session.shows_progress
        _tell(session, pipeline.run_cutouts(folder, workers=workers, scheduler=scheduler, shown=shown))
        _tell(session, pipeline.run_classify(folder, device=device, precision=precision, shown=shown))
        result = pipeline.run_release(folder)
        summary = pipeline.run_summary(folder)
    if session.json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        session.say(summary.text())
        for path in result.paths:
            click.echo(path)
    return _outcome(session, summary)


def _outcome(session: Session, summary: Any) -> int:
    if not summary.exceeds_tolerance:
        return 0
    click.echo(
        f"catmorph: done, but {summary.fault_fraction:.2%} of the rows have a fault, more than run.tolerance "
        f"{session.recipe.run.tolerance:.2%}; see {session.run.release_folder() / 'summary.md'}", err=True,
    )
    return EXCEEDS_TOLERANCE


@click.command(epilog="Example: catmorph ingest -r clash.toml")
@run_options
def ingest(session: Session) -> None:
    """Read the survey table into sources.parquet, rejected.parquet and the chunk plan."""
    with session.run.lock():
        pipeline.prepare(session.run)
        _tell(session, pipeline.run_ingest(session.run))


@click.command(epilog="Example: catmorph cutouts -r clash.toml --band F160W --workers 2")
@run_options
@band_option
@worker_option
def cutouts(session: Session, bands: tuple[str, ...], workers: int, scheduler: str | None) -> None:
    """Cut the stamps into stamps/<view>/<field>-<cell>.h5."""
    with session.run.lock():
        pipeline.prepare(session.run)
        _tell(session, pipeline.run_cutouts(session.run, bands, workers=workers, scheduler=scheduler,
                                            shown=session.shows_progress))


@click.command(epilog="Example: catmorph classify -r clash.toml --band F160W --device cpu")
@run_options
@band_option
@device_options
def classify(session: Session, bands: tuple[str, ...], device: str, precision: str | None) -> None:
    """Run the networks over the stamps into logits/<classifier>/<view>/<field>-<cell>.parquet."""
    with session.run.lock():
        pipeline.prepare(session.run)
        _tell(session, pipeline.run_classify(session.run, bands, device=device, precision=precision,
                                             shown=session.shows_progress))


@click.command(epilog="Example: catmorph status -r clash.toml --json")
@run_options(json=True)
def status(session: Session) -> None:
    """Show what is done, stale or missing in each stage and view, and the failures by reason."""
    found: Status = status_of(session.run)
    click.echo(json.dumps(found.to_json(), indent=2) if session.json else found.text())
