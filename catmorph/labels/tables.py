"""Label tables: vote fractions of stamps, one row a stamp, and which stamps they belong to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from catmorph.errors import SHOWN, CatalogError, listed, suggest
from catmorph.labels.cells import plain_cell
from catmorph.labels.chosen import LeftOutRows, choose, left_out
from catmorph.labels.classes import UNKNOWN, Labelled, class_numbers, folded, from_classes
from catmorph.labels.reading import Cells, read_cells, refuse
from catmorph.recipe import LabelsSection
from catmorph.schemes import Scheme, load_scheme
from catmorph.templates import fill

SUM_TOLERANCE = 0.01
"""Fractions printed with two decimals miss 1 by up to this."""
MOST_VOTES = 1e9
"""More than any survey had; numbers whose squares are infinite would spoil every mean."""
SOURCE_NAME = "{field}/{id}"
"""What a label of a source is called, which counts for all of its stamps."""


@dataclass(frozen=True)
class LabelTable:
    """A label table.

    Attributes
    ----------
    path : Path
        Its file; of labels from the sources' own columns the file of the sources.
    names : tuple of str (n,)
        Names of stamps by `pattern`.
    fractions : ndarray of float32, shape (n, class)
        In the scheme's order.
    votes : ndarray of float64, shape (n,), or None
    left_out : tuple of LeftOutRows
        The rows that are no labels.
    pattern : str, optional
        How names are made of {field}, {id} and {view}; None: as ``labels.stamp`` says.
    notes : tuple of str
        What else the user should know.
    """

    path: Path
    names: tuple[str, ...]
    fractions: np.ndarray
    votes: np.ndarray | None
    left_out: tuple[LeftOutRows, ...] = ()
    pattern: str | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def report(self) -> list[str]:
        """Return a line for each reason why rows are no labels, and for what else is to be said."""
        return [*(one.line() for one in self.left_out), *self.notes]


@dataclass(frozen=True)
class LabelMatch:
    """Which stamp has which label.

    `stamps` and `labels` are row numbers, pairwise; the two counts are of those left over, with the names of
    the first five.
    """

    stamps: np.ndarray
    labels: np.ndarray
    labels_without_stamp: int
    stamps_without_label: int
    first_labels: tuple[str, ...]
    first_stamps: tuple[str, ...]

    def report(self) -> list[str]:
        """Return one line for each kind of left-over, none where everything matched."""
        kinds = (
            (self.labels_without_stamp, "labels have no stamp", self.first_labels),
            (self.stamps_without_label, "stamps have no label", self.first_stamps),
        )
        return [
            f"{count} {what}: {listed(names, count)}"
            for count, what, names in kinds
            if count
        ]


def read_labels(
    path: str | os.PathLike[str],
    scheme: Scheme,
    section: LabelsSection | None = None,
    *,
    id_column: str | int | None = None,
    votes_column: str | int | None = None,
) -> LabelTable:
    """Read a label table: columns of vote fractions, which are the `label` names of the classes, or classes.

    A folded scheme reads tables of the scheme that it folds, too.

    Parameters
    ----------
    section : LabelsSection, optional
        How to read it and which rows become labels; default: a CSV table of fractions, all of them.
    id_column, votes_column : str or int, optional
        Columns to use instead of those of `section`.

    Raises
    ------
    CatalogError
        When the file or a column is missing, a column is there twice, a cell is no number from 0 to 1 or no class, a
        name occurs twice, or the fractions of classes that exclude each other do not sum to 1 within 0.01; the first
        five rows are named (the first row after the header is 1).
    """
    section = section or LabelsSection()
    given = {"id_column": id_column, "votes_column": votes_column}
    section = section.model_copy(update={key: value for key, value in given.items() if value is not None})
    cells = read_cells(Path(path), section)
    names = _stamps_named(cells, section) if section.ra is None else row_names(cells.count)
    return label_table(cells.path, names, read_rows(cells, scheme, section), scheme, section)


def _stamps_named(cells: Cells, section: LabelsSection) -> np.ndarray:
    names, shown = cells.text(section.id_column, "labels.id_column"), f"column {section.id_column!r}"
    refuse([name is None for name in names], f"{shown} is empty", cells.path)
    names = np.array([plain_cell(name) for name in names], dtype=object)
    refuse(pd.Series(names, dtype=object).duplicated(), f"{shown} repeats a name", cells.path)
    return names


def with_rows(section: LabelsSection | None, names: Sequence[str]) -> list[str]:
    """Return names of stamps with their rows in the label table, such as ``a_r_7 (row 12)``, for messages.

    Names that the table has not, or whose table cannot be read any more, stay as they are.
    """
    rows: dict[str | None, int] = {}
    if section is not None and section.table is not None and section.ra is None:
        with suppress(CatalogError):
            named = read_cells(Path(section.table), section).text(section.id_column, "labels.id_column")
            rows = {name and plain_cell(name): row for row, name in enumerate(named, start=1)}
    return [f"{name} (row {rows[name]})" if name in rows else str(name) for name in names]


def row_names(count: int) -> np.ndarray:
    """Return names for rows without one: row 1, row 2 ..., objects (row,)."""
    return np.array([f"row {number}" for number in range(1, count + 1)], dtype=object)


def label_table(
    path: Path, names: np.ndarray, rows: Labelled, scheme: Scheme, section: LabelsSection, pattern: str | None = None
) -> LabelTable:
    """Return the table of those `rows` that become labels by the recipe, called `names` (n,)."""
    chosen = choose(rows, scheme, section)
    kept = chosen.kept
    table = LabelTable(
        path, tuple(names[kept]), chosen.fractions[kept].astype(np.float32),
        None if chosen.votes is None else chosen.votes[kept], left_out(chosen.reasons, names), pattern,
    )  # fmt: skip
    if not len(table) and len(names):
        reasons = "; ".join(f"{one.count} {one.reason}" for one in table.left_out)
        raise CatalogError(f"none of {len(names)} rows is a label: {reasons}", where=path,
                           hint="check labels.class_column, answers, rules and minimum_agreement")
    return table


def read_rows(cells: Cells, scheme: Scheme, section: LabelsSection) -> Labelled:
    """Return the labels of all rows of a table, as fractions of the scheme's classes, before any is chosen."""
    rows = _class_rows(cells, scheme, section) if section.class_column else _fraction_rows(cells, scheme)
    if section.votes_column is None:
        return rows
    votes = _numbers(cells, section.votes_column, "labels.votes_column", upper=MOST_VOTES)
    return Labelled(rows.fractions, votes, rows.reasons)


