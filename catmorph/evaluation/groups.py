"""Groups of stamps whose metrics are told apart: bands, magnitude bins, size bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from catmorph.labels import LabelledStamps
from catmorph.recipe.evaluation import EvaluationSection


@dataclass(frozen=True)
class Group:
    """Some of the stamps: `rows` of the data, and the edges of the bin, where it is one."""

    name: str
    rows: np.ndarray
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Grouping:
    """A division of stamps; `left_out` are in none of the groups, `reason` says why there are no groups."""

    key: str
    title: str
    groups: tuple[Group, ...]
    left_out: int = 0
    reason: str = ""


def groupings(data: LabelledStamps, section: EvaluationSection) -> tuple[Grouping, ...]:
    """Divide stamps by view, by the magnitude of their source, and by its size."""
    views = np.asarray(data.views).astype(str)
    bands = tuple(Group(view, np.flatnonzero(views == view)) for view in dict.fromkeys(views.tolist()))
    return (
        Grouping("by_band", "band", bands),
        binned("by_magnitude", "magnitude", data.magnitude, section.magnitude_edges, len(data)),
        binned("by_size", "radius (arcsec)", data.size_arcsec, section.size_edges, len(data)),
    )


def binned(key: str, title: str, values: np.ndarray | None, edges: Sequence[float], stamps: int) -> Grouping:
    """Divide stamps into bins of `values`: between `edges`, or quarters of the stamps where there are none.

    A bin includes its lower edge, the last one both. Stamps outside or without a value are left out.
    """
    known = np.empty(0) if values is None else np.asarray(values, np.float64)
    finite = np.isfinite(known)
    if not finite.any():
        return Grouping(key, title, (), stamps, f"no stamp has a {title}")
    quarters = np.unique(np.quantile(known[finite], [0, 0.25, 0.5, 0.75, 1]))
    limits = np.asarray(edges, np.float64) if len(edges) else quarters
    if len(limits) == 1:
        return Grouping(key, title, (), stamps, f"every stamp has the same {title}")
    found = []
    for low, high in pairwise(limits):
        below = known <= high if high == limits[-1] else known < high
        name = f"{low:.4g} to {high:.4g}"
        found.append(Group(name, np.flatnonzero(finite & (known >= low) & below), float(low), float(high)))
    return Grouping(key, title, tuple(found), stamps - sum(len(group.rows) for group in found))
