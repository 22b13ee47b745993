"""The numbers of a network in the coarser schemes that its classes fold into, such as cluster galaxy or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from catmorph.evaluation import metrics
from catmorph.evaluation.classification import classification_report
from catmorph.schemes import Scheme, load_scheme, scheme_names


def folds_of(scheme: Scheme) -> list[Scheme]:
    """Return the schemes whose classes are made of those of `scheme`, by name."""
    if scheme.kind != "softmax":
        return []
    others = map(load_scheme, scheme_names())
    return [one for one in others if one.fold is not None and one.fold.scheme == scheme.name]


def folded(
    scheme: Scheme, probabilities: np.ndarray, fractions: np.ndarray, confidence: float
) -> dict[str, dict[str, Any]]:
    """Compare people and network in each scheme that `scheme` folds into.

    Probabilities and fractions of the classes that make a class add up. Stamps that people put into a class kept apart
    are left out; a network's probability of such a class is left out and the others decide.

    Parameters
    ----------
    probabilities, fractions : ndarray, shape (n, class)

    Returns
    -------
    dict
        Name of the other scheme -> ``left_out``, ``report`` and ``confusion`` with ``counts`` (rows: people, columns:
        network) and ``classes``.
    """
    found = {}
    for other in folds_of(scheme):
        assert other.fold is not None
        apart = [scheme.index(name) for name in other.fold.apart]
        kept = ~np.isin(np.argmax(fractions, axis=1), apart)
        rows = [[scheme.index(one) for one in other.fold.classes[name]] for name in other.class_names]
        p, f = (np.stack([part[kept][:, row].sum(axis=1) for row in rows], axis=1)
                for part in (probabilities, fractions))
        found[other.name] = {
            "left_out": int(np.count_nonzero(~kept)),
            "report": classification_report(f.argmax(axis=1), p.argmax(axis=1), other.class_names, confidence),
            "confusion": {"classes": list(other.class_names), "stamps": len(f),
                          "counts": metrics.confusion(p, f).tolist() if len(f) else None},
        }
    return metrics.rounded(found)
