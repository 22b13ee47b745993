"""Everything that is said of a set of predictions, as plain numbers with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from catmorph.evaluation import metrics
from catmorph.evaluation.additive import (
    THRESHOLDS,
    Terms,
    additive_metrics,
    decisions,
    draw_sources,
    gap_signs,
    source_sums,
)
from catmorph.evaluation.classification import ANSWERS, classification_report, proportion, question_report
from catmorph.evaluation.curves import WeightedAreas, sklearn_metrics, undefined
from catmorph.evaluation.reliability import ece_of_votes, reliability
from catmorph.labels.chosen import ROUNDING
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.release.intervals import wilson
from catmorph.schemes import Form

FEWEST_SOURCES = 10
"""With fewer sources no bootstrap interval is given."""

Record = dict[str, Any]


def metrics_of(
    probabilities: np.ndarray,
    fractions: np.ndarray,
    names: Sequence[str],
    votes: np.ndarray | None = None,
    *,
    sources: np.ndarray | None = None,
    section: EvaluationSection | None = None,
    kind: Form = "softmax",
) -> Record:
    """Compare predicted probabilities with human vote fractions.

    Parameters
    ----------
    probabilities, fractions : ndarray, shape (n, class)
        From 0 to 1, without NaN; n is at least 1.
    names : sequence of str
        Names of the classes.
    votes : ndarray, shape (n,), optional
        Number of votes behind each row of fractions, for the floors that their noise sets.
    sources : ndarray, shape (n,), optional
        What each stamp's source is, in numbers or names: the bootstrap draws whole sources. Default: every
        stamp is a source of its own.
    section : EvaluationSection, optional
        Agreement, threshold, bins, confidence, resamples and seed; default: those of a recipe that says nothing.
    kind : {"softmax", "sigmoid"} or Tree
        Whether the classes exclude each other, are independent questions, or are the answers of a tree.

    Returns
    -------
    dict
        Plain values, ready for JSON. A number is ``{"value": v, "interval": [low, high]}``, a proportion has also
        ``count`` and ``of``, and ``wilson``, the binomial interval; ``value`` is None with a ``reason`` where
        the data do not define it, ``interval`` is None where they are too few. The keys are described in
        ``docs/evaluation.md``.

    Raises
    ------
    ValueError
        When the arrays do not fit together, are empty, or hold something that is no number from 0 to 1.
    """
    section = section or EvaluationSection()
    p, f, names = np.asarray(probabilities, np.float64), np.asarray(fractions, np.float64), tuple(names)
    _check(p, f, names)
    source = np.arange(len(f)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1].ravel()
    sums = source_sums(p, f, source, kind=kind, bins=section.reliability_bins, threshold=section.threshold)
    totals = sums.totals()
    human, model, _ = decisions(p, f, kind, section.threshold)
    areas = {name: _Areas(p[:, i], human[:, i]) for i, name in enumerate(names)}
    numbers = _Numbers(additive_metrics(totals, kind), areas, section)
    count = int(source.max()) + 1
    if count >= FEWEST_SOURCES:
        signs = gap_signs(totals)
        for counts in draw_sources(count, len(f), section.resamples, section.seed):
            numbers.add(additive_metrics(sums.totals(counts), kind, signs), counts[:, source])
    result: Record = {
        "stamps": len(f),
        "sources": count,
        "intervals": numbers.describe(count),
        "ties": metrics.ties(f) if kind == "softmax" else None,
    }
    result |= {name: numbers.of(name) for name in ("rmse", "rmse_authors", "cross_entropy", "ece", "macro_f1")}
    result["accuracy"] = _accuracy(numbers, totals, kind, section.confidence)
    result |= _references(p, f, votes, kind, section.reliability_bins)
    result["classes"] = {
        name: _one_class(i, name, p, f, numbers, totals, section.confidence) for i, name in enumerate(names)
    }
    if kind == "softmax":
        result |= _exclusive(p, f, names, section, numbers, totals)
    else:
        result |= _independent(p, f, names, section, human, model)
    result["reliability"] = {
        "all": _diagram(p, f, section.reliability_bins),
        "classes": {name: _diagram(p[:, i], f[:, i], section.reliability_bins) for i, name in enumerate(names)},
    }
    return metrics.rounded(result)


def _check(p: np.ndarray, f: np.ndarray, names: tuple[str, ...]) -> None:
    if p.ndim != 2 or p.shape != f.shape or p.shape[1] != len(names):
        raise ValueError(f"probabilities {p.shape}, fractions {f.shape} and {len(names)} names do not fit together")
    if not len(p):
        raise ValueError("no stamps")
    for what, values in (("probabilities", p), ("fractions", f)):
        bad = int(np.count_nonzero(~((values >= -ROUNDING) & (values <= 1 + ROUNDING)).all(axis=1)))
        if bad:
            raise ValueError(f"{what} of {bad} of {len(values)} stamps are no numbers from 0 to 1")


class _Areas:
    """The areas under the curves of one class, and those of the resamples."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self.reason = undefined(positive)
        self.weighted = None if self.reason else WeightedAreas(scores, positive)
        self.values: dict[str, float] = {}
        if not self.reason:
            tool = sklearn_metrics()
            self.values = {"roc_area": float(tool.roc_auc_score(positive, scores)),
                           "average_precision": float(tool.average_precision_score(positive, scores))}
        self.resampled: dict[str, list[np.ndarray]] = {"roc_area": [], "average_precision": []}

    def add(self, weights: np.ndarray) -> None:
        if self.weighted is not None:
            for kept, found in zip(self.resampled.values(), self.weighted.areas(weights), strict=True):
                kept.append(found)


