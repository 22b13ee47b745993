"""Reading what the networks answered, chunk by chunk, as probabilities and flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import entr

from catmorph.errors import CatmorphError
from catmorph.quality import blocked, describe
from catmorph.release.layout import Key, release_keys
from catmorph.schemes import Scheme, load_scheme
from catmorph.workspace import Chunk, RunFolder

_AGAIN = "run `catmorph classify`"


@dataclass(frozen=True)
class ViewResult:
    """What one classifier says of the sources of a chunk in one view.

    Attributes
    ----------
    flags : ndarray of uint32, shape (n,)
        Bits of `catmorph.quality.Flag`.
    probabilities : ndarray of float32, shape (n, classes)
        NaN where blocked. Everything else (class, entropy, counts) is computed from these, so that it can
        be computed again from the release.
    """

    flags: np.ndarray
    probabilities: np.ndarray

    @property
    def classified(self) -> np.ndarray:
        """Where there are probabilities: booleans of shape (n,)."""
        return ~blocked(self.flags)


@dataclass(frozen=True)
class ChunkResult:
    """The sources of a chunk, what every classifier says of them, and which are released, shape (n,)."""

    chunk: Chunk
    sources: pa.Table
    views: Mapping[Key, ViewResult]
    released: np.ndarray


def read_results(
    run: RunFolder, *, flags_only: bool = False, chunks: Sequence[Chunk] | None = None
) -> Iterator[ChunkResult]:
    """Yield the results of `chunks`, by default of all in the order of the plan.

    Parameters
    ----------
    run : RunFolder
        The run folder.
    flags_only : bool
        Read ids and flags alone; probabilities have shape (n, 0).

    Raises
    ------
    CatmorphError
        For a logits file that is missing, damaged or not about its chunk's sources.
    """
    keys = release_keys(run.recipe)
    chunks = run.chunks() if chunks is None else chunks
    _refuse_missing(run, chunks, keys)
    scheme = load_scheme(run.recipe.scheme)
    for chunk in chunks:
        sources = run.read_sources(chunk)
        ids = sources["id"].combine_chunks().cast(pa.string())
        views = {key: _read_view(run, scheme, key, chunk, ids, flags_only) for key in keys}
        yield ChunkResult(chunk, sources, views, _released(run.recipe.release.require, views, len(ids)))


def answers(scheme: Scheme, probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable class (softmax), or the questions answered yes (sigmoid, P >= 0.5).

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
        NaN rows answer nothing.

    Returns
    -------
    ndarray of bool, shape (n, classes)
        With softmax the first of equal maxima alone is true.
    """
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
    names = np.array(scheme.class_names)
    if scheme.kind == "softmax":
        number = pa.array(best.argmax(axis=1).astype(np.int32), mask=missing)
        return pa.DictionaryArray.from_arrays(number, pa.array(names, pa.string())).cast(pa.string())
    texts = ["|".join(names[row]) for row in best]
    return pa.array(np.array(texts, dtype=object), pa.string(), mask=missing)


def entropy_bits(scheme: Scheme, probabilities: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy in bits, float32 of shape (n,); sigmoid schemes: summed over questions."""
    wide = probabilities.astype(np.float64)
    nats = entr(wide).sum(axis=1)
    if scheme.kind == "sigmoid":
        nats += entr(1.0 - wide).sum(axis=1)
    return (nats / np.log(2.0)).astype(np.float32)


def describe_flags(views: Mapping[Key, ViewResult], row: int) -> str:
    """Return the flags of one source in all views as text, such as ``F225W: OFF_IMAGE; F275W: EDGE|FLAT``."""
    several = len({key.classifier for key in views}) > 1
    texts = [
        f"{key.classifier + '/' if several else ''}{key.view}: {describe(int(result.flags[row]))}"
        for key, result in views.items()
        if result.flags[row]
    ]
    return "; ".join(texts)


def _refuse_missing(run: RunFolder, chunks: Sequence[Chunk], keys: tuple[Key, ...]) -> None:
    first, count = None, 0
    for key in keys:
        for chunk in chunks:
            path = run.logits_path(key.classifier, key.view, chunk)
            if not path.exists():
                first, count = first or path, count + 1
    if first:
        raise CatmorphError(
            f"this logits file is missing ({count} of {len(keys) * len(chunks)} are)",
            where=first,
            hint=_AGAIN,
        )


def _released(require: str, views: Mapping[Key, ViewResult], count: int) -> np.ndarray:
    if require == "none":
        return np.ones(count, dtype=bool)
    classified = np.array([view.classified for view in views.values()])
    combine = np.logical_or if require == "any" else np.logical_and
    return combine.reduce(classified, axis=0)


def _read_view(
    run: RunFolder, scheme: Scheme, key: Key, chunk: Chunk, ids: pa.Array, flags_only: bool
) -> ViewResult:
    path = run.logits_path(key.classifier, key.view, chunk)
    names = () if flags_only else scheme.class_names
    table = _read_columns(path, ["id", "flags", *names])
    if not table["id"].combine_chunks().cast(pa.string()).equals(ids):
        raise CatmorphError(
            f"holds other sources than field {chunk.field!r}, cell {chunk.cell}, has now",
            where=path,
            hint=_AGAIN,
        )
    flags = table["flags"].to_numpy().astype(np.uint32)
    logits = np.empty((len(ids), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        logits[:, index] = table[name].to_numpy()
    return ViewResult(flags, _probabilities(run, scheme, key, flags, logits, path))


def _probabilities(
    run: RunFolder, scheme: Scheme, key: Key, flags: np.ndarray, logits: np.ndarray, path: Path
) -> np.ndarray:
    stopped = blocked(flags)
    bad = ~np.isfinite(logits).all(axis=1) & ~stopped
    if bad.any():
        row = int(np.flatnonzero(bad)[0]) + 1
        raise CatmorphError(
            f"row {row} has no finite logits and no flag that says why", where=path, hint=_AGAIN
        )
    logits[stopped] = np.nan
    if not logits.shape[1]:
        return logits
    temperature = run.recipe.classifiers[key.classifier].temperature
    return scheme.probabilities(logits.astype(np.float64) / temperature).astype(np.float32)


def _read_columns(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            stored = set(file.schema_arrow.names)
            missing = [name for name in columns if name not in stored]
            if missing:
                raise CatmorphError(f"has no column {missing[0]!r}", where=path, hint=_AGAIN)
            return file.read(columns, use_threads=False)  # files are small: threads cost more than they save
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"is damaged: {error}", where=path, hint=f"delete it and {_AGAIN}") from error
