"""What the sections of a recipe are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict

SAFE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"
"""Names that become parts of file names."""
PREFIX = r"^([A-Za-z][A-Za-z0-9_]*)?$"
"""Starts of the names of columns."""
PATTERN_WORDS = {
    SAFE_NAME: "must be letters, digits, '.', '_', '+' and '-', at most 100, the first a letter or digit",
    PREFIX: "must be letters, digits and '_', the first a letter",
}
"""What is said of a name that does not fit."""


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    ADDED: ClassVar[frozenset[str]] = frozenset()
    """Keys that are no part of a fingerprint at their default: what was made before they came stays valid."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some keys changed, as pydantic does, but without what was computed of the others."""
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy

    @cached_property
    def fingerprint_values(self) -> Mapping[str, Any]:
        """The keys as plain values for a fingerprint; one of `ADDED` only where it is not at its default.

        The same object whenever asked: it becomes a part of each of thousands of tasks.
        """
        defaults = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in self.ADDED}
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items()
                if name not in defaults or getattr(self, name) != defaults[name]}


class SectionError(ValueError):
    """Several things wrong with a recipe, each one line."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def as_tuple(value: Any) -> Any:
    """Let a single value stand for a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
"""Some texts; a single one may be given without brackets."""
Null = Annotated[tuple[float | str, ...], BeforeValidator(as_tuple)]
"""Cell values that mean 'missing'; a single one may be given without brackets."""
