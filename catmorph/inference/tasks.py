"""Which logits there are to be made, and whether those that are there are valid: one file a (network, view, chunk)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catmorph.inference.identity import possible_fingerprints
from catmorph.inference.members import Member, member_logits, network_of
from catmorph.ledger import Parts, State
from catmorph.models.card import Card, check_fits
from catmorph.models.header import load_card
from catmorph.stamps import build
from catmorph.workspace import Chunk, RunFolder

CODE_VERSION = 1
"""Raised when this stage's results change; part of its fingerprint."""


@dataclass(frozen=True, eq=False)
class LogitsTask:
    """One logits file to be made from one shard."""

    member: Member
    view: str
    chunk: Chunk
    shard: Path
    product: Path
    parts: Parts


def logits_tasks(
    run: RunFolder, member: Member, views: Iterable[str], predictor_fingerprint: str,
    chunks: Sequence[Chunk] | None = None,
) -> list[LogitsTask]:
    """Return a task for every (view, chunk) of `member`, whether its file is there or not."""
    chosen = [view for view in run.recipe.classifier_views(member.classifier) if view in set(views)]
    chunks = run.chunks() if chunks is None else chunks
    return [logits_task(run, member, view, chunk, predictor_fingerprint) for view in chosen for chunk in chunks]


def logits_task(run: RunFolder, member: Member, view: str, chunk: Chunk, fingerprint: str) -> LogitsTask:
    """Return the task of one file, its validity as the marker of the shard now says."""
    shard = run.shard_path(view, chunk)
    marker = run.ledger.read(shard) or {}
    parts = Parts({
        "stamps": marker.get("fingerprint"), "unreadable mosaics": marker.get("failures", []),
        "[normalise]": run.recipe.normalise.fingerprint_values, "classifier": fingerprint, "code": CODE_VERSION,
    })
    return LogitsTask(member, view, chunk, shard, member_logits(run, member, view, chunk), parts)


def renewed(run: RunFolder, task: LogitsTask) -> LogitsTask:
    """Return `task` with its validity as the marker of the shard says after it was cut."""
    return logits_task(run, task.member, task.view, task.chunk, task.parts.values["classifier"])


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
    changed = changed_stamps(run, task, marker["parts"])
    if changed:
        return State("stale", f"stamps are to be cut again: {changed}")
    return run.ledger.state(task.product, task.parts, deep=True)


def state_with_stamps(run: RunFolder, task: LogitsTask, cut: State) -> State:
    """Return `task_state` where `cut` is what is recorded of the stamps, which need not be there themselves.

    Logits of stamps that are to be cut are to be made again, whatever they are; a shard that was removed or damaged
    is cut to the same stamps.
    """
    return task_state(run, task) if cut.done else State(cut.name, f"stamps are to be cut: {cut.why}")


def changed_stamps(run: RunFolder, task: LogitsTask, parts: dict[str, Any]) -> str:
    """Say what of the recipe or the sources has changed since the shard was cut; its mosaics are not looked at."""
    now = build.recipe_parts(run.recipe, task.chunk)
    return ", ".join(sorted(key for key, value in now.items() if parts.get(key) != value))
