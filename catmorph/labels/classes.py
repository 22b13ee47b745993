"""Labels from columns that hold a class each, and from the fractions of a scheme that another one folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from catmorph.errors import UsageError, suggest
from catmorph.schemes import LabelClass, Scheme, load_scheme

NO_CLASS = "no class given"
UNCLASSIFIED = "only entries that are no class"
APART = "most votes for a class that scheme {scheme!r} keeps apart"
LEFT_OUT, KEPT_APART, _EMPTY, UNKNOWN = -1, -2, -3, -4
"""In the place of the number of a class."""


@dataclass(frozen=True)
class Labelled:
    """Rows of labels before any of them is left out.

    Attributes
    ----------
    fractions : ndarray of float64, shape (n, class)
        In the order of the scheme.
    votes : ndarray of float64, shape (n,), or None
        Number of votes, where it is known.
    reasons : ndarray of object, shape (n,)
        Why a row is no label, None where it is one.
    """

    fractions: np.ndarray
    votes: np.ndarray | None
    reasons: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Which rows are labels, bool (n,)."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)


class Answers:
    """Which class of a scheme people mean by what they say.

    That is the name, code, label or title of a class, or one of `answers`; neither case nor space matters, and 4.0
    is 4. Where the scheme is folded, also those of the classes that it folds (codes are those alone).

    Parameters
    ----------
    answers : mapping
        ``labels.answers``: what people may say besides -> name of a class, or empty to leave it out.

    Raises
    ------
    UsageError
        When `answers` names no class, or gives one answer to two.
    """

    def __init__(self, scheme: Scheme, answers: Mapping[str, str]):
        self._known = _known(scheme, answers)

    def number(self, text: str) -> int:
        """Return the number of the class, or `LEFT_OUT`, `KEPT_APART` (of a folded scheme) or `UNKNOWN`: below 0."""
        return self._known.get(_folded(text), UNKNOWN)


def class_numbers(columns: Sequence[np.ndarray], scheme: Scheme, answers: Mapping[str, str]) -> np.ndarray:
    """Return the class that each cell names, int array (row, column); below 0 where it names none: see `Answers`.

    Raises
    ------
    UsageError
        As `Answers`.
    """
    known = Answers(scheme, answers)
    found = np.empty((len(columns[0]), len(columns)), dtype=np.int64)
    for place, cells in enumerate(columns):
        texts = {cell: known.number(cell) for cell in {*cells} if cell is not None}
        found[:, place] = [_EMPTY if cell is None else texts[cell] for cell in cells]
    return found


def from_classes(numbers: np.ndarray, scheme: Scheme) -> Labelled:
    """Turn the classes that people named, (row, person) from `class_numbers`, into fractions of their votes."""
    classes = np.arange(len(scheme.classes))
    counts = (numbers[:, :, None] == classes).sum(axis=1)
    apart = (numbers == KEPT_APART).sum(axis=1)
    reasons = np.full(len(numbers), None, dtype=object)
    reasons[(counts.sum(axis=1) + apart) == 0] = UNCLASSIFIED
    reasons[(numbers == _EMPTY).all(axis=1)] = NO_CLASS
    reasons[apart > counts.max(axis=1)] = APART.format(scheme=scheme.name)
    votes = counts.sum(axis=1).astype(np.float64)
    fractions = counts / np.maximum(votes, 1)[:, None]
    return Labelled(fractions, votes if numbers.shape[1] > 1 else None, reasons)


def folded(fractions: np.ndarray, scheme: Scheme) -> Labelled:
    """Fold fractions (n, class of the other scheme) into those of `scheme`, whose rows sum to 1.

    Where the classes kept apart together have more votes than any class, the row is no label; else their votes do not
    count.
    """
    assert scheme.fold is not None, "only folded schemes have another one's tables"
    base = load_scheme(scheme.fold.scheme)
    parts = np.stack([fractions[:, [base.index(one) for one in scheme.fold.classes[name]]].sum(axis=1)
                      for name in scheme.class_names], axis=1)  # fmt: skip
    apart = fractions[:, [base.index(one) for one in scheme.fold.apart]].sum(axis=1)
    reasons = np.full(len(fractions), None, dtype=object)
    reasons[apart > parts.max(axis=1)] = APART.format(scheme=scheme.name)
    total = parts.sum(axis=1, keepdims=True)
    return Labelled(np.divide(parts, total, out=np.zeros_like(parts), where=total > 0), None, reasons)


def _known(scheme: Scheme, answers: Mapping[str, str]) -> dict[str, int]:
    """Return what a cell may say -> index of its class, or -1 or -2."""
    found: dict[str, int] = {}
    if scheme.fold is None:
        found |= {text: index for index, one in enumerate(scheme.classes) for text in _texts(one)}
        found |= {_folded(text): LEFT_OUT for text in scheme.unclassified}
    else:
        base = load_scheme(scheme.fold.scheme)
        into = _folds(scheme)
        found |= {_folded(text): LEFT_OUT for text in base.unclassified}
        own = {_folded(text): index for index, one in enumerate(scheme.classes)
               for text in (one.title, one.label, one.name)}  # fmt: skip
        found |= own | {text: into[one.name] for one in base.classes for text in _texts(one)}
    names = {name: index for index, name in enumerate(scheme.class_names)}
    names |= {} if scheme.fold is None else {name: into for name, into in _folds(scheme).items() if name not in names}
    given: dict[str, int] = {}
    for answer, name in answers.items():
        if name and name not in names:
            raise UsageError(f"answer {answer!r} is given to {name!r}, which is no class of scheme {scheme.name!r}",
                             where="labels.answers", hint=suggest(name, names))
        number = names[name] if name else LEFT_OUT
        if given.setdefault(_folded(answer), number) != number:
            raise UsageError(f"answer {answer!r} is given to two classes", where="labels.answers")
    return found | given


def _folds(scheme: Scheme) -> dict[str, int]:
    """Return the name of each class that `scheme` folds -> index of its own class, or -2."""
    assert scheme.fold is not None
    found = {one: index for index, name in enumerate(scheme.class_names) for one in scheme.fold.classes[name]}
    return found | dict.fromkeys(scheme.fold.apart, KEPT_APART)


def _texts(one: LabelClass) -> set[str]:
    return {_folded(text) for text in (one.title, one.label, one.code, one.name)}


def _folded(text: str) -> str:
    words = " ".join(text.split()).casefold()
    whole = words.partition(".")
    return whole[0] if whole[0].isdecimal() and whole[2].strip("0") == "" else words
