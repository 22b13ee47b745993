"""Reading the classification export of a Zooniverse project.

The columns and the JSON in them are those that Panoptes writes (zooniverse/panoptes, ``lib/formatter/csv``):
``annotations`` is a list of ``{"task", "task_label", "value"}``, where the value of a question is the text of its
answer, of a question with several answers a list of them, and of a combined task a list of such entries;
``subject_data`` is ``{subject id: {metadata of the manifest, "retired": ...}}``; a user without login is called
``not-logged-in-`` and a hash of the address.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.errors import UsageError, printable, suggest
from catmorph.labels.ballots import NO_ANSWER, NO_USER, WRONG_LENGTH, Cast, LeftOut
from catmorph.labels.cells import find_column, plain_cell

OTHER_WORKFLOW = "another workflow"
NO_TASK = "the task was not answered"
SEVERAL_ANSWERS = "several answers"
SEVERAL_SUBJECTS = "several subjects"
BROKEN_ANNOTATIONS = "broken JSON in annotations"
BROKEN_SUBJECT = "broken JSON in subject_data"

_MARKS = "#!/%"


@dataclass(frozen=True)
class ExportOptions:
    """Which workflow and task count (None: the only one there is), and the metadata key that names the stamp."""

    workflow: str | None = None
    task: str | None = None
    subject_key: str = "#stamp"


@dataclass(frozen=True)
class _Columns:
    """The places of the columns that are read; -1 for one that is not there."""

    user_name: int
    user_ip: int
    workflow: int
    created_at: int
    annotations: int
    subject_data: int


@dataclass(frozen=True)
class _Said:
    """What a row says: `problem` where it names no stamp, `answers` by task, None where they are broken."""

    workflow: str
    user: str
    stamp: str
    problem: str
    time: str
    answers: dict[str, tuple[str, ...]] | None


def is_export(header: list[str]) -> bool:
    """Return whether a header is that of a classification export."""
    return {"annotations", "subject_data"} <= set(header)


def read_export(
    path: Path, header: list[str], lines: Iterator[list[str]], options: ExportOptions
) -> list[Cast | LeftOut]:
    """Return what each row of an export says, or why it says nothing.

    Raises
    ------
    CatalogError
        When a column is missing.
    UsageError
        When several workflows or tasks occur and none is chosen, or the chosen one does not occur.
    """
    columns = _columns(header, path)
    said = [_said(cells, columns, options.subject_key) if len(cells) == len(header) else None for cells in lines]
    whole = [one for one in said if one is not None]
    workflow = _the_one(Counter(one.workflow for one in whole), options.workflow, "workflow", path)
    tasks = Counter(task for one in whole if one.workflow == workflow and one.answers for task in one.answers)
    task = _the_one(tasks, options.task, "task", path)
    return [
        LeftOut(number, WRONG_LENGTH) if one is None
        else LeftOut(number, OTHER_WORKFLOW, one.stamp, one.user) if one.workflow != workflow
        else _row(number, one, task)
        for number, one in enumerate(said, start=1)
    ]  # fmt: skip


def _columns(header: list[str], path: Path) -> _Columns:
    needed = [find_column(header, name, path) for name in ("user_name", "workflow_id", "annotations", "subject_data")]
    address, time = (header.index(name) if name in header else -1 for name in ("user_ip", "created_at"))
    return _Columns(needed[0], address, needed[1], time, needed[2], needed[3])


def _the_one(found: Counter[str], chosen: str | None, what: str, path: Path) -> str | None:
    """Return the chosen workflow or task, or the only one there is."""
    if chosen is not None:
        if found and chosen not in found:
            raise UsageError(f"no row has {what} {chosen!r}", where=path, hint=suggest(chosen, sorted(found)))
        return chosen
    if len(found) > 1:
        counts = ", ".join(f"{name!r} ({count} rows)" for name, count in found.most_common(5))
        raise UsageError(f"has {len(found)} {what}s: {counts}", where=path, hint=f"choose one: --{what}")
    return next(iter(found), None)


def _said(cells: list[str], columns: _Columns, key: str) -> _Said:
    user = cells[columns.user_name].strip()
    if not user and columns.user_ip >= 0 and cells[columns.user_ip].strip():
        user = f"not-logged-in-{cells[columns.user_ip].strip()}"
    stamp, problem = _stamp(cells[columns.subject_data], key)
    time = cells[columns.created_at].strip() if columns.created_at >= 0 else ""
    workflow = cells[columns.workflow].strip()
    return _Said(sys.intern(workflow), sys.intern(user), sys.intern(stamp), problem, time,
                 _answers(cells[columns.annotations]))


def _row(number: int, said: _Said, task: str | None) -> Cast | LeftOut:
    given = (said.answers or {}).get(task or "")
    answer = "; ".join(given or ())
    reason = said.problem
    if not reason and said.answers is None:
        reason = BROKEN_ANNOTATIONS
    elif not reason and given is None:
        reason = NO_TASK
    elif not reason and len(given or ()) != 1:
        reason = SEVERAL_ANSWERS if given else NO_ANSWER
    elif not reason and not said.user:
        reason = NO_USER
    if reason:
        return LeftOut(number, reason, said.stamp, said.user, answer)
    return Cast(number, said.stamp, said.user, answer, said.time)


def _answers(text: str) -> dict[str, tuple[str, ...]] | None:
    """Return the answers to each task, those in a combined task beside the others; None for broken JSON."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not _are_entries(entries):
        return None
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        inner = entry.get("value")
        for one in inner if inner and _are_entries(inner) else [entry]:
            task = sys.intern(str(one["task"]))
            texts = map(sys.intern, _texts(one.get("value")))
            found[task] = tuple(dict.fromkeys((*found.get(task, ()), *texts)))
    return found


def _are_entries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "task" in one for one in value)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in the value of an answer: a text, a list of them, or the label of a drop-down list."""
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from _texts(value.get("label", value.get("value")))
    elif value is not None and str(value).strip():
        yield printable(_encodable(str(value).strip()))


def _stamp(text: str, key: str) -> tuple[str, str]:
    """Return the stamp that a subject shows and an empty reason, or why there is none."""
    try:
        subjects = json.loads(text)
    except (ValueError, RecursionError):
        return "", BROKEN_SUBJECT
    if not isinstance(subjects, dict) or not all(isinstance(one, dict) for one in subjects.values()):
        return "", BROKEN_SUBJECT
    if len(subjects) != 1:
        return "", SEVERAL_SUBJECTS if subjects else BROKEN_SUBJECT
    (metadata,) = subjects.values()
    wanted = key.lstrip(_MARKS).strip().casefold()
    for name, value in metadata.items():
        if name.lstrip(_MARKS).strip().casefold() == wanted and isinstance(value, str | int) and str(value).strip():
            return plain_cell(_encodable(str(value).strip())), ""
    return "", f"subject has no {key!r}"


def _encodable(text: str) -> str:
    """Return `text` with halves of surrogate pairs, which JSON can hold and no file, as ``?``."""
    return text.encode("utf-8", "replace").decode()
