"""The `ingest` stage: survey table -> sources.parquet + rejected.parquet + the chunk plan.

Every row of the survey table ends in exactly one of the two files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatalogError, CatmorphError
from catmorph.files import atomic
from catmorph.recipe import CatalogSection, Recipe
from catmorph.sources.arrow import missing_texts, number_array, text_array
from catmorph.sources.cells import groups, split, split_identifiers
from catmorph.sources.inputs import catalog_files, ingest_parts, listed_images
from catmorph.sources.mapping import CANONICAL, MappedRows, catalog_paths, map_catalog
from catmorph.sources.order import natural_rank
from catmorph.sources.rows import Rows, arrow_type, distinct, numbered
from catmorph.workspace import Chunk, RunFolder

REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("field", pa.string()),
     ("kind", pa.string()), ("reason", pa.string())]
)
_CELL = CANONICAL.index("cell")
PLANNED = pa.schema([("id", pa.string()), ("file", pa.string())])
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
    rows = map_catalog(run.recipe, None if run.recipe.catalog.files else listed_images(run))
    sources, rejected = divide(rows, run.recipe)
    for product in (run.sources_path(), run.rejected_path(), run.plan_path()):
        run.ledger.forget(product)
    plan = _write_sources(run, sources, rows.units)
    _write_table(run.rejected_path(), rejected.table(REJECTED))
    _write_table(run.plan_path(), plan)
    counts = {"read": len(rows.frame), "rejected": len(rejected), "sources": len(sources)}
    by_kind = {kind: int(count) for kind, count in sorted(Counter(rejected["kind"].tolist()).items())}
    facts: dict[str, Any] = {"matches": [one.facts() for one in rows.matches]} if rows.matches else {}
    facts |= {"empty": empty} if (empty := files_without_rows(rows, run.recipe)) else {}
    run.ledger.write(run.sources_path(), parts, counts=counts, rejected_by_kind=by_kind, **facts)
    run.identities.save()
    return counts


def files_without_rows(rows: MappedRows, recipe: Recipe) -> list[str]:
    """Return the names of the catalog's files that hold a header alone."""
    if not recipe.catalog.files:
        return []
    filled = set(rows.frame["file"].tolist())
    return [path.name for path in catalog_files(recipe.catalog) if path.name not in filled]


def planned_chunks(run: RunFolder) -> list[Chunk]:
    """Return the chunks that `ingest` would make of the survey table now; nothing is written."""
    recipe = run.recipe
    sources, _ = divide(map_catalog(recipe, None if recipe.catalog.files else listed_images(run)), recipe)
    return chunks_of(sources, recipe)


def chunks_of(sources: Rows, recipe: Recipe) -> list[Chunk]:
    """Return the chunks that `ingest` would make of `sources` (as `divide` returns them)."""
    decisive = [sources[name] for name in ("id", "ra", "dec", "size_arcsec")]
    names = sources.table(PLANNED) if recipe.images else None
    return [
        Chunk(field, cell, group, len(rows), stamp_digest(*(values[rows] for values in decisive)),
              None if names is None else names.take(number_array(rows)))
        for group, (field, cell, rows) in enumerate(_chunks(sources, recipe))
    ]


def divide(rows: MappedRows, recipe: Recipe) -> tuple[Rows, Rows]:
    """Return the sources and the rejected rows; duplicates are marked in `rows`, or refused."""
    frame, section = rows.frame, recipe.catalog
    _mark_duplicates(frame, section)
    good = missing_texts(frame["kind"])
    sources = frame.only([name for name in frame.names if name not in ("kind", "reason")]).take(good)
    if not len(sources) and not section.allow_empty:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(frame["kind"].tolist()).items()))
        raise CatalogError(f"no row of the catalog is left ({counts})", where=", ".join(catalog_paths(recipe)),
                           hint="check catalog.cuts, or set catalog.allow_empty = true")
    return sources, frame.only(REJECTED.names).take(~good)


