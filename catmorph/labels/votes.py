"""Votes: who gave which class to which stamp, and what was left out, with the reason and the row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from catmorph.errors import CatalogError
from catmorph.labels.ballots import (
    APART_ANSWER,
    DUPLICATE,
    NO_ANSWER,
    NO_STAMP,
    NO_USER,
    UNKNOWN_ANSWER,
    UNUSED_ANSWER,
    WRONG_LENGTH,
    Cast,
    LeftOut,
    Vote,
    Votes,
)
from catmorph.labels.cells import find_column, plain_cell, read_rows
from catmorph.labels.classes import KEPT_APART, LEFT_OUT, UNKNOWN, Answers
from catmorph.labels.zooniverse import ExportOptions, is_export, read_export
from catmorph.schemes import Scheme

_NO_VOTE = {LEFT_OUT: UNUSED_ANSWER, KEPT_APART: APART_ANSWER, UNKNOWN: UNKNOWN_ANSWER}


def read_votes(path: Path, scheme: Scheme, answers: Mapping[str, str], options: ExportOptions) -> Votes:
    """Read a Zooniverse classification export or a plain table with columns stamp, user and answer (or class).

    Of several votes of one user on one stamp the earliest counts (by ``created_at`` where there is such a column,
    else by row). Users without login are told apart by the name that the export gives them.

    Parameters
    ----------
    answers : mapping
        ``labels.answers``, see `catmorph.labels.classes.Answers`.

    Raises
    ------
    CatalogError
        When the file is neither, or cannot be read.
    UsageError
        When `answers` names no class, or an export has several workflows or tasks and none is chosen.
    """
    known = Answers(scheme, answers)
    lines = read_rows(path, "table of votes")
    header = [name.strip() for name in next(lines)]
    rows: list[Cast | LeftOut] = (
        read_export(path, header, lines, options) if is_export(header) else _read_plain(path, header, lines)
    )
    used, left_out = [], [row for row in rows if isinstance(row, LeftOut)]
    seen: set[tuple[str, str]] = set()
    for cast in sorted((row for row in rows if isinstance(row, Cast)), key=lambda row: (row.time, row.row)):
        number = known.number(cast.answer)
        key = (cast.stamp, cast.user)
        if number < 0:
            reason = _NO_VOTE[number]
        elif key in seen:
            reason = DUPLICATE
        else:
            seen.add(key)
            used.append(Vote(cast.stamp, cast.user, number, cast.row))
            continue
        left_out.append(LeftOut(cast.row, reason, cast.stamp, cast.user, cast.answer))
    return Votes(path, len(rows), sorted(used, key=lambda vote: vote.row), sorted(left_out, key=lambda one: one.row))


def _read_plain(path: Path, header: list[str], lines: Iterator[list[str]]) -> list[Cast | LeftOut]:
    answer_name = "answer" if "answer" in header or "class" not in header else "class"
    if "stamp" not in header:
        raise CatalogError("is neither a Zooniverse classification export (no columns annotations and subject_data) "
                           "nor a table of votes (no column 'stamp')", where=path,
                           hint="a table of votes has the columns stamp, user and answer")
    stamp, user, answer = (find_column(header, name, path) for name in ("stamp", "user", answer_name))
    time = header.index("created_at") if "created_at" in header else None
    rows: list[Cast | LeftOut] = []
    for number, cells in enumerate(lines, start=1):
        if len(cells) != len(header):
            rows.append(LeftOut(number, WRONG_LENGTH))
            continue
        said = tuple(plain_cell(cells[column]).strip() for column in (stamp, user, answer))
        reason = next((why for why, text in zip((NO_STAMP, NO_USER, NO_ANSWER), said, strict=True) if not text), None)
        if reason:
            rows.append(LeftOut(number, reason, *said))
        else:
            moment = cells[time].strip() if time is not None else ""
            rows.append(Cast(number, said[0], said[1], said[2], moment))
    return rows
