"""Released rows that wait on disk until all of their field are there, and then come by id.

Memory holds the ids of a field and some thousand rows, however large the field is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from catmorph.files import cannot_write
from catmorph.sources.arrow import number_array
from catmorph.sources.order import natural_order

Made = TypeVar("Made")

_CELLS_A_SECOND = 8_000_000
"""That one core takes and writes as CSV or Parquet, roughly."""


@dataclass(frozen=True)
class Waiting:
    """Rows of a field in a file, how many columns they have, and their ids (row,)."""

    path: Path
    field: str
    columns: int
    ids: pa.Array


def put_down(path: Path, field: str, batch: pa.RecordBatch, ids: pa.Array) -> Waiting:
    """Write rows of a field.

    Raises
    ------
    CatmorphError
        When the disk is full.
    """
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    return Waiting(path, field, batch.num_columns, ids)


@dataclass(frozen=True)
class _Take(Generic[Made]):
    """Rows of a field, by their numbers in all of its files together, and what is made of them."""

    paths: tuple[Path, ...]
    rows: np.ndarray
    make: Callable[[pa.RecordBatch], Made]
    seconds: float

    def __call__(self) -> Made:
        # Mapped: what is not taken needs no memory of its own.
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self.paths]
        taken = pa.concat_tables(tables).take(number_array(self.rows)).combine_chunks()
        return self.make(taken.to_batches()[0])


def taken_by_id(
    field: Sequence[Waiting], make: Callable[[pa.RecordBatch], Made], most: int
) -> list[_Take[Made]]:
    """Return the work of making something of all rows of a field, `most` at a time, in the order of their ids.

    `make` takes a batch; it is picklable.
    """
    order = natural_order(pa.concat_arrays([one.ids for one in field])).astype(np.int32)
    paths = tuple(one.path for one in field)
    slices = [order[start : start + most] for start in range(0, len(order), most)]
    return [_Take(paths, rows, make, len(rows) * field[0].columns / _CELLS_A_SECOND) for rows in slices]
