"""Sources and logits -> the wide batches that the formats write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.release.layout import Key, Layout, OutputColumn, build_layout
from catmorph.release.results import (
    ChunkResult,
    Made,
    Temperatures,
    answer_names,
    entropy_bits,
    made_of_results,
    runs_of_chunks,
)
from catmorph.schemes import load_scheme
from catmorph.sources.order import natural_rank
from catmorph.workspace import Chunk, RunFolder

SORTED_ROWS = 100_000
"""Sources of a field up to which its rows are released by id: 130 columns of them take some 60 MB."""


def release_layout(run: RunFolder) -> Layout:
    """Return the layout of the release of `run`, with the types and units of its sources."""
    try:
        schema = pq.read_schema(run.sources_path())
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(
            f"cannot be read: {error}", where=run.sources_path(), hint="run `catmorph ingest`"
        ) from error
    return build_layout(run.recipe, schema)


def wide_batches(run: RunFolder, layout: Layout) -> Iterator[pa.RecordBatch]:
    """Yield the released rows in the layout's columns; see `made_of_batches`."""
    return made_of_batches(run, layout, _as_it_is)


def made_of_batches(
    run: RunFolder,
    layout: Layout,
    make: Callable[[pa.RecordBatch], Made],
    *,
    used: Temperatures | None = None,
    workers: int = 1,
    label: str = "",
) -> Iterator[Made]:
    """Yield what `make` makes of the released rows, field by field; their order does not depend on the chunks.

    `make` is called in the processes that read; `used`, `workers` and `label` are those
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
    for made in made_of_results(run, assemble, parts=parts, used=used, workers=workers, label=label):
        yield from made


def _as_it_is(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _assemble(
    layout: Layout, by_id: frozenset[str], make: Callable[[pa.RecordBatch], Made], results: Iterable[ChunkResult]
) -> list[Made]:
    """Make something of the released rows of a part: of one batch, none where no row is released."""
    batches, ids, field = [], [], ""
    for result in results:
        keep, field = pa.array(result.released), result.chunk.field
        arrays = [_column(result, column) for column in layout.columns]
        batches.append(pa.record_batch(arrays, schema=layout.schema).filter(keep))
        ids += result.sources["id"].filter(keep).to_pylist()
    table = pa.Table.from_batches(batches, layout.schema)
    if field in by_id:
        table = table.take(pa.array(np.argsort(natural_rank(np.array(ids, dtype=object)))))
    return [make(batch) for batch in table.combine_chunks().to_batches()]


def _column(result: ChunkResult, column: OutputColumn) -> pa.Array:
    if column.key is None:
        return result.sources[column.source].combine_chunks().cast(column.type)
    return _answer(result, column, column.key)


def _answer(result: ChunkResult, column: OutputColumn, key: Key) -> pa.Array:
    view, scheme = result.views[key], load_scheme(column.scheme)
    if column.role == "probability":
        return pa.array(view.probabilities[:, scheme.index(column.source)], from_pandas=True)
    if column.role == "spread":
        assert view.spread is not None
        return pa.array(view.spread[:, scheme.index(column.source)], from_pandas=True)
    if column.role == "class":
        return answer_names(scheme, view.probabilities)
    if column.role == "entropy":
        return pa.array(entropy_bits(scheme, view.probabilities), from_pandas=True)
    if column.role == "mutual_information":
        return pa.array(view.mutual_information, from_pandas=True)
    return pa.array(view.flags.astype(np.int32))
