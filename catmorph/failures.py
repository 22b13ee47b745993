"""What could not be read or used, as a table: failures.parquet, one row a (view, chunk, mosaic or image)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.files import atomic
from catmorph.quality import Flag
from catmorph.workspace import Chunk, RunFolder

SCHEMA = pa.schema([
    ("stage", pa.string()), ("view", pa.string()), ("field", pa.string()), ("cell", pa.string()),
    ("file", pa.string()), ("reason", pa.string()), ("sources", pa.int64()),
])  # fmt: skip


def write_failures(run: RunFolder) -> int:
    """Write the failures that the ledger knows of all shards of the recipe, and return how many there are.

    ``sources`` counts those of the chunk that carry the flag UNREADABLE, whichever of its mosaics is to blame; of an
    image that cannot be used as it is, it is 1. A failure is not final: each run tries again what is listed here, such
    an image when it has changed.
    """
    chunks = run.chunks()
    rows = [row for view in run.recipe.all_views for chunk in chunks for row in _rows(run, view, chunk)]
    # The other way an empty list would bring pandas, a quarter of a second to import.
    table = pa.Table.from_pylist(rows, schema=SCHEMA) if rows else pa.Table.from_batches([], SCHEMA)
    with atomic(run.failures_path()) as temporary:
        pq.write_table(table, temporary)
    return len(rows)


def _rows(run: RunFolder, view: str, chunk: Chunk) -> list[dict[str, object]]:
    marker = run.ledger.read(run.shard_path(view, chunk)) or {}
    sources = marker.get("flags", {}).get(Flag.UNREADABLE.name, 0)
    place = {"stage": "cutouts", "view": view, "field": chunk.field, "cell": chunk.cell}
    found = [{**place, "file": file, "reason": reason, "sources": sources}
             for file, reason in marker.get("failures", [])]
    return found + [{**place, "file": file, "reason": reason, "sources": 1}
                    for file, reason in marker.get("bad_images", [])]
