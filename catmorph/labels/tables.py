"""Label tables: vote fractions of stamps, one row a stamp, and which stamps they belong to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from catmorph.errors import CatalogError
from catmorph.labels.cells import find_column, plain_cell, refuse_no_file
from catmorph.schemes import Scheme
from catmorph.templates import fill

SUM_TOLERANCE = 0.01
"""Fractions printed with two decimals miss 1 by up to this."""
SHOWN = 5
"""Rows or names an error or report lists."""


@dataclass(frozen=True)
class LabelTable:
    """A label table: stamp names, fractions (n, class) float32 in the scheme's order, votes (n,) or None."""

    path: Path
    names: tuple[str, ...]
    fractions: np.ndarray
    votes: np.ndarray | None

    def __len__(self) -> int:
        return len(self.names)


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
            f"{count} {what}: {', '.join(names)}{' ...' if count > len(names) else ''}"
            for count, what, names in kinds
            if count
        ]


def read_labels(
    path: str | os.PathLike[str], scheme: Scheme, *, id_column: str = "ID", votes_column: str | None = None
) -> LabelTable:
    """Read a label table (CSV), whose columns are the `label` names of the scheme's classes.

    Raises
    ------
    CatalogError
        When the file or a column is missing, a column is there twice, a cell is no number from 0 to 1, a name
        occurs twice, or the fractions of a softmax scheme do not sum to 1 within 0.01; the first five rows are
        named (the first row after the header is 1).
    """
    path = Path(path)
    header, table = _read_csv(path)
    columns = [one.label for one in scheme.classes]
    for column in [id_column, *columns, *([votes_column] if votes_column else [])]:
        find_column(header, column, path)
    names = table[id_column].str.strip().map(plain_cell, na_action="ignore")
    _refuse(names.isna() | (names == ""), table, f"column {id_column!r} is empty", path)
    _refuse(names.duplicated(), table, f"column {id_column!r} repeats a name", path)
    fractions = np.stack([_numbers(table, column, path, upper=1.0) for column in columns], axis=1)
    if scheme.kind == "softmax":
        wrong = np.abs(fractions.sum(axis=1) - 1.0) > SUM_TOLERANCE + 1e-9
        _refuse(wrong, table, f"the fractions ({', '.join(columns)}) do not sum to 1 within {SUM_TOLERANCE}", path)
        fractions = fractions / fractions.sum(axis=1, keepdims=True)
    votes = _numbers(table, votes_column, path, upper=np.inf) if votes_column else None
    return LabelTable(path, tuple(names), fractions.astype(np.float32), votes)


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
    rows = {name: row for row, name in enumerate(table.names)}
    found = [(stamp, rows[name]) for stamp, name in enumerate(names) if name in rows]
    if not found:
        example = names[0] if len(names) else "none"
        raise CatalogError(
            f"no label fits a stamp: labels are named like {table.names[0] if len(table) else 'none'!r}, "
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


def _read_csv(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Return the header as it is in the file, and the table, where pandas renames columns that are there twice."""
    refuse_no_file(path)
    try:
        header = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#", skipinitialspace=True, header=None,
                             nrows=1)  # fmt: skip
        table = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#", skipinitialspace=True)
    except FileNotFoundError:
        raise CatalogError("no such label table", where=path) from None
    except (OSError, ValueError) as error:
        raise CatalogError(f"cannot be read as CSV: {error}", where=path) from error
    # pandas takes the first cells for an index, and everything moves.
    if not isinstance(table.index, pd.RangeIndex):
        raise CatalogError("the first row has more cells than the header", where=path, hint="name every column")
    return header.iloc[0].tolist(), table


def _numbers(table: pd.DataFrame, column: str, path: Path, *, upper: float) -> np.ndarray:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    limit = "from 0 to 1" if upper == 1.0 else "of 0 or more"
    right = np.isfinite(values) & (values >= 0) & (values <= upper)
    _refuse(~right, table, f"column {column!r} is no number {limit}", path)
    return values


def _refuse(wrong: np.ndarray | pd.Series, table: pd.DataFrame, what: str, path: Path) -> None:
    rows = np.flatnonzero(np.asarray(wrong))
    if len(rows):
        listed = ", ".join(str(row + 1) for row in rows[:SHOWN]) + (" ..." if len(rows) > SHOWN else "")
        raise CatalogError(f"{what} in {len(rows)} of {len(table)} rows: row {listed}", where=path)
