"""Figures of a whole release: sources by colour and magnitude with their predicted classes, and by entropy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from catmorph.files import write_bytes
from catmorph.release.layout import Key
from catmorph.release.reading import read_results
from catmorph.report.colours import Points, draw_colours
from catmorph.report.entropy import Entropies, draw_entropies, entropies_of, joined
from catmorph.schemes import load_scheme
from catmorph.sources.regions import Columns, source_columns
from catmorph.workspace import RunFolder, safe_name


def draw_release(run: RunFolder, *, workers: int = 1) -> list[Path]:
    """Draw what ``evaluation.colour_magnitude``, ``pairs`` and ``entropy`` ask for, of all released sources.

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
    columns, found = _read(run, workers)
    files, section = [], run.recipe.evaluation
    for key, values in found.items():
        suffix = f"-{safe_name(key.classifier)}-{safe_name(key.view)}" if len(found) > 1 else ""
        drawings = list(draw_colours(Points(columns, values.predicted, values.titles), section, suffix))
        for one in [*drawings, *([draw_entropies(values, "sources", suffix)] if section.entropy else [])]:
            for ending, content in (("png", one.png), ("pdf", one.pdf)):
                path = run.release_folder() / "figures" / f"{one.key}.{ending}"
                write_bytes(path, content)
                files.append(path)
    return files


def _read(run: RunFolder, workers: int) -> tuple[Columns, dict[Key, Entropies]]:
    """Return the columns of the released sources, and what each classifier predicts for them in each view."""
    tables: list[pa.Table] = []
    found: dict[Key, list[Entropies]] = {}
    for result in read_results(run, workers=workers):
        tables.append(result.sources.filter(pa.array(result.released)))
        for key, view in result.views.items():
            scheme = load_scheme(run.recipe.classifier_scheme(key.classifier))
            found.setdefault(key, []).append(entropies_of(scheme, view.probabilities[result.released]))
    columns = source_columns(pa.concat_tables(tables)) if tables else {}
    return columns, {key: joined(parts) for key, parts in found.items()}
