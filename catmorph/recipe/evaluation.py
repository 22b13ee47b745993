"""The section of a recipe on the evaluation of checkpoints."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, field_validator

from catmorph.recipe.base import Section


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
    reliability_bins: int = Field(15, ge=2, le=100, description="bins of the reliability diagram and of the ECE")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, ge=100, le=100000, description="bootstrap resamples, by source")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")

    @field_validator("magnitude_edges", "size_edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if edges and (len(edges) < 2 or any(high <= low for low, high in pairwise(edges))):
            raise ValueError("edges must be two or more increasing numbers")
        return edges
