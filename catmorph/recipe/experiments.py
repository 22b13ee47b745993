"""The section of a recipe on grids of trainings."""

from __future__ import annotations

from pydantic import Field

from catmorph.recipe.base import Section


class ExperimentSection(Section):
    """The grids of `catmorph experiment`."""

    folder: str | None = Field(None, description="folder of the results, relative to the recipe; default: "
                               "experiments/ below the current folder")
    start: str | None = Field(None, description="checkpoint that fine-tuned trainings start from")
    seed: int = Field(0, ge=0, description="seed from which every training of a grid gets its own")
    sizes: tuple[int, ...] = Field(
        (50, 100, 200, 300, 400, 600, 800, 1000), description="learning-curve: stamps of the training subset"
    )
    splits: int = Field(10, ge=1, description="learning-curve, filter-importance: random splits at each point")
    repeats: int = Field(20, ge=1, description="freezing, repeat: trainings at each point")
    learning_rates: tuple[float, ...] = Field((1e-5, 5e-5, 1e-4, 1e-3), description="learning-rate: the rates")
    crop_sizes: tuple[float, ...] = Field(
        (2.0, 3.0, 4.0, 5.0, 6.0), description="crop-size: sides of the stamps, in the unit of stamp.side"
    )
