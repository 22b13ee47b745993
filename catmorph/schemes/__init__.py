"""Label schemes: the classes a network answers with, their names in tables, and how logits become probabilities.

A scheme is one TOML file in this folder; adding a file adds the scheme.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from catmorph.errors import UsageError, suggest


class LabelClass(BaseModel):
    """One class: `name` in catmorph's files, `code` in released columns, `label` in label tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    code: str
    label: str
    title: str


class Scheme(BaseModel):
    """A label scheme.

    ``kind`` is ``softmax`` for classes that exclude each other and ``sigmoid`` for independent questions.
    ``merger`` names the class whose fraction is the merger fraction, where the scheme has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    reference: str
    kind: Literal["softmax", "sigmoid"]
    classes: tuple[LabelClass, ...]
    merger: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return tuple(one.name for one in self.classes)

    def index(self, name: str) -> int:
        """Return the output index of class `name`; an unknown name is an error that lists the valid ones."""
        if name not in self.class_names:
            raise UsageError(f"scheme {self.name!r} has no class {name!r}", hint=suggest(name, self.class_names))
        return self.class_names.index(name)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (..., class) into probabilities of the same shape, in float64; NaN stays NaN."""
        logits = np.asarray(logits, dtype=np.float64)
        if self.kind == "sigmoid":
            return 0.5 * (1.0 + np.tanh(0.5 * logits))
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def scheme_names() -> list[str]:
    """Return the names of all schemes, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


@cache
def load_scheme(name: str) -> Scheme:
    """Load the scheme called `name`.

    Raises
    ------
    UsageError
        When there is no such scheme, or its file is not valid.
    """
    if name not in scheme_names():
        raise UsageError(f"unknown label scheme {name!r}", hint=suggest(name, scheme_names()))
    file = resources.files(__name__) / f"{name}.toml"
    try:
        return Scheme(name=name, **tomllib.loads(file.read_text()))
    except ValidationError as error:
        raise UsageError(f"label scheme {name!r} is not valid: {error.errors()[0]['msg']}") from error
