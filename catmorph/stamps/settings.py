"""How stamps are to be cut, as plain values: worker processes get them, and so do without the recipe's models."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catmorph.recipe import StampSection


@dataclass(frozen=True)
class StampSettings:
    """What ``[stamp]`` of a recipe says, see `catmorph.recipe.StampSection`.

    The models of recipes take pydantic, a fifth of a second to import, before the first stamp is cut.
    """

    side_value: float
    side_unit: str
    pixels: int
    resample: str
    orientation: str
    values: str
    min_side_pixels: float
    max_side_pixels: float
    max_bad_fraction: float
    min_signal: float | None
    missing: str
    max_missing: int

    @classmethod
    def of(cls, section: StampSection) -> StampSettings:
        """Return the settings of a recipe."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def may_be_missing(self, bands: int) -> int:
        """Return how many of the `bands` of a view a stamp can do without."""
        return min(self.max_missing, bands - 1) if self.missing == "zero" else 0
