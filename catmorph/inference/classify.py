"""The `classify` stage: shards -> logits, one Parquet file a (network, view, chunk)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic, checksum
from catmorph.inference.identity import possible_fingerprints
from catmorph.inference.members import Member, member_logits, network_of
from catmorph.ledger import Parts, State
from catmorph.models.card import Card, check_fits
from catmorph.models.header import load_card
from catmorph.quality import Flag, blocked, count_flags
from catmorph.recipe import NormaliseSection
from catmorph.schemes import load_scheme
from catmorph.stamps import build
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import Shard, open_shard
from catmorph.workspace import Chunk, RunFolder

if TYPE_CHECKING:
    from catmorph.inference.predict import Predictor

CODE_VERSION = 1
"""Raised when this stage's results change; part of its fingerprint."""

READ_AHEAD = 512
"""Stamps read and normalised at a time: 13 MB of 80x80 float32, and at least one batch."""


@dataclass(frozen=True, eq=False)
class LogitsTask:
    """One logits file to be made from one shard."""

    member: Member
    view: str
    chunk: Chunk
    shard: Path
    product: Path
    parts: Parts


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


def logits_tasks(
    run: RunFolder, member: Member, views: Iterable[str], predictor_fingerprint: str,
    chunks: Sequence[Chunk] | None = None,
) -> list[LogitsTask]:
    """Return a task for every (view, chunk) of `member`, whether its file is there or not."""
    chosen = [view for view in run.recipe.classifier_views(member.classifier) if view in set(views)]
    chunks = run.chunks() if chunks is None else chunks
    return [_task(run, member, view, chunk, predictor_fingerprint) for view in chosen for chunk in chunks]


def _task(run: RunFolder, member: Member, view: str, chunk: Chunk, fingerprint: str) -> LogitsTask:
    shard = run.shard_path(view, chunk)
    marker = run.ledger.read(shard) or {}
    parts = Parts({
        "stamps": marker.get("fingerprint"), "unreadable mosaics": marker.get("failures", []),
        "[normalise]": run.recipe.normalise.fingerprint_values(), "classifier": fingerprint, "code": CODE_VERSION,
    })
    return LogitsTask(member, view, chunk, shard, member_logits(run, member, view, chunk), parts)


def recorded_tasks(run: RunFolder, member: Member, chunks: Sequence[Chunk] | None = None) -> list[LogitsTask]:
    """Return the tasks of `member` as its logits were made: on any device, in any precision.

    Raises
    ------
    CheckpointError
        When the checkpoint cannot be opened or its card does not fit the recipe.
    """
    section, views = run.recipe.classifiers[member.classifier], run.recipe.classifier_views(member.classifier)
    check_member(load_card(member.checkpoint), run, member)
    possible = possible_fingerprints(network_of(run, member), batch=section.batch, test_time=section.test_time)
    return [_as_recorded(run, task, possible) for task in logits_tasks(run, member, views, possible[0], chunks)]


def check_member(card: Card, run: RunFolder, member: Member) -> None:
    """Raise a CheckpointError where the card of a classifier's network does not suit the recipe."""
    recipe, name = run.recipe, member.classifier
    check_fits(card, recipe, recipe.classifier_views(name), scheme=recipe.classifier_scheme(name),
               where=member.checkpoint)


def _as_recorded(run: RunFolder, task: LogitsTask, possible: tuple[str, ...]) -> LogitsTask:
    marker = run.ledger.read(task.product) or {}
    recorded = marker.get("parts", {}).get("classifier")
    if recorded not in possible:
        return task
    return replace(task, parts=Parts({**task.parts.values, "classifier": recorded}))


def task_state(run: RunFolder, task: LogitsTask) -> State:
    """Return whether the logits are there, made of what the recipe asks for now, and undamaged."""
    marker = run.ledger.read(task.shard)
    if marker is None:
        return State("missing", "no stamps yet")
    changed = _changed_stamps(run, task, marker["parts"])
    if changed:
        return State("stale", f"stamps are to be cut again: {changed}")
    return run.ledger.state(task.product, task.parts, deep=True)


def _changed_stamps(run: RunFolder, task: LogitsTask, parts: dict[str, Any]) -> str:
    """Say what of the recipe or the sources has changed since the shard was cut; its mosaics are not looked at."""
    now = build.recipe_parts(run.recipe, task.chunk)
    return ", ".join(sorted(key for key, value in now.items() if parts.get(key) != value))


