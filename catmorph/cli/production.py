"""The commands that do the work: run, ingest, cutouts, classify, status."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session, choice, device_options, run_options, usable_cores, worker_option
from catmorph.errors import CatmorphError, UsageError, printable
from catmorph.places import LOGITS, STAMPS

if TYPE_CHECKING:
    from catmorph.pipeline.report import StageReport
    from catmorph.record import RunRecord
    from catmorph.release.bundle import ExportResult
    from catmorph.release.summary import Summary

EXCEEDS_TOLERANCE = 3
"""Exit status: done, with more faulty rows than the recipe tolerates."""

band_option = click.option("--band", "bands", multiple=True, metavar="BAND",
                           help="Only this band or view, repeatable [default: all].")

fail_fast_option = click.option("--fail-fast", is_flag=True, help="Stop at the first mosaic that cannot be read.")

direct_option = click.option("--direct", is_flag=True, help="Hand stamps from the mosaics to the network without "
                             "keeping them; the logits are the same.")

_LARGE_CATALOG_BYTES = 250_000
"""Some thousand sources: a second of cutting."""


@click.command(epilog="Example: catmorph run configs/samples/clash.toml --workers 2")
@click.option("--dry-run", is_flag=True, help="Only say what would be made, and how long it would take.")
@fail_fast_option
@direct_option
@click.option("--after", metavar="COMMAND", help="Command to call when the run is done or has failed; the path of "
              "run.json is added as its last argument. No shell is used.")
@worker_option
@device_options
@run_options(argument=True, json=True)
def run(session: Session, dry_run: bool, after: str | None, **options: Any) -> int:
    """Do everything, from survey table to release.

    These are the stages ingest, cutouts, classify, export and summarize of RECIPE (default: $CATMORPH_RECIPE,
    else ./catmorph.toml). What is already in the run folder and still valid is kept, so that the same command
    goes on after an interruption, and does only what is needed after a change.
    """
    if options["direct"] and options["scheduler"]:
        raise UsageError("--direct cuts on this machine, --scheduler on others", hint="leave one of them out")
    if not (dry_run or options["scheduler"]):
        module = "catmorph.inference.direct" if options["direct"] else "catmorph.stamps.build"
        _expect_workers(session, options["workers"], module)
    from catmorph.pipeline.ingest import prepare
    from catmorph.preflight import refuse_problems
    from catmorph.record import RunRecord, call_after, parse_after

    command = parse_after(after)
    # Torch takes seconds to import: what is only told does without the weights.
    refuse_problems(session.run, device=options["device"], precision=options["precision"], weights=not dry_run)
    if dry_run:
        return _say_forecast(session, **{name: options[name] for name in ("device", "precision", "direct")})
    with session.run.lock():
        record = RunRecord(session.run)
        try:
            # First of all: a folder with a run.json alone would be taken for somebody else's.
            prepare(session.run)
            status = _recorded(session, record, options)
        except KeyboardInterrupt:
            raise  # who stops a run does not want to wait for another program
        except CatmorphError:
            # The run's own error is the one to tell.
            with suppress(CatmorphError):
                call_after(command, record.path)
            raise
        call_after(command, record.path)
    return status


def _recorded(session: Session, record: RunRecord, options: dict[str, Any]) -> int:
    """Do all stages and write run.json, whether they succeed or not."""
    try:
        summary = _produce(session, record, **options)
    except BaseException as error:
        text = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        # The folder may be what cannot be written: the first error is the one to tell.
        with suppress(CatmorphError):
            record.finish(getattr(error, "exit_status", 1), text)
        raise
    status = EXCEEDS_TOLERANCE if summary.exceeds_tolerance else 0
    record.finish(status, _outcome_text(session, summary), account=summary.values["account"],
                  faults=summary.values["faults"])
    return outcome(session, summary)


def _produce(
    session: Session, record: RunRecord, *, workers: int, scheduler: str | None, device: str, precision: str | None,
    fail_fast: bool, direct: bool,
) -> Summary:
    from catmorph.pipeline.classify import run_classify
    from catmorph.pipeline.cutouts import run_cutouts
    from catmorph.pipeline.ingest import run_ingest
    from catmorph.pipeline.release import run_release, run_summary

    folder, shown = session.run, session.shows_progress
    with record.stage("ingest") as facts:
        tell(session, run_ingest(folder), facts)
    if direct:
        with record.stage("classify") as facts:
            _classify_directly(session, (), facts, device=device, precision=precision, workers=workers,
                               fail_fast=fail_fast)
    else:
        with record.stage("cutouts") as facts:
            tell(session, run_cutouts(folder, workers=workers, scheduler=scheduler, shown=shown,
                                      fail_fast=fail_fast), facts)
        with record.stage("classify") as facts:
            tell(session, run_classify(folder, device=device, precision=precision, shown=shown), facts)
    with folder.ledger.remembered():  # the logits are compared with the ledger once for both
        with record.stage("export") as facts:
            result = run_release(folder, workers=workers, shown=shown)
            facts["counts"] = result.account.counts()
            tell_older(session, result)
        with record.stage("summarize"):
            summary = run_summary(folder, workers=workers, shown=shown)
    if session.json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        session.say(summary.text())
        for path in result.paths:
            click.echo(path)
    return summary


def _classify_directly(
    session: Session, bands: tuple[str, ...], facts: dict[str, Any], *, device: str, precision: str | None,
    workers: int, fail_fast: bool,
) -> None:
    """Classify stamps that are not kept; `facts` takes what was done, and of what was cut, for run.json."""
    from catmorph.pipeline.classify import run_classify
    from catmorph.pipeline.direct import DirectStamps

    stamps = DirectStamps(session.run, session.run.chosen_views(bands), workers=workers, fail_fast=fail_fast)
    try:
        report = run_classify(session.run, bands, device=device, precision=precision, shown=session.shows_progress,
                              stamps=stamps)
    finally:
        stamps.close()
    cut: dict[str, Any] = {}
    tell(session, stamps.report, cut)
    tell(session, report, facts)
    facts["cut"] = cut


def _expect_workers(session: Session, workers: int, module: str = "catmorph.stamps.build") -> None:
    """Let worker processes do their imports already, where a new survey is so large that they will be needed."""
    # The recipe is not read in yet: that takes as long as half of those imports.
    draft = session.draft()
    folder = session.workdir or Path("runs") / str(draft.get("name"))
    # What is wrong with names and files is told where they are used.
    with suppress(OSError, ValueError):
        # Where work was begun not much of it may be left.
        is_new = not any((folder / name).exists() for name in (STAMPS, LOGITS))
        if is_new and _bytes_of_catalog(session, draft) >= _LARGE_CATALOG_BYTES:
            from catmorph.engine import expect_workers

            expect_workers(workers, module, "catmorph.stamps.block")


def _bytes_of_catalog(session: Session, draft: dict[str, Any]) -> int:
    """Return the size of the catalog's files, as far as the recipe's own text names them."""
    catalog = draft.get("catalog")
    files = catalog.get("files") if isinstance(catalog, dict) else None
    patterns = [files] if isinstance(files, str) else files if isinstance(files, list) else []
    paths = [path for pattern in patterns
             for path in glob.glob(str(session.recipe_file().expanduser().parent / str(pattern)))]
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))


def _say_forecast(session: Session, *, device: str, precision: str | None, direct: bool) -> int:
    from catmorph.forecast import forecast

    with session.run.ledger.remembered():
        stages = forecast(session.run, device=device, precision=precision, direct=direct)
    if session.json:
        click.echo(json.dumps([{**vars(stage), "why": dict(stage.why)} for stage in stages], indent=2))
    else:
        for stage in stages:
            click.echo(printable(stage.line()))
    return 0


@click.command(epilog="Example: catmorph ingest -r clash.toml")
@run_options
def ingest(session: Session) -> None:
    """Read the survey table into canonical sources.

    Writes sources.parquet, rejected.parquet (row, id and reason) and the chunk plan, plan.parquet.
    """
    from catmorph.pipeline.ingest import prepare, run_ingest

    with session.run.lock():
        prepare(session.run)
        tell(session, run_ingest(session.run))


@click.command(epilog="Example: catmorph cutouts -r clash.toml --band F160W --workers 2")
@band_option
@click.option("--format", "formats", multiple=True, type=choice("hdf5", "mef"),
              help="What to write, repeatable: hdf5, the shards (they are always written); mef, also one "
              "FITS file for each source and view, an extension a band [default: hdf5].")
@worker_option
@run_options
def cutouts(
    session: Session, bands: tuple[str, ...], formats: tuple[str, ...], workers: int, scheduler: str | None
) -> None:
    """Cut the stamps, first reading the survey table in where needed.

    Writes stamps/<view>/<field>-<cell>.h5, one shard a view and chunk; with --format mef also
    stamps-mef/<view>/<field>/<id>.fits, with an image for each band of the view and its coordinates on the sky.
    """
    if not scheduler:
        _expect_workers(session, workers)
    from catmorph.pipeline.cutouts import run_cutouts

    with _begun(session, bands):
        how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "shown": session.shows_progress}
        tell(session, run_cutouts(session.run, bands, **how))
        if "mef" in formats:
            from catmorph.pipeline.mef import run_mef

            tell(session, run_mef(session.run, bands, **how))


@contextmanager
def _begun(session: Session, bands: tuple[str, ...]) -> Iterator[None]:
    """Lock the run folder for a command that cuts; a new one takes the survey table in before."""
    from catmorph.pipeline.ingest import prepare, refuse_before_work, run_ingest

    run = session.run
    run.chosen_views(bands)
    is_new = run.ledger.read(run.sources_path()) is None and not run.plan_path().exists()
    if not is_new:
        refuse_before_work(run, bands)
    with run.lock():
        prepare(run)
        if is_new:
            tell(session, run_ingest(run))
        else:
            warn_of_changes(session)
        yield


@click.command(epilog="Example: catmorph classify -r clash.toml --band F160W --device cpu")
@band_option
@direct_option
@click.option("--workers", type=click.IntRange(1), metavar="N",
              help="With --direct: processes that cut stamps [default: the cores this process may use]. Else: threads "
              "that read stamps ahead of the network [default: 4 on a GPU, else none].")
@device_options
@run_options
def classify(
    session: Session, bands: tuple[str, ...], direct: bool, workers: int | None, device: str, precision: str | None
) -> None:
    """Run the networks over the stamps.

    Writes logits/<classifier>/<view>/<field>-<cell>.parquet, one row a source of the chunk. With --direct no stamps
    are needed: they are cut once for all networks of the recipe, which are in memory together, and not kept.
    """
    if direct:
        with _begun(session, bands):
            _classify_directly(session, bands, {}, device=device, precision=precision,
                               workers=workers or usable_cores(), fail_fast=False)
        return
    from catmorph.pipeline.classify import run_classify
    from catmorph.pipeline.ingest import prepare, refuse_before_work

    refuse_before_work(session.run, bands)
    with session.run.lock():
        prepare(session.run)
        warn_of_changes(session)
        tell(session, run_classify(session.run, bands, device=device, precision=precision,
                                   shown=session.shows_progress, readers=workers))


@click.command(epilog="Example: catmorph status -r clash.toml --json")
@run_options(json=True)
def status(session: Session) -> None:
    """Show what is done, stale or missing, and what failed.

    One line a stage and view, with the reasons and the quality flags. It changes nothing and takes no lock.
    """
    from catmorph.status import status_of

    found = status_of(session.run)
    click.echo(json.dumps(found.to_json(), indent=2) if session.json else found.text())


@click.command(epilog="Example: catmorph clean -r clash.toml --dry-run")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@run_options
def clean(session: Session, dry_run: bool) -> None:
    """Remove what the recipe does not need any more.

    That is stamps and logits of bands, classifiers and chunks that it has no longer, and what interrupted writes
    left behind. The release, sources and logs stay.
    """
    from catmorph.clean import find_leftovers, remove

    session.run.ingest_counts()
    with session.run.lock():
        leftovers = find_leftovers(session.run)
        megabytes = leftovers.size_bytes / 1e6
        for path in leftovers.files:
            click.echo(printable(str(path.relative_to(session.run.path))))
        if not dry_run:
            remove(session.run, leftovers)
    verb = "would remove" if dry_run else "removed"
    session.say(f"{verb} {len(leftovers.files):,} files, {megabytes:.1f} MB")


def tell(session: Session, report: StageReport, facts: dict[str, Any] | None = None) -> None:
    """Print what a stage did, and warn of the mosaics that it could not read; `facts` takes it for run.json."""
    if facts is not None:
        facts.update(report.facts())
    session.say(report.line())
    if session.verbose:
        for why, count in report.why.most_common():
            session.say(f"  made because: {why} ({count})")
    for text in report.warnings:
        session.warn(text)
    for mosaic, reason in sorted(report.failures.items()):
        session.warn(f"{mosaic}: {reason}; its sources are flagged UNREADABLE")


def outcome(session: Session, summary: Summary) -> int:
    """Return the exit status; say why where it is not 0."""
    if not summary.exceeds_tolerance:
        return 0
    click.echo(printable(f"catmorph: {_outcome_text(session, summary)}"), err=True)
    return EXCEEDS_TOLERANCE


def _outcome_text(session: Session, summary: Summary) -> str:
    if not summary.exceeds_tolerance:
        return "done"
    return (
        f"done, but {summary.fault_fraction:.2%} of the rows have a fault, more than run.tolerance "
        f"{session.recipe.run.tolerance:.2%}; see {session.run.release_folder() / 'summary.md'}"
    )


def tell_older(session: Session, result: ExportResult) -> None:
    """Tell what became of released files of an earlier state of the survey that were not written anew."""
    for path in result.removed:
        session.say(f"removed {path}: it was of an earlier release; export that format again if it is needed")
    for path in result.left:
        session.warn(f"{path}: is not what was exported; it was left there, and is no part of this release")


def warn_of_changes(session: Session) -> None:
    """Warn where the catalog is no more the one that was read in."""
    from catmorph.pipeline.ingest import catalog_changes

    why = catalog_changes(session.run)
    if why:
        session.warn(f"the sources are those of the last `catmorph ingest`, but {why}")
