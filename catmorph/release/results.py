"""Reading what the networks answered, chunk by chunk, as probabilities and flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.inference.combine import Prediction, combine, entropy
from catmorph.inference.members import Member, member_logits, members
from catmorph.quality import blocked, describe
from catmorph.release.layout import Key
from catmorph.schemes import Scheme, load_scheme
from catmorph.schemes.tree import Tree
from catmorph.sources.arrow import number_array, numbers_of, text_array
from catmorph.workspace import Chunk, RunFolder

Temperatures = Mapping[str, Sequence[float]]
"""Classifier -> what the logits of each of its members are divided by."""

_AGAIN = "run `catmorph classify`"


@dataclass(frozen=True)
class ViewResult:
    """What one classifier says of the sources of a chunk in one view.

    Attributes
    ----------
    flags : ndarray of uint32, shape (n,)
        Bits of `catmorph.quality.Flag`.
    probabilities : ndarray of float32, shape (n, classes)
        NaN where blocked; of an ensemble the mean over its members. Class, entropy and counts are computed from
        these, so that they can be computed again from the release.
    spread : ndarray of float32, shape (n, classes), or None
        Standard deviation of an ensemble's probabilities, NaN where blocked; None for a single network.
    mutual_information : ndarray of float32, shape (n,), or None
        Of an ensemble, bits, NaN where blocked; see `catmorph.inference.combine.Prediction`.
    """

    flags: np.ndarray
    probabilities: np.ndarray
    spread: np.ndarray | None = None
    mutual_information: np.ndarray | None = None

    @property
    def classified(self) -> np.ndarray:
        """Where there are probabilities: booleans of shape (n,)."""
        return ~blocked(self.flags)


@dataclass(frozen=True)
class Result:
    """Sources of one field, what every classifier says of them, and which are released, shape (n,).

    `chunks` are those that the sources lie in, one after the other.
    """

    chunks: tuple[Chunk, ...]
    sources: pa.Table
    views: Mapping[Key, ViewResult]
    released: np.ndarray

    @property
    def field(self) -> str:
        """The field of all the sources."""
        return self.chunks[0].field


def answers(scheme: Scheme, probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable class (softmax), the questions answered yes (sigmoid, P >= 0.5), or the way down a tree.

    Down a tree the most probable answer is given to each question that is asked, the first of equal ones.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
        NaN rows answer nothing.

    Returns
    -------
    ndarray of bool, shape (n, classes)
        With softmax the first of equal maxima alone is true.
    """
    if isinstance(scheme.form, Tree):
        return scheme.form.path_taken(probabilities)
    if scheme.kind == "sigmoid":
        return probabilities >= 0.5
    valid = ~np.isnan(probabilities).any(axis=1)
    best = np.zeros(probabilities.shape, dtype=bool)
    best[valid, probabilities[valid].argmax(axis=1)] = True
    return best


def answer_names(scheme: Scheme, probabilities: np.ndarray) -> pa.Array:
    """Return the answers as text: a class name, or names joined by ``|``; null where there are none known."""
    best = answers(scheme, probabilities)
    missing = np.isnan(probabilities).any(axis=1)
    if scheme.kind == "softmax":
        number, names = best.argmax(axis=1), list(scheme.class_names)
    else:
        # A text for each set of answers that occurs, not for each row.
        sets, number = np.unique(np.packbits(best, axis=1), axis=0, return_inverse=True)
        chosen = np.unpackbits(sets, axis=1, count=best.shape[1]).astype(bool)
        names = ["|".join(np.array(scheme.class_names)[one]) for one in chosen]
    places = number_array(np.ma.array(number.reshape(-1).astype(np.int32), mask=missing))
    return text_array(names).take(places)


