"""Counting a release by groups of sources that the recipe names with expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catmorph.release.layout import Key
from catmorph.release.results import Result, ViewResult
from catmorph.release.tally import Rules, Tally, count_view
from catmorph.sources.regions import Regions, source_columns

Tallies = dict[Key, Tally]


@dataclass
class GroupCounts:
    """Counts of the sources and stamps of each group; `none` and `overlapping` sources are in no group, in several."""

    regions: Regions
    rules: Mapping[str, Rules]
    tallies: Callable[[], Tallies]
    groups: dict[str, Tallies] = field(init=False)
    sources: Counter[str] = field(default_factory=Counter)
    released: Counter[str] = field(default_factory=Counter)
    none: int = 0
    overlapping: int = 0

    def __post_init__(self) -> None:
        self.groups = {name: self.tallies() for name in self.regions.texts}

    def add(self, result: Result) -> None:
        """Count the sources and stamps of a result.

        Raises
        ------
        RecipeError
            When an expression names a column that there is not, or does not fit it.
        """
        if not self.groups:
            return
        masks = self.regions.masks(source_columns(result.sources))
        times = np.sum(list(masks.values()), axis=0)
        self.none += int(np.count_nonzero(times == 0))
        self.overlapping += int(np.count_nonzero(times > 1))
        for name, mask in masks.items():
            self.sources[name] += int(mask.sum())
            self.released[name] += int((mask & result.released).sum())
            for key, view in result.views.items():
                chosen = ViewResult(view.flags[mask], view.probabilities[mask])
                self.groups[name][key] += count_view(self.rules[key.classifier], chosen, result.released[mask])

    def __iadd__(self, other: GroupCounts) -> GroupCounts:
        self.none += other.none
        self.overlapping += other.overlapping
        self.sources += other.sources
        self.released += other.released
        for name, tallies in other.groups.items():
            for key, tally in tallies.items():
                self.groups[name][key] += tally
        return self

    def as_dict(self, counted: Callable[[Tallies], dict[str, Any]]) -> dict[str, Any]:
        """Return the counts as plain values; `counted` tells those of a group's stamps."""
        return {
            "none": self.none,
            "overlapping": self.overlapping,
            "groups": [
                {"group": name, "expression": self.regions.texts[name], "sources": self.sources[name],
                 "released": self.released[name], **counted(tallies)}
                for name, tallies in self.groups.items()
            ],
        }
