"""The labels of stamps, from one table or from several of which the first counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catmorph.errors import CatalogError, listed
from catmorph.labels.tables import LabelTable, match_labels, stamp_names

DIFFERENT = 0.5
"""Two labels of which one class differs by more contradict each other."""


@dataclass(frozen=True)
class StampLabels:
    """Labels of stamps.

    Attributes
    ----------
    stamps : ndarray of int, shape (k,)
        The stamps that have one, in their order.
    fractions : ndarray of float32, shape (k, class)
    votes : ndarray of float64, shape (k,), or None
        None where a table does not know them.
    left_over : list of str
        A line for each kind of label or stamp that found no other, with the first five.
    """

    stamps: np.ndarray
    fractions: np.ndarray
    votes: np.ndarray | None
    left_over: list[str]


def stamp_labels(
    tables: Sequence[LabelTable], pattern: str, fields: Sequence[str], ids: Sequence[str], views: Sequence[str]
) -> StampLabels:
    """Find the label of each stamp, given by its field, id and view: that of the first table that names it.

    Parameters
    ----------
    pattern : str
        ``labels.stamp``, for tables without a pattern of their own.

    Raises
    ------
    CatalogError
        When no stamp has a label.
    """
    if len(tables) == 1:
        table = tables[0]
        match = match_labels(table, stamp_names(table.pattern or pattern, fields, ids, views))
        votes = None if table.votes is None else table.votes[match.labels]
        return StampLabels(match.stamps, table.fractions[match.labels], votes, match.report())
    return _joined(tables, pattern, (fields, ids, views))


def _joined(
    tables: Sequence[LabelTable], pattern: str, stamps: tuple[Sequence[str], Sequence[str], Sequence[str]]
) -> StampLabels:
    shape = (len(stamps[0]), tables[0].fractions.shape[1])
    fractions, votes = np.full(shape, np.nan, np.float32), np.full(shape[0], np.nan)
    left_over, differing = [], np.zeros(shape[0], dtype=bool)
    for table in tables:
        names = stamp_names(table.pattern or pattern, *stamps)
        rows = {name: row for row, name in enumerate(table.names)}
        label = np.array([rows.get(name, -1) for name in names], dtype=np.int64)
        here, before = label >= 0, ~np.isnan(fractions[:, 0])
        both, new = here & before, here & ~before
        differing[both] |= np.abs(fractions[both] - table.fractions[label[both]]).max(axis=1) > DIFFERENT
        fractions[new] = table.fractions[label[new]]
        votes[new] = np.nan if table.votes is None else table.votes[label[new]]
        known = set(names)
        left_over += _line("labels have no stamp", [name for name in table.names if name not in known])
    found = ~np.isnan(fractions[:, 0])
    if not found.any():
        raise CatalogError(f"no label fits a stamp: labels are named like {tables[0].names[0]!r}, stamps like "
                           f"{stamp_names(pattern, *stamps)[:1]}", where=tables[0].path, hint="set labels.stamp")
    called = np.array(stamp_names("{field}_{view}_{id}", *stamps))
    left_over += _line("stamps have no label", called[~found].tolist())
    left_over += _line("stamps have another label by rule than in the table, which counts", called[differing].tolist())
    whole = votes[found] if not np.isnan(votes[found]).any() else None
    return StampLabels(np.flatnonzero(found), fractions[found], whole, left_over)


def _line(what: str, names: list[str]) -> list[str]:
    return [f"{len(names)} {what}: {listed(names)}"] if names else []
