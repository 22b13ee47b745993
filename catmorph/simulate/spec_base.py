"""What the tables of a simulation spec are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class Model(BaseModel):
    """A frozen table of the spec; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower end {value[0]:g} is above the upper one {value[1]:g}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""A value drawn uniformly between two ends."""
Numbers = Annotated[tuple[int, int], AfterValidator(_ordered)]
"""A whole number drawn uniformly between two ends, both possible."""
