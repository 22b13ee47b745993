"""What the labels of many answers look like: their distributions and how they go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from catmorph.evaluation.metrics import rounded

BINS = 25
"""Bins of the histograms of labels, of equal width from 0 to 1."""


def label_statistics(labels: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, Any]:
    """Return histograms and correlations of vote fractions.

    Parameters
    ----------
    labels : mapping of str to ndarray, shape (n, class)
        Subset -> vote fractions; correlations are those of the first.

    Returns
    -------
    dict
        ``histograms``: ``bins``, and in ``subsets`` for each subset the number of stamps and the counts of each class,
        lowest bin first. ``correlation``: ``subset``, ``stamps``, ``classes`` and ``matrix``, Pearson's coefficients of
        all pairs of classes, None where a class always has the same fraction.
    """
    first = next(iter(labels))
    counts = {
        name: {"stamps": len(values), "counts": {one: histogram(values[:, i]).tolist() for i, one in enumerate(names)}}
        for name, values in labels.items()
    }
    matrix = [[None if np.isnan(value) else value for value in row] for row in correlation(labels[first]).tolist()]
    return rounded({
        "histograms": {"bins": BINS, "subsets": counts},
        "correlation": {"subset": first, "stamps": len(labels[first]), "classes": list(names), "matrix": matrix},
    })


def histogram(values: np.ndarray) -> np.ndarray:
    """Count values from 0 to 1 in `BINS` bins; 1 is in the last."""
    # Fractions in float32 may miss an edge by a rounding.
    number = np.clip((np.asarray(values, np.float64) * BINS + 1e-6).astype(np.int64), 0, BINS - 1)
    return np.bincount(number, minlength=BINS)


def correlation(fractions: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each pair of classes, shape (class, class); NaN where one does not vary."""
    values = np.asarray(fractions, np.float64)
    if not len(values):
        return np.full((values.shape[1], values.shape[1]), np.nan)
    centred = values - values.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    size[size < 1e-6 * np.sqrt(len(values))] = np.nan
    return np.clip((centred.T @ centred) / np.outer(size, size), -1, 1)