def _class_rows(cells: Cells, scheme: Scheme, section: LabelsSection) -> Labelled:
    if scheme.kind != "softmax":
        raise CatalogError(f"a column of classes cannot answer scheme {scheme.name!r}, whose answers do not exclude "
                           "each other", where=cells.path, hint="give a column of fractions for each answer")
    columns = [cells.text(name, "labels.class_column") for name in section.class_column]
    numbers = class_numbers(columns, scheme, section.answers)
    for place, name in enumerate(section.class_column):
        unknown = numbers[:, place] == UNKNOWN
        if unknown.any():
            text = columns[place][unknown.argmax()]
            refuse(unknown, f"column {name!r} holds {text!r}, or such entries, which are no class of scheme "
                   f"{scheme.name!r} ({suggest(str(text), scheme.class_names)}; labels.answers may give them one, or "
                   "'' to leave them out),", cells.path)
    return from_classes(numbers, scheme)


def _fraction_rows(cells: Cells, scheme: Scheme) -> Labelled:
    fold = scheme.fold is not None and not all(one.label in cells.names for one in scheme.classes)
    of = load_scheme(scheme.fold.scheme) if scheme.fold is not None and fold else scheme
    columns = [one.label for one in of.classes]
    fractions = np.stack([_numbers(cells, column, "labels", upper=1.0) for column in columns], axis=1)
    if of.kind == "softmax":
        wrong = np.abs(fractions.sum(axis=1) - 1.0) > SUM_TOLERANCE + 1e-9
        refuse(wrong, f"the fractions ({', '.join(columns)}) do not sum to 1 within {SUM_TOLERANCE}", cells.path)
        fractions = fractions / fractions.sum(axis=1, keepdims=True)
    return folded(fractions, scheme) if fold else Labelled(fractions, None, np.full(len(fractions), None, dtype=object))


def stamp_names(pattern: str, fields: Sequence[str], ids: Sequence[str], views: Sequence[str]) -> list[str]:
    """Return the names that the label table gives to stamps, from a pattern of {field}, {id} and {view}."""
    rows = zip(fields, ids, views, strict=True)
    return [fill(pattern, {"field": str(a), "id": str(b), "view": str(c)}) for a, b, c in rows]


def match_labels(table: LabelTable, names: Sequence[str]) -> LabelMatch:
    """Find the label of each stamp called `names`; stamps keep their order.

    Raises
    ------
    CatalogError
        When no stamp has a label, with an example of both kinds of names.
    """
    if not len(table):
        raise CatalogError("holds no labels", where=table.path)
    rows = {name: row for row, name in enumerate(table.names)}
    found = [(stamp, rows[name]) for stamp, name in enumerate(names) if name in rows]
    if not found:
        example = names[0] if len(names) else "none"
        raise CatalogError(
            f"no label fits a stamp: labels are named like {table.names[0]!r}, "
            f"stamps like {example!r}",
            where=table.path,
            hint="set labels.stamp",
        )
    stamps, labels = (np.array(part, dtype=np.int64) for part in zip(*found, strict=True))
    known = set(names)
    left_labels = [name for name in table.names if name not in known]
    left_stamps = [name for name in names if name not in rows]
    return LabelMatch(
        stamps, labels, len(left_labels), len(left_stamps), tuple(left_labels[:SHOWN]), tuple(left_stamps[:SHOWN])
    )


def _numbers(cells: Cells, name: str | int, key: str, *, upper: float) -> np.ndarray:
    values = pd.to_numeric(pd.Series(cells.text(name, key), dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    limit = "from 0 to 1" if upper == 1.0 else f"of 0 or more, at most {upper:.0e}"
    right = np.isfinite(values) & (values >= 0) & (values <= upper)
    refuse(~right, f"column {name!r} is no number {limit}", cells.path)
    return values
