"""The section of a recipe on grids of trainings."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, field_validator

from catmorph.errors import suggest
from catmorph.recipe.base import PATTERN_WORDS, SAFE_NAME, PathMark, Section, Strings, TablesOf
from catmorph.recipe.training import TrainingSection

SHARED = (
    "output", "title", "licence", "purpose", "seed", "split_seed", "validation", "test", "fold", "test_fields",
    "leave_out", "duplicates_arcsec", "size",
)  # fmt: skip
"""Keys of [training] that no network of a comparison has for itself: names, seeds and the split."""
CHANGEABLE = (*(key for key in TrainingSection.model_fields if key not in SHARED), "scheme")
"""Keys that a network of a comparison may have for itself."""


class QuickSection(Section):
    """What `catmorph experiment --quick` does instead: as many points, or fewer, and shorter trainings.

    Numbers are upper limits of what the full grid would do, but for the learning rate, which replaces that of
    [training].
    """

    repeats: int = Field(3, ge=1, description="trainings at each point")
    epochs: int = Field(16, ge=1, description="epochs at most")
    batches_per_epoch: int = Field(12, ge=1, description="batches an epoch")
    batch: int = Field(32, ge=2, description="stamps a batch")
    patience: int = Field(8, ge=1, description="epochs without better validation loss before it stops")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate: in few steps a small one gets nowhere")


class ExperimentSection(Section):
    """The grids of `catmorph experiment`; the trainings themselves are as [training] says."""

    folder: Annotated[str | None, PathMark(looked_for=False)] = Field(
        None, description="folder of the results, relative to the recipe; default: experiments/ below the current "
        "folder"
    )
    start: Annotated[str | None, PathMark()] = Field(
        None, description="checkpoint that fine-tuned trainings start from; default: training.start"
    )
    seed: int = Field(0, ge=0, description="seed from which every training of a grid gets its own")
    sizes: tuple[int, ...] = Field(
        (50, 100, 200, 300, 400, 600, 800, 1000), min_length=1,
        description="learning-curve: stamps of the training subset",
    )
    splits: int = Field(10, ge=1, description="learning-curve, filter-importance, crop-size, learning-rate, compare: "
                        "trainings at each point, each with its own random split")
    repeats: int = Field(20, ge=1, description="freezing, repeat, leave-band-out: trainings at each point")
    stages: Strings = Field((), description="freezing: stages of the network before which all is frozen; default: its "
                            "inception modules, or all stages but the first")
    learning_rates: tuple[float, ...] = Field(
        (1e-5, 5e-5, 1e-4, 1e-3), min_length=1, description="learning-rate: the rates"
    )
    crop_sizes: tuple[PositiveFloat | Literal["random"], ...] = Field(
        (2.0, 3.0, 4.0, 5.0, 6.0), min_length=1, description="crop-size: sides of the stamps, in the unit of "
        "stamp.side; `random`: in training another one each time, between the smallest and the largest"
    )
    models: Strings = Field((), description="compare: networks, each a name of `catmorph models list` or of a table of "
                            "`experiments.networks`; default: those tables")
    networks: Annotated[dict[str, dict[str, Any]], TablesOf(TrainingSection, CHANGEABLE)] = Field(
        {}, description="compare: what differs for a network: keys of [training], such as model and learning_rate, and "
        "scheme"
    )
    source: Annotated[str | None, PathMark(looked_for=False)] = Field(
        None, description="transfer-table: recipe of the survey that the network comes from, with labels, stamps and "
        "[training] of its own, relative to the recipe"
    )
    source_size: int | None = Field(None, ge=1, description="transfer-table: stamps of the source survey to train on; "
                                    "default: the whole training subset")
    target_size: int | None = Field(None, ge=1, description="transfer-table: stamps of this survey to train on; "
                                    "default: the whole training subset")
    positive: str | None = Field(None, description="transfer-table: class that counts as yes; default: the last of the "
                                 "scheme, of a single question its only one")
    threshold: float = Field(0.5, gt=0, lt=1, description="transfer-table: probability from which a stamp is called "
                             "positive")
    dense_stage: str | None = Field(None, description="transfer-table: stage before which all is frozen when only the "
                                    "dense layers are fine-tuned; default: the first that is called dense, else the "
                                    "head")
    false_positives: int = Field(8, ge=1, le=20, description="transfer-table: false positives shown of each network, "
                                 "those of the highest probability")
    quick: QuickSection = Field(default_factory=QuickSection, description="the grid of --quick")

    @field_validator("crop_sizes")
    @classmethod
    def _between_two(cls, sides: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if "random" in sides and len({side for side in sides if side != "random"}) < 2:
            raise ValueError("random needs two other sides, to draw between them")
        return sides

    @field_validator("networks")
    @classmethod
    def _networks(cls, networks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, changes in networks.items():
            if not re.fullmatch(SAFE_NAME, name):
                raise ValueError(f"network name {name!r} {PATTERN_WORDS[SAFE_NAME]}")
            for key in changes:
                if key in SHARED:
                    raise ValueError(f"{name}.{key}: all networks share it, as [training] says")
                if key not in CHANGEABLE:
                    raise ValueError(f"{name}.{key}: unknown key, {suggest(key, CHANGEABLE)}")
        return networks
