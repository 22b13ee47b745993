"""Sources and logits -> the wide batches that the formats write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa

from catmorph.errors import CatmorphError
from catmorph.release.layout import Key, Layout, OutputColumn, build_layout
from catmorph.release.results import (
    Made,
    Result,
    Temperatures,
    ViewResult,
    answer_names,
    entropy_bits,
    made_of_results,
    runs_of_chunks,
)
from catmorph.schemes import load_scheme
from catmorph.sources.arrow import number_array
from catmorph.sources.order import natural_order
from catmorph.workspace import Chunk, RunFolder, read_schema

Make = Callable[[pa.RecordBatch, Result], Made]
"""What is made of released rows, and of the results that they are taken from."""

SORTED_ROWS = 100_000
"""Sources of a field up to which its rows are released by id: 130 columns of them take some 60 MB."""


def release_layout(run: RunFolder) -> Layout:
    """Return the layout of the release of `run`, with the types and units of its sources."""
    try:
        schema = read_schema(run.sources_path())
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(
            f"cannot be read: {error}", where=run.sources_path(), hint="run `catmorph ingest`"
        ) from error
    return build_layout(run.recipe, schema)


def wide_batches(run: RunFolder, layout: Layout) -> Iterator[pa.RecordBatch]:
    """Yield the released rows in the layout's columns; see `made_of_batches`."""
    return (batch for batch in made_of_batches(run, layout, _as_it_is) if batch.num_rows)


def made_of_batches(
    run: RunFolder,
    layout: Layout,
    make: Make[Made],
    *,
    used: Temperatures | None = None,
    workers: int = 1,
    label: str = "",
) -> Iterator[Made]:
    """Yield what `make` makes of the released rows, field by field; their order does not depend on the chunks.

    `make` is called in the processes that read, with rows of one field (there may be none) and the results that they
    are taken from, all of them and in another order; `used`, `workers` and `label` are those
    of `catmorph.release.results.made_of_results`.

    A field of up to 100,000 sources comes in one batch, by id (whole numbers by value); a larger one some chunks at a
    time, in the order of the sky, so that memory stays bounded.
    """
    parts: list[Sequence[Chunk]] = []
    by_id = set()
    for field, group in groupby(run.chunks(), key=lambda chunk: chunk.field):
        chunks = list(group)
        if sum(chunk.count for chunk in chunks) <= SORTED_ROWS:
            by_id.add(field)
            parts.append(chunks)
        else:
            parts += runs_of_chunks(chunks)
    assemble = partial(_assemble, layout, frozenset(by_id), make)
    yield from made_of_results(run, assemble, joined=True, parts=parts, used=used, workers=workers, label=label)


def _as_it_is(batch: pa.RecordBatch, _: Result) -> pa.RecordBatch:
    return batch


def _assemble(layout: Layout, by_id: frozenset[str], make: Make[Made], results: Iterable[Result]) -> Made:
    """Make something of a part, which is of one field."""
    (result,) = results
    rows = _order(result, by_id)
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
    return make(pa.record_batch(arrays, schema=layout.schema), result)


def _order(result: Result, by_id: frozenset[str]) -> np.ndarray:
    """Return the rows that are released, in the order of the release."""
    rows = np.flatnonzero(result.released)
    if result.field not in by_id:
        return rows
    return rows[natural_order(result.sources["id"].cast(pa.string()).take(number_array(rows)).combine_chunks())]


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
