"""The section of a recipe on the evaluation of checkpoints."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from catmorph.recipe.base import SAFE_NAME, Section, Strings


class AxesSection(Section):
    """The axes of a colour-magnitude diagram: expressions on the sources' columns."""

    x: str = Field(min_length=1, description="horizontal axis, such as `r`")
    y: str = Field(min_length=1, description="vertical axis, such as `g - z`")


class EvaluationSection(Section):
    """What `catmorph evaluate` counts."""

    agreement: float = Field(
        0.75, gt=0, le=1, description="human vote fraction from which a stamp counts for the confusion matrix of "
        "agreed labels"
    )
    threshold: float = Field(
        0.5, gt=0, le=1, description="independent questions: probability from which the network says yes (P_th)"
    )
    magnitude_edges: tuple[float, ...] = Field((), description="edges of the magnitude bins; default: quartiles")
    size_edges: tuple[float, ...] = Field((), description="edges of the size bins (arcsec); default: quartiles")
    groups: dict[Annotated[str, Field(pattern=SAFE_NAME)], str] = Field(
        {}, description="groups whose numbers are told apart, by `evaluate` and `summarize`: name = expression on the "
        "sources' columns (id, field, ra, dec, size, magnitude and those of catalog.keep), such as red_sequence = "
        "\"g - z > 1.2 - 0.03*(r - 15)\"; a source may be in several groups or in none"
    )
    colour_magnitude: AxesSection | None = Field(
        None, description="draw this diagram with the predicted classes, and the boundaries of the groups that depend "
        "on its axes alone, in `evaluate` and `summarize`"
    )
    pairs: Strings = Field(
        (), description="two to six expressions, such as [\"u - g\", \"g - r\"]: draw a scatter matrix of them with "
        "the predicted classes, in `evaluate` and `summarize`"
    )
    entropy: bool = Field(False, description="draw the entropy of the class probabilities of the released sources as a "
                          "histogram, in `summarize`; `evaluate` always does, of its stamps")
    prototypes: Strings = Field(
        (), description="classes whose best stamps are shown, by vote fraction and by probability; default: one "
        "stamp of each class, for schemes whose classes do not exclude each other"
    )
    prototype_count: int = Field(5, ge=1, le=20, description="stamps of each class of `prototypes`, in each row")
    reliability_bins: int = Field(15, ge=2, le=100, description="bins of the reliability diagram and of the ECE")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, ge=100, le=100000, description="bootstrap resamples, by source")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")

    @property
    def needs_columns(self) -> bool:
        """Whether an expression on the sources' columns is given."""
        return bool(self.groups or self.colour_magnitude or self.pairs)

    @property
    def of_release(self) -> bool:
        """Whether a figure of the release is asked for."""
        return bool(self.colour_magnitude or self.pairs or self.entropy)

    @field_validator("pairs")
    @classmethod
    def _few(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        if pairs and not (2 <= len(pairs) <= 6 and len(set(pairs)) == len(pairs)):
            raise ValueError("pairs must be two to six different expressions")
        return pairs

    @field_validator("magnitude_edges", "size_edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if edges and (len(edges) < 2 or any(high <= low for low, high in pairwise(edges))):
            raise ValueError("edges must be two or more increasing numbers")
        return edges
