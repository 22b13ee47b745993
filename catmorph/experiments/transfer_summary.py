"""What came of the experiment of two surveys: table, figures and page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catmorph.experiments.plan import TRANSFER_TABLE
from catmorph.experiments.summary import csv_bytes, markdown_long, plain
from catmorph.experiments.trainings import versions
from catmorph.experiments.transfer import NETWORKS
from catmorph.experiments.transfer_run import Answered
from catmorph.experiments.transfer_table import Tested, answers_csv, as_table, networks_of, notes, page_rows
from catmorph.files import write_bytes, write_json
from catmorph.release.text import markdown_table, markdown_text

TITLE = "A network of one survey in another"


def joint_folder(answered: Sequence[Answered]) -> Path:
    """Return where the table of several questions lies: that of one is the folder of its question."""
    first = answered[0].question.folder
    if len(answered) == 1:
        return first
    names = "+".join(one.question.target.name for one in answered)
    return first.parent.parent / names[:200] / first.name


def write_transfer(answered: Sequence[Answered], folder: Path) -> dict[str, Any]:
    """Write table.csv, table.md, answers.csv, roc.png and .pdf, false-positives.png, summary.md and summary.json.

    Returns
    -------
    dict
        The report, as plain values; without any result only the page is written.
    """
    networks = networks_of(answered)
    report: dict[str, Any] = {
        "experiment": TRANSFER_TABLE, "quick": answered[0].question.quick, "folder": str(folder),
        "questions": [one.question.target.name for one in answered],
        "networks": {"total": len(NETWORKS) * len(answered), "done": len(networks),
                     "failed": sum(len(one.failures) for one in answered)},
        "failures": {f"{one.question.target.name} ({network})": reason
                     for one in answered for network, reason in one.failures.items()},
        "rows": [], "notes": list(notes(answered)),
    }  # fmt: skip
    files = _products(networks, folder, report) if networks else []
    path = folder / "summary.md"
    write_bytes(path, ("\n".join(_page(answered, networks, report)) + "\n").encode())
    report["files"] = [str(one) for one in [*files, path, folder / "summary.json"]]
    write_json(folder / "summary.json", plain(report))
    return plain(report)


def _products(networks: Sequence[Tested], folder: Path, report: dict[str, Any]) -> list[Path]:
    from catmorph.experiments.transfer_figures import draw_false_positives, draw_roc

    table = as_table(networks)
    report["rows"] = table.astype(object).where(table.notna(), None).to_dict("records")
    contents = {
        "table.csv": csv_bytes(_safe(table)), "answers.csv": answers_csv(networks),
        "table.md": ("\n".join(markdown_table(*page_rows(networks))) + "\n").encode(),
    }  # fmt: skip
    for name, content in contents.items():
        write_bytes(folder / name, content)
    drawn = [*draw_roc(networks, folder / "roc"), draw_false_positives(networks, folder / "false-positives.png")]
    return [*(folder / name for name in contents), *drawn]


def _safe(table: pd.DataFrame) -> pd.DataFrame:
    from catmorph.release.cells import guarded

    texts = {name: table[name].map(guarded) for name in ("recipe", "question", "network")}
    return table.assign(**texts)


def _page(answered: Sequence[Answered], networks: Sequence[Tested], report: dict[str, Any]) -> Iterator[str]:
    yield f"# {TITLE}: {markdown_text(', '.join(one.question.title for one in answered))}"
    yield ""
    if answered[0].question.quick:
        yield "**This is the quick experiment: shorter trainings. Its numbers are not those of the full one.**"
        yield ""
    done = report["networks"]
    failed = f", {done['failed']} failed" if done["failed"] else ""
    yield f"`catmorph experiment {TRANSFER_TABLE}`: {done['done']} of {done['total']} networks{failed}."
    yield ""
    yield from (f"- {markdown_text(line)}" for one in answered for line in _settings(one))
    yield "- " + ", ".join(f"{name} {one}" for name, one in versions().items())
    yield ""
    if networks:
        confidence = 100 * answered[0].question.target.evaluation.confidence
        yield from markdown_table(*page_rows(networks))
        yield ""
        yield (f"At the probability named above; in brackets the exact binomial interval of {confidence:g}% (Clopper & "
               "Pearson 1934) over the test stamps. Blank: no stamp to count.")  # fmt: skip
        yield ""
        yield from (f"{markdown_long(line)}\n" for line in report["notes"])
        yield from ("![ROC curves](roc.png)", "", "![False positives](false-positives.png)")
    if report["failures"]:
        yield from ("", "## Failed trainings", "")
        yield from markdown_table(["network", "reason"], list(report["failures"].items()))


def _settings(answered: Answered) -> Iterator[str]:
    question = answered.question
    for recipe, section in ((question.source, question.source_section), (question.target, question.target_section)):
        yield (f"{recipe.name}: {section.model}, at most {section.epochs} epochs of {section.batches_per_epoch} "
               f"batches of {section.batch}, learning rate {section.learning_rate:g}, loss {section.loss}, class "
               f"weights {section.class_weights}, seed {section.seed}")  # fmt: skip
    yield (f"{question.target.name}: positive is {question.scheme.class_names[question.positive]} from probability "
           f"{question.target.experiments.threshold:g} on")  # fmt: skip
