"""How well predicted probabilities match human vote fractions; arrays are (stamp, class)."""

from __future__ import annotations

from typing import Any

import numpy as np

from catmorph.labels.chosen import ROUNDING
from catmorph.schemes import Form
from catmorph.schemes.tree import Tree

SMALLEST = 1e-7
"""Smallest probability in a logarithm: about what float32 tells from 1."""


def rmse(predicted: np.ndarray, fractions: np.ndarray) -> float:
    """Return the root of the mean square error over all stamps and classes."""
    return float(np.sqrt(np.mean(_squares(predicted, fractions))))


def authors_rmse(predicted: np.ndarray, fractions: np.ndarray) -> float:
    """Return each stamp's RMSE over its classes, averaged over the stamps.

    This is what the training code of Perez-Carrasco et al. (2019) computes; the paper's numbers do not say
    which of the two they are. It is never larger than `rmse`.
    """
    return float(np.mean(np.sqrt(np.mean(_squares(predicted, fractions), axis=1))))


def rmse_by_class(predicted: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the root mean square error over the stamps for each class, shape (class,)."""
    return np.sqrt(np.mean(_squares(predicted, fractions), axis=0))


def decided(values: np.ndarray) -> np.ndarray:
    """Return the number of the answer that each row of probabilities or vote fractions (n, class) gives, (n,).

    It is the largest, the first of equal ones; of a single yes/no question yes (1) from 1/2 on.
    """
    values = np.asarray(values)
    return (values[:, 0] >= 0.5).astype(np.int64) if values.shape[1] == 1 else np.argmax(values, axis=1)


def confusion(predicted: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Count stamps by what people (row) and the network (column) answer: see `decided`.

    Shape (class, class), of a single yes/no question (2, 2). Fig. 9 of Perez-Carrasco et al. (2019) is its transpose.
    """
    answers = max(fractions.shape[1], 2)
    pairs = decided(fractions) * answers + decided(predicted)
    return np.bincount(pairs, minlength=answers * answers).reshape(answers, answers)


def cross_entropy(predicted: np.ndarray, fractions: np.ndarray, kind: Form = "softmax") -> float:
    """Return the mean over the stamps of `cross_entropies`, in nats."""
    return float(np.mean(cross_entropies(predicted, fractions, kind)))


def cross_entropies(predicted: np.ndarray, fractions: np.ndarray, kind: Form = "softmax") -> np.ndarray:
    """Return each stamp's cross-entropy of the votes under the prediction, in nats, shape (n,).

    For classes that exclude each other -sum f ln p; for independent questions (``sigmoid``) the mean over the
    classes of -f ln p - (1 - f) ln(1 - p); for a tree the sum of its questions' cross-entropies, each times the
    fraction of its parent answer (`catmorph.schemes.tree.Tree.cross_entropies`). Probabilities below 1e-7 count
    as 1e-7, so that one sure mistake does not make the mean infinite.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    predicted = np.asarray(predicted, dtype=np.float64)
    if isinstance(kind, Tree):
        return kind.cross_entropies(predicted, fractions, SMALLEST)
    yes = np.log(np.maximum(predicted, SMALLEST))
    if kind == "softmax":
        return -np.sum(fractions * yes, axis=1)
    no = np.log(np.maximum(1 - predicted, SMALLEST))
    return -np.mean(fractions * yes + (1 - fractions) * no, axis=1)


def agreed(fractions: np.ndarray, agreement: float, kind: Form = "softmax") -> np.ndarray:
    """Tell where people agree: shape (n,) for classes that exclude each other, else (n, class).

    They agree where one class has a vote fraction of at least `agreement`; on an independent question, and on
    an answer of a tree, also where its fraction is at most ``1 - agreement``.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    if kind == "softmax":
        return fractions.max(axis=1) >= agreement - ROUNDING
    return np.maximum(fractions, 1 - fractions) >= agreement - ROUNDING


def ties(fractions: np.ndarray) -> int:
    """Count the stamps whose most voted class is not the only one with that fraction."""
    fractions = np.asarray(fractions, dtype=np.float64)
    best = fractions.max(axis=1, keepdims=True)
    return int(np.count_nonzero((fractions >= best - ROUNDING).sum(axis=1) > 1))


def mean_label(fractions: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of `fractions` as the same answer for `count` stamps: what a network must beat."""
    mean = np.mean(np.asarray(fractions, dtype=np.float64), axis=0)
    return np.broadcast_to(mean, (count, len(mean)))


def vote_noise(fractions: np.ndarray, votes: np.ndarray | float) -> tuple[float, float]:
    """Estimate the RMSE that the noise of the votes alone leaves even to a perfect prediction.

    With N votes, f (1 - f) / (N - 1) is an unbiased estimate of the variance of a fraction f.

    Parameters
    ----------
    votes : ndarray of shape (n,) or float
        Number of votes; rows with less than two say nothing of their noise and are left out.

    Returns
    -------
    floor, authors_floor : float
        By the definitions of `rmse` and `authors_rmse`; NaN where no row has two votes, and where nobody disagrees, as
        in labels that are modes: they do not show the noise of their votes.
    """
    fractions = np.asarray(fractions, dtype=np.float64)
    votes = np.broadcast_to(np.asarray(votes, dtype=np.float64), len(fractions))
    enough = votes >= 2
    if not enough.any():
        return float("nan"), float("nan")
    spread = fractions[enough] * (1 - fractions[enough]) / (votes[enough, None] - 1)
    if not spread.any():
        return float("nan"), float("nan")
    return float(np.sqrt(spread.mean())), float(np.sqrt(spread.mean(axis=1)).mean())


def summary(
    predicted: np.ndarray, fractions: np.ndarray, names: tuple[str, ...], votes: np.ndarray | None = None
) -> dict[str, Any]:
    """Return all of the above as plain numbers, rounded to six decimals, for a card or a JSON file.

    Where `votes` do not tell the noise floor it is left out. Of one question alone accuracy and confusion are those of
    no and yes.
    """
    matrix = confusion(predicted, fractions)
    baseline = mean_label(fractions, len(fractions))
    result: dict[str, Any] = {
        "stamps": len(fractions),
        "rmse": rmse(predicted, fractions),
        "rmse_authors": authors_rmse(predicted, fractions),
        "rmse_by_class": dict(zip(names, rmse_by_class(predicted, fractions).tolist(), strict=True)),
        "accuracy": float(np.trace(matrix) / max(matrix.sum(), 1)),
        "confusion": matrix.tolist(),
        "confusion_axes": "rows: people's no and yes, columns: the network's" if fractions.shape[1] == 1
        else "rows: most voted class, columns: most probable class",
        "mean_label_rmse": rmse(baseline, fractions),
        "mean_label_rmse_authors": authors_rmse(baseline, fractions),
    }
    floor, authors_floor = (np.nan, np.nan) if votes is None else vote_noise(fractions, votes)
    if np.isfinite(floor):
        result["vote_noise_rmse"], result["vote_noise_rmse_authors"] = floor, authors_floor
    return rounded(result)


def rounded(value: Any) -> Any:
    """Return `value` with every float, however deep in dicts and lists, rounded to six decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(float(value), 6) if isinstance(value, float) else value


def _squares(predicted: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    return np.square(np.asarray(predicted, dtype=np.float64) - np.asarray(fractions, dtype=np.float64))
