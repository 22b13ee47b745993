"""Labels that are given by position on the sky instead of by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catmorph.errors import CatalogError
from catmorph.labels.chosen import left_out
from catmorph.labels.classes import Labelled
from catmorph.labels.reading import Cells, read_cells
from catmorph.labels.sources import read_all_sources, source_names
from catmorph.labels.tables import SOURCE_NAME, LabelTable, label_table, read_rows, row_names
from catmorph.recipe import LabelsSection
from catmorph.schemes import Scheme
from catmorph.sources import columns as cells_to
from catmorph.sources.inputs import told_of
from catmorph.sources.sky_match import match_sky
from catmorph.workspace import RunFolder

NEARER = "another label is nearer to its source"


def positioned_labels(run: RunFolder, scheme: Scheme) -> LabelTable:
    """Return the labels of ``labels.table``, each with the source next to it on the sky (``labels.ra`` and ``dec``).

    Label and source are one to one, by rising separation; a label without a source is left out. Labels that the recipe
    does not choose (too few votes, no agreement) take no source.

    Raises
    ------
    CatalogError
        When the table cannot be read, or no label is near a source.
    """
    section, path = run.recipe.labels, Path(run.recipe.labels.table or "")
    cells = read_cells(path, section)
    sources = read_all_sources(run, ["field", "id", "ra", "dec"])
    chosen = label_table(path, row_names(cells.count), _rows_with_positions(cells, scheme, section), scheme, section)
    rows = np.array([int(name.removeprefix("row ")) - 1 for name in chosen.names], dtype=np.int64)
    ra, dec, _ = positions(cells, section)
    match = match_sky((ra[rows], dec[rows]), (sources["ra"].to_numpy(), sources["dec"].to_numpy()),
                      section.match_radius_arcsec)  # fmt: skip
    found = match.rows >= 0
    if not found.any():
        raise CatalogError(f"none of {len(rows)} labels has a source within {section.match_radius_arcsec:g} arcsec",
                           where=path, hint="check labels.ra, dec, frame and match_radius_arcsec")
    reasons = np.full(len(rows), None, dtype=object)
    reasons[~found] = f"no source within {section.match_radius_arcsec:g} arcsec"
    reasons[match.contested] = NEARER
    several = int((match.within[found] > 1).sum())
    apart = np.sort(match.separation_arcsec[found])
    notes = [f"{found.sum()} labels matched to sources by position, median separation {np.median(apart):.3f} arcsec, "
             f"largest {apart[-1]:.3f}"]  # fmt: skip
    if several:
        notes.append(f"{several} of them have several sources within {section.match_radius_arcsec:g} arcsec")
    names = source_names(sources)[match.rows[found]]
    return LabelTable(
        path, tuple(names), chosen.fractions[found], None if chosen.votes is None else chosen.votes[found],
        (*chosen.left_out, *left_out(reasons, np.array(chosen.names, dtype=object))), SOURCE_NAME, tuple(notes),
    )  # fmt: skip


def positions(cells: Cells, section: LabelsSection) -> tuple[np.ndarray, np.ndarray, cells_to.Reasons]:
    """Return right ascension and declination of the labels (ICRS, degrees, row), NaN where bad, and why they are."""
    reasons = cells_to.Reasons(cells.count)
    degrees = []
    for key, column in (("ra", section.ra), ("dec", section.dec)):
        assert column is not None, "the recipe gives both or none"
        values = cells.values(column.column, f"labels.{key}")
        with told_of("labels"):
            degrees.append(cells_to.angle(values, column.unit, column.null, key=key, reasons=reasons))
    ra, dec = cells_to.to_icrs(degrees[0], degrees[1], section.frame, reasons)
    return ra, dec, reasons


def _rows_with_positions(cells: Cells, scheme: Scheme, section: LabelsSection) -> Labelled:
    rows = read_rows(cells, scheme, section)
    _, _, bad = positions(cells, section)
    reasons = rows.reasons.copy()
    reasons[bad.bad] = "no position"
    if bad.bad.all() and cells.count:
        row = int(np.flatnonzero(bad.bad)[0])
        raise CatalogError(f"no label has a position, row {row + 1}: "
                           + bad.texts[row].replace("catalog.", "labels."), where=cells.path,
                           hint="check labels.ra and labels.dec")
    return Labelled(rows.fractions, rows.votes, reasons)
