"""What the sections of a recipe are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

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


@dataclass(frozen=True)
class PathMark:
    """Marks a key that holds a path, or several, relative to the file that gives them; see `catmorph.recipe.paths`.

    Attributes
    ----------
    is_pattern : bool
        Whether they may be globs.
    words : tuple of str
        Values that are no path.
    looked_for : bool
        Whether `check` looks if the file is there: not for what is written, or is told by what reads it.
    """

    is_pattern: bool = False
    words: tuple[str, ...] = ()
    looked_for: bool = True


@dataclass(frozen=True)
class TablesOf:
    """Marks a key that holds tables, by name, with some keys of a section."""

    section: type[Section]
    keys: tuple[str, ...]


def path_marks(section: type[BaseModel]) -> dict[str, PathMark]:
    """Return the keys of a section that hold paths."""
    return {name: mark for name, info in section.model_fields.items()
            for mark in info.metadata if isinstance(mark, PathMark)}


def inner_model(annotation: Any) -> tuple[type[BaseModel] | None, Any]:
    """Return the model in the type of a key, and `dict` or `tuple` where the key holds several of it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, None
    for inner in get_args(annotation):
        found, kind = inner_model(inner)
        if found is not None:
            return found, kind or (get_origin(annotation) if get_origin(annotation) in (dict, tuple) else None)
    return None, None


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
Globs = Annotated[Strings, PathMark(is_pattern=True, looked_for=False)]
"""Some files or globs that those who read them look for."""
Null = Annotated[tuple[float | str, ...], BeforeValidator(as_tuple)]
"""Cell values that mean 'missing'; a single one may be given without brackets."""
