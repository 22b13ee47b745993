"""The files of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catmorph.evaluation.groups import survey_columns
from catmorph.evaluation.votes import label_statistics
from catmorph.files import json_bytes, write_many
from catmorph.labels import LabelledStamps, Split
from catmorph.labels.split import SUBSETS, UNUSED
from catmorph.recipe import Recipe
from catmorph.release.cells import guarded, quoted
from catmorph.release.tally import Rules
from catmorph.schemes import Scheme, load_scheme

if TYPE_CHECKING:
    from catmorph.evaluation.examples import Examples
    from catmorph.report.colours import Points


@dataclass(frozen=True)
class Subset:
    """The rows of the data that are evaluated, what they are, and what is to be said of them.

    `seen` is whether the checkpoint is known to have been trained on, or chosen by, some of them.
    """

    name: str
    rows: np.ndarray
    note: str
    split: Split | None
    warnings: tuple[str, ...] = ()
    seen: bool = False


def write_all(
    folder: Path, document: dict[str, Any], data: LabelledStamps, chosen: Subset, logits: np.ndarray, recipe: Recipe
) -> tuple[Path, ...]:
    """Write all files into `folder`, or none where the disk is full; metrics.json comes last.

    Parameters
    ----------
    document : dict
        The content of metrics.json.
    data : LabelledStamps
        All of them; `chosen` says which are evaluated.
    logits : ndarray, shape (n, class)
        NaN for stamps that are not.
    """
    from catmorph.evaluation.figures import Shown, draw_all
    from catmorph.evaluation.page import html_page, markdown_page
    from catmorph.report.entropy import entropies_of

    scheme, part = load_scheme(recipe.scheme), data.take(chosen.rows)
    probabilities = scheme.probabilities(logits[chosen.rows])
    titles = tuple(one.title for one in scheme.classes)
    shown = Shown(document, probabilities, part.fractions, scheme.class_names, titles, scheme.form,
                  recipe.evaluation, _points(part, probabilities, recipe, scheme),
                  _examples(part, probabilities, recipe, scheme), _blocks(scheme),
                  entropies_of(scheme, probabilities, recipe.evaluation.threshold))
    columns = {"probability": probabilities}
    if document["calibration"]:
        columns["calibrated"] = scheme.probabilities(logits[chosen.rows] / document["calibration"]["temperature"])
    drawings = list(draw_all(shown))
    files: dict[Path, bytes] = {}
    for one in drawings:
        files[folder / "figures" / f"{one.key}.png"] = one.png
        files[folder / "figures" / f"{one.key}.pdf"] = one.pdf
    files[folder / "predictions.csv"] = _predictions(part, _subsets(chosen, len(data)), columns, scheme)
    files[folder / "evaluation.md"] = markdown_page(shown, drawings).encode()
    files[folder / "evaluation.html"] = html_page(shown, drawings).encode()
    files[folder / "metrics.json"] = json_bytes(document)
    write_many(files.items())
    return tuple(files)


def _points(data: LabelledStamps, probabilities: np.ndarray, recipe: Recipe, scheme: Scheme) -> Points | None:
    from catmorph.report.colours import Points, classes_of

    if not (recipe.evaluation.colour_magnitude or recipe.evaluation.pairs):
        return None
    predicted, titles = classes_of(scheme, probabilities, recipe.evaluation.threshold)
    return Points(survey_columns(data), predicted, titles, classes_of(scheme, data.fractions)[0])


def _examples(data: LabelledStamps, probabilities: np.ndarray, recipe: Recipe, scheme: Scheme) -> Examples | None:
    from catmorph.evaluation.examples import Examples
    from catmorph.report.colour import Palette, palette_for

    def palette(row: int) -> Palette:
        return palette_for(recipe, str(data.views[row]), data.top_of(row), inputs=True)

    if not recipe.evaluation.prototypes and not has_many_answers(scheme):
        return None
    merger = Rules.of(recipe, scheme).merger if has_many_answers(scheme) else None
    titles = tuple(one.title for one in scheme.classes)
    return Examples(data.inputs, palette, data.fractions, probabilities, stamp_names(data), scheme.class_names, titles,
                    merger)  # fmt: skip


def _blocks(scheme: Scheme) -> list[tuple[str, list[int]]]:
    """Return the questions of a scheme and the indices of their answers; without questions, one of all classes."""
    if not scheme.questions:
        return [("all classes", list(range(len(scheme.classes))))]
    return [(one.name.replace("_", " "), [scheme.index(name) for name in one.classes]) for one in scheme.questions]


def has_many_answers(scheme: Scheme) -> bool:
    """Whether labels are fractions of votes for several answers that do not exclude each other."""
    return scheme.kind != "softmax" and len(scheme.classes) > 1


def described_labels(data: LabelledStamps, chosen: Subset, scheme: Scheme) -> dict[str, Any] | None:
    """Return histograms and correlations of the labels, where there are many answers.

    Of the training and validation subsets, where a split is known and has them; else of all stamps.
    """
    if not has_many_answers(scheme):
        return None
    rows = {} if chosen.split is None else {name: getattr(chosen.split, name) for name in ("training", "validation")}
    labels = {name: data.fractions[part] for name, part in rows.items() if len(part)} or {"all": data.fractions}
    return label_statistics(labels, scheme.class_names)


def stamp_names(data: LabelledStamps) -> list[str]:
    """Return what files and messages call the stamps."""
    if data.names is not None:
        return [str(name) for name in data.names]
    return [f"{a}_{c}_{b}" for a, b, c in zip(data.fields, data.ids, data.views, strict=True)]


def _subsets(chosen: Subset, count: int) -> np.ndarray:
    found = np.full(count, UNUSED if chosen.split else "", dtype=object)
    for name in SUBSETS if chosen.split else ():
        found[getattr(chosen.split, name)] = name
    return found[chosen.rows]


def _predictions(
    data: LabelledStamps, subsets: np.ndarray, columns: dict[str, np.ndarray], scheme: Scheme
) -> bytes:
    """Return predictions.csv: a row a stamp; text that a spreadsheet would run has an apostrophe before it."""
    header = ["stamp", "field", "id", "view", "subset", "votes"]
    blocks = {"human": data.fractions, **columns}
    header += [f"{what}_{name}" for what in blocks for name in scheme.class_names]
    votes = [""] * len(data) if data.votes is None else [f"{value:g}" for value in data.votes]
    texts = zip(stamp_names(data), data.fields, data.ids, data.views, subsets, strict=True)
    numbers = np.concatenate(list(blocks.values()), axis=1)
    lines = [",".join(header)]
    for text, vote, row in zip(texts, votes, numbers, strict=True):
        cells = [quoted(guarded(str(one))) for one in text]
        lines.append(",".join([*cells, vote, *(f"{value:.6f}" for value in row)]))
    return ("\n".join(lines) + "\n").encode()
