"""The `classify` stage: stamps -> logits, one Parquet file a (network, view, chunk)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.inference.members import Member
from catmorph.inference.supply import Supply
from catmorph.inference.tasks import LogitsTask, check_member
from catmorph.quality import Flag, blocked, count_flags
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

if TYPE_CHECKING:
    from catmorph.inference.predict import Predictor


@dataclass(frozen=True)
class LogitsReport:
    """What came of one task."""

    task: LogitsTask
    classified: int
    blocked: int
    flags: dict[str, int]
    note: str = ""


def load_predictor(run: RunFolder, member: Member, *, device: str = "auto", precision: str | None = None) -> Predictor:
    """Open the checkpoint of `member`, check that it fits the recipe, and ready it for inference.

    Raises
    ------
    CheckpointError
        When it cannot be opened or its card does not fit the recipe.
    """
    # Torch takes seconds to import: what only looks at logits does without.
    from catmorph.inference.predict import Predictor
    from catmorph.models.checkpoint import load_checkpoint

    section = run.recipe.classifiers[member.classifier]
    checkpoint = load_checkpoint(member.checkpoint)
    check_member(checkpoint.card, run, member)
    return Predictor(checkpoint, device=device, precision=precision or section.precision, batch=section.batch,
                     test_time=section.test_time)


def classify(run: RunFolder, predictor: Predictor, supplies: Iterable[Supply]) -> Iterator[LogitsReport]:
    """Run the network over the stamps of `supplies`; yield a report as each file is in place.

    Stamps of successive tasks share the network's fixed batches, so that small chunks cost no more than
    large ones; memory is bounded by a few batches and one chunk's logits.
    """
    waiting: dict[LogitsTask, Supply] = {}
    parts: dict[LogitsTask, list[np.ndarray]] = {}
    for (task, last), logits in predictor.stream(_blocks(supplies, waiting, predictor.shape[1:])):
        parts.setdefault(task, []).append(logits)
        if last:
            yield _write(run, waiting.pop(task), np.concatenate(parts.pop(task)))


def _blocks(
    supplies: Iterable[Supply], waiting: dict[LogitsTask, Supply], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[LogitsTask, bool], np.ndarray]]:
    """Yield ((task, whether these are its last), stamps); `waiting` takes what belongs to the stamps besides."""
    for one in supplies:
        # The pixels are gone when the logits are there; their columns are needed then.
        waiting[one.task] = replace(one, inputs=())
        for inputs in one.inputs:
            yield (one.task, False), inputs
        yield (one.task, True), np.empty((0, *shape), np.float32)


def _write(run: RunFolder, rows: Supply, logits: np.ndarray) -> LogitsReport:
    task = rows.task
    names = load_scheme(run.recipe.classifier_scheme(task.member.classifier)).class_names
    usable = ~blocked(rows.flags)
    if len(logits) != np.count_nonzero(usable):
        raise CatmorphError(f"{len(logits)} results for {np.count_nonzero(usable)} stamps", where=task.shard)
    flags, values = rows.flags.copy(), np.full((len(rows.ids), len(names)), np.nan, np.float32)
    values[usable] = logits
    flags[usable & ~np.isfinite(values).all(axis=1)] |= np.uint32(Flag.NOT_FINITE)
    null = blocked(flags)
    columns = {
        "id": pa.array(list(rows.ids), pa.string()), "flags": pa.array(flags, pa.uint32()),
        "bad_fraction": pa.array(rows.bad_fraction, pa.float32()), "signal": pa.array(rows.signal, pa.float32()),
        **{name: pa.array(values[:, i], pa.float32(), mask=null) for i, name in enumerate(names)},
    }
    run.ledger.forget(task.product)
    with atomic(task.product) as temporary:
        pq.write_table(pa.table(columns), temporary)
    counts = count_flags(flags)
    run.ledger.write(task.product, task.parts, classified=int((~null).sum()), blocked=int(null.sum()), flags=counts)
    return LogitsReport(task, int((~null).sum()), int(null.sum()), counts, rows.note)
