"""The commands from stamps to votes and from votes to labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session, choice, run_options
from catmorph.cli.production import band_option
from catmorph.errors import UsageError, printable, suggest

if TYPE_CHECKING:
    from catmorph.recipe import LabelsSection
    from catmorph.schemes import Scheme

_FILE = click.Path(path_type=Path)


@click.group(epilog="Example: catmorph labels sample -r clash.toml --per-view 100")
def labels() -> None:
    """Draw stamps to label, show them, count the votes, and report on labels."""


@labels.command(epilog="Example: catmorph labels sample -r clash.toml --by-magnitude 18,20,22,24.5 -o sample.csv")
@band_option
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="CSV file [default: sample.csv in the run folder].")
@click.option("--per-view", type=click.IntRange(1), metavar="N", default=100,
              help="Stamps of each band or view [default: 100].")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, help="Another seed draws others [default: 0].")
@click.option("--by-magnitude", "edges", metavar="EDGES",
              help="Edges of magnitude bins, such as 18,20,22,24, that give equal shares.")
@run_options(json=True)
def sample(
    session: Session, bands: tuple[str, ...], output: Path | None, per_view: int, seed: int, edges: str | None
) -> None:
    """Draw stamps at random for people to label.

    Draws from the stamps of the run folder that are not blocked, in each band or view for itself, and writes
    stamp, field, id, view, magnitude, ra, dec. The same seed draws the same stamps.
    """
    from catmorph.labels.sample import draw_sample, write_sample

    bins = _numbers(edges) if edges is not None else []
    _refuse_inputs([output], session)
    _known_views(session, bands)
    drawn = draw_sample(session.run, per_view=per_view, seed=seed, edges=bins, views=tuple(dict.fromkeys(bands)))
    path = output or session.run.path / "sample.csv"
    write_sample(path, drawn.rows)
    for line in drawn.lacking:
        session.warn(line)
    if session.json:
        click.echo(json.dumps({"path": str(path), "stamps": len(drawn.rows), "available": drawn.available,
                               "lacking": drawn.lacking}, indent=2, ensure_ascii=False))
    else:
        click.echo(path)
    session.say(f"{len(drawn.rows)} stamps drawn of {sum(drawn.available.values())}")


@labels.command(epilog="Example: catmorph labels subjects -r clash.toml sample.csv --out subjects")
@click.argument("sample_path", metavar="SAMPLE.csv", type=_FILE)
@click.option("--out", "folder", type=_FILE, required=True, metavar="DIR", help="Folder of the pictures.")
@click.option("--side", type=click.IntRange(20, 2000), metavar="PIXELS", default=400,
              help="Smallest side of a panel [default: 400].")
@run_options(json=True)
def subjects(session: Session, sample_path: Path, folder: Path, side: int) -> None:
    """Draw each stamp of a sample as a PNG to vote on, with the Zooniverse manifest.

    Grey panels side by side, one for each of the recipe's labels.stretches; invalid pixels are bluish. Pictures
    that are there already are kept. manifest.csv, written last, is for `panoptes subject-set upload-subjects`.
    """
    from catmorph.labels.sample import read_sample
    from catmorph.labels.subjects import write_subjects

    result = write_subjects(session.run, read_sample(sample_path), folder, side_pixels=side,
                            shown=session.shows_progress, where=sample_path)
    if session.json:
        click.echo(json.dumps({"manifest": str(result.manifest), "made": result.made, "kept": result.kept}, indent=2))
    else:
        click.echo(result.manifest)
    session.say(f"{result.made} pictures made, {result.kept} kept")


def _scheme_option(command: Any) -> Any:
    return click.option("--scheme", "scheme_name", metavar="NAME",
                        help="Label scheme, to work without a recipe [default: the recipe's].")(command)


@labels.command(epilog="Example: catmorph labels aggregate -r clash.toml classifications.csv -o labels.csv --task T0")
@click.argument("votes_path", metavar="CLASSIFICATIONS", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE",
              help="Label table (CSV); votes, refused stamps and rows left out go beside it.")
@_scheme_option
@click.option("--workflow", metavar="ID", help="Zooniverse workflow [default: the recipe's, else the only one].")
@click.option("--task", metavar="ID", help="Task that asks for the class [default: the recipe's, else the only one].")
@click.option("--answer", "answers", multiple=True, metavar="ANSWER=CLASS",
              help="Class of an answer, repeatable, besides labels.answers; no class leaves the answer out.")
@click.option("--minimum-votes", type=click.IntRange(1), metavar="N",
              help="Stamps with fewer votes get no label [default: the recipe's, 5].")
@click.option("--mode", is_flag=True, help="Label with the class of most votes instead of fractions.")
@click.option("--ties", type=choice("first", "refuse"), default="first",
              help="Where classes are tied for most votes, the first of the scheme is the majority, or the stamp is "
              "refused [default: first].")
@run_options(json=True)
def aggregate(
    session: Session, votes_path: Path, output: Path, scheme_name: str | None, workflow: str | None, task: str | None,
    answers: tuple[str, ...], minimum_votes: int | None, mode: bool, ties: str,
) -> None:  # fmt: skip
    """Count votes into a label table.

    CLASSIFICATIONS is a Zooniverse classification export, or a CSV table with the columns stamp, user and answer.
    Every row is used or left out with a reason; of several votes of one user on one stamp the earliest counts.
    """
    from catmorph.labels.aggregate import account, count_votes, output_files, write_labels
    from catmorph.labels.ballots import UNKNOWN_ANSWER
    from catmorph.labels.votes import read_votes
    from catmorph.labels.zooniverse import ExportOptions

    scheme, section = _scheme(session, scheme_name)
    _refuse_inputs(output_files(output).values(), session if scheme_name is None else None, but="labels.table")
    if votes_path.resolve() in {path.resolve() for path in output_files(output).values()}:
        raise UsageError("the votes would be overwritten", where=votes_path, hint="choose another -o/--output")
    given = {**section.answers, **_pairs(answers, "--answer", "ANSWER=CLASS")}
    options = ExportOptions(workflow or section.workflow, task or section.task, section.subject_key)
    counted = count_votes(read_votes(votes_path, scheme, given, options), scheme,
                          minimum_votes=minimum_votes or section.minimum_votes,
                          ties="refuse" if ties == "refuse" else "first")
    lines = account(counted)
    if not counted.names:
        raise UsageError(f"no stamp has enough votes: {'; '.join(lines)}", where=votes_path)
    files = write_labels(output, counted, scheme, mode=mode)
    if session.json:
        click.echo(json.dumps({
            "rows": counted.rows, "used": len(counted.votes), "stamps": len(counted.names),
            "left_out": {reason: {"count": len(rows), "rows": [one.row for one in rows]}
                         for reason, rows in counted.reasons().items()},
            "refused": [name for name, _, _ in counted.refused], "tied": int(counted.tied.sum()),
            "files": {what: str(path) for what, path in files.items()},
        }, indent=2, ensure_ascii=False))  # fmt: skip
    else:
        click.echo(output)
    for line in lines:
        session.say(line)
    unknown = counted.reasons().get(UNKNOWN_ANSWER)
    if unknown:
        session.warn(f"{len(unknown)} answers are no class, the fractions are those of the other votes; "
                     "give them classes in [labels.answers] or with --answer")
    tied = int(counted.tied.sum())
    session.say(f"{len(counted.names)} stamps labelled"
                + (f", {tied} tied: the first of their classes is the majority" if tied else ""))


@labels.command(epilog="Example: catmorph labels report labels.csv --scheme clash --votes 7 --json")
@click.argument("table_path", metavar="LABELS.csv", type=_FILE)
@_scheme_option
@click.option("--id-column", metavar="NAME", help="Column with the names of stamps, or its number from 1 "
              "[default: the recipe's, ID].")
@click.option("--class-column", "class_columns", multiple=True, metavar="NAME",
              help="Column that holds a class, or its number from 1, one for each person [default: the recipe's].")
@click.option("--mode", is_flag=True, help="Label with the class of most votes instead of fractions.")
@click.option("--format", metavar="NAME", help="astropy's name of the table's format [default: told from the file].")
@click.option("--votes-column", metavar="NAME",
              help="Column with the number of votes [default: the recipe's, else 'votes' where there is one].")
@click.option("--column", "columns", multiple=True, metavar="CLASS=NAME",
              help="Column of a class, repeatable [default: the scheme's].")
@click.option("--stamp", "pattern", metavar="PATTERN",
              help="How names are made, such as {field}_{view|lower}_{id} [default: the recipe's].")
@click.option("--votes", type=click.IntRange(2), metavar="N",
              help="Votes a stamp to assume for the noise floor, where the table has none.")
@run_options(json=True)
def report(
    session: Session, table_path: Path, scheme_name: str | None, columns: tuple[str, ...], pattern: str | None,
    votes: int | None, **given: Any,
) -> None:  # fmt: skip
    """Report what a label table holds.

    Class means, stamps, sources and views, rows left out, votes, and the RMSE that always answering the mean label
    gives and that the noise of the votes alone leaves, by both definitions; of a decision tree, rows that disobey it.
    """
    from catmorph.evaluation.label_report import read_names, rename_columns, report_lines
    from catmorph.evaluation.label_report import report as examine
    from catmorph.labels.tables import read_labels

    scheme, section = _scheme(session, scheme_name)
    scheme = rename_columns(scheme, _pairs(columns, "--column", "CLASS=NAME"))
    section = _read_as(section, table_path, given)
    table = read_labels(table_path, scheme, section)
    if not len(table):
        raise UsageError("holds no labels", where=table_path)
    if table.votes is not None and votes is not None:
        raise UsageError(f"the table has its own votes, in column {section.votes_column!r}", where=table_path,
                         hint="leave --votes out")
    views = () if scheme_name else session.recipe.all_views
    found = examine(table, scheme, read_names(table.names, pattern or section.stamp, views), votes)
    if session.json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in report_lines(found, scheme):
        click.echo(printable(line))


def _scheme(session: Session, name: str | None) -> tuple[Scheme, LabelsSection]:
    """Return the scheme and the [labels] section: of the recipe, or by name without one."""
    from catmorph.recipe import LabelsSection
    from catmorph.schemes import load_scheme

    if name is not None:
        if session.recipe_path or session.overrides:
            raise UsageError("--scheme is for work without a recipe", hint="leave it out, or -r and --set")
        return load_scheme(name), LabelsSection()
    return load_scheme(session.recipe.scheme), session.recipe.labels


def _refuse_inputs(outputs: Iterable[Path | None], session: Session | None, but: str = "") -> None:
    """Raise a UsageError where an output would replace the recipe or its label table, except that of key `but`."""
    if session is None:
        return
    inputs = {"recipe": session.recipe_file(), "labels.table": session.recipe.labels.table}
    for what, path in inputs.items():
        if path is not None and what != but and Path(path).resolve() in {one.resolve() for one in outputs if one}:
            raise UsageError("would be replaced", where=path, hint="choose another -o/--output")


def _known_views(session: Session, bands: Sequence[str]) -> None:
    for view in bands:
        if view not in session.recipe.all_views:
            raise UsageError(f"unknown band or view {view!r}", hint=suggest(view, session.recipe.all_views))


def _read_as(section: LabelsSection, path: Path, given: dict[str, Any]) -> LabelsSection:
    """Return how the table is read: as the recipe and then the options say; a column ``votes`` is that of votes."""
    from catmorph.labels.cells import read_rows
    from catmorph.labels.reading import is_csv

    options: dict[str, Any] = {key: _column(value) for key in ("id_column", "votes_column") if (value := given[key])}
    options |= {"class_column": tuple(map(_column, given["class_columns"]))} if given["class_columns"] else {}
    options |= {"votes": "mode"} if given["mode"] else {}
    options |= {"format": given["format"]} if given["format"] else {}
    section = section.model_copy(update=options)
    if section.votes_column is None and is_csv(path, section) and "votes" in next(read_rows(path, "label table")):
        return section.model_copy(update={"votes_column": "votes"})
    return section


def _column(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--by-magnitude {text!r} is no list of numbers", hint="as in 18,20,22,24") from None


def _pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.rpartition("=") if option == "--answer" else text.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"{option} {text!r} is not of the form {form}")
        pairs[key.strip()] = value.strip()
    return pairs
