"""`export`, `summarize` and `gallery`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from catmorph.cli.common import Session, choice, process_option, run_options
from catmorph.cli.production import band_option, outcome, tell_older, warn_of_changes
from catmorph.errors import UsageError


class _FormatOption(click.Option):
    """``--format``, whose help lists what is registered."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the names as they are registered: in capitals or not."""
        return tuple(name.lower() for name in super().type_cast_value(ctx, value))

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from catmorph.release.formats import FORMATS

        titles = "; ".join(f"{name}: {FORMATS.get(name).title}" for name in FORMATS.names())
        self.help = f"Format, repeatable [default: the recipe's]; {titles}."
        return super().get_help_record(ctx)


@click.command(epilog="Example: catmorph export -r clash.toml --format csv --format fits")
@click.option("--format", "formats", multiple=True, metavar="NAME", cls=_FormatOption)
@process_option("read logits and write their rows as text")
@run_options(json=True)
def export(session: Session, formats: tuple[str, ...], workers: int) -> int:
    """Write the released catalog.

    Writes release/<release.name>.<format> with columns.md (the data dictionary) and provenance.json, and
    omitted.parquet, and prints the files.
    """
    from catmorph.pipeline.release import run_release

    session.run.ingest_counts()  # refuses a folder without sources before the lock would make it
    with session.run.lock():
        warn_of_changes(session)
        result = run_release(session.run, formats, workers=workers, shown=session.shows_progress)
    tell_older(session, result)
    counts = result.account.counts()
    if session.json:
        files = {name: str(path) for name, path in result.files.items()}
        click.echo(json.dumps({**counts, "files": files}, indent=2))
    else:
        for path in result.paths:
            click.echo(path)
    session.say("{read} rows read = {rejected} rejected + {omitted} omitted + {released} released".format(**counts))
    return 0


@click.command(epilog="Example: catmorph summarize -r clash.toml --json")
@process_option("read logits")
@run_options(json=True)
def summarize(session: Session, workers: int) -> int:
    """Count classes, mergers and every row of the release.

    Writes release/summary.json and release/summary.md, and prints a table. Exit status 3 when more rows have a
    fault than run.tolerance allows.
    """
    from catmorph.pipeline.release import run_summary

    session.run.ingest_counts()  # refuses a folder without sources before the lock would make it
    with session.run.lock():
        warn_of_changes(session)
        summary = run_summary(session.run, workers=workers, shown=session.shows_progress)
    if summary.changed:
        session.warn(f"{session.run.release_folder()}: the catalog there was made before a change of "
                     f"{', '.join(summary.changed)}, the summary after it; run `catmorph export`")
    if session.json:
        click.echo(json.dumps(summary.to_json(), indent=2, sort_keys=True))
    elif not session.quiet:
        click.echo(summary.text())
    return outcome(session, summary)


@click.command(epilog="Example: catmorph gallery -r clash.toml --band F160W --order class")
@band_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="PNG file [default: gallery.png in the run folder].",
)
@click.option(
    "--order",
    type=choice("magnitude", "class"),
    default="magnitude",
    help="Brightest first, or the surest of each class [default: magnitude].",
)
@click.option(
    "--per-row",
    type=click.IntRange(1, 50),
    metavar="N",
    default=10,
    help="Sources in a row, where one band is shown [default: 10].",
)
@click.option(
    "--per-page", type=click.IntRange(1, 1000), metavar="N",
    help="Sources on the sheet [default: 10; one band: 50, in full rows].",
)
@click.option("--page", type=click.IntRange(1), metavar="N", default=1, help="Which sheetful [default: 1].")
@run_options(json=True)
def gallery(
    session: Session,
    bands: tuple[str, ...],
    output: Path | None,
    order: str,
    per_row: int,
    per_page: int | None,
    page: int,
) -> int:
    """Draw stamps with their labels.

    A PNG of stamps with id, most probable class and its probability, of each classifier. With several bands a row is
    a source and a column a band; with one band a row holds many sources. The first classifier decides the order.
    """
    from catmorph.report.gallery import gallery as draw

    path = output or session.run.path / "gallery.png"
    if path.suffix.lower() != ".png":
        raise UsageError("the gallery is a PNG file", where=path, hint="let --output end in .png")
    single = len(set(bands) or session.recipe.all_views) == 1
    rows = -(-(per_page or 50) // per_row) if single else per_page or 10
    result = draw(session.run, bands, per_row, rows, path, "class" if order == "class" else "magnitude", page)
    if result.outdated:
        session.warn(f"what is drawn may be out of date: {'; '.join(result.outdated)}; see `catmorph status`")
    if session.json:
        facts = {"path": str(path), "ids": result.ids, "available": result.available, "outdated": result.outdated}
        click.echo(json.dumps(facts, indent=2))
    session.say(f"{path}: {len(result.ids)} of {result.available} sources")
    return 0
