"""Errors that a user can cause or meet, each of one line: what, where, and what to do.

Every error carries the exit status the command line ends with (see ``docs/cli.md``): 2 for usage and
recipe errors found before any work, 1 for work that failed and can be resumed, 4 for a held run folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 5
"""Rows or names that an error or report lists."""
LONGEST = 100
"""Characters of a name or value that an error shows."""


class CatmorphError(Exception):
    """Work failed; running the same command again goes on where it stopped.

    Parameters
    ----------
    message : str
        What was expected and what came.
    where : str or path, optional
        The file, row, column or recipe key concerned.
    hint : str, optional
        What the user can do about it.
    absent : bool
        Whether it is about a file that is not there.
    """

    exit_status = 1

    def __init__(self, message: str, *, where: object = None, hint: str | None = None, absent: bool = False):
        self.message, self.where, self.hint, self.absent = message, where, hint, absent
        super().__init__(one_line(message, where=where, hint=hint))


class UsageError(CatmorphError):
    """A command, recipe, catalog or checkpoint that cannot work."""

    exit_status = 2


class RecipeError(UsageError):
    """A recipe that is not valid."""


class CatalogError(UsageError):
    """A survey table that cannot be read or mapped as the recipe says."""


class CheckpointError(UsageError):
    """A checkpoint that cannot be opened, or does not fit the recipe."""


class MosaicError(CatmorphError):
    """A mosaic that cannot be read; its sources are flagged and the run goes on."""


class HeldError(CatmorphError):
    """Another run holds the run folder."""

    exit_status = 4


class ProblemsError(UsageError):
    """Several problems found at once.

    Parameters
    ----------
    problems : iterable of str
        One line each.
    """

    def __init__(self, problems: Iterable[str], *, where: object = None):
        self.problems = list(problems)
        count = len(self.problems)
        super().__init__(
            self.problems[0] if count == 1 else f"{count} problems: " + "; ".join(self.problems), where=where
        )


def one_line(message: str, *, where: object = None, hint: str | None = None) -> str:
    """Join message, place and hint into one line; what cannot be printed, such as an escape code, becomes ``?``."""
    text = message if where is None else f"{where}: {message}"
    if hint:
        text = f"{text}; {hint}"
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return one line of `text` with what cannot be printed, such as an escape code, as ``?``."""
    return "".join(one if one.isprintable() else "?" for one in text)


def shortened(text: str) -> str:
    """Return a name or value as errors show it: cut, with dots, where it is long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def listed(names: Iterable[object], total: int | None = None) -> str:
    """Return the first five of `names`, and dots where there are more: `total`, where `names` are cut already."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:SHOWN]) + (" ..." if max(len(texts), total or 0) > SHOWN else "")


def suggest(name: object, valid: Iterable[object]) -> str:
    """Return ``did you mean 'x'?`` for the nearest valid name, else the list of valid names."""
    choices = [str(choice) for choice in valid]
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.6)
    if near:
        return f"did you mean {lowered[near[0]]!r}?"
    if len(choices) > 20:
        choices = [*choices[:20], f"... {len(choices) - 20} more"]
    return "valid: " + ", ".join(choices) if choices else "there are none"
