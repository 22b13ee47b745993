"""The `classify` stage: stamps -> logits, one Parquet file a (network, view, chunk)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic
from catmorph.inference.batches import Packer
from catmorph.inference.identity import classifier_fingerprint
from catmorph.inference.members import Member, network_of
from catmorph.inference.supply import Supply
from catmorph.inference.tasks import LogitsTask, check_member
from catmorph.ledger import State
from catmorph.models.device import resolve_device, resolve_precision
from catmorph.models.header import load_card
from catmorph.quality import Flag, blocked, count_flags
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

if TYPE_CHECKING:
    from catmorph.inference.predict import Predictor


@dataclass(frozen=True)
class LogitsReport:
    """What came of one task: `why` the file was made, nothing where it is kept."""

    task: LogitsTask
    classified: int
    blocked: int
    flags: dict[str, int]
    why: str = ""
    note: str = ""


def fingerprint_of(run: RunFolder, member: Member, *, device: str = "auto", precision: str | None = None) -> str:
    """Return the fingerprint of the predictor that `load_predictor` gives, without torch where no GPU may be there.

    Raises
    ------
    CheckpointError
        When the checkpoint cannot be opened or its card does not fit the recipe.
    UsageError
        When the device is not there.
    """
    section = run.recipe.classifiers[member.classifier]
    check_member(load_card(member.checkpoint), run, member)
    device = resolve_device(device)
    return classifier_fingerprint(
        network_of(run, member), device=device, precision=resolve_precision(precision or section.precision, device),
        batch=section.batch, test_time=section.test_time,
    )


def load_predictor(run: RunFolder, member: Member, *, device: str = "auto", precision: str | None = None) -> Predictor:
    """Open the checkpoint of `member`, check that it fits the recipe, and ready it for inference.

    Raises
    ------
    CheckpointError
        When it cannot be opened or its card does not fit the recipe.
    """
    # Torch takes seconds to import: what only looks at logits does without, and a run with nothing to do.
    from catmorph.inference.predict import Predictor
    from catmorph.models.checkpoint import load_checkpoint

    section = run.recipe.classifiers[member.classifier]
    checkpoint = load_checkpoint(member.checkpoint)
    check_member(checkpoint.card, run, member)
    return Predictor(checkpoint, device=device, precision=precision or section.precision, batch=section.batch,
                     test_time=section.test_time)


def classify(
    run: RunFolder, predictors: Mapping[Member, Predictor], supplies: Iterable[Supply]
) -> Iterator[LogitsReport]:
    """Run networks over the stamps of `supplies`; yield a report as each file is in place, or found valid.

    All networks that need a chunk's stamps see them before the next chunk. Stamps of successive chunks share a
    network's fixed batches, so that small chunks cost no more than large ones; memory is bounded by a few batches and
    a few chunks' logits of each network.
    """
    streams = {member: _Stream(run, predictor) for member, predictor in predictors.items()}
    for supply in supplies:
        yield from (kept_report(task, state) for task, state in supply.logits.items() if state.done)
        todo = [task for task, state in supply.logits.items() if not state.done]
        for task in todo:
            # What happened to the stamps is told once. Their pixels are gone when the logits are there.
            streams[task.member].begin(task, replace(supply, inputs=(), note=supply.note if task is todo[0] else ""))
        for inputs in supply.inputs if todo else ():
            for task in todo:
                yield from streams[task.member].take(task, inputs)
        for task in todo:
            yield from streams[task.member].finish(task)
    for stream in streams.values():
        yield from stream.end()


class _Stream:
    """One network, which is handed stamps piece by piece and writes the logits of each task when it has them all."""

    def __init__(self, run: RunFolder, predictor: Predictor):
        self._run, self._predictor = run, predictor
        # Keys: a task, and whether these are its last stamps.
        self._packer: Packer[tuple[LogitsTask, bool]] = predictor.packer()
        self._rows: dict[LogitsTask, Supply] = {}
        self._parts: dict[LogitsTask, list[np.ndarray]] = {}

    def begin(self, task: LogitsTask, rows: Supply) -> None:
        """Take what belongs to the stamps of a task besides."""
        self._rows[task], self._parts[task] = rows, []

    def take(self, task: LogitsTask, inputs: np.ndarray) -> Iterator[LogitsReport]:
        """Run stamps (m, channel, y, x) of a task."""
        yield from self._written(self._packer.feed((task, False), self._predictor.checked(inputs)))

    def finish(self, task: LogitsTask) -> Iterator[LogitsReport]:
        """Take the end of a task's stamps."""
        nothing = np.empty((0, *self._predictor.shape[1:]), np.float32)
        yield from self._written(self._packer.feed((task, True), nothing))

    def end(self) -> Iterator[LogitsReport]:
        """Run what waits for a full batch."""
        yield from self._written(self._packer.end())

    def _written(self, found: Iterable[tuple[tuple[LogitsTask, bool], np.ndarray]]) -> Iterator[LogitsReport]:
        for (task, last), logits in found:
            self._parts[task].append(logits)
            if last:
                yield _write(self._run, task, self._rows.pop(task), np.concatenate(self._parts.pop(task)))


def kept_report(task: LogitsTask, state: State) -> LogitsReport:
    """Return the report of logits that are there and valid."""
    return LogitsReport(task, state.marker["classified"], state.marker["blocked"], state.marker["flags"])


def write_logits(path: Path, columns: Mapping[str, Any]) -> None:
    """Write the columns of a logits file: plain, as the release opens thousands of files of some hundred rows.

    Compressed and with dictionaries of numbers that hardly repeat they take twice as long to read (0.86 instead of
    0.44 ms), and 32 instead of 39 kB for 830 rows of five classes.
    """
    pq.write_table(pa.table(dict(columns)), path, compression="none", use_dictionary=False)


def _write(run: RunFolder, task: LogitsTask, rows: Supply, logits: np.ndarray) -> LogitsReport:
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
        write_logits(temporary, columns)
    counts = count_flags(flags)
    run.ledger.write(task.product, task.parts, classified=int((~null).sum()), blocked=int(null.sum()), flags=counts)
    return LogitsReport(task, int((~null).sum()), int(null.sum()), counts, rows.logits[task].why, rows.note)
