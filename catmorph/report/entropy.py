"""Histograms of the entropy of class probabilities: how sure a network is of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from catmorph.inference.combine import entropy
from catmorph.report.colours import classes_of
from catmorph.report.drawing import COLOURS, DASHES, Drawing, drawing, new_figure
from catmorph.schemes import Scheme

BINS = 30
_CURVES = len(COLOURS)
"""Classes with a curve of their own, the most frequent ones."""
_NATS = np.log(2.0)
"""Nats in a bit."""


@dataclass(frozen=True)
class Entropies:
    """Entropies of stamps or sources.

    Attributes
    ----------
    bits : ndarray, shape (n,)
        Shannon entropy of the class probabilities in bits, as `catmorph.inference.combine.entropy`; NaN for none.
    predicted : ndarray of int, shape (n,)
        Index of the predicted class, -1 for none.
    titles : tuple of str
        What the classes are called.
    maximum : float or None
        The largest possible value in bits: log2 of the number of classes that exclude each other, the number of
        independent questions; None for a tree, where it depends on how the answers branch.
    """

    bits: np.ndarray
    predicted: np.ndarray
    titles: tuple[str, ...]
    maximum: float | None


def entropies_of(scheme: Scheme, probabilities: np.ndarray, threshold: float = 0.5) -> Entropies:
    """Return the entropies of `probabilities` (n, class)."""
    predicted, titles = classes_of(scheme, probabilities, threshold)
    maximum = {"softmax": float(np.log2(len(scheme.classes))), "sigmoid": float(len(scheme.classes))}.get(scheme.kind)
    return Entropies(entropy(scheme, probabilities), predicted, titles, maximum)


def joined(parts: Sequence[Entropies]) -> Entropies:
    """Return the entropies of several parts of a catalog as one."""
    bits, predicted = (np.concatenate([getattr(one, name) for one in parts]) for name in ("bits", "predicted"))
    return Entropies(bits, predicted, parts[0].titles, parts[0].maximum)


def draw_entropies(found: Entropies, what: str, suffix: str = "") -> Drawing:
    """Draw the histogram of all entropies, and of those of each predicted class.

    Parameters
    ----------
    what : str
        What is counted, such as ``stamps``.
    suffix : str
        Ends the stem of the files, where several views have figures.
    """
    known = np.isfinite(found.bits)
    caption = "Shannon entropy of the class probabilities, 0 where the network is sure, as Wei et al. (2020) show it."
    if found.maximum is not None:
        caption += (f" Dotted: the maximum, {found.maximum:.3g} bits or {found.maximum * _NATS:.3g} nats, where all "
                    "answers are equally probable.")
    missing = int(np.count_nonzero(~known))
    caption += f" {missing:,} {what} have no probabilities." if missing else ""
    return drawing(f"entropy{suffix}", "Entropy of the probabilities", caption, lambda: _histogram(found, known, what))


def _histogram(found: Entropies, known: np.ndarray, what: str) -> Figure:
    figure = new_figure(5.4, 3.6)
    axes = figure.add_subplot()
    highest = found.maximum or float(found.bits[known].max(initial=0.0)) or 1.0
    edges = np.linspace(0.0, highest * (1 + 1e-6), BINS + 1)
    counts = np.bincount(found.predicted[known & (found.predicted >= 0)], minlength=len(found.titles))
    curves: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        (f"all ({np.count_nonzero(known):,})", known, {"color": "black", "linewidth": 1.6})]
    for place, index in enumerate(np.argsort(-counts, kind="stable")[:_CURVES]):
        if counts[index]:
            look = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}
            curves.append((f"{found.titles[index]} ({counts[index]:,})", known & (found.predicted == index), look))
    for label, rows, look in curves:
        axes.stairs(np.histogram(found.bits[rows], edges)[0], edges, label=label, **look)
    if found.maximum is not None:
        axes.axvline(found.maximum, color="black", linestyle=":", linewidth=0.9)
    axes.set(xlabel="Shannon entropy (bits)", ylabel=what, xlim=(0, 1.03 * highest), ylim=(0, None))
    axes.tick_params(top=False)
    nats = axes.secondary_xaxis("top", functions=(lambda bits: bits * _NATS, lambda value: value / _NATS))
    nats.set_xlabel("nats")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, title="predicted", alignment="left")
    return figure
