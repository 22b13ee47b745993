"""What a result file of a training must hold to be believed: someone may have edited it since it was written."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from catmorph.experiments.measures import EVERYTHING

LARGEST = 1e150
"""The square of a larger number is infinite."""


def _countable(value: float) -> float:
    if math.isfinite(value) and abs(value) > LARGEST:
        raise ValueError("is too large")
    return value


Number = Annotated[float, AfterValidator(_countable)]
"""A number, or NaN where a measure is not defined."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
_Four = Annotated[list[Count], Field(min_length=4, max_length=4)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Errors(_Part):
    stamps: Count
    rmse: Number
    rmse_authors: Number


class _Zeroed(_Part):
    band: str
    metrics: dict[str, Any]
    changes: dict[str, _Four]


class _Answers(_Part):
    rows: list[Count]
    probability: list[Annotated[float, Field(ge=0, le=1)]]
    positive: list[Annotated[int, Field(ge=0, le=1)]]


class _Epoch(_Part):
    epoch: Number
    validation_rmse: Number
    validation_accuracy: Number
    training_accuracy: Number


class _Result(_Part):
    setting: dict[str, str | float]
    repeat: Count
    seed: Count
    seconds: Number
    epochs: Count
    best_epoch: Count
    stamps: dict[str, Count]
    metrics: dict[str, Any]
    views: dict[str, _Errors]
    validation: dict[str, Number]
    parameters: Number = 0
    note: str = ""
    subsets: dict[str, dict[str, Number]] = {}
    zeroed: list[_Zeroed] = []
    answers: _Answers | None = None
    curve: list[_Epoch] = []


def is_sound(found: dict[str, Any], *, names: tuple[str, ...], needs: tuple[str, ...] = ()) -> bool:
    """Tell whether `found` can be what a training kept.

    Parameters
    ----------
    names : tuple of str
        Rows and columns of the confusion matrix, see `catmorph.experiments.measures.answers`.
    needs : tuple of str
        Entries that not every training has, and this one must.
    """
    try:
        result = _Result.model_validate(found)
    except (ValidationError, OverflowError):
        return False
    answers = result.answers
    return (
        all(found.get(name) for name in needs)
        and _are_metrics(result.metrics, names)
        and all(_are_metrics(one.metrics, names) and {EVERYTHING, *names} <= one.changes.keys()
                for one in result.zeroed)
        and (not result.curve or 1 <= result.best_epoch <= len(result.curve))
        and (answers is None or len(answers.rows) == len(answers.probability) == len(answers.positive))
    )  # fmt: skip


def _are_metrics(metrics: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Tell whether metrics have an RMSE, only numbers that can be counted with, and a confusion matrix of `names`."""
    if not isinstance(metrics.get("rmse"), int | float) or not all(map(_is_small, _leaves(metrics))):
        return False
    matrix = metrics.get("confusion")
    if matrix is None:
        return True
    rows = matrix if isinstance(matrix, list) else []
    whole = len(rows) == len(names) and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    return whole and all(type(cell) is int and cell >= 0 for row in rows for cell in row)


def _leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for one in inner for leaf in _leaves(one)]


def _is_small(leaf: Any) -> bool:
    return isinstance(leaf, str) or (isinstance(leaf, int | float) and not LARGEST < abs(leaf) < math.inf)
