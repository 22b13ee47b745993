"""Run folders with sources and made-up logits, for the tests of the release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.files import atomic
from catmorph.ledger import Parts
from catmorph.quality import Flag, blocked
from catmorph.recipe import Recipe, load_recipe, preset_path
from catmorph.release.assemble import made_of_batches
from catmorph.release.layout import Layout, release_keys
from catmorph.release.results import Result
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

REJECTED = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("field", pa.string()),
        ("kind", pa.string()),
        ("reason", pa.string()),
    ]
)
TWO_BANDS = ('bands.names=["F435W", "F850LP"]', 'bands.reference="F435W"')


def clash(*overrides: str) -> Recipe:
    """Return the CLASH recipe with overrides."""
    return load_recipe(preset_path("clash"), overrides)


def galaxies(count: int, field: str = "a611", **columns: Any) -> dict[str, Any]:
    """Return the columns of `count` sources of one field; `columns` replaces or adds some."""
    numbers = np.arange(count)
    return {
        "field": [field] * count,
        "id": [str(number + 1) for number in numbers],
        "cell": ["o0p0"] * count,
        "file": [f"{field}.cat"] * count,
        "row": numbers + 1,
        "ra": 325.0698 + numbers / 3600,
        "dec": -23.6508 - numbers / 3600,
        "size_arcsec": np.full(count, 1.5),
        "magnitude": 20.0 + numbers % 7 / 2,
        **columns,
    }


def write_run(
    folder: Path,
    recipe: Recipe,
    chunks: list[dict[str, Any]],
    answers: Any,
    rejected: list[tuple[str, str]] = (),
    units: dict[str, str] | None = None,
) -> RunFolder:
    """Write a run folder: sources, rejected rows, the plan and logits.

    Parameters
    ----------
    chunks : list of dict
        Columns of each chunk's sources, as `galaxies` makes them.
    answers : callable
        ``answers(key, chunk_index, count) -> (flags (n,), logits (n, classes))``.
    rejected : list of (kind, reason)
        The rejected rows.
    """
    run = RunFolder(folder, recipe)
    run.prepare()
    tables = [_table(chunk, units or {}) for chunk in chunks]
    with atomic(run.sources_path()) as temporary, pq.ParquetWriter(temporary, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    rows = [("a611.cat", 1000 + n, str(n), "a611", kind, reason) for n, (kind, reason) in enumerate(rejected)]
    columns = list(zip(*rows, strict=True)) if rows else [[]] * len(REJECTED)
    pq.write_table(
        pa.table(
            [pa.array(list(c), t) for c, t in zip(columns, REJECTED.types, strict=True)], schema=REJECTED
        ),
        run.rejected_path(),
    )
    pq.write_table(
        pa.table(
            {
                "field": [chunk["field"][0] for chunk in chunks],
                "cell": [chunk["cell"][0] for chunk in chunks],
                "count": [len(chunk["id"]) for chunk in chunks],
                "digest": ["0"] * len(chunks),
            }
        ),
        run.plan_path(),
    )
    sources = sum(len(chunk["id"]) for chunk in chunks)
    counts = {"read": sources + len(rejected), "rejected": len(rejected), "sources": sources}
    run.ledger.write(run.sources_path(), Parts({}), counts=counts)
    _write_logits(run, answers)
    return run


def scattered(seed: int = 0, lost: float = 0.3) -> Any:
    """Return answers at random, a fraction `lost` of them blocked as off the image."""

    def answer(key: Any, index: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, index, sum(map(ord, "".join(key)))])
        flags = np.where(rng.random(count) < lost, int(Flag.OFF_IMAGE), 0)
        flags |= np.where(rng.random(count) < 0.1, int(Flag.EDGE), 0)
        return flags, rng.normal(0, 3, (count, 5)).astype(np.float32)

    return answer


def given(flags: Any, probabilities: Any) -> Any:
    """Return the same flags and (softmax) probabilities for every view and chunk."""

    def answer(key: Any, index: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore"):
            logits = np.log(np.asarray(probabilities, dtype=np.float64)).clip(-1e4)
        return np.asarray(flags), logits.astype(np.float32)

    return answer


def _table(chunk: dict[str, Any], units: dict[str, str]) -> pa.Table:
    names = {"size_arcsec": "arcsec", "ra": "deg", "dec": "deg", **units}
    arrays = {name: pa.array(values, from_pandas=True) for name, values in chunk.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": names[name]} if name in names else None)
        for name, array in arrays.items()
    ]
    return pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))


def _write_logits(run: RunFolder, answers: Any) -> None:
    names = load_scheme(run.recipe.scheme).class_names
    for key in release_keys(run.recipe):
        for index, chunk in enumerate(run.chunks()):
            ids = run.read_sources(chunk)["id"]
            flags, logits = answers(key, index, chunk.count)
            null = blocked(flags)
            columns = {name: pa.array(logits[:, i], pa.float32(), mask=null) for i, name in enumerate(names)}
            path = run.logits_path(key.classifier, key.view, chunk)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"id": ids, "flags": pa.array(flags.astype(np.uint32)), **columns}), path)


def wide_batches(run: RunFolder, layout: Layout) -> Iterator[pa.RecordBatch]:
    """Yield the released rows in the layout's columns."""
    return (batch for batch, _ in made_of_batches(run, layout, _as_it_is, _nothing) if batch is not None)


def _as_it_is(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _nothing(_: Result) -> None:
    return None
