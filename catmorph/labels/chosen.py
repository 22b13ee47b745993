"""Which rows of a label table become labels, and what their labels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catmorph.errors import SHOWN, listed
from catmorph.labels.classes import Labelled
from catmorph.recipe import LabelsSection
from catmorph.schemes import Scheme
from catmorph.schemes.tree import Tree

ROUNDING = 1e-6
"""Fractions are kept in float32."""
TIED = "tied for most votes"


@dataclass(frozen=True)
class LeftOutRows:
    """Rows of a label table that are no labels: why, how many, and the names of the first."""

    reason: str
    count: int
    first: tuple[str, ...]

    def line(self) -> str:
        """Return them as a line for the user."""
        return f"{self.count} rows of the labels left out, {self.reason}: {listed(self.first, self.count)}"


def choose(rows: Labelled, scheme: Scheme, section: LabelsSection) -> Labelled:
    """Leave out what ``labels.minimum_agreement`` and ``labels.votes`` leave out, and make 0 and 1 of modes.

    `Labelled.reasons` says why; the first reason of a row stays.
    """
    reasons, fractions = rows.reasons.copy(), rows.fractions

    def leave_out(where: np.ndarray, reason: str) -> None:
        reasons[where & Labelled(fractions, None, reasons).kept] = reason

    if section.minimum_agreement is not None:
        if rows.votes is not None:
            leave_out(rows.votes < section.minimum_votes, f"fewer than {section.minimum_votes} votes")
        leave_out(~agreed(fractions, section.minimum_agreement, scheme),
                  f"no agreement above {section.minimum_agreement:g}")
    if section.votes == "mode":
        if scheme.kind == "softmax" and section.ties == "refuse":
            best = fractions.max(axis=1, keepdims=True)
            leave_out((fractions >= best - ROUNDING).sum(axis=1) > 1, TIED)
        fractions = mode(fractions, scheme)
    return Labelled(fractions, rows.votes, reasons)


def agreed(fractions: np.ndarray, agreement: float, scheme: Scheme) -> np.ndarray:
    """Tell where (n,) people agree: more than `agreement` of the votes (n, class) are for one class.

    Of independent questions, and of a tree's answers, each must have more than `agreement` or less than 1 minus it.
    Dominguez Sanchez et al. (2018, 2019) train with such labels, of P > 0.7 for one answer and five votes at least.
    """
    if scheme.kind == "softmax":
        return fractions.max(axis=1) > agreement + ROUNDING
    return (np.maximum(fractions, 1 - fractions) > agreement + ROUNDING).all(axis=1)


def mode(fractions: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return 1 for what most votes are for and 0 for the rest, (n, class): the first of equal ones."""
    if isinstance(scheme.form, Tree):
        return scheme.form.path_taken(fractions).astype(np.float64)
    if scheme.kind == "sigmoid":
        return (fractions >= 0.5 - ROUNDING).astype(np.float64)
    return np.eye(fractions.shape[1])[(fractions >= fractions.max(axis=1, keepdims=True) - ROUNDING).argmax(axis=1)]


def left_out(reasons: np.ndarray, names: np.ndarray) -> tuple[LeftOutRows, ...]:
    """Return the rows that have a reason, by reason, the most frequent first."""
    texts = sorted({reason for reason in reasons if reason is not None})
    found = []
    for text in texts:
        rows = np.flatnonzero(reasons == text)
        found.append(LeftOutRows(text, len(rows), tuple(names[row] for row in rows[:SHOWN])))
    return tuple(sorted(found, key=lambda one: (-one.count, one.reason)))
