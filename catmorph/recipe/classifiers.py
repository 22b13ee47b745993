"""The section of a recipe on trained networks."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from catmorph.recipe.base import PathMark, Section, Strings


class ClassifierSection(Section):
    """A trained network, or an ensemble of them, and the views it looks at."""

    checkpoint: Annotated[str | tuple[str, ...], PathMark(looked_for=False)] = Field(
        description="checkpoint file (safetensors), relative to the recipe; several are an ensemble: the release "
        "has the mean of their probabilities, and in formats other than CSV how much they disagree"
    )
    views: Strings = Field((), description="views it classifies; default: all")
    scheme: str | None = Field(None, description="label scheme of its answers; default: the recipe's. Networks that "
                               "answer a question each, with a scheme each, make one catalog together")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic: auto takes bfloat16 on a GPU and where the processor has it, else float32"
    )
    batch: int = Field(256, ge=16, le=65536, description="stamps in the network's fixed batch")
    test_time: Literal["none", "d4"] = Field(
        "none", description="d4: the network sees each stamp in its 8 rotations by 90 degrees and mirror images, and "
        "the probabilities are averaged; takes 8 times as long"
    )
    temperature: float | Literal["card"] = Field(
        1.0, description="logits are divided by it at export (calibration): a number above 0, or `card` for the "
        "temperature in each checkpoint's card, which `catmorph evaluate --calibrate` fits"
    )

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, list | tuple) or not paths or not all(isinstance(one, str) for one in paths):
            raise ValueError("must be a file name or a list of file names")
        twice = [one for one in dict.fromkeys(paths) if paths.count(one) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is named more than once")
        return paths[0] if len(paths) == 1 else tuple(paths)

    @field_validator("temperature", mode="before")
    @classmethod
    def _positive_or_card(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "card" or (number and 0 < value < math.inf):
            return value
        raise ValueError("must be a number above 0, or 'card'")

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The members: one checkpoint, or those of the ensemble."""
        return (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint
