"""Processes that read results and make something of them, part by part and in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from catmorph.engine import run_in_order
from catmorph.inference.members import all_temperatures
from catmorph.progress import progress
from catmorph.recipe import Recipe
from catmorph.release.layout import Key, release_keys
from catmorph.release.results import Reader, Result, Temperatures
from catmorph.workspace import Chunk, RunFolder

Made = TypeVar("Made")
Made_co = TypeVar("Made_co", covariant=True)

WORKERS_IMPORT = ("catmorph.release.bundle",)
"""What makes something of results: imported once for all worker processes, see `catmorph.engine`."""

_FILES_A_SECOND = 1000
"""Logits files that one core reads and turns into probabilities, roughly."""

_CHUNKS_A_TASK = 16
SOURCES_A_TASK = 4_096
"""What a process reads at a time: worth sending, and with 16 views of 5 classes 1.3 MB of results at most."""

_MOST_READERS = 4
"""Processes that read: what is left to one process, writing, is a third of the work, and each takes its memory."""


def read_results(run: RunFolder, *, keys: Sequence[Key] | None = None, workers: int = 1) -> Iterator[Result]:
    """Yield the results of each chunk in the order of the plan; see `made_of_results`."""
    for part in made_of_results(run, list, keys=keys, workers=workers):
        yield from part


def runs_of_chunks(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """Return `chunks` in parts that are worth sending to a process and small enough for its memory."""
    parts: list[list[Chunk]] = []
    rows = 0
    for chunk in chunks:
        if not parts or len(parts[-1]) == _CHUNKS_A_TASK or rows + chunk.count > SOURCES_A_TASK:
            parts.append([])
            rows = 0
        parts[-1].append(chunk)
        rows += chunk.count
    return parts


def made_of_results(
    run: RunFolder,
    make: Callable[[Iterator[Result]], Made],
    *,
    flags_only: bool = False,
    joined: bool = False,
    parts: Sequence[Sequence[Chunk]] | None = None,
    keys: Sequence[Key] | None = None,
    used: Temperatures | None = None,
    workers: int = 1,
    label: str = "",
) -> Iterator[Made]:
    """Yield what `make` makes of the results of each of `parts`, by default of all chunks in the order of the plan.

    Parameters
    ----------
    run : RunFolder
        The run folder.
    make : callable
        Takes the results of the chunks of a part, which are read one by one. Picklable: a module-level function, or
        a `functools.partial` of one.
    flags_only : bool
        Read ids and flags alone; probabilities have shape (n, 0).
    joined : bool
        One result for the neighbouring chunks of a part that are of the same field, instead of one each.
    keys : sequence of Key, optional
        Classifiers and views to read, by default those of the release; what is released depends on all of them.
    used : mapping, optional
        Temperatures of each classifier's members, by default those that recipe and cards say now.
    workers : int
        Processes that may read and call `make`; no more than 4 are used.
    label : str
        Of the progress bar; without one there is none.

    Raises
    ------
    CatmorphError
        For a logits file that is missing, damaged or not about its chunk's sources, or a checkpoint without the
        temperature that the recipe takes from its card.
    """
    tasks = read_tasks(
        run, make, runs_of_chunks(run.chunks()) if parts is None else parts, flags_only=flags_only, joined=joined,
        keys=release_keys(run.recipe) if keys is None else keys,
        used=all_temperatures(run.recipe) if used is None else used,
    )
    yield from done_in_order(tasks, workers=workers, label=label)


class Work(Protocol[Made_co]):
    """What a process does when it is called. Picklable."""

    @property
    def seconds(self) -> float:
        """How long one core takes, roughly."""

    def __call__(self) -> Made_co:
        """Do it."""


@dataclass(frozen=True)
class _ReadTask(Generic[Made]):
    """Some chunks whose results a process reads, and what it makes of them."""

    folder: Path
    recipe: Recipe
    chunks: tuple[Chunk, ...]
    keys: tuple[Key, ...]
    make: Callable[[Iterator[Result]], Made]
    flags_only: bool
    joined: bool
    used: Temperatures

    @property
    def seconds(self) -> float:
        return len(self.chunks) * sum(len(self.used[key.classifier]) for key in self.keys) / _FILES_A_SECOND

    def __call__(self) -> Made:
        return self.make(_read(self))


def read_tasks(
    run: RunFolder,
    make: Callable[[Iterator[Result]], Made],
    parts: Iterable[Sequence[Chunk]],
    *,
    keys: Sequence[Key],
    used: Temperatures,
    flags_only: bool = False,
    joined: bool = False,
) -> list[Work[Made]]:
    """Return what makes something of the results of each of `parts`; the parameters are those of `made_of_results`."""
    return [_ReadTask(run.path, run.recipe, tuple(chunks), tuple(keys), make, flags_only, joined, used)
            for chunks in parts]


def done_in_order(
    tasks: Sequence[Work[Made]], *, workers: int, label: str = ""
) -> Generator[Made, None, None]:
    """Yield what `tasks` return, in their order; `workers` and `label` are those of `made_of_results`."""
    seconds = sum(task.seconds for task in tasks)
    with closing(run_in_order(_call, tasks, workers=min(workers, _MOST_READERS), estimated_seconds=seconds)) as made:
        yield from progress(made, total=len(tasks), label=label, shown=bool(label))


def _call(task: Work[Made]) -> Made:
    return task()


def _read(task: _ReadTask[Made]) -> Iterator[Result]:
    reader = Reader(RunFolder(task.folder, task.recipe), task.flags_only, task.used)
    together = [list(group) for _, group in groupby(task.chunks, key=lambda chunk: chunk.field)]
    for chunks in together if task.joined else [[chunk] for chunk in task.chunks]:
        yield reader.read(chunks, task.keys)
