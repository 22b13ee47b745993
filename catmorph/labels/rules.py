"""Labels by rule: a class where an expression on the columns of the sources is true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from catmorph.errors import RecipeError, UsageError, suggest
from catmorph.labels.classes import Answers, Labelled
from catmorph.recipe import LabelsSection
from catmorph.schemes import Scheme
from catmorph.sources.expressions import Expression

NO_RULE = "no rule is true"
SEVERAL_RULES = "several rules are true"
UNKNOWN_RULE = "a rule that depends on a missing value"


def check_rules(section: LabelsSection, scheme: Scheme) -> None:
    """Check what can be seen of rules and answers without columns; raises as `apply_rules`, and `Answers`."""
    Answers(scheme, section.answers)
    for name in section.rules:
        if name not in scheme.class_names:
            raise UsageError(f"scheme {scheme.name!r} has no class {name!r}", where="labels.rules",
                             hint=suggest(name, scheme.class_names))
        _parsed(name, section.rules[name])
    if section.rules and scheme.kind == "tree":
        raise UsageError(f"rules cannot answer the tree of scheme {scheme.name!r}", where="labels.rules")
    missing = [name for name in scheme.class_names if name not in section.rules]
    if section.rules and scheme.kind == "sigmoid" and missing:
        raise UsageError(f"scheme {scheme.name!r} asks independent questions: {missing[0]!r} needs a rule too",
                         where="labels.rules")


def apply_rules(section: LabelsSection, scheme: Scheme, columns: Mapping[str, Any], count: int) -> Labelled:
    """Return what the rules say of rows of `columns` (name -> row).

    Classes that exclude each other: the one whose rule is true; a row of none or of several is no label. Independent
    questions: yes where the rule is true, no where it is false; a row where one is neither is no label.

    Raises
    ------
    RecipeError
        When a rule is no expression, or does not fit the columns.
    UsageError
        When a rule is for no class, or the scheme is not one that rules can answer.
    """
    check_rules(section, scheme)
    true = np.zeros((count, len(scheme.classes)), dtype=bool)
    false = np.zeros_like(true)
    for name, text in section.rules.items():
        place = scheme.index(name)
        true[:, place] = _evaluated(name, text, columns)
        false[:, place] = _evaluated(name, f"not ({text})", columns)
    reasons = np.full(count, None, dtype=object)
    if scheme.kind == "softmax":
        reasons[true.sum(axis=1) > 1] = SEVERAL_RULES
        reasons[~true.any(axis=1)] = NO_RULE
    else:
        reasons[~(true | false).all(axis=1)] = UNKNOWN_RULE
    return Labelled(true.astype(np.float64), None, reasons)


def _parsed(name: str, text: str) -> Expression:
    try:
        return Expression(text)
    except RecipeError as error:
        raise _of_rule(name, error) from None


def _evaluated(name: str, text: str, columns: Mapping[str, Any]) -> np.ndarray:
    try:
        return _parsed(name, text).evaluate(columns)
    except RecipeError as error:
        raise _of_rule(name, error) from None


def _of_rule(name: str, error: RecipeError) -> RecipeError:
    if error.where is not None:
        return error
    return RecipeError(error.message.replace("cut ", "rule ", 1), where=f"labels.rules.{name}", hint=error.hint)
