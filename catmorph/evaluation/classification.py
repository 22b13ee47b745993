"""The classification report of classes that exclude each other, and of one yes/no question at a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from catmorph.evaluation.curves import sklearn_metrics
from catmorph.release.intervals import exact

Record = dict[str, Any]

ANSWERS = ("no", "yes")
"""The two classes of a yes/no question, in the order of its report."""
_AVERAGES = ("macro", "weighted")


def classification_report(
    human: np.ndarray, model: np.ndarray, names: Sequence[str], confidence: float = 0.95
) -> Record:
    """Return precision, recall, F1 and support of each class, their averages, and the accuracy.

    Parameters
    ----------
    human, model : ndarray of int, shape (n,)
        Index of each stamp's class, as people and as the network say.
    names : sequence of str
        Names of the classes, in the order of the indices.
    confidence : float
        Level of the intervals.

    Returns
    -------
    dict
        ``classes``: of each class ``precision`` and ``recall`` (``value``, ``count``, ``of`` and ``exact``, the
        interval of Clopper & Pearson 1934), ``f1`` and ``support``, the stamps that people put there.
        ``averages``: ``macro`` and ``weighted`` (by support), as scikit-learn's ``classification_report``: over the
        classes that people or the network name, an undefined precision or recall counting as 0.
        ``accuracy`` is a proportion too. What has no denominator has the value None and a ``reason``.
    """
    human, model = np.asarray(human), np.asarray(model)
    tool, labels = sklearn_metrics(), np.arange(len(names))
    counts = np.bincount(human * len(names) + model, minlength=len(names) ** 2).reshape(len(names), len(names))
    right, voted, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    # scikit-learn refuses to look at no stamps.
    scores = (tool.precision_recall_fscore_support(human, model, labels=labels, zero_division=0.0)[2] if len(human)
              else np.zeros(len(names)))
    found: Record = {"stamps": len(human), "classes": {}}
    for index, name in enumerate(names):
        occurs = bool(voted[index] or predicted[index])
        found["classes"][name] = {
            "precision": proportion(right[index], predicted[index], confidence, "no stamp is predicted to be of it"),
            "recall": proportion(right[index], voted[index], confidence, "no stamp is of it by the votes"),
            "f1": {"value": float(scores[index])} if occurs else _undefined("no stamp is of it, as voted or predicted"),
            "support": int(voted[index]),
        }
    found["averages"] = {average: _average(human, model, average) for average in _AVERAGES}
    found["accuracy"] = proportion(right.sum(), len(human), confidence, "no stamps")
    return found


def _average(human: np.ndarray, model: np.ndarray, average: str) -> Record:
    if not len(human):
        return {"precision": None, "recall": None, "f1": None, "support": 0}
    tool = sklearn_metrics()
    values = tool.precision_recall_fscore_support(human, model, average=average, zero_division=0.0)[:3]
    named = zip(("precision", "recall", "f1"), values, strict=True)
    return {**{name: float(value) for name, value in named}, "support": len(human)}


def question_report(human: np.ndarray, model: np.ndarray, confidence: float = 0.95) -> Record:
    """Return how well a yes/no question is answered.

    Parameters
    ----------
    human, model : ndarray of bool, shape (n,)
        Where people and where the network say yes.
    confidence : float
        Level of the intervals (Clopper & Pearson 1934).

    Returns
    -------
    dict
        The four counts; ``tpr`` (the true positive rate, or completeness), ``specificity``, ``precision`` and
        ``accuracy`` as proportions (Dominguez Sanchez et al. 2019, Table 2, prints the first, third and fourth);
        ``positives``, the stamps that people say yes to, of ``stamps``.
    """
    human, model = np.asarray(human, bool), np.asarray(model, bool)
    found: Record = outcomes(human, model)
    tp, fp, fn, tn = (found[name] for name in ("true_positive", "false_positive", "false_negative", "true_negative"))
    return found | {
        "stamps": len(human),
        "positives": tp + fn,
        "tpr": proportion(tp, tp + fn, confidence, "people say yes to no stamp"),
        "specificity": proportion(tn, tn + fp, confidence, "people say yes to every stamp"),
        "precision": proportion(tp, tp + fp, confidence, "the network says yes to no stamp"),
        "accuracy": proportion(tp + tn, len(human), confidence, "no stamps"),
    }


def outcomes(human: np.ndarray, model: np.ndarray) -> dict[str, int]:
    """Count true and false positives and negatives; booleans of one shape, `human` the truth."""
    pairs = {
        "true_positive": human & model, "false_positive": ~human & model,
        "false_negative": human & ~model, "true_negative": ~human & ~model,
    }
    return {name: int(np.count_nonzero(value)) for name, value in pairs.items()}


def proportion(count: int, of: int, confidence: float, reason: str) -> Record:
    """Return `count` out of `of` with its interval (Clopper & Pearson 1934), or None and why it is undefined."""
    count, of = int(count), int(of)
    if not of:
        return {**_undefined(reason), "count": count, "of": of, "exact": None}
    return {"value": count / of, "count": count, "of": of, "exact": list(exact(count, of, confidence) or ())}


def _undefined(reason: str) -> Record:
    return {"value": None, "reason": reason}