class _Numbers:
    """Estimates and their resamples, turned into records."""

    def __init__(self, estimates: Terms, areas: dict[str, _Areas], section: EvaluationSection):
        self._estimates, self._areas, self._section = estimates, areas, section
        self._resampled: dict[str, list[np.ndarray]] = {name: [] for name in estimates}

    def add(self, resampled: Terms, weights: np.ndarray) -> None:
        for name, values in resampled.items():
            self._resampled[name].append(values)
        for one in self._areas.values():
            one.add(weights)

    def describe(self, sources: int) -> Record:
        if sources < FEWEST_SOURCES:
            return {"method": None, "reason": f"{sources} sources are fewer than {FEWEST_SOURCES}"}
        return {"method": "bootstrap of sources, percentiles", "confidence": self._section.confidence,
                "resamples": self._section.resamples, "seed": self._section.seed}

    def of(self, name: str, index: int | None = None, reason: str = "") -> Record:
        """Return the record of a metric, or of its entry `index` on the last axis."""
        cut = (lambda values: values) if index is None else (lambda values: values[..., index])
        resampled = [cut(values) for values in self._resampled[name]]
        return self._record(float(cut(self._estimates[name])), resampled, reason)

    def area(self, name: str, which: str) -> Record:
        one = self._areas[name]
        return self._record(one.values.get(which, np.nan), one.resampled[which], one.reason or "")

    def _record(self, value: float, resampled: list[np.ndarray], reason: str) -> Record:
        if not np.isfinite(value):
            return {"value": None, "interval": None, "reason": reason}
        return {"value": value, "interval": self._interval(resampled)}

    def _interval(self, resampled: list[np.ndarray]) -> list[float] | None:
        known = np.concatenate(resampled) if resampled else np.empty(0)
        defined = known[np.isfinite(known)]
        # Where many resamples miss a rare class, those that have it do not tell the spread.
        if not len(defined) or len(defined) < 0.9 * len(known):
            return None
        tail = 50 * (1 - self._section.confidence)
        return [max(0.0, float(value)) for value in np.percentile(defined, [tail, 100 - tail])]


def _proportion(record: Record, count: float, of: float, confidence: float) -> Record:
    interval = wilson(round(count), round(of), confidence)
    return {**record, "count": round(count), "of": round(of), "wilson": None if interval is None else list(interval)}


def _accuracy(numbers: _Numbers, totals: Terms, kind: Form, confidence: float) -> Record:
    if kind != "softmax":
        return numbers.of("accuracy")
    return _proportion(numbers.of("accuracy"), float(totals["agree"][0]), float(totals["stamps"]), confidence)


def _references(p: np.ndarray, f: np.ndarray, votes: np.ndarray | None, kind: Form, bins: int) -> Record:
    """Return what the numbers are to be compared with: the mean label, and what the noise of votes leaves."""
    mean = metrics.mean_label(f, len(f))
    found: Record = {
        "mean_label": {
            "rmse": metrics.rmse(mean, f),
            "rmse_authors": metrics.authors_rmse(mean, f),
            "cross_entropy": metrics.cross_entropy(mean, f, kind),
        },
        "entropy_of_fractions": metrics.cross_entropy(f, f, kind),
    }
    floor, authors = (np.nan, np.nan) if votes is None else metrics.vote_noise(f, votes)
    if votes is None or not np.isfinite(floor):
        reason = "the number of votes is not known" if votes is None else "no stamp has two votes that differ"
        return found | {"vote_noise": {"rmse": None, "rmse_authors": None, "ece": None, "reason": reason}}
    noise = {"rmse": floor, "rmse_authors": authors, "ece": ece_of_votes(p, votes, bins, kind),
             "stamps": int(np.count_nonzero(np.asarray(votes) >= 2))}
    return found | {"vote_noise": noise}


