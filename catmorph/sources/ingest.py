"""The `ingest` stage: survey table -> sources.parquet + rejected.parquet + the chunk plan.

Every row of the survey table ends in exactly one of the two files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic, cannot_write
from catmorph.recipe import Recipe
from catmorph.sources.arrow import number_array, numbers_of, text_array
from catmorph.sources.chunking import Piece, pieces
from catmorph.sources.division import Division, divide
from catmorph.sources.inputs import catalog_files, ingest_parts, listed_images
from catmorph.sources.mapping import CANONICAL
from catmorph.sources.survey import Survey, map_catalog
from catmorph.workspace import Chunk, RunFolder

REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("field", pa.string()),
     ("kind", pa.string()), ("reason", pa.string())]
)
_CELL = CANONICAL.index("cell")
PLANNED = pa.schema([("id", pa.string()), ("file", pa.string())])
_STAMPED = pa.schema([("id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64()), ("size_arcsec", pa.float64())])
PLAN = pa.schema([("field", pa.string()), ("cell", pa.string()), ("count", pa.int64()), ("digest", pa.string())])

def ingest(run: RunFolder) -> dict[str, int]:
    """Read the survey table into the run folder and return the counts read, rejected, sources.

    Raises
    ------
    CatalogError
        When a file or column is missing, ids are duplicate where the recipe refuses them, no row is left,
        or every row is bad.
    """
    parts = ingest_parts(run)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run.path, error) from error
    survey = map_catalog(run.recipe, None if run.recipe.catalog.files else listed_images(run), run.path)
    division = divide(survey, run.recipe)
    for product in (run.sources_path(), run.rejected_path(), run.plan_path()):
        run.ledger.forget(product)
    plan = _write_sources(run, division)
    _write_tables(run.rejected_path(), REJECTED, division.rejected_tables(REJECTED, run.recipe.catalog))
    _write_tables(run.plan_path(), PLAN, [plan])
    counts = {"read": len(survey.rows), "rejected": len(survey.rows) - len(division), "sources": len(division)}
    facts: dict[str, Any] = {"matches": [one.facts() for one in survey.matches]} if survey.matches else {}
    facts |= {"empty": empty} if (empty := files_without_rows(survey, run.recipe)) else {}
    run.ledger.write(run.sources_path(), parts, counts=counts, rejected_by_kind=division.rejected, **facts)
    run.identities.save()
    return counts


def files_without_rows(survey: Survey, recipe: Recipe) -> list[str]:
    """Return the names of the catalog's files that hold a header alone."""
    if not recipe.catalog.files:
        return []
    return [path.name for path in catalog_files(recipe.catalog) if path.name not in survey.files]


def planned_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks that `ingest` would make of the survey table now; nothing is written."""
    recipe = run.recipe
    return chunks_of(divide(map_catalog(recipe, None if recipe.catalog.files else listed_images(run)), recipe), recipe)


def chunks_of(division: Division, recipe: Recipe) -> list[Chunk]:
    """Return the chunks that `ingest` would make of the sources."""
    found: list[Chunk] = []
    for piece in pieces(division, recipe):
        digests = _digests(piece, division.rows.table(piece.rows, _STAMPED))
        names = division.rows.table(piece.rows, PLANNED) if recipe.images else None
        for (field, cell, rows), digest in zip(piece.chunks, digests, strict=True):
            planned = None if names is None else names[rows]
            found.append(Chunk(field, cell, len(found), rows.stop - rows.start, digest, planned))
    return found


def _write_sources(run: RunFolder, division: Division) -> pa.Table:
    """Write the sources, one row group a cell, and return the chunk plan."""
    schema = _schema(division)
    read = pa.schema([field for field in schema if field.name != "cell"])
    planned: list[tuple[Any, ...]] = []
    # Dictionaries of numbers and ids, which hardly repeat, would cost a third of the time.
    repeated = [field.name for field in schema if field.type == pa.string() and field.name != "id"]
    with (
        atomic(run.sources_path()) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=repeated) as writer,
    ):
        for piece in pieces(division, run.recipe):
            # What Arrow keeps for later of the pieces before adds up to a tenth of all memory.
            pa.default_memory_pool().release_unused()
            table = division.rows.table(piece.rows, read)
            for (field, cell, rows), digest in zip(piece.chunks, _digests(piece, table), strict=True):
                part = table[rows]
                columns = [*part.columns[:_CELL], text_array([cell] * len(part)), *part.columns[_CELL:]]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=len(part))
                planned.append((field, cell, len(part), digest))
    fields, cells, counts, digests = ([one[place] for one in planned] for place in range(4))
    numbers = number_array(np.array(counts, dtype=np.int64))
    return pa.table([text_array(fields), text_array(cells), numbers, text_array(digests)], schema=PLAN)


def _digests(piece: Piece, rows: pa.Table) -> Iterator[str]:
    ids, numbers = rows["id"].to_pylist(), [numbers_of(rows[name])[0] for name in _STAMPED.names[1:]]
    return (stamp_digest(ids[part], *(values[part] for values in numbers)) for _, _, part in piece.chunks)


def stamp_digest(ids: Iterable[str], ra: np.ndarray, dec: np.ndarray, size_arcsec: np.ndarray) -> str:
    """Return the sha256 of what stamps depend on (row): ids, positions and sizes, in order."""
    state = hashlib.sha256("\0".join(ids).encode())
    for values in (ra, dec, size_arcsec):
        state.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return state.hexdigest()


def _schema(division: Division) -> pa.Schema:
    own = {"field": pa.string(), "id": pa.string(), "cell": pa.string(), "file": pa.string(), "row": pa.int64(),
           "ra": pa.float64(), "dec": pa.float64(), "size_arcsec": pa.float64(), "magnitude": pa.float64()}
    known = {"ra": "deg", "dec": "deg", "size_arcsec": "arcsec", "magnitude": "mag", **division.survey.units}
    rows, fields = division.rows, []
    for name in (*CANONICAL, *(name for name in rows.names if name not in (*CANONICAL, "kind", "reason"))):
        kind = own.get(name) or rows.type(name)
        fields.append(pa.field(name, kind, metadata={"unit": known[name]} if name in known else None))
    return pa.schema(fields)


def _write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables one after another to a file."""
    try:
        with atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for table in tables:
                writer.write_table(table)
    except pa.ArrowException as error:
        raise CatmorphError(f"cannot be written: {error}", where=path) from error
