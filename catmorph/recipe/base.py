"""What the sections of a recipe are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

SAFE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"
"""Names that become parts of file names."""


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
