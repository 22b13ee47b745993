"""What the cards of a recipe's networks say of their test, for fractions that are corrected by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.errors import CheckpointError
from catmorph.models.header import load_card
from catmorph.recipe import Recipe
from catmorph.release.corrected import Trial, corrected, from_counts, probability_sum
from catmorph.release.tally import Merger

AGAIN = "run `catmorph evaluate`"


@dataclass(frozen=True)
class CardTest:
    """The test of a classifier's network, or why there is none; `subset` is what it was made on."""

    test: Trial | None
    reason: str = ""
    subset: str = ""

    def as_dict(self, confidence: float) -> dict[str, Any]:
        """Return the counts with sensitivity and specificity, or the reason that there are none."""
        if self.test is None:
            return {"reason": self.reason}
        return {"subset": self.subset, "reason": self.test.problem, **self.test.as_dict(confidence)}

    def estimates(self, merger: Mapping[str, Any], total: float, confidence: float) -> dict[str, Any]:
        """Return the fraction of `merger` (``count``, ``of``) as the sum `total` of probabilities, and corrected."""
        found = {"probability_sum": probability_sum(total, merger["of"], confidence)}
        if self.test is None:
            return found | {"corrected": {"value": None, "interval": None, "reason": self.reason}}
        return found | {"corrected": corrected(merger["count"], merger["of"], self.test, confidence)}


def card_test(recipe: Recipe, classifier: str, merger: Merger | None, used: Sequence[float]) -> CardTest:
    """Return the test of the network of `classifier` at what counts as `merger`.

    Parameters
    ----------
    used : sequence of float
        Temperatures of its networks. A test is of one network, at one temperature and one threshold, without test-time
        augmentation: that of another says nothing of these probabilities.
    """
    if merger is None:
        return CardTest(None, "its scheme has no such class")
    section = recipe.classifiers[classifier]
    if len(section.checkpoints) > 1:
        return CardTest(None, "a card's test is of one network, not of an ensemble")
    if section.test_time != "none":
        return CardTest(None, "a card's test is without test-time augmentation")
    path = Path(section.checkpoints[0])
    try:
        found = load_card(path).evaluation.get("merger")
    except CheckpointError as error:
        return CardTest(None, f"the card cannot be read: {error}")
    if not isinstance(found, dict):
        return CardTest(None, f"the card of {path.name} has no counts of the class in a test; {AGAIN}")
    if (found.get("class"), found.get("threshold")) != (merger.class_name, merger.threshold):
        return CardTest(None, f"the card of {path.name} has a test of {found.get('class')} from "
                        f"{found.get('threshold')} on; {AGAIN}")
    return _at(found, used[0], path)


def _at(found: dict[str, Any], temperature: float, path: Path) -> CardTest:
    runs = found.get("tests")
    for one in runs if isinstance(runs, list) else []:
        if isinstance(one, dict) and _same(one.get("temperature"), temperature):
            test = from_counts(one)
            if test is not None:
                return CardTest(test, subset=str(found.get("subset", "")))
    return CardTest(None, f"the card of {path.name} has no test at temperature {temperature:g}; {AGAIN}")


def _same(stored: Any, wanted: float) -> bool:
    return isinstance(stored, int | float) and math.isclose(stored, wanted, rel_tol=1e-5)