def classify(run: RunFolder, predictor: Predictor, tasks: Iterable[LogitsTask]) -> Iterator[LogitsReport]:
    """Run the network over the stamps of `tasks`; yield a report as each file is in place.

    Stamps of successive shards share the network's fixed batches, so that small chunks cost no more than
    large ones; memory is bounded by a few batches and one chunk's logits.
    """
    waiting: dict[LogitsTask, _Rows] = {}
    inputs = _inputs(run, tasks, waiting)
    parts: dict[LogitsTask, list[np.ndarray]] = {}
    for (task, last), logits in predictor.stream(inputs):
        parts.setdefault(task, []).append(logits)
        if last:
            rows = waiting.pop(task)
            yield _write(run, task, rows, np.concatenate(parts.pop(task)))


@dataclass(frozen=True)
class _Rows:
    """The columns of a shard that go into the logits file."""

    ids: list[str]
    flags: np.ndarray
    bad_fraction: np.ndarray
    signal: np.ndarray
    note: str


def _inputs(
    run: RunFolder, tasks: Iterable[LogitsTask], waiting: dict[LogitsTask, _Rows]
) -> Iterator[tuple[tuple[LogitsTask, bool], np.ndarray]]:
    for task in tasks:
        sound, note = _with_sound_shard(run, task)
        with open_shard(sound.shard) as shard:
            waiting[sound] = _Rows(shard.ids, shard.flags, shard.bad_fraction, shard.signal, note)
            yield from (((sound, last), block) for last, block in _blocks(shard, run.recipe.normalise))


def _with_sound_shard(run: RunFolder, task: LogitsTask) -> tuple[LogitsTask, str]:
    """Return the task, its shard cut again where its bytes are not those that were written, and a note of that."""
    marker = run.ledger.read(task.shard)
    if marker is None or not task.shard.exists():
        raise CatmorphError("there are no stamps", where=task.shard, hint="run `catmorph cutouts`")
    changed = _changed_stamps(run, task, marker["parts"])
    if changed:
        raise CatmorphError(f"was cut before a change of: {changed}", where=task.shard, hint="run `catmorph cutouts`")
    if checksum(task.shard) == marker.get("checksum"):
        return task, ""
    return _cut_again(run, task, marker), f"{task.shard}: was damaged, its bytes were not what was written; cut again"


def _cut_again(run: RunFolder, task: LogitsTask, marker: dict[str, Any]) -> LogitsTask:
    run.ledger.forget(task.shard)
    (cut,) = build.cut_tasks(run, [task.view], [task.chunk])
    if cut.parts.fingerprint != marker["fingerprint"]:
        raise CatmorphError("is damaged, and its mosaics are not those it was cut from", where=task.shard,
                            hint="run `catmorph run` or `catmorph cutouts`, which cut it again")
    build.cut_chunk(cut)
    return _task(run, task.member, task.view, task.chunk, task.parts.values["classifier"])


def _blocks(shard: Shard, section: NormaliseSection) -> Iterator[tuple[bool, np.ndarray]]:
    rows = shard.rows[~blocked(shard.flags)]
    starts = range(0, max(len(rows), 1), READ_AHEAD)
    for start in starts:
        yield start == starts[-1], normalise(shard.read(rows[start : start + READ_AHEAD]), section)


def _write(run: RunFolder, task: LogitsTask, rows: _Rows, logits: np.ndarray) -> LogitsReport:
    names = load_scheme(run.recipe.classifier_scheme(task.member.classifier)).class_names
    usable = ~blocked(rows.flags)
    if len(logits) != np.count_nonzero(usable):
        raise CatmorphError(f"{len(logits)} results for {np.count_nonzero(usable)} stamps", where=task.shard)
    flags, values = rows.flags.copy(), np.full((len(rows.ids), len(names)), np.nan, np.float32)
    values[usable] = logits
    flags[usable & ~np.isfinite(values).all(axis=1)] |= np.uint32(Flag.NOT_FINITE)
    null = blocked(flags)
    columns = {
        "id": pa.array(rows.ids, pa.string()), "flags": pa.array(flags, pa.uint32()),
        "bad_fraction": pa.array(rows.bad_fraction, pa.float32()), "signal": pa.array(rows.signal, pa.float32()),
        **{name: pa.array(values[:, i], pa.float32(), mask=null) for i, name in enumerate(names)},
    }
    run.ledger.forget(task.product)
    with atomic(task.product) as temporary:
        pq.write_table(pa.table(columns), temporary)
    counts = count_flags(flags)
    run.ledger.write(task.product, task.parts, classified=int((~null).sum()), blocked=int(null.sum()), flags=counts)
    return LogitsReport(task, int((~null).sum()), int(null.sum()), counts, rows.note)
