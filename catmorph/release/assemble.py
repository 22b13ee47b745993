"""Sources and logits -> the account of every row, and the wide batches that the formats write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.release.cells import ascii_text
from catmorph.release.layout import Key, Layout, OutputColumn, build_layout, check_layout
from catmorph.release.results import (
    ChunkResult,
    Temperatures,
    answer_names,
    describe_flags,
    entropy_bits,
    read_results,
)
from catmorph.schemes import load_scheme
from catmorph.sources.cells import natural_rank
from catmorph.workspace import RunFolder

__all__ = [
    "OMITTED_SCHEMA",
    "Account",
    "account",
    "check_layout",
    "omission",
    "release_layout",
    "wide_batches",
]

OMITTED_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("field", pa.string()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("flags", pa.string()),
    ]
)
"""Columns of omitted.parquet; `flags` is text, such as ``F225W: OFF_IMAGE; F275W: NO_MOSAIC``."""

SORTED_ROWS = 100_000
"""Sources of a field up to which its rows are released by id: 130 columns of them take some 60 MB."""

_OMISSIONS = {"any": "no classified stamp in any view", "all": "no classified stamp in some view"}


@dataclass(frozen=True)
class Account:
    """Where the rows of the survey table went: read = rejected + omitted + released.

    `widths` holds the length of the longest released text, in ASCII with escapes (`cells.ascii_text`), of
    each column of sources that is text.
    """

    read: int
    rejected: int
    omitted: int
    released: int
    widths: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return the four counts by name."""
        return {name: getattr(self, name) for name in ("read", "rejected", "omitted", "released")}


def omission(require: str) -> str:
    """Return the reason that omitted.parquet gives under this ``release.require``."""
    return _OMISSIONS.get(require, "")


def release_layout(run: RunFolder) -> Layout:
    """Return the layout of the release of `run`, with the types and units of its sources."""
    try:
        schema = pq.read_schema(run.sources_path())
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(
            f"cannot be read: {error}", where=run.sources_path(), hint="run `catmorph ingest`"
        ) from error
    return build_layout(run.recipe, schema)


def account(run: RunFolder, layout: Layout) -> Account:
    """Write omitted.parquet and count where every row went, reading ids and flags alone.

    Raises
    ------
    CatmorphError
        When a row is lost or doubled on the way, or a logits file does not fit its chunk.
    """
    texts = [column.source for column in layout.columns if column.role == "source" and column.kind == "text"]
    widths = dict.fromkeys(texts, 0)
    sources = released = 0
    with atomic(run.omitted_path()) as temporary, pq.ParquetWriter(temporary, OMITTED_SCHEMA) as writer:
        for result in read_results(run, flags_only=True):
            sources += result.sources.num_rows
            released += int(result.released.sum())
            _grow(widths, result)
            if not result.released.all():
                writer.write_batch(_omitted(result, omission(run.recipe.release.require)))
        _check_conservation(run, sources)
    counts = run.ingest_counts()
    return Account(counts["read"], counts["rejected"], sources - released, released, widths)


def counted(layout: Layout, widths: dict[str, int]) -> Layout:
    """Return `layout` with the widths of its text columns, in bytes."""
    columns = tuple(
        replace(column, width=_answer_width(column) if column.role == "class" else widths.get(column.source, 0))
        if column.kind == "text"
        else column
        for column in layout.columns
    )
    return replace(layout, columns=columns)


def _answer_width(column: OutputColumn) -> int:
    return load_scheme(column.scheme).longest_answer


def wide_batches(run: RunFolder, layout: Layout, used: Temperatures | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the released rows in the layout's columns, field by field; the order does not depend on the chunks.

    `used` are the temperatures, as in `catmorph.release.results.read_results`.

    A field of up to 100,000 sources comes in one batch, by id (whole numbers by value); a larger one chunk by
    chunk, in the order of the sky, so that memory stays bounded.
    """
    sizes: Counter[str] = Counter()
    for chunk in run.chunks():
        sizes[chunk.field] += chunk.count
    for field, results in groupby(read_results(run, used=used), key=lambda result: result.chunk.field):
        if sizes[field] <= SORTED_ROWS:
            yield from _sorted_batch(run, layout, list(results))
        else:
            yield from (batch for result in results if (batch := _batch(run, layout, result)).num_rows)


def _sorted_batch(run: RunFolder, layout: Layout, results: list[ChunkResult]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches([_batch(run, layout, result) for result in results], layout.schema)
    ids = [result.sources["id"].filter(pa.array(result.released)).to_pylist() for result in results]
    rank = natural_rank(np.array([text for part in ids for text in part], dtype=object))
    yield from table.take(pa.array(np.argsort(rank))).combine_chunks().to_batches()


def _batch(run: RunFolder, layout: Layout, result: ChunkResult) -> pa.RecordBatch:
    arrays = [_column(result, column, run) for column in layout.columns]
    batch = pa.record_batch(arrays, schema=layout.schema)
    return batch if result.released.all() else batch.filter(pa.array(result.released))


def _column(result: ChunkResult, column: OutputColumn, run: RunFolder) -> pa.Array:
    if column.key is None:
        return result.sources[column.source].combine_chunks().cast(column.type)
    return _answer(result, column, column.key, run)


def _answer(result: ChunkResult, column: OutputColumn, key: Key, run: RunFolder) -> pa.Array:
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


def _grow(widths: dict[str, int], result: ChunkResult) -> None:
    keep = pa.array(result.released)
    for name in widths:
        texts = pc.unique(result.sources[name].filter(keep).cast(pa.string())).to_pylist()
        widths[name] = max(widths[name], max((len(ascii_text(text or "")) for text in texts), default=0))


def _omitted(result: ChunkResult, reason: str) -> pa.RecordBatch:
    rows = np.flatnonzero(~result.released)
    taken = result.sources.select(["file", "row", "field", "id"]).take(pa.array(rows))
    arrays = [
        taken[name].combine_chunks().cast(OMITTED_SCHEMA.field(name).type) for name in taken.column_names
    ]
    arrays.append(pa.array([reason] * len(rows), pa.string()))
    arrays.append(pa.array([describe_flags(result.views, int(row)) for row in rows], pa.string()))
    return pa.record_batch(arrays, schema=OMITTED_SCHEMA)


def _check_conservation(run: RunFolder, sources: int) -> None:
    counts = run.ingest_counts()
    rejected = _rows(run.rejected_path())
    if counts["read"] != rejected + sources or (rejected, sources) != (counts["rejected"], counts["sources"]):
        raise CatmorphError(
            f"rows are lost: ingest counted {counts['read']} read = {counts['rejected']} rejected + "
            f"{counts['sources']} sources, the files hold {rejected} + {sources}",
            where=run.path,
            hint="run `catmorph ingest` again",
        )


def _rows(path: Path) -> int:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"cannot be read: {error}", where=path, hint="run `catmorph ingest`") from error
