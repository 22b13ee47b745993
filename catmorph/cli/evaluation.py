"""The command that evaluates a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from catmorph.cli.common import Session, choice, device_option, run_options, worker_option
from catmorph.cli.labelled import gather

_FEW = 5
"""With more questions, their numbers are left to the page."""


@click.command(epilog="Example: catmorph evaluate net.safetensors labels.csv -r training.toml --calibrate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path), required=False)
@click.option("--subset", type=choice("test", "validation", "training", "all"),
              help="Stamps to evaluate, by the split file beside the checkpoint [default: test; all where there is no "
              "split file that fits].")
@click.option("--calibrate", is_flag=True, help="Fit a temperature on the validation subset, tell what it does on the "
              "test subset, and put it into the checkpoint's card.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to write into [default: CHECKPOINT with .evaluation instead of its suffix].")
@click.option("--no-card", is_flag=True, help="Leave the checkpoint's card as it is.")
@worker_option
@device_option("Where the network runs")
@run_options(json=True)
def evaluate(
    session: Session, checkpoint: Path, labels: Path | None, subset: str | None, calibrate: bool, out: Path | None,
    no_card: bool, workers: int, scheduler: str | None, device: str,
) -> None:
    """Compare a checkpoint with human votes.

    CHECKPOINT classifies the stamps of the recipe that LABELS (default: the recipe's labels.table) has votes of;
    stamps that are not cut yet are cut first. Writes metrics.json, evaluation.md, evaluation.html,
    predictions.csv and figures/ (PNG and PDF), and puts the key numbers into the checkpoint's card.
    """
    from catmorph.evaluation.run import evaluate as evaluate_checkpoint
    from catmorph.evaluation.run import evaluation_folder
    from catmorph.files import refuse_unwritable
    from catmorph.models.device import resolve_device
    from catmorph.models.header import load_card
    from catmorph.sources.regions import check_expressions

    # What cannot end well is told before stamps are cut.
    load_card(checkpoint)
    resolve_device(device)
    check_expressions(session.recipe.evaluation)
    refuse_unwritable(evaluation_folder(checkpoint, out))
    if labels is not None:
        changed = session.recipe.labels.model_copy(update={"table": str(labels.absolute())})
        session.recipe = session.recipe.model_copy(update={"labels": changed})
    with session.run.lock():
        data = gather(session, workers=workers, scheduler=scheduler, columns=True)
        result = evaluate_checkpoint(
            checkpoint, data, session.recipe, subset=subset, calibrate=calibrate, out=out, update_card=not no_card,
            device=device, shown=session.shows_progress,
        )
    for text in result.warnings:
        session.warn(text)
    if session.json:
        click.echo(json.dumps(result.metrics, indent=2, sort_keys=True))
        return
    for line in _lines(result.metrics):
        session.say(line)
    for path in result.files:
        if path.parent == result.files[-1].parent:
            click.echo(path)


def _lines(metrics: dict[str, Any]) -> list[str]:
    overall, calibration = metrics["overall"], metrics["calibration"]
    lines = [f"{overall['stamps']:,} stamps of {overall['sources']:,} sources: {metrics['subset']['note']}"]
    # The answers of several questions have each their own.
    accuracy = "accuracy" if "report" in overall else "accuracy, mean of the answers"
    titles = (("rmse", "RMSE"), ("rmse_authors", "RMSE, authors' definition"), ("cross_entropy", "cross-entropy"),
              ("accuracy", accuracy), ("macro_f1", "macro F1"), ("ece", "expected calibration error"))
    lines += [f"{title}: {_with_interval(overall[name])}" for name, title in titles]
    if "argmax_accuracy" in overall:
        lines.append(f"arg-max accuracy, all answers together: {_with_exact(overall['argmax_accuracy'])}")
    if "report" in overall:
        lines += _report_lines(overall["report"])
    elif len(overall["binary"]) <= _FEW:
        lines += [f"{name}: TPR {_with_exact(one['all']['tpr'])}, precision {_with_exact(one['all']['precision'])}, "
                  f"accuracy {_with_exact(one['all']['accuracy'])} at P_th = {overall['threshold']:g}"
                  for name, one in overall["binary"].items()]
    if calibration:
        before, after = (_with_interval(calibration[when]["ece"]) for when in ("before", "after"))
        lines.append(f"temperature {calibration['temperature']:g}: expected calibration error {before} before, "
                     f"{after} after")
    return lines


def _report_lines(report: dict[str, Any]) -> list[str]:
    """Return the classification report as a table."""
    from catmorph.release.text import text_table

    rows: list[tuple[object, ...]] = [
        (name, *(_decimals(one[key]["value"]) for key in ("precision", "recall", "f1")), one["support"])
        for name, one in report["classes"].items()
    ]
    rows += [(f"{name} average", *(_decimals(one[key]) for key in ("precision", "recall", "f1")), one["support"])
             for name, one in report["averages"].items()]
    return text_table(("class", "precision", "recall", "F1", "support"), rows)


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_exact(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return f"undefined ({record['reason']})"
    return f"{record['value']:.4f} " + "[{:.4f}, {:.4f}]".format(*record["exact"])


def _with_interval(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return f"undefined ({record['reason']})"
    text = f"{record['value']:.4f}"
    return text if record["interval"] is None else text + " [{:.4f}, {:.4f}]".format(*record["interval"])
