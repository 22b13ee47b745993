"""The metrics that are made of sums over stamps, for the data and for bootstrap resamples of its sources.

Stamps of one source are not independent: the same galaxy is seen through several bands, and voted on alike.
So whole sources are drawn, with all their stamps. What a metric needs of a source is kept as a row of sums; a
resample is then one row of counts times that table, whatever the number of stamps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from catmorph.evaluation.metrics import cross_entropies
from catmorph.schemes import Form
from catmorph.schemes.tree import Tree

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
"""Probability thresholds at which accuracy, F1 and the kept fraction are told."""

_STAMPS_AT_ONCE = 4096
_DRAWS_AT_ONCE = 200_000
"""Numbers in a block of resamples: of 4,000 stamps 1.4 s; 3.1 s with 4 million, which miss the cache."""

Terms = dict[str, np.ndarray]


@dataclass(frozen=True)
class SourceSums:
    """Sums over each source's stamps.

    Attributes
    ----------
    table : ndarray of float64, shape (source, column)
    shapes : dict
        Name of a term -> shape of its columns, in order.
    kind : {"softmax", "sigmoid"} or Tree
    """

    table: np.ndarray
    shapes: dict[str, tuple[int, ...]]
    kind: Form

    def totals(self, counts: np.ndarray | None = None) -> Terms:
        """Return the sums over all sources, or over resamples.

        Parameters
        ----------
        counts : ndarray, shape (resample, source), optional
            How often each source is in each resample.

        Returns
        -------
        dict of ndarray
            Of the shapes of `shapes`, after an axis of resamples where `counts` is given.
        """
        rows = self.table.sum(axis=0) if counts is None else counts @ self.table
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(rows, ends[:-1], axis=-1)
        return {name: part.reshape((*rows.shape[:-1], *shape))
                for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}


def source_sums(
    probabilities: np.ndarray, fractions: np.ndarray, sources: np.ndarray, *, kind: Form, bins: int,
    threshold: float = 0.5,
) -> SourceSums:
    """Add up what the metrics need of each source.

    Parameters
    ----------
    probabilities, fractions : ndarray, shape (n, class)
    sources : ndarray of int, shape (n,)
        Number of each stamp's source, from 0.
    bins : int
        Bins of equal width in probability, for the expected calibration error.
    threshold : float
        Probability from which a network says yes to an independent question.
    """
    table: np.ndarray | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(fractions), _STAMPS_AT_ONCE):
        rows = slice(start, start + _STAMPS_AT_ONCE)
        terms = _terms(probabilities[rows], fractions[rows], kind, bins, threshold)
        shapes = {name: value.shape[1:] for name, value in terms.items()}
        columns = np.concatenate([value.reshape(len(value), -1) for value in terms.values()], axis=1)
        members = csr_array((np.ones(len(columns)), (sources[rows], np.arange(len(columns)))),
                            shape=(int(sources.max()) + 1, len(columns)))
        added = members @ columns
        table = added if table is None else table + added
    assert table is not None, "no stamps"
    return SourceSums(table, shapes, kind)


def _terms(probabilities: np.ndarray, fractions: np.ndarray, kind: Form, bins: int, threshold: float) -> Terms:
    p, f = np.asarray(probabilities, dtype=np.float64), np.asarray(fractions, dtype=np.float64)
    square = np.square(p - f)
    gaps = np.zeros((*p.shape, bins))
    np.put_along_axis(gaps, bin_numbers(p, bins)[..., None], (p - f)[..., None], axis=2)
    terms = {
        "stamps": np.ones(len(p)),
        "squares": square,
        "stamp_rmse": np.sqrt(square.mean(axis=1)),
        "cross_entropy": cross_entropies(p, f, kind),
        "gaps": gaps,
    }
    human, model, kept = decisions(p, f, kind, threshold)
    return terms | {
        "human": (human[:, None] & kept).astype(np.float64),
        "model": (model[:, None] & kept).astype(np.float64),
        "both": ((human & model)[:, None] & kept).astype(np.float64),
        "kept": kept.any(axis=2).astype(np.float64),
        "agree": ((human == model)[:, None] & kept).all(axis=2).astype(np.float64),
        "right": (human == model).astype(np.float64),
    }


def decisions(
    p: np.ndarray, f: np.ndarray, kind: Form, threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the classes that people and the network decide for, and which stamps are kept.

    For classes that exclude each other that is the most voted and the most probable class (the first of equal
    ones); for independent questions every class with a fraction of at least 1/2, or a probability of at least
    `threshold`; for a tree the answers on the way down it (`catmorph.schemes.tree.Tree.path_taken`).

    Returns
    -------
    human, model : ndarray of bool, shape (n, class)
    kept : ndarray of bool, shape (n, threshold, 1)
        Where the largest probability reaches each of `THRESHOLDS`; independent questions and trees keep all.
    """
    if isinstance(kind, Tree):
        return kind.path_taken(f), kind.path_taken(p), np.ones((len(p), 1, 1), bool)
    if kind == "sigmoid":
        return f >= 0.5, p >= threshold, np.ones((len(p), 1, 1), bool)
    classes = np.arange(p.shape[1])
    kept = p.max(axis=1)[:, None] >= np.array(THRESHOLDS)
    return f.argmax(axis=1)[:, None] == classes, p.argmax(axis=1)[:, None] == classes, kept[:, :, None]


