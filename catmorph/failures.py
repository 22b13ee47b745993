"""What could not be read, as a table: failures.parquet, one row a (view, chunk, mosaic)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.files import atomic
from catmorph.quality import Flag
from catmorph.stamps.build import CutTask
from catmorph.workspace import RunFolder

SCHEMA = pa.schema([
    ("stage", pa.string()), ("view", pa.string()), ("field", pa.string()), ("cell", pa.string()),
    ("file", pa.string()), ("reason", pa.string()), ("sources", pa.int64()),
])  # fmt: skip


def failures_path(run: RunFolder) -> Path:
    """Return the path of the table."""
    return run.path / "failures.parquet"


def write_failures(run: RunFolder, tasks: Iterable[CutTask]) -> int:
    """Write the failures that the ledger knows of `tasks`, and return how many there are.

    ``sources`` counts those of the chunk that carry the flag UNREADABLE, whichever of its mosaics is to blame.
    A failure is not final: each run tries again what is listed here.
    """
    rows = [row for task in tasks for row in _rows(run, task)]
    with atomic(failures_path(run)) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)
    return len(rows)


def _rows(run: RunFolder, task: CutTask) -> list[dict[str, object]]:
    marker = run.ledger.read(task.shard) or {}
    sources = marker.get("flags", {}).get(Flag.UNREADABLE.name, 0)
    place = {"stage": "cutouts", "view": task.view, "field": task.chunk.field, "cell": task.chunk.cell}
    return [{**place, "file": file, "reason": reason, "sources": sources}
            for file, reason in marker.get("failures", [])]
