"""What is measured of a network on labelled stamps, as plain numbers for a result file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from catmorph.evaluation.metrics import authors_rmse, decided, rmse, rounded, summary
from catmorph.labels import LabelledStamps
from catmorph.recipe import Recipe
from catmorph.schemes import Scheme

Logits = Callable[[np.ndarray], np.ndarray]
"""Normalised stamps (n, channel, y, x) -> logits (n, class)."""

STAMPS_AT_ONCE = 1024
EVERYTHING = "all"
"""The entry of `changes` that is of all stamps; no class is called so."""


def answers(scheme: Scheme) -> tuple[str, ...]:
    """Return the rows and columns of a confusion matrix: the classes; of a single yes/no question both answers."""
    names = scheme.class_names
    return names if len(names) > 1 else (f"not {names[0]}", names[0])


def metrics(predicted: np.ndarray, data: LabelledStamps, rows: np.ndarray, scheme: Scheme) -> dict[str, Any]:
    """Return what a checkpoint's card says of its test subset, for probabilities (n, class) of the stamps `rows`."""
    votes = None if data.votes is None else data.votes[rows]
    return summary(predicted, data.fractions[rows], scheme.class_names, votes)


def on_subset(logits: Logits, data: LabelledStamps, rows: np.ndarray, scheme: Scheme) -> dict[str, float]:
    """Return mean square error and accuracy of the stamps `rows`, unperturbed."""
    parts = [logits(np.asarray(data.inputs[part])) for part in np.array_split(rows, -(-len(rows) // STAMPS_AT_ONCE))]
    predicted, fractions = scheme.probabilities(np.concatenate(parts)), data.fractions[rows]
    return {"mse": round(rmse(predicted, fractions) ** 2, 8),
            "accuracy": round(float(np.mean(decided(predicted) == decided(fractions))), 6)}  # fmt: skip


def positives(fractions: np.ndarray, scheme: Scheme, positive: int) -> np.ndarray:
    """Tell which stamps people call positive, shape (n,): most votes for that class, or half of them where the classes
    do not exclude each other.
    """
    fractions = np.asarray(fractions)
    if scheme.kind == "softmax":
        return np.argmax(fractions, axis=1) == positive
    return fractions[:, positive] >= 0.5


def about_positive(
    predicted: np.ndarray, fractions: np.ndarray, rows: np.ndarray, scheme: Scheme, positive: int
) -> dict[str, list[Any]]:
    """Return of each test stamp its row in the data, the probability of the positive class, and what people say."""
    return {
        "rows": rows.tolist(), "probability": np.round(predicted[:, positive], 7).tolist(),
        "positive": positives(fractions, scheme, positive).astype(int).tolist(),
    }  # fmt: skip


def by_view(predicted: np.ndarray, data: LabelledStamps, rows: np.ndarray) -> dict[str, Any]:
    """Return both RMSEs of the stamps of each view among `rows`."""
    fractions, views = data.fractions[rows], np.asarray(data.views)[rows].astype(str)
    return {
        view: rounded({
            "stamps": int(np.count_nonzero(views == view)),
            "rmse": rmse(predicted[views == view], fractions[views == view]),
            "rmse_authors": authors_rmse(predicted[views == view], fractions[views == view]),
        })
        for view in sorted(set(views))
    }


def without_bands(
    logits: Logits, data: LabelledStamps, rows: np.ndarray, recipe: Recipe, scheme: Scheme
) -> list[dict[str, Any]]:
    """Return what is measured when one band of the stamps `rows` is set to zero, for each band in turn.

    Each entry has ``band``, ``metrics`` and ``changes`` (see `changes`). A band is zero in what the network sees, after
    normalisation, as that of a candidate without an image in it (Wei et al. 2020).
    """
    before = decided(scheme.probabilities(logits(np.asarray(data.inputs[rows]))))
    found = []
    for channel, band in enumerate(channel_names(recipe)):
        inputs = np.array(data.inputs[rows])
        inputs[:, channel] = 0.0
        predicted = scheme.probabilities(logits(inputs))
        human = decided(data.fractions[rows])
        found.append({
            "band": band, "metrics": metrics(predicted, data, rows, scheme),
            "changes": changes(human, before, decided(predicted), answers(scheme)),
        })  # fmt: skip
    return found


def changes(human: np.ndarray, before: np.ndarray, after: np.ndarray, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Count the stamps that are called as people do [both times, before only, after only, never].

    Returns
    -------
    dict
        By class of the people, and of all stamps (`EVERYTHING`).
    """
    def counted(rows: np.ndarray) -> list[int]:
        one, other = (before == human)[rows], (after == human)[rows]
        return [int(np.count_nonzero(cell)) for cell in (one & other, one & ~other, ~one & other, ~one & ~other)]

    found = {name: counted(human == number) for number, name in enumerate(names)}
    return {EVERYTHING: counted(np.ones(len(human), bool)), **found}


def channel_names(recipe: Recipe) -> tuple[str, ...]:
    """Return what the channels of a stamp are called: the band, or the bands of several views."""
    return tuple("/".join(dict.fromkeys(bands)) for bands in zip(*recipe.all_views.values(), strict=True))