def bin_numbers(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin, of equal width from 0 to 1, that each probability is in; 1 is in the last."""
    return np.clip((np.asarray(probabilities) * bins).astype(np.int64), 0, bins - 1)


def additive_metrics(totals: Terms, kind: Form, signs: np.ndarray | None = None) -> Terms:
    """Return the metrics that `totals` give; a leading axis of resamples stays.

    Parameters
    ----------
    totals : dict of ndarray
        From `SourceSums.totals`.
    signs : ndarray, shape (class + 1, bin), optional
        Signs of the gaps of the reliability diagram, the last row for all classes together. A resample gets
        those of the data: by itself its noise would only ever add to the calibration error.

    Returns
    -------
    dict of ndarray
        NaN where a metric has no denominator. ``kept``, ``threshold_accuracy`` and ``threshold_macro_f1``
        have an axis of thresholds; ``completeness``, ``purity``, ``f1``, ``rmse_by_class``, ``ece_by_class``
        and ``class_accuracy`` one of classes.
    """
    stamps = totals["stamps"]
    classes = totals["squares"].shape[-1]
    gaps = np.concatenate([totals["gaps"], totals["gaps"].sum(axis=-2, keepdims=True)], axis=-2)
    error = (np.abs(gaps) if signs is None else signs * gaps).sum(axis=-1) / stamps[..., None]
    human, model, both = totals["human"], totals["model"], totals["both"]
    f1 = ratio(2 * both, human + model)
    base = f1[..., 0, :]
    found = {
        "rmse": np.sqrt(totals["squares"].sum(axis=-1) / (stamps * classes)),
        "rmse_authors": totals["stamp_rmse"] / stamps,
        "rmse_by_class": np.sqrt(totals["squares"] / stamps[..., None]),
        "cross_entropy": totals["cross_entropy"] / stamps,
        "ece": error[..., -1] / classes,
        "ece_by_class": error[..., :-1],
        "completeness": ratio(both[..., 0, :], human[..., 0, :]),
        "purity": ratio(both[..., 0, :], model[..., 0, :]),
        "f1": base,
        "macro_f1": mean_defined(base),
        "class_accuracy": totals["right"] / stamps[..., None],
    }
    if kind != "softmax":
        return found | {"accuracy": found["class_accuracy"].mean(axis=-1)}
    return found | {
        "accuracy": totals["agree"][..., 0] / stamps,
        "kept": totals["kept"] / stamps[..., None],
        "threshold_accuracy": ratio(totals["agree"], totals["kept"]),
        "threshold_macro_f1": mean_defined(f1),
    }


def gap_signs(totals: Terms) -> np.ndarray:
    """Return the signs of the gaps of the reliability diagram, shape (class + 1, bin), for `additive_metrics`."""
    return np.sign(np.concatenate([totals["gaps"], totals["gaps"].sum(axis=-2, keepdims=True)], axis=-2))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN where below is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def draw_sources(sources: int, stamps: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw as many sources as there are, with replacement, `resamples` times.

    Yields
    ------
    ndarray of float64, shape (block, source)
        How often each source was drawn; blocks are of bounded size, and their draws do not depend on it.
    """
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, _DRAWS_AT_ONCE // max(stamps, sources, 1)))
    for start in range(0, resamples, block):
        counts = [np.bincount(generator.integers(sources, size=sources), minlength=sources)
                  for _ in range(min(block, resamples - start))]
        yield np.array(counts, dtype=np.float64)