def _mark_duplicates(frame: Rows, section: CatalogSection) -> None:
    good = np.flatnonzero(missing_texts(frame["kind"]))
    fields, ids = (frame[name][good].tolist() for name in ("field", "id"))
    if len(set(ids if len(set(fields)) == 1 else zip(fields, ids, strict=True))) == len(good):
        return
    if section.duplicates == "brightest":
        files = {name: place for place, name in enumerate(sorted(set(frame["file"].tolist())))}
        places = np.array([files[name] for name in frame["file"].tolist()], dtype=np.int64)
        good = good[np.lexsort((frame["row"][good], places[good], frame["magnitude"][good]))]
    first = np.unique(numbered(frame["field"][good], frame["id"][good]), return_index=True)[1]
    repeated = np.delete(good, first)
    if not len(repeated):
        return
    if section.duplicates == "refuse":
        file, shown = frame["file"][repeated[0]], frame.take(repeated[:5])
        named = "; ".join(
            f"{field} {name} ({'' if where == file else f'{where}, '}row {row})"
            for field, name, where, row in zip(*(shown[key] for key in ("field", "id", "file", "row")), strict=True)
        )
        raise CatalogError(
            f"{len(repeated)} duplicate ids: {named}", where=file,
            hint="set catalog.duplicates to 'first' or 'brightest' to keep one of each",
        )
    frame["kind"][repeated] = "duplicate"
    frame["reason"][repeated] = f"duplicate id; kept the {section.duplicates}"


def _write_sources(run: RunFolder, sources: Rows, units: dict[str, str]) -> pa.Table:
    """Write the sources, one row group a cell, and return the chunk plan."""
    chunks = _chunks(sources, run.recipe)
    schema = _schema(sources, units)
    table = sources.table(pa.schema([field for field in schema if field.name != "cell"]))
    sizes = [sources[name] for name in ("ra", "dec", "size_arcsec")]
    digests = []
    # Dictionaries of numbers and ids, which hardly repeat, would cost a third of the time.
    repeated = [field.name for field in schema if field.type == pa.string() and field.name != "id"]
    with (
        atomic(run.sources_path()) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=repeated) as writer,
    ):
        for _, cell, rows in chunks:
            part = table.take(number_array(rows))
            columns = [*part.columns[:_CELL], text_array([cell] * len(rows)), *part.columns[_CELL:]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(rows))
            digests.append(stamp_digest(part["id"].to_pylist(), *(values[rows] for values in sizes)))
    fields, cells = [field for field, _, _ in chunks], [cell for _, cell, _ in chunks]
    counts = number_array(np.array([len(rows) for _, _, rows in chunks], dtype=np.int64))
    return pa.table([text_array(fields), text_array(cells), counts, text_array(digests)], schema=PLAN)


def _chunks(sources: Rows, recipe: Recipe) -> list[tuple[str, str, np.ndarray]]:
    """Return field, cell and rows of each chunk: fields by name, cells and rows by sky (deepest pixel, then id).

    Without positions the hash of the id takes the place of the pixel. So the order of all rows is the same whatever
    the size of the chunks.
    """
    chunk_rows = recipe.run.chunk_rows
    codes, names = distinct(sources["field"])
    ra, dec, ids = (sources[name] for name in ("ra", "dec", "id"))
    rank = natural_rank(ids)
    chunks = []
    for name, rows in sorted(zip(names, groups(codes), strict=True), key=lambda item: item[0]):
        on_sky = recipe.catalog.has_positions
        for cell in split(ra[rows], dec[rows], chunk_rows) if on_sky else split_identifiers(ids[rows], chunk_rows):
            inside = rows[cell.rows]
            chunks.append((name, cell.name, inside[np.lexsort((rank[inside], cell.keys))]))
    return chunks


def stamp_digest(ids: Iterable[str], ra: np.ndarray, dec: np.ndarray, size_arcsec: np.ndarray) -> str:
    """Return the sha256 of what stamps depend on (row): ids, positions and sizes, in order."""
    state = hashlib.sha256("\0".join(ids).encode())
    for values in (ra, dec, size_arcsec):
        state.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return state.hexdigest()


def _schema(sources: Rows, units: dict[str, str]) -> pa.Schema:
    own = {"field": pa.string(), "id": pa.string(), "cell": pa.string(), "file": pa.string(), "row": pa.int64(),
           "ra": pa.float64(), "dec": pa.float64(), "size_arcsec": pa.float64(), "magnitude": pa.float64()}
    known = {"ra": "deg", "dec": "deg", "size_arcsec": "arcsec", "magnitude": "mag", **units}
    fields = []
    for name in (*CANONICAL, *(name for name in sources.names if name not in CANONICAL)):
        kind = own.get(name) or arrow_type(sources[name])
        fields.append(pa.field(name, kind, metadata={"unit": known[name]} if name in known else None))
    return pa.schema(fields)


def _write_table(path: Path, table: pa.Table) -> None:
    try:
        with atomic(path) as temporary:
            pq.write_table(table, temporary)
    except pa.ArrowException as error:
        raise CatmorphError(f"cannot be written: {error}", where=path) from error