def _one_class(
    i: int, name: str, p: np.ndarray, f: np.ndarray, numbers: _Numbers, totals: Terms, confidence: float
) -> Record:
    human, model, both = (float(totals[key][0, i]) for key in ("human", "model", "both"))
    none_voted, none_predicted = "no stamp is of this class by the votes", "no stamp is predicted to be of this class"
    found: Record = {
        "voted": round(human),
        "predicted": round(model),
        "mean_fraction": float(f[:, i].mean()),
        "mean_probability": float(p[:, i].mean()),
        "rmse": numbers.of("rmse_by_class", i),
        "ece": numbers.of("ece_by_class", i),
        "completeness": _proportion(numbers.of("completeness", i, none_voted), both, human, confidence),
        "purity": _proportion(numbers.of("purity", i, none_predicted), both, model, confidence),
        "f1": numbers.of("f1", i, "no stamp is of this class, by the votes or as predicted"),
        "class_accuracy": _proportion(
            numbers.of("class_accuracy", i), float(totals["right"][i]), float(totals["stamps"]), confidence
        ),
    }
    return found | {which: numbers.area(name, which) for which in ("roc_area", "average_precision")}


def _exclusive(
    p: np.ndarray, f: np.ndarray, names: tuple[str, ...], section: EvaluationSection, numbers: _Numbers, totals: Terms
) -> Record:
    agree = metrics.agreed(f, section.agreement)
    return {
        "report": classification_report(f.argmax(axis=1), p.argmax(axis=1), names, section.confidence),
        "confusion": _confusion(p, f, names),
        "confusion_agreed": {"agreement": section.agreement, **_confusion(p[agree], f[agree], names)},
        "thresholds": [
            {
                "threshold": threshold,
                "kept": _proportion(numbers.of("kept", i), float(totals["kept"][i]), len(f), section.confidence),
                "accuracy": _proportion(numbers.of("threshold_accuracy", i, "no stamp is kept"),
                                        float(totals["agree"][i]), float(totals["kept"][i]), section.confidence),
                "macro_f1": numbers.of("threshold_macro_f1", i, "no stamp is kept"),
            }
            for i, threshold in enumerate(THRESHOLDS)
        ],
    }


def _confusion(p: np.ndarray, f: np.ndarray, names: tuple[str, ...]) -> Record:
    found: Record = {
        "classes": list(names),
        "axes": "rows: most voted class, columns: most probable class",
        "stamps": len(f),
    }
    if not len(f):
        return found | {"counts": None, "row_fractions": None, "reason": "no stamps"}
    counts = metrics.confusion(p, f)
    rows = [[value / sum(row) for value in row] if sum(row) else None for row in counts.tolist()]
    return found | {"counts": counts.tolist(), "row_fractions": rows}


def _independent(
    p: np.ndarray, f: np.ndarray, names: tuple[str, ...], section: EvaluationSection, human: np.ndarray,
    model: np.ndarray,
) -> Record:
    """Return what is told of independent questions; one alone has a report of its two answers."""
    agree = metrics.agreed(f, section.agreement, "sigmoid")
    found: Record = {"threshold": section.threshold, "binary": {}}
    for i, name in enumerate(names):
        rows = {"all": np.ones(len(f), bool), "agreed": agree[:, i]}
        found["binary"][name] = {which: question_report(human[kept, i], model[kept, i], section.confidence)
                                 for which, kept in rows.items()}
    if len(names) == 1:
        said, seen = (part[:, 0].astype(np.int64) for part in (human, model))
        return found | {"report": classification_report(said, seen, ANSWERS, section.confidence)}
    same = f.argmax(axis=1) == p.argmax(axis=1)
    return found | {"argmax_accuracy": proportion(int(same.sum()), len(f), section.confidence, "no stamps")}


def _diagram(p: np.ndarray, f: np.ndarray, bins: int) -> list[Record]:
    found = reliability(p, f, bins)
    rows = zip(found.low.tolist(), found.high.tolist(), found.count.tolist(), found.predicted.tolist(),
               found.voted.tolist(), strict=True)
    return [
        {"low": low, "high": high, "pairs": count, "predicted": None if not count else mean_p,
         "voted": None if not count else mean_f}
        for low, high, count, mean_p, mean_f in rows
    ]
