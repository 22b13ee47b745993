"""The account of every row: released, omitted (omitted.parquet says why) or rejected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.inference.members import member_logits, members
from catmorph.release.cells import longest_ascii
from catmorph.release.layout import Key, Layout, OutputColumn, release_keys
from catmorph.release.reading import made_of_results, runs_of_chunks
from catmorph.release.results import Result, describe_flags
from catmorph.schemes import load_scheme
from catmorph.sources.arrow import number_array, text_array
from catmorph.workspace import Chunk, RunFolder

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


def account(run: RunFolder, layout: Layout, *, workers: int = 1) -> Account:
    """Write omitted.parquet and count where every row went.

    Ids and flags are read of those chunks alone in which, by the ledger, a source may be left out.

    Raises
    ------
    CatmorphError
        When a row is lost or doubled on the way, or a logits file does not fit its chunk.
    """
    texts = [column.source for column in layout.columns if column.role == "source" and column.kind == "text"]
    chunks = run.chunks()
    certain = [chunk for chunk in chunks if _all_released(run, chunk)]
    parts = runs_of_chunks(sorted(set(chunks) - set(certain), key=lambda chunk: chunk.group))
    widths = [_widths(run.read_sources(chunk), texts) for chunk in certain]
    sources = released = sum(chunk.count for chunk in certain)
    make = partial(_count, texts, omission(run.recipe.release.require))
    with atomic(run.omitted_path()) as temporary, pq.ParquetWriter(temporary, OMITTED_SCHEMA) as writer:
        for found in made_of_results(run, make, flags_only=True, parts=parts, workers=workers):
            for one in found:
                sources += one.sources
                released += one.sources - one.omitted.num_rows
                widths.append(one.widths)
                if one.omitted.num_rows:
                    writer.write_batch(one.omitted)
        _check_conservation(run, sources)
    counts = run.ingest_counts()
    longest = {name: max((one[name] for one in widths), default=0) for name in texts}
    return Account(counts["read"], counts["rejected"], sources - released, released, longest)


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


def _all_released(run: RunFolder, chunk: Chunk) -> bool:
    """Return whether the ledger says that none of the sources is left out: no stamp is blocked where it would count."""
    if run.recipe.release.require == "none":
        return True
    clear = [_unblocked(run, key, chunk) for key in release_keys(run.recipe)]
    return any(clear) if run.recipe.release.require == "any" else all(clear)


def _unblocked(run: RunFolder, key: Key, chunk: Chunk) -> bool:
    markers = [run.ledger.read(member_logits(run, member, key.view, chunk))
               for member in members(run.recipe, key.classifier)]
    return all(marker is not None and marker.get("blocked") == 0 for marker in markers)


@dataclass(frozen=True)
class _Count:
    """What the account takes from a chunk."""

    sources: int
    omitted: pa.RecordBatch
    widths: dict[str, int]


def _count(texts: Sequence[str], reason: str, results: Iterable[Result]) -> list[_Count]:
    return [_count_chunk(texts, reason, result) for result in results]


def _count_chunk(texts: Sequence[str], reason: str, result: Result) -> _Count:
    released = result.sources.filter(number_array(result.released))
    return _Count(result.sources.num_rows, _omitted(result, reason), _widths(released, texts))


def _widths(sources: pa.Table, texts: Sequence[str]) -> dict[str, int]:
    """Return the length of the longest text, in ASCII with escapes, of each column."""
    return {name: longest_ascii(sources[name].cast(pa.string())) for name in texts}


def _omitted(result: Result, reason: str) -> pa.RecordBatch:
    rows = np.flatnonzero(~result.released)
    taken = result.sources.select(["file", "row", "field", "id"]).take(number_array(rows))
    arrays = [
        taken[name].combine_chunks().cast(OMITTED_SCHEMA.field(name).type) for name in taken.column_names
    ]
    arrays.append(text_array([reason] * len(rows)))
    arrays.append(text_array(describe_flags(result.views, int(row)) for row in rows))
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
