"""Groups of stamps whose metrics are told apart: bands, magnitude bins, size bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from catmorph.errors import UsageError
from catmorph.labels import LabelledStamps
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.sources.regions import Columns, Regions


@dataclass(frozen=True)
class Group:
    """Some of the stamps: `rows` of the data, and the edges of the bin, where it is one."""

    name: str
    rows: np.ndarray
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Grouping:
    """A division of stamps; `left_out` are in none of the groups, `reason` says why there are no groups.

    Groups by expression may share stamps: `overlapping` are in several.
    """

    key: str
    title: str
    groups: tuple[Group, ...]
    left_out: int = 0
    reason: str = ""
    overlapping: int = 0


def groupings(data: LabelledStamps, section: EvaluationSection) -> tuple[Grouping, ...]:
    """Divide stamps by view, by the magnitude of their source, by its size, and by the expressions of the recipe.

    Raises
    ------
    UsageError
        When an expression names a column that there is not, or the stamps have no columns.
    """
    views = np.asarray(data.views).astype(str)
    bands = tuple(Group(view, np.flatnonzero(views == view)) for view in dict.fromkeys(views.tolist()))
    regions = (by_expression(data, section),) if section.groups else ()
    return (
        Grouping("by_band", "band", bands),
        binned("by_magnitude", "magnitude", data.magnitude, section.magnitude_edges, len(data)),
        binned("by_size", "radius (arcsec)", data.size_arcsec, section.size_edges, len(data)),
        *regions,
    )


def by_expression(data: LabelledStamps, section: EvaluationSection) -> Grouping:
    """Divide stamps by ``evaluation.groups``; a stamp may be in several groups, or in none."""
    masks = Regions(section.groups).masks(survey_columns(data))
    times = np.sum(list(masks.values()), axis=0)
    groups = tuple(Group(name, np.flatnonzero(mask)) for name, mask in masks.items())
    return Grouping("by_group", "group", groups, int(np.count_nonzero(times == 0)),
                    overlapping=int(np.count_nonzero(times > 1)))


def survey_columns(data: LabelledStamps) -> Columns:
    """Return the columns of the stamps' sources.

    Raises
    ------
    UsageError
        When they have none: stamps that are files, whose survey table was not read in.
    """
    if data.survey is None:
        raise UsageError("evaluation.groups, colour_magnitude and pairs need the columns of the survey table, which "
                         "is not read in", hint="run `catmorph ingest`, or leave them out of the recipe")
    return data.survey


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
