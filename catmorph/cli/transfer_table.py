"""The experiment of two surveys, as `catmorph experiment transfer-table` does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.cli.common import Session
from catmorph.cli.labelled import gather
from catmorph.errors import CatmorphError, ProblemsError, UsageError

if TYPE_CHECKING:
    from catmorph.experiments.run import Settings
    from catmorph.experiments.transfer import Question
    from catmorph.experiments.transfer_run import Surveys


@dataclass(frozen=True)
class _Asked:
    """A question with the sessions of its two surveys."""

    question: Question
    target: Session
    source: Session


def transfer_table(
    session: Session, more: Sequence[Path], settings: Settings, *, quick: bool, dry_run: bool
) -> int:
    """Answer the question of each recipe, and write the table of all.

    Raises
    ------
    UsageError
        Before anything is cut, when a recipe cannot work.
    """
    from catmorph.experiments.run import held, refuse_without_lightning
    from catmorph.experiments.transfer_run import answer, refuse_failures, refuse_impossible
    from catmorph.experiments.transfer_summary import joint_folder, write_transfer

    asked = _asked(session, more, quick)
    if dry_run:
        return _list(asked, settings)
    _refuse_missing(asked)
    refuse_without_lightning()
    with ExitStack() as stack:
        for one in asked:
            stack.enter_context(held(one.question.folder))
        surveys = [_surveys(one, settings.workers) for one in asked]
        questions = [one.question for one in asked]
        for question, both in zip(questions, surveys, strict=True):
            refuse_impossible(question, both)
        answered = answer(questions, surveys, settings, session.say)
        for found in answered if len(answered) > 1 else ():
            write_transfer([found], found.question.folder)
        report = write_transfer(answered, joint_folder(answered))
    if session.json:
        click.echo(json.dumps(report, indent=2, sort_keys=True))
    elif not session.quiet:
        _tell(report)
    refuse_failures(answered)
    return 0


def _asked(session: Session, more: Sequence[Path], quick: bool) -> list[_Asked]:
    from catmorph.experiments.transfer import question

    if more and session.workdir is not None:
        raise UsageError("--workdir is the run folder of one recipe", hint="leave it out: each has runs/<recipe name>")
    found = []
    for one in (session, *(replace(session, recipe_path=path) for path in more)):
        asked = question(one.recipe, quick=quick)
        beside = None if one.workdir is None else one.workdir.parent / asked.source.name
        source = replace(one, recipe_path=Path(str(one.recipe.experiments.source)), overrides=(), workdir=beside)
        found.append(_Asked(asked, one, source))
    names = [one.question.target.name for one in found]
    if len(set(names)) < len(names):
        raise UsageError(f"recipes of one name would share their results: {', '.join(names)}",
                         hint="give each recipe a name of its own")
    return found


def _refuse_missing(asked: Sequence[_Asked]) -> None:
    """Raise a ProblemsError with the files and columns that are missing in any of the surveys."""
    from catmorph.preflight import training_findings

    surveys = [(one, starts) for asking in asked for one, starts in ((asking.target, False), (asking.source, True))]
    problems = [f"{one.recipe.name}: {problem}" for one, starts in surveys
                for problem in training_findings(one.run, starts=starts).problems]  # fmt: skip
    if problems:
        raise ProblemsError(dict.fromkeys(problems))


def _surveys(asked: _Asked, workers: int) -> Surveys:
    """Return the labelled stamps of both surveys, cut first where they are not there."""
    from catmorph.experiments.transfer_run import apart

    found = []
    for one in (asked.source, asked.target):
        one.say(f"stamps of {one.recipe.name}: {one.run.path}")
        with one.run.lock():
            found.append(gather(one, workers=workers, scheduler=None))
    source, target = found
    surveys = apart(source, target, asked.question.target_section.duplicates_arcsec)
    if surveys.shared:
        asked.target.say(f"{surveys.shared:,} stamps of {asked.source.recipe.name} are left out: their objects are in "
                         f"{asked.target.recipe.name}")
    return surveys


def _list(asked: Sequence[_Asked], settings: Settings) -> int:
    """Print the networks of each question and which are done; nothing is written or cut."""
    from catmorph.experiments.transfer import NETWORKS
    from catmorph.experiments.transfer_run import question_tasks
    from catmorph.release.text import text_table

    rows: list[dict[str, Any]] = []
    for one in asked:
        surveys = _surveys_there(one)
        tasks = {} if surveys is None else question_tasks(one.question, surveys, settings)
        for network in NETWORKS:
            done = network in tasks and tasks[network].done() is not None
            rows.append({"recipe": one.question.target.name, "experiment": network, "done": done,
                         "network": one.question.describe(network), "folder": str(one.question.folder)})
    if asked[0].target.json:
        click.echo(json.dumps({"experiment": "transfer-table", "networks": rows}, indent=2, sort_keys=True))
        return 0
    cells = [[one["recipe"], f"({one['experiment']})", one["network"], "done" if one["done"] else "to do"]
             for one in rows]  # fmt: skip
    click.echo("\n".join(text_table(["recipe", "experiment", "network", ""], cells)))
    return 0


def _surveys_there(asked: _Asked) -> Surveys | None:
    """Return the labelled stamps of both surveys, None where not all are cut yet."""
    from catmorph.experiments.transfer_run import apart
    from catmorph.labels import labelled_stamps

    found = []
    for one in (asked.source, asked.target):
        run = one.run
        if run.recipe.labels.stamp_files is None and not run.plan_path().exists():
            return None
        try:
            found.append(labelled_stamps(run)[0])
        except UsageError:
            raise
        except CatmorphError:
            return None
    source, target = found
    return apart(source, target, asked.question.target_section.duplicates_arcsec)


def _tell(report: dict[str, Any]) -> None:
    from catmorph.release.text import text_table

    rows = []
    for one in report["rows"]:
        rates = ["" if one[name] is None else f"{one[name]:.2f}" for name in ("TPR", "precision", "accuracy")]
        rows.append([f"{one['question']} ({one['experiment']})",
                     *(f"{one[name]:.0f}" for name in ("N_train", "N_test", "N_pos")), *rates])  # fmt: skip
    if rows:
        header = ["experiment", "N_train", "N_test", "N_pos", "TPR", "precision", "accuracy"]
        click.echo("\n".join(text_table(header, rows)))
    for line in report["notes"]:
        click.echo(line)
    click.echo(next(path for path in report["files"] if path.endswith("summary.md")))
