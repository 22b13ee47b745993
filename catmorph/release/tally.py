"""Counting stamps: sums that do not depend on the order or the chunks they are made in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catmorph.quality import BLOCKING, FLAGS, count_flags
from catmorph.recipe import Recipe
from catmorph.release.intervals import exact, wilson
from catmorph.release.results import ViewResult, answers
from catmorph.schemes import Scheme, load_scheme

_UNIT = 2.0**40
"""Probabilities are summed as whole multiples of 2**-40: exact, so the same in any order."""


@dataclass(frozen=True)
class Merger:
    """What counts as a merger: the scheme's own class, or a proxy that the recipe names."""

    class_name: str
    threshold: float
    proxy: bool

    @property
    def label(self) -> str:
        """How every output calls it."""
        return f"{self.class_name} (merger proxy)" if self.proxy else self.class_name


@dataclass(frozen=True)
class Rules:
    """The scheme of a classifier, and the thresholds of a summary."""

    scheme: Scheme
    threshold: float
    confidence: float
    merger: Merger | None

    @classmethod
    def of(cls, recipe: Recipe, scheme: Scheme) -> Rules:
        """Take them from a recipe; its merger class is that of the schemes which have it."""
        section = recipe.summary
        asked = section.merger_class if section.merger_class in scheme.class_names else None
        name = asked or (None if section.merger_class else scheme.merger)
        merger = None
        if name:
            merger = Merger(
                scheme.class_names[scheme.index(name)], section.merger_threshold, name != scheme.merger
            )
        return cls(scheme, section.threshold, section.confidence, merger)


def all_rules(recipe: Recipe) -> dict[str, Rules]:
    """Return the rules of each classifier; without any, those of the recipe's scheme under its name.

    Raises
    ------
    UsageError
        When no scheme has the recipe's merger class.
    """
    names = {name: recipe.classifier_scheme(name) for name in recipe.classifiers} or {recipe.scheme: recipe.scheme}
    rules = {name: Rules.of(recipe, load_scheme(scheme)) for name, scheme in names.items()}
    wanted = recipe.summary.merger_class
    if wanted and not any(wanted in one.scheme.class_names for one in rules.values()):
        next(iter(rules.values())).scheme.index(wanted)
    return rules


_NUMBERS = ("sources", "classified", "counted", "kept", "mergers")


@dataclass
class Tally:
    """Counts of the stamps of one view, of one field or of all.

    `classified` counts every stamp with probabilities; `counted` those of released sources, on which the
    counts of classes rest (the two differ with ``release.require = "all"`` alone).
    """

    classes: int
    sources: int = 0
    classified: int = 0
    counted: int = 0
    kept: int = 0
    mergers: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    most_probable: np.ndarray = field(init=False)
    above: np.ndarray = field(init=False)
    sums: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.most_probable = np.zeros(self.classes, dtype=np.int64)
        self.above = np.zeros(self.classes, dtype=np.int64)
        self.sums = [0] * self.classes

    def __iadd__(self, other: Tally) -> Tally:
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.flags += other.flags
        self.most_probable += other.most_probable
        self.above += other.above
        self.sums = [one + two for one, two in zip(self.sums, other.sums, strict=True)]
        return self

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain values, from which `of` makes them again."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "flags": dict(self.flags),
            "most_probable": self.most_probable.tolist(),
            "above": self.above.tolist(),
            "sums": self.sums,
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Tally:
        """Return the counts whose plain values are `plain`."""
        numbers = {name: plain[name] for name in _NUMBERS}
        tally = cls(len(plain["sums"]), **numbers, flags=Counter(plain["flags"]))
        tally.most_probable += np.array(plain["most_probable"], dtype=np.int64)
        tally.above += np.array(plain["above"], dtype=np.int64)
        tally.sums = list(plain["sums"])
        return tally

    def as_dict(self, rules: Rules, *, interval: bool = True) -> dict[str, Any]:
        """Return the counts and fractions by name; a fraction of nothing is None."""
        names = rules.scheme.class_names
        columns = zip(names, self.most_probable, self.above, self.sums, strict=True)
        result = {
            "sources": self.sources,
            "classified": self.classified,
            "counted": self.counted,
            "blocked": self.sources - self.classified,
            "blocked_by_flag": self._by_severity(blocks=True),
            "warnings_by_flag": self._by_severity(blocks=False),
            "kept": self.kept,
            "kept_fraction": fraction(self.kept, self.counted),
            "classes": {
                name: {"most_probable": int(most), "above_threshold": int(above), "sum": total / _UNIT}
                for name, most, above, total in columns
            },
        }
        if rules.merger:
            result["merger"] = self._merger(rules, interval)
        return result

    def _merger(self, rules: Rules, interval: bool) -> dict[str, Any]:
        assert rules.merger is not None
        result: dict[str, Any] = {
            "label": rules.merger.label,
            "count": self.mergers,
            "of": self.counted,
            "fraction": fraction(self.mergers, self.counted),
        }
        if interval:
            result["wilson"] = wilson(self.mergers, self.counted, rules.confidence)
            result["exact"] = exact(self.mergers, self.counted, rules.confidence)
        return result

    def _by_severity(self, *, blocks: bool) -> dict[str, int]:
        names = [info.flag.name or "" for info in FLAGS if bool(info.flag & BLOCKING) == blocks]
        return {name: self.flags[name] for name in names if self.flags[name]}


def count_view(rules: Rules, result: ViewResult, released: np.ndarray) -> Tally:
    """Count the stamps of one chunk in one view; `released` (n,) says which sources are in the release."""
    probabilities = result.probabilities[result.classified & released].astype(np.float64)
    above = probabilities >= rules.threshold
    tally = Tally(
        classes=len(rules.scheme.classes),
        sources=len(result.flags),
        classified=int(result.classified.sum()),
        counted=len(probabilities),
        kept=int(above.any(axis=1).sum()),
        flags=Counter(count_flags(result.flags)),
    )
    tally.most_probable += answers(rules.scheme, probabilities).sum(axis=0)
    tally.above += above.sum(axis=0)
    tally.sums = [int(total) for total in np.rint(probabilities * _UNIT).astype(np.int64).sum(axis=0)]
    if rules.merger:
        column = probabilities[:, rules.scheme.index(rules.merger.class_name)]
        tally.mergers = int((column >= rules.merger.threshold).sum())
    return tally


def fraction(count: int, total: int) -> float | None:
    """Return ``count / total``, None for a `total` of 0."""
    return count / total if total else None
