"""The labelled stamps that a recipe describes, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from catmorph.errors import CatalogError, UsageError, listed
from catmorph.labels.files import labelled_stamp_files
from catmorph.labels.positions import positioned_labels
from catmorph.labels.rules import check_rules
from catmorph.labels.shards import labelled_shards
from catmorph.labels.sources import column_labels, rule_labels
from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.surveyed import with_survey
from catmorph.labels.tables import SUM_TOLERANCE, LabelTable, read_labels
from catmorph.recipe import Recipe
from catmorph.schemes import Scheme, load_scheme
from catmorph.workspace import RunFolder


def check_labels(recipe: Recipe) -> None:
    """Read the label table, so that what is wrong with it is told before stamps are cut.

    Labels that the sources carry are not looked at: the survey table may not be read in yet.

    Raises
    ------
    CatalogError
        As `catmorph.labels.tables.read_labels`, and when there is no label in it.
    UsageError
        When ``labels.rules`` or ``labels.answers`` do not fit the scheme.
    """
    section, scheme = recipe.labels, load_scheme(recipe.scheme)
    check_rules(section, scheme)
    if section.table is not None and not len(read_labels(section.table, scheme, section)):
        raise CatalogError("holds no labels", where=section.table)


def labelled_stamps(run: RunFolder) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps that have a label, and what was left over, a line each.

    They come from the files of ``labels.stamp_files`` where the recipe names such, else from the shards of `run`.

    Raises
    ------
    UsageError
        When the recipe names no labels.
    CatmorphError
        When a shard is missing or the label table does not fit.
    """
    section, scheme = run.recipe.labels, load_scheme(run.recipe.scheme)
    if section.table is None and not section.from_sources:
        raise UsageError("the recipe names no label table",
                         hint="set labels.table, or labels.class_column or labels.rules for labels of the sources")
    if section.stamp_files is not None:
        if section.table is None:
            raise UsageError("labels.stamp_files needs a label table that names them", hint="set labels.table")
        table = read_labels(section.table, scheme, section)
        data, left_over = labelled_stamp_files(run.recipe, table)
        if run.recipe.evaluation.needs_columns and run.sources_path().exists():
            data, lost = with_survey(run, data)
            left_over += lost
        tables = [table]
    else:
        tables = list(label_tables(run, scheme))
        data, left_over = labelled_shards(run, tables)
    return data, [*(line for table in tables for line in table.report()), *left_over, *_off_tree(data, scheme)]


def label_tables(run: RunFolder, scheme: Scheme) -> Iterator[LabelTable]:
    """Yield the tables of labels; a stamp has the label of the first that names it."""
    section = run.recipe.labels
    if section.table is not None:
        yield positioned_labels(run, scheme) if section.ra is not None else read_labels(section.table, scheme, section)
    elif section.class_column:
        yield column_labels(run, scheme)
    if section.rules:
        yield rule_labels(run, scheme)


def _off_tree(data: LabelledStamps, scheme: Scheme) -> list[str]:
    """Return a line where labels disobey the tree of the scheme, whose network cannot answer like them."""
    if scheme.kind != "tree" or scheme.tree is None:
        return []
    off = np.abs(scheme.tree.sums(data.fractions) - scheme.tree.expected_sums(data.fractions)) > SUM_TOLERANCE
    rows = np.flatnonzero(off.any(axis=1))
    if not len(rows):
        return []
    names = listed(data.called[rows])
    return [f"{len(rows)} labels do not obey the tree of scheme {scheme.name!r} within {SUM_TOLERANCE}: {names}; "
            "`catmorph labels report` tells the questions"]
