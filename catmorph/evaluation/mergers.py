"""How a network finds mergers: the counts by which a survey's merger fraction is corrected."""

from __future__ import annotations

from typing import Any

import numpy as np

from catmorph.evaluation.classification import outcomes
from catmorph.labels.chosen import ROUNDING
from catmorph.recipe import Recipe
from catmorph.release.tally import Rules
from catmorph.schemes import Scheme


def merger_tests(
    recipe: Recipe, scheme: Scheme, fractions: np.ndarray, logits: np.ndarray, temperature: float | None
) -> dict[str, Any] | None:
    """Count the mergers that the network finds and misses, at the threshold of the recipe's [summary].

    A stamp is a merger where the vote fraction of the class is at least that same threshold: with vote fractions the
    merger fraction of a survey is that of the galaxies of which people would say so, and with labels of 0 and 1 any
    threshold is the same.

    Parameters
    ----------
    fractions, logits : ndarray, shape (n, class)
    temperature : float, optional
        Of the card: the counts are made with it, too.

    Returns
    -------
    dict or None
        ``class``, ``label``, ``threshold``, and ``tests``: the four counts at each ``temperature``. None for a scheme
        without a merger class.
    """
    merger = Rules.of(recipe, scheme).merger
    if merger is None:
        return None
    column = scheme.index(merger.class_name)
    human = np.asarray(fractions, np.float64)[:, column] >= merger.threshold - ROUNDING
    tests = []
    for one in dict.fromkeys([1.0, *([temperature] if temperature else [])]):
        # In float32, as `summarize` counts them.
        found = scheme.probabilities(logits / one)[:, column].astype(np.float32).astype(np.float64)
        tests.append({"temperature": one, **outcomes(human, found >= merger.threshold)})
    return {"class": merger.class_name, "label": merger.label, "threshold": merger.threshold, "tests": tests}
