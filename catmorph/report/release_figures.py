"""Figures of a whole release: its sources by colour and magnitude, with the classes that were predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from catmorph.files import write_bytes
from catmorph.release.layout import Key
from catmorph.release.results import read_results
from catmorph.report.colours import Points, classes_of, draw_colours
from catmorph.schemes import load_scheme
from catmorph.sources.regions import Columns, source_columns
from catmorph.workspace import RunFolder, safe_name


def draw_release(run: RunFolder) -> list[Path]:
    """Draw what ``evaluation.colour_magnitude`` and ``evaluation.pairs`` ask for, of all released sources.

    Each classifier and view has figures of its own, PNG and PDF, in release/figures/.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    RecipeError
        When an expression names a column that there is not.
    CatmorphError
        When logits are missing.
    """
    columns, predicted = _read(run)
    files = []
    for key, classes in predicted.items():
        scheme = load_scheme(run.recipe.classifier_scheme(key.classifier))
        titles = classes_of(scheme, np.empty((0, len(scheme.classes))))[1]
        suffix = f"-{safe_name(key.classifier)}-{safe_name(key.view)}" if len(predicted) > 1 else ""
        for one in draw_colours(Points(columns, classes, titles), run.recipe.evaluation, suffix):
            for ending, content in (("png", one.png), ("pdf", one.pdf)):
                path = run.release_folder() / "figures" / f"{one.key}.{ending}"
                write_bytes(path, content)
                files.append(path)
    return files


def _read(run: RunFolder) -> tuple[Columns, dict[Key, np.ndarray]]:
    """Return the columns of the released sources, and the class that each classifier predicts for them in each view."""
    tables: list[pa.Table] = []
    found: dict[Key, list[np.ndarray]] = {}
    for result in read_results(run):
        tables.append(result.sources.filter(pa.array(result.released)))
        for key, view in result.views.items():
            scheme = load_scheme(run.recipe.classifier_scheme(key.classifier))
            found.setdefault(key, []).append(classes_of(scheme, view.probabilities[result.released])[0])
    columns = source_columns(pa.concat_tables(tables)) if tables else {}
    return columns, {key: np.concatenate(parts) for key, parts in found.items()}
