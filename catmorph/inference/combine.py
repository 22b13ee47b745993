"""From the logits of one or several networks to probabilities, and how much the networks disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, log_expit, log_softmax, logsumexp

from catmorph.schemes import Scheme
from catmorph.schemes.tree import Tree


@dataclass(frozen=True)
class Prediction:
    """What one network or an ensemble says of n stamps.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (n, class)
        Of an ensemble: the mean over its members, with equal weights (Lakshminarayanan et al. 2017).
    spread : ndarray of float64, shape (n, class), or None
        Standard deviation of the members' probabilities (of the population: the sum of squares is divided by the
        number of members); None for a single network.
    mutual_information : ndarray of float64, shape (n,), or None
        Entropy of the mean minus the mean of the members' entropies, bits: the part of the uncertainty that comes from
        not knowing the network, 0 where all agree (Houlsby et al. 2011, eq. 2; Depeweg et al. 2018). None for a
        single network.
    """

    probabilities: np.ndarray
    spread: np.ndarray | None = None
    mutual_information: np.ndarray | None = None


def combine(scheme: Scheme, logits: Sequence[np.ndarray], temperatures: Sequence[float]) -> Prediction:
    """Turn the logits of the members into one prediction.

    Parameters
    ----------
    logits : sequence of ndarray, shape (n, class)
        Of each member; NaN rows stay NaN.
    temperatures : sequence of float
        What the logits of each member are divided by.
    """
    each = [
        scheme.probabilities(one.astype(np.float64) / temperature)
        for one, temperature in zip(logits, temperatures, strict=True)
    ]
    if len(each) == 1:
        return Prediction(each[0])
    stack = np.stack(each)
    mean = stack.mean(axis=0)
    gain = entropy(scheme, mean) - np.mean([entropy(scheme, one) for one in each], axis=0)
    # It is never negative but by rounding (Jensen's inequality).
    return Prediction(mean, stack.std(axis=0), np.maximum(gain, 0.0))


def entropy(scheme: Scheme, probabilities: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy in bits, float64 of shape (n,).

    Of independent questions: summed over them. Of a tree: summed over its questions, each times the probability that
    it is asked (`catmorph.schemes.tree.Tree.entropies`).
    """
    wide = probabilities.astype(np.float64)
    if isinstance(scheme.form, Tree):
        return scheme.form.entropies(wide) / np.log(2.0)
    nats = entr(wide).sum(axis=1)
    if scheme.kind == "sigmoid":
        nats += entr(1.0 - wide).sum(axis=1)
    return nats / np.log(2.0)


def average_logits(scheme: Scheme, logits: np.ndarray) -> np.ndarray:
    """Return logits whose probabilities are the mean of the probabilities of `logits`.

    A temperature divides them as it does those of one pass. They are computed in logarithms, so that a class whose
    probability underflows keeps a finite logit.

    Parameters
    ----------
    logits : ndarray, shape (pass, n, class)

    Returns
    -------
    ndarray of float64, shape (n, class)
        With softmax the logarithms of the mean probabilities, with sigmoid their log-odds, with a tree the log-odds
        of each answer's share of its question, which `Tree.averaged` says more of; NaN where the logits of a pass are
        not finite.
    """
    wide = np.asarray(logits, dtype=np.float64)
    bad = ~np.logical_and.reduce(np.isfinite(wide), axis=(0, 2))
    wide = np.where(bad[:, None], 0.0, wide)
    if isinstance(scheme.form, Tree):
        mean = scheme.form.averaged(wide)
    elif scheme.kind == "softmax":
        mean = logsumexp(log_softmax(wide, axis=2), axis=0) - np.log(len(wide))
    else:
        mean = logsumexp(log_expit(wide), axis=0) - logsumexp(log_expit(-wide), axis=0)
    return np.where(bad[:, None], np.nan, mean)
