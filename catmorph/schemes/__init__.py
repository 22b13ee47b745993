"""Label schemes: the classes a network answers with, their names in tables, and how logits become probabilities.

A scheme is one TOML file in this folder; adding a file adds the scheme.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from catmorph.errors import UsageError, suggest
from catmorph.schemes.tree import Reweight, Tree

Kind = Literal["softmax", "sigmoid"]
_FOLDER = resources.files(__name__)

Form = Kind | Tree
"""How the answers of a scheme hang together: they exclude each other, are independent, or are those of a tree."""


class LabelClass(BaseModel):
    """One class: `name` in catmorph's files, `code` in released columns, `label` in label tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    code: str
    label: str
    title: str


class Question(BaseModel):
    """A question whose answers are `classes`; it is asked where the answer `parent` was given, else always."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    classes: tuple[str, ...] = Field(min_length=2)
    parent: str | None = None


class Fold(BaseModel):
    """Which classes of the scheme called `scheme` make each class of this one; those `apart` make none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    classes: dict[str, tuple[str, ...]]
    apart: tuple[str, ...] = ()


class Scheme(BaseModel):
    """A label scheme.

    ``kind`` is ``softmax`` for classes that exclude each other, ``sigmoid`` for independent questions, and ``tree`` for
    the answers of `questions`, whose probabilities follow from one another by `reweight` (see
    `catmorph.schemes.tree.Tree`). A ``sigmoid`` scheme may have `questions` too: then its label tables follow the tree,
    and its network does not know of it. ``merger`` names the class whose fraction is the merger fraction, where the
    scheme has one; `fold` says that its label tables may be those of another scheme; `unclassified` are entries of
    label tables that stand for no class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    reference: str
    kind: Literal["softmax", "sigmoid", "tree"]
    classes: tuple[LabelClass, ...] = Field(min_length=1)
    merger: str | None = None
    questions: tuple[Question, ...] = ()
    reweight: Reweight = "cumulative"
    epsilon: float = Field(0.0, ge=0.0, le=1e-3)
    fold: Fold | None = None
    unclassified: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Scheme:
        problem = next(_problems(self), None)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return tuple(one.name for one in self.classes)

    @cached_property
    def tree(self) -> Tree | None:
        """The tree of the questions, None where there are none."""
        if not self.questions:
            return None
        places = {name: number for number, name in enumerate(self.class_names)}
        return Tree(
            tuple(tuple(places[name] for name in one.classes) for one in self.questions),
            tuple(-1 if one.parent is None else places[one.parent] for one in self.questions),
            self.reweight,
            self.epsilon,
        )

    @property
    def form(self) -> Form:
        """How the network's answers hang together: `kind`, or the tree itself."""
        if self.kind != "tree":
            return self.kind
        assert self.tree is not None, "checked when it was made"
        return self.tree

    @property
    def longest_answer(self) -> int:
        """The most characters of an answer: of one class, or of several names joined by ``|``."""
        if isinstance(self.form, Tree):
            return self.form.longest(self.class_names)
        return max(map(len, self.class_names)) if self.kind == "softmax" else len("|".join(self.class_names))

    def index(self, name: str) -> int:
        """Return the output index of class `name`; an unknown name is an error that lists the valid ones."""
        if name not in self.class_names:
            raise UsageError(f"scheme {self.name!r} has no class {name!r}", hint=suggest(name, self.class_names))
        return self.class_names.index(name)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (..., class) into probabilities of the same shape, in float64; NaN stays NaN."""
        logits = np.asarray(logits, dtype=np.float64)
        if isinstance(self.form, Tree):
            return self.form.probabilities(logits)
        if self.kind == "sigmoid":
            return 0.5 * (1.0 + np.tanh(0.5 * logits))
        # A difference of huge logits overflows to -inf, whose power is the 0 that is wanted.
        with np.errstate(over="ignore"):
            powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def _problems(scheme: Scheme) -> Iterator[str]:
    """Yield what is wrong with a scheme, a line each."""
    for field in ("name", "code", "label", "title"):
        twice = [text for text, count in Counter(getattr(one, field) for one in scheme.classes).items() if count > 1]
        if twice:
            yield f"two classes have the {field} {twice[0]!r}"
    if scheme.merger is not None and scheme.merger not in scheme.class_names:
        yield f"its merger class {scheme.merger!r} is none of its classes"
    if scheme.kind == "tree" and not scheme.questions:
        yield "a tree needs questions"
    if scheme.kind != "tree" and {"reweight", "epsilon"} & scheme.model_fields_set:
        yield "reweight and epsilon are those of a tree"
    yield from _question_problems(scheme)
    if scheme.fold is not None and set(scheme.fold.classes) != set(scheme.class_names):
        yield f"its fold makes {', '.join(scheme.fold.classes)}, its classes are {', '.join(scheme.class_names)}"


def _question_problems(scheme: Scheme) -> Iterator[str]:
    answers = [name for one in scheme.questions for name in one.classes]
    if scheme.questions and sorted(answers) != sorted(scheme.class_names):
        wrong = set(answers) ^ set(scheme.class_names) or {name for name, n in Counter(answers).items() if n > 1}
        yield f"each class must be an answer of one question; {sorted(wrong)[0]!r} is not"
    before: set[str] = set()
    for one in scheme.questions:
        if one.parent is not None and one.parent not in before:
            yield f"question {one.name!r} comes after {one.parent!r}, which is no answer of a question before it"
        before |= set(one.classes)


def scheme_names() -> list[str]:
    """Return the names of all schemes, sorted."""
    return sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))


@cache
def load_scheme(name: str) -> Scheme:
    """Load the scheme called `name`.

    A file may `extend` another scheme: what it does not say is taken from there.

    Raises
    ------
    UsageError
        When there is no such scheme, or its file is not valid.
    """
    try:
        scheme = Scheme(name=name, **_table(name))
    except ValidationError as error:
        raise UsageError(f"label scheme {name!r} is not valid: {_in_words(error.errors()[0])}") from error
    if scheme.fold is not None:
        _check_fold(scheme, scheme.fold)
    return scheme


def _in_words(found: ErrorDetails) -> str:
    """Return what pydantic found as a line that begins with the key, where it is one of some key."""
    key = ".".join(map(str, found["loc"]))
    message = {"missing": "missing", "extra_forbidden": "unknown key"}.get(found["type"], found["msg"])
    return f"{key}: {message}" if key else message.removeprefix("Value error, ")


def _table(name: str, extending: tuple[str, ...] = ()) -> dict[str, Any]:
    if name not in scheme_names():
        raise UsageError(f"unknown label scheme {name!r}", hint=suggest(name, scheme_names()))
    if name in extending:
        raise UsageError(f"label scheme {name!r} extends itself")
    try:
        table = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise UsageError(f"label scheme {name!r} is not valid TOML: {error}") from error
    if "name" in table:
        raise UsageError(f"label scheme {name!r} is not valid: name: unknown key; a scheme is called as its file")
    base = table.pop("extend", None)
    return table if base is None else _table(base, (*extending, name)) | table


def _check_fold(scheme: Scheme, fold: Fold) -> None:
    """Refuse a fold that leaves out a class of the other scheme, or names one twice."""
    named = sorted([*fold.apart, *(one for several in fold.classes.values() for one in several)])
    wanted = sorted(load_scheme(fold.scheme).class_names)
    if named != wanted:
        raise UsageError(f"label scheme {scheme.name!r} is not valid: its fold must name each class of "
                         f"{fold.scheme!r} once: {', '.join(wanted)}")
