"""Sources and logits -> the wide batches that the formats write."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from catmorph.errors import CatmorphError
from catmorph.files import passing_files
from catmorph.inference.members import all_temperatures
from catmorph.release.layout import Key, Layout, OutputColumn, build_layout, release_keys
from catmorph.release.reading import SOURCES_A_TASK, Work, done_in_order, read_tasks, runs_of_chunks
from catmorph.release.results import Result, Temperatures, ViewResult, answer_names, entropy_bits
from catmorph.release.waiting import Waiting, put_down, taken_by_id
from catmorph.schemes import load_scheme
from catmorph.sources.arrow import number_array
from catmorph.sources.order import natural_order
from catmorph.workspace import Chunk, RunFolder, read_schema

Rows = TypeVar("Rows")
Counted = TypeVar("Counted")

Encode = Callable[[pa.RecordBatch], Rows]
"""What is made of released rows of one field."""

Count = Callable[[Result], Counted]
"""What is made of the results that rows are taken from."""

SORTED_ROWS = 100_000
"""Sources of a field up to which its rows are released by id: sorting the ids takes 4 MB."""


def release_layout(run: RunFolder) -> Layout:
    """Return the layout of the release of `run`, with the types and units of its sources."""
    try:
        schema = read_schema(run.sources_path())
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(
            f"cannot be read: {error}", where=run.sources_path(), hint="run `catmorph ingest`"
        ) from error
    return build_layout(run.recipe, schema)


def made_of_batches(
    run: RunFolder,
    layout: Layout,
    encode: Encode[Rows],
    count: Count[Counted],
    *,
    used: Temperatures | None = None,
    workers: int = 1,
    label: str = "",
) -> Generator[tuple[Rows | None, Counted | None], None, None]:
    """Yield what is made of the released rows, field by field, and of the results that they are taken from.

    Each pair has a part of the one, of the other, or of both. The order of the rows does not depend on the chunks: they
    come by id (whole numbers by value), those of a field of more than 100,000 sources in the order of the sky. A field
    that is more than a process reads at a time waits on disk to be put in order, so that memory stays bounded.

    Parameters
    ----------
    run : RunFolder
        The run folder.
    layout : Layout
        Columns of the rows.
    encode : callable
        Takes a batch of rows, one at least; picklable, since the processes that read call it.
    count : callable
        Takes each `Result` once, likewise.
    used, workers, label
        As in `catmorph.release.reading.made_of_results`.
    """
    fields = [_Field(name, list(chunks)) for name, chunks in groupby(run.chunks(), key=lambda chunk: chunk.field)]
    read = partial(read_tasks, run, joined=True, keys=release_keys(run.recipe),
                   used=all_temperatures(run.recipe) if used is None else used)
    waiting = [part for field in fields if field.waits for part in field.parts]
    with passing_files(run.release_folder(), len(waiting)) as paths:
        reading = [task for part, path in zip(waiting, paths, strict=True)
                   for task in read(partial(_put_down, layout, count, path), [part])]
        by_id = {}
        with closing(done_in_order(reading, workers=workers, label=label and f"{label}: order")) as down:
            for name, group in groupby(down, key=lambda one: one[0].field):
                rows, counts = zip(*group, strict=True)
                yield from ((None, counted) for counted in counts)
                by_id[name] = taken_by_id(rows, partial(_rows_alone, encode), SOURCES_A_TASK)
        tasks: list[Work[Any]] = []
        for field in fields:
            if field.waits:
                tasks += by_id[field.name]
            else:
                tasks += read(partial(_both, layout, field.by_id, encode, count), field.parts)
        yield from done_in_order(tasks, workers=workers, label=label)


@dataclass(frozen=True)
class _Field:
    """The chunks of a field, and how its rows are released."""

    name: str
    chunks: Sequence[Chunk]

    @property
    def by_id(self) -> bool:
        """Whether its rows are released in the order of their ids."""
        return self._sources <= SORTED_ROWS

    @property
    def waits(self) -> bool:
        """Whether that takes several parts, which are read first."""
        return self.by_id and len(self.parts) > 1

    @property
    def parts(self) -> Sequence[Sequence[Chunk]]:
        """The chunks that are read together."""
        return [self.chunks] if self._sources <= SOURCES_A_TASK else runs_of_chunks(self.chunks)

    @property
    def _sources(self) -> int:
        return sum(chunk.count for chunk in self.chunks)


def _both(
    layout: Layout, by_id: bool, encode: Encode[Rows], count: Count[Counted], results: Iterable[Result]
) -> tuple[Rows | None, Counted]:
    """Make something of a part that is put in order by itself."""
    (result,) = results
    rows = np.flatnonzero(result.released)
    if by_id:
        rows = rows[natural_order(_ids(result, rows))]
    return encode(_batch(layout, result, rows)) if len(rows) else None, count(result)


def _put_down(
    layout: Layout, count: Count[Counted], path: Path, results: Iterable[Result]
) -> tuple[Waiting, Counted]:
    (result,) = results
    rows = np.flatnonzero(result.released)
    return put_down(path, result.field, _batch(layout, result, rows), _ids(result, rows)), count(result)


def _rows_alone(encode: Encode[Rows], batch: pa.RecordBatch) -> tuple[Rows, None]:
    return encode(batch), None


def _ids(result: Result, rows: np.ndarray) -> pa.Array:
    return result.sources["id"].cast(pa.string()).take(number_array(rows)).combine_chunks()


def _batch(layout: Layout, result: Result, rows: np.ndarray) -> pa.RecordBatch:
    """Return `rows` of a result in the layout's columns."""
    places = number_array(rows)
    arrays = []
    view: tuple[Key, ViewResult] | None = None
    for column in layout.columns:
        if column.key is None:
            arrays.append(result.sources[column.source].cast(column.type).take(places).combine_chunks())
            continue
        if view is None or view[0] != column.key:  # the columns of a view are neighbours
            view = column.key, _taken(result.views[column.key], rows)
        arrays.append(_answer(view[1], column))
    return pa.record_batch(arrays, schema=layout.schema)


def _taken(view: ViewResult, rows: np.ndarray) -> ViewResult:
    """Return `rows` of the results of a view."""
    return ViewResult(
        view.flags[rows],
        view.probabilities[rows],
        None if view.spread is None else view.spread[rows],
        None if view.mutual_information is None else view.mutual_information[rows],
    )


def _answer(view: ViewResult, column: OutputColumn) -> pa.Array:
    scheme = load_scheme(column.scheme)
    if column.role == "probability":
        return number_array(view.probabilities[:, scheme.index(column.source)])
    if column.role == "spread":
        assert view.spread is not None
        return number_array(view.spread[:, scheme.index(column.source)])
    if column.role == "class":
        return answer_names(scheme, view.probabilities)
    if column.role == "entropy":
        return number_array(entropy_bits(scheme, view.probabilities))
    if column.role == "mutual_information":
        assert view.mutual_information is not None
        return number_array(view.mutual_information)
    return number_array(view.flags.astype(np.int32))