def entropy_bits(scheme: Scheme, probabilities: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy in bits, float32 of shape (n,); see `catmorph.inference.combine.entropy`."""
    return entropy(scheme, probabilities).astype(np.float32)


def describe_flags(views: Mapping[Key, ViewResult], row: int) -> str:
    """Return the flags of one source in all views as text, such as ``F225W: OFF_IMAGE; F275W: EDGE|FLAT``."""
    several = len({key.classifier for key in views}) > 1
    texts = [
        f"{key.classifier + '/' if several else ''}{key.view}: {describe(int(result.flags[row]))}"
        for key, result in views.items()
        if result.flags[row]
    ]
    return "; ".join(texts)


def _released(require: str, views: Mapping[Key, ViewResult], count: int) -> np.ndarray:
    if require == "none":
        return np.ones(count, dtype=bool)
    classified = np.array([view.classified for view in views.values()])
    together = np.logical_or if require == "any" else np.logical_and
    return together.reduce(classified, axis=0)


class Reader:
    """Reads the results of chunks.

    Parameters
    ----------
    run : RunFolder
        The run folder.
    flags_only : bool
        Read ids and flags alone; probabilities have shape (n, 0).
    used : mapping
        Temperatures of each classifier's members.
    """

    def __init__(self, run: RunFolder, flags_only: bool, used: Temperatures):
        self._run, self._temperatures, self._flags_only = run, used, flags_only
        self._schemes = {name: load_scheme(run.recipe.classifier_scheme(name)) for name in run.recipe.classifiers}
        self._members = {name: members(run.recipe, name) for name in run.recipe.classifiers}

    def read(self, chunks: Sequence[Chunk], keys: Iterable[Key]) -> Result:
        """Return one result for chunks of one field.

        Raises
        ------
        CatmorphError
            For a logits file that is missing, damaged or not about its chunk's sources.
        """
        tables = [self._run.read_sources(chunk) for chunk in chunks]
        ids = [table["id"].cast(pa.string()) for table in tables]
        views = {key: self._view(key, chunks, ids) for key in keys}
        sources = pa.concat_tables(tables)
        return Result(tuple(chunks), sources, views, _released(self._run.recipe.release.require, views, len(sources)))

    def _view(self, key: Key, chunks: Sequence[Chunk], ids: Sequence[pa.ChunkedArray]) -> ViewResult:
        """Return what the members of a classifier say together; a flag of one of them counts for all.

        `ids` are those of the sources of each chunk.
        """
        each = [self._one(member, key, chunks, ids) for member in self._members[key.classifier]]
        flags = np.bitwise_or.reduce([one for one, _ in each])
        logits = [one for _, one in each]
        if self._flags_only:
            return ViewResult(flags, logits[0])
        where = np.flatnonzero(blocked(flags))
        for one in logits:
            one[where] = np.nan
        return _view_result(flags, combine(self._schemes[key.classifier], logits, self._temperatures[key.classifier]))

    def _one(
        self, member: Member, key: Key, chunks: Sequence[Chunk], ids: Sequence[pa.ChunkedArray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return flags (n,) and logits (n, class) of one member."""
        names = () if self._flags_only else self._schemes[key.classifier].class_names
        count = sum(map(len, ids))
        flags, logits = np.empty(count, np.uint32), _room(count, len(names))
        start = 0
        for chunk, mine in zip(chunks, ids, strict=True):
            rows = slice(start, start := start + len(mine))
            path = member_logits(self._run, member, key.view, chunk)
            table = _read_columns(path, ["id", "flags", *names])
            _refuse_others(path, chunk, table["id"].cast(pa.string()), mine)
            flags[rows] = numbers_of(table["flags"])[0]
            for index, name in enumerate(names):
                logits[rows, index] = numbers_of(table[name])[0]
            _refuse_unsaid(path, flags[rows], logits[rows])
        return flags, logits


def _room(count: int, classes: int) -> np.ndarray:
    """Return an array (n, class) to be filled, of few classes each in one piece: sums over them are faster so.

    From eight numbers on numpy sums by halves where they are neighbours: of more classes the layout would change last
    bits, and `combine` would say something else here than of logits fresh from the network.
    """
    return np.empty((classes, count), np.float32).T if classes < 8 else np.empty((count, classes), np.float32)


def _refuse_others(path: Path, chunk: Chunk, ids: pa.ChunkedArray, expected: pa.ChunkedArray) -> None:
    if not ids.equals(expected):
        raise CatmorphError(f"holds other sources than field {chunk.field!r}, cell {chunk.cell}, has now", where=path,
                            hint=_AGAIN)


def _refuse_unsaid(path: Path, flags: np.ndarray, logits: np.ndarray) -> None:
    """Refuse rows without logits that no flag accounts for."""
    finite = np.isfinite(logits)
    if finite.all():
        return
    bad = ~finite.all(axis=1) & ~blocked(flags)
    if bad.any():
        row = int(np.flatnonzero(bad)[0]) + 1
        raise CatmorphError(f"row {row} has no finite logits and no flag that says why", where=path, hint=_AGAIN)


def _view_result(flags: np.ndarray, prediction: Prediction) -> ViewResult:
    def single(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values.astype(np.float32)

    return ViewResult(
        flags,
        prediction.probabilities.astype(np.float32),
        single(prediction.spread),
        single(prediction.mutual_information),
    )


def _read_columns(path: Path, columns: list[str]) -> pa.Table:
    try:
        # From memory: by its name a file takes half as long again to open. Some hundred rows are read.
        with pq.ParquetFile(pa.BufferReader(path.read_bytes())) as file:
            table = file.read(columns, use_threads=False)  # files are small: threads cost more than they save
    except FileNotFoundError:
        raise CatmorphError("this logits file is missing", where=path, hint=_AGAIN) from None
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"is damaged: {error}", where=path, hint=f"delete it and {_AGAIN}") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise CatmorphError(f"has no column {missing[0]!r}", where=path, hint=_AGAIN)
    return table
