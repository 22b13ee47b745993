"""What a row of a file of votes says, and why a row may not count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DUPLICATE = "another vote of the same user on the same stamp"
UNKNOWN_ANSWER = "answer is no class"
UNUSED_ANSWER = "answer that is left out"
APART_ANSWER = "answer is a class that the scheme keeps apart"
NO_STAMP = "no stamp"
NO_USER = "no user"
NO_ANSWER = "no answer"
WRONG_LENGTH = "another number of cells than the header"


@dataclass(frozen=True)
class Vote:
    """A vote that counts; `label` is the index of its class, `row` its row in the file (after the header, from 1)."""

    stamp: str
    user: str
    label: int
    row: int


@dataclass(frozen=True)
class LeftOut:
    """A row that does not count, and why."""

    row: int
    reason: str
    stamp: str = ""
    user: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Cast:
    """What one row says, before answers are read and duplicates taken out."""

    row: int
    stamp: str
    user: str
    answer: str
    time: str = ""


@dataclass(frozen=True)
class Votes:
    """A file of votes: its number of rows, those that count and those left out, together all of them."""

    path: Path
    rows: int
    used: list[Vote]
    left_out: list[LeftOut]
