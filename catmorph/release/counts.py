"""Counts of a release: of some of its sources, or of all; whatever the parts were, their sum is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catmorph.quality import FAULTS
from catmorph.recipe import Recipe
from catmorph.release.grouped import GroupCounts
from catmorph.release.layout import Key, release_keys
from catmorph.release.results import Result
from catmorph.release.tally import Rules, Tally, all_rules, count_view
from catmorph.sources.regions import Regions


@dataclass
class Counts:
    """Everything that is counted: of some chunks, or of all."""

    keys: tuple[Key, ...]
    rules: Mapping[str, Rules]
    regions: Regions
    sources: int = 0
    released: int = 0
    faulty: int = 0
    groups: GroupCounts = field(init=False)
    fields: dict[str, dict[Key, Tally]] = field(default_factory=dict)
    field_sources: Counter[str] = field(default_factory=Counter)
    field_released: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.groups = GroupCounts(self.regions, self.rules, self._tallies)

    def _tallies(self) -> dict[Key, Tally]:
        return {key: Tally(len(self.rules[key.classifier].scheme.classes)) for key in self.keys}

    def add(self, result: Result) -> None:
        """Count the sources and stamps of a result."""
        self.groups.add(result)
        name = result.field
        here = self.fields.setdefault(name, self._tallies())
        flags = np.zeros(len(result.released), dtype=np.uint32)
        for key, view in result.views.items():
            here[key] += count_view(self.rules[key.classifier], view, result.released)
            flags |= view.flags
        released = int(result.released.sum())
        self.sources += len(flags)
        self.released += released
        self.faulty += int(((flags & np.uint32(FAULTS)) != 0).sum())
        self.field_sources[name] += len(flags)
        self.field_released[name] += released

    def __iadd__(self, other: Counts) -> Counts:
        for name in ("sources", "released", "faulty"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.field_sources += other.field_sources
        self.field_released += other.field_released
        self.groups += other.groups
        for name, tallies in other.fields.items():
            here = self.fields.setdefault(name, self._tallies())
            for key, tally in tallies.items():
                here[key] += tally
        return self

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain values; see `restore`."""
        return {
            "sources": self.sources,
            "released": self.released,
            "faulty": self.faulty,
            "fields": {
                name: {"sources": self.field_sources[name], "released": self.field_released[name],
                       "tallies": self._plain_tallies(tallies)}
                for name, tallies in self.fields.items()
            },
            "groups": {
                "none": self.groups.none,
                "overlapping": self.groups.overlapping,
                "each": {
                    name: {"sources": self.groups.sources[name], "released": self.groups.released[name],
                           "tallies": self._plain_tallies(tallies)}
                    for name, tallies in self.groups.groups.items()
                },
            },
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take the counts that `plain` returned of the same recipe instead of these, which are of nothing."""
        self.sources, self.released, self.faulty = plain["sources"], plain["released"], plain["faulty"]
        for name, one in plain["fields"].items():
            self.field_sources[name], self.field_released[name] = one["sources"], one["released"]
            self.fields[name] = self._restored(one["tallies"])
        groups = plain["groups"]
        self.groups.none, self.groups.overlapping = groups["none"], groups["overlapping"]
        for name, one in groups["each"].items():
            self.groups.sources[name], self.groups.released[name] = one["sources"], one["released"]
            self.groups.groups[name] = self._restored(one["tallies"])

    def fits(self, plain: Mapping[str, Any]) -> bool:
        """Return whether `plain` are counts of the same views, classes and groups as these, which are of nothing."""
        classes = [one.classes for one in self._tallies().values()]
        parts = [*plain["fields"].values(), *plain["groups"]["each"].values()]
        return plain["groups"]["each"].keys() == self.groups.groups.keys() and all(
            [len(tally["sums"]) for tally in part["tallies"]] == classes for part in parts
        )

    def _plain_tallies(self, tallies: Mapping[Key, Tally]) -> list[dict[str, Any]]:
        return [tallies[key].plain() for key in self.keys]

    def _restored(self, tallies: list[dict[str, Any]]) -> dict[Key, Tally]:
        return {key: Tally.of(one) for key, one in zip(self.keys, tallies, strict=True)}

    @property
    def views(self) -> dict[Key, Tally]:
        """The counts of each view, of all fields."""
        total = self._tallies()
        for tallies in self.fields.values():
            for key, tally in tallies.items():
                total[key] += tally
        return total


def no_counts(recipe: Recipe) -> Counts:
    """Return the counts of nothing.

    Raises
    ------
    UsageError
        When no scheme has the recipe's merger class.
    RecipeError
        When a group of sources is no expression.
    """
    return Counts(release_keys(recipe), all_rules(recipe), Regions(recipe.evaluation.groups))


def counted(nothing: Counts, results: Iterable[Result]) -> Counts:
    """Return the counts of some chunks; `nothing` are those of none."""
    counts = deepcopy(nothing)
    for result in results:
        counts.add(result)
    return counts
