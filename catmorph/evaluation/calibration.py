"""Calibration with one number, the temperature that divides the logits (Guo et al. 2017, Sect. 4.2)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from catmorph.errors import UsageError
from catmorph.schemes import Form
from catmorph.schemes.tree import Tree

RANGE = (0.05, 20.0)
"""Temperatures that are looked at; a network whose best one is outside is not merely badly calibrated."""


def fit_temperature(
    logits: np.ndarray, fractions: np.ndarray, kind: Form = "softmax", *, where: object = None
) -> float:
    """Return the temperature T for which the probabilities of logits / T have the least cross-entropy.

    The cross-entropy of vote fractions is convex in 1 / T, so that there is one minimum; that of a tree, whose logits
    go through a sigmoid first, need not be: then it is a minimum of the range.

    Parameters
    ----------
    logits, fractions : ndarray, shape (n, class)
        Of stamps that the network was not trained on.
    kind : {"softmax", "sigmoid"} or Tree
    where : str or path, optional
        The checkpoint, for the message.

    Returns
    -------
    float
        Rounded to six significant digits: above 1 the network was too sure, below 1 not sure enough.

    Raises
    ------
    UsageError
        When the best temperature is outside 0.05 to 20.
    """
    z, f = np.asarray(logits, np.float64), np.asarray(fractions, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if isinstance(kind, Tree):
            return -float(np.mean(np.sum(f * kind.log_conditional(scaled), axis=1)))
        if kind == "softmax":
            return -float(np.mean(np.sum(f * log_softmax(scaled, axis=1), axis=1)))
        return -float(np.mean(f * log_expit(scaled) + (1 - f) * log_expit(-scaled)))

    low, high = np.log(RANGE)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    if min(best.x - low, high - best.x) < 1e-3:
        raise UsageError(
            f"no temperature from {RANGE[0]:g} to {RANGE[1]:g} calibrates this checkpoint: the best is at "
            f"{np.exp(best.x):.3g}",
            where=where, hint=f"it does not follow the votes of its {len(z)} validation stamps: train it longer or on "
            "more labels, or evaluate it without --calibrate",
        )
    return float(f"{np.exp(best.x):.6g}")
