"""Doing the experiment of two surveys: each network a task, first those that need no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from catmorph.errors import CatmorphError, UsageError
from catmorph.experiments.plan import TRANSFER_TABLE, Point
from catmorph.experiments.prepared import fingerprint, keep_only, prepare
from catmorph.experiments.run import Settings, do_tasks
from catmorph.experiments.trainings import CHECKPOINT, Task, backbone_key, code_key, section_key, teachers_key
from catmorph.experiments.transfer import ALL_LAYERS, APPLIED, DENSE, FIRST, NETWORKS, SOURCE, Question
from catmorph.files import digest, digest_json, remove_partial_files
from catmorph.labels import LabelledStamps, split_sources
from catmorph.models.identity import read_network_digest


@dataclass(frozen=True)
class Surveys:
    """The labelled stamps of both surveys; `shared` source stamps are left out, of objects that are in the target.

    `placed` tells whether that could be known: both surveys have positions.
    """

    source: LabelledStamps
    target: LabelledStamps
    shared: int
    placed: bool


def apart(source: LabelledStamps, target: LabelledStamps, separation_arcsec: float) -> Surveys:
    """Leave out of the source survey what lies within `separation_arcsec` of an object of the target survey.

    The source network must not have seen a galaxy that it is tested on in the target survey, through another telescope.

    Raises
    ------
    UsageError
        When no source stamp is left.
    """
    (rows, theirs), (_, mine) = _places(source), _places(target)
    if not len(theirs) or not len(mine) or not separation_arcsec:
        return Surveys(source, target, 0, placed=False)
    near = theirs.match_to_catalog_sky(mine)[1].arcsec <= separation_arcsec
    kept = np.setdiff1d(np.arange(len(source)), rows[near])
    if not len(kept):
        raise UsageError(
            f"every labelled stamp of the source survey is within {separation_arcsec:g} arcsec of one of the target",
            hint="the source network would be tested on galaxies it was trained on: label others",
        )
    return Surveys(source.take(kept), target, len(source) - len(kept), placed=True)


def _places(data: LabelledStamps) -> tuple[np.ndarray, SkyCoord]:
    """Return the rows of the stamps whose position is known, and those positions."""
    ra, dec = (np.full(len(data), np.nan) if one is None else np.asarray(one) for one in (data.ra, data.dec))
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    return rows, SkyCoord(ra[rows] * u.deg, dec[rows] * u.deg)


def refuse_impossible(asked: Question, surveys: Surveys) -> None:
    """Divide the stamps of both surveys as the trainings will; a UsageError tells when there are not enough."""
    for recipe, data, section in ((asked.source, surveys.source, asked.source_section),
                                  (asked.target, surveys.target, asked.target_section)):  # fmt: skip
        try:
            split_sources(data, section)
        except UsageError as error:
            key = "source_size" if recipe is asked.source else "target_size"
            raise UsageError(error.message, where=recipe.name,
                             hint=f"{error.hint}; training.size is experiments.{key} here") from None


def question_tasks(asked: Question, surveys: Surveys, settings: Settings) -> dict[str, Task]:
    """Return the tasks that can be told by now: those of `FIRST`, and the others once the source network is there."""
    keys = {one: fingerprint(data) for one, data in (("source", surveys.source), ("target", surveys.target))}
    first = {network: _task(asked, network, keys, settings, None) for network in FIRST}
    checkpoint = first[SOURCE].checkpoint
    if first[SOURCE].done() is None:
        return first
    sha256 = read_network_digest(checkpoint)
    return {network: first.get(network) or _task(asked, network, keys, settings, sha256) for network in NETWORKS}


def _task(asked: Question, network: str, keys: dict[str, str], settings: Settings, start: str | None) -> Task:
    folder, survey = asked.folder, "source" if network == SOURCE else "target"
    checkpoint = folder / "trainings" / f"{SOURCE}-00" / CHECKPOINT
    section, point = asked.section(network, checkpoint), Point({"network": network}, 0, {})
    given = checkpoint if network == APPLIED else None
    recipe = asked.source if network == SOURCE else asked.target
    key = digest_json({
        "experiment": TRANSFER_TABLE, "network": network, "stamps": keys[survey], "scheme": recipe.scheme,
        "section": None if given else section_key(section),
        "start": start if network in (APPLIED, ALL_LAYERS, DENSE) else None,
        "pretrained": digest(Path(section.start)) if network == SOURCE and section.start else None,
        **({} if given else backbone_key(section) | teachers_key(section)),
        "positive": asked.positive, **code_key(),
    })  # fmt: skip
    return Task(
        point=point, stamps=folder / "stamps" / keys[survey][:16], recipe=recipe, section=section, fingerprint=key,
        result=folder / "results" / f"{point.name}.json", folder=folder / "trainings" / point.name,
        # The others start from the source network.
        device=settings.device, threads=settings.threads, keep=settings.keep or network == SOURCE,
        given=given, subset="all" if given else None, positive=asked.positive,
    )  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """A question with the results that are there, by network, and the reasons of those that failed."""

    question: Question
    surveys: Surveys
    results: dict[str, dict[str, Any]]
    failures: dict[str, str]


def answer(
    asked: Sequence[Question], surveys: Sequence[Surveys], settings: Settings, say: Callable[[str], None]
) -> list[Answered]:
    """Do what is not done yet of all questions, first what needs no other network, and return what came of it.

    Interrupted, the same call goes on; a result that is damaged or of other data, settings or versions is made again.
    """
    for one, both in zip(asked, surveys, strict=True):
        _prepare(one, both, settings)
    for _ in range(2):
        tasks = [task for one, both in zip(asked, surveys, strict=True)
                 for task in question_tasks(one, both, settings).values()]  # fmt: skip
        todo = [task for task in tasks if task.done() is None and not task.failed()]
        if todo:
            say(f"{TRANSFER_TABLE}: {len(todo)} networks to do")
            # The first tells how long the rest takes: not one that trains nothing.
            do_tasks(sorted(todo, key=lambda task: task.given is not None), settings, say)
    return [_answered(one, both, settings) for one, both in zip(asked, surveys, strict=True)]


def _prepare(asked: Question, surveys: Surveys, settings: Settings) -> None:
    """Write the stamps, and forget the failures of before: they are tried again."""
    remove_partial_files(asked.folder)
    tasks = question_tasks(asked, surveys, settings)
    for task in tasks.values():
        if task.failed():
            task.result.unlink()
    if len(tasks) == len(NETWORKS) and all(task.done() for task in tasks.values()):
        return
    prepared = {prepare(data, asked.folder / "stamps") for data in (surveys.source, surveys.target)}
    keep_only(asked.folder / "stamps", prepared)


def _answered(asked: Question, surveys: Surveys, settings: Settings) -> Answered:
    tasks = question_tasks(asked, surveys, settings)
    results = {network: found for network, task in tasks.items() if (found := task.done()) is not None}
    failures = {network: reason for network, task in tasks.items() if (reason := task.failed())}
    missing = {network: "the network of the source survey failed" for network in NETWORKS if network not in tasks}
    return Answered(asked, surveys, results, failures | missing)


def refuse_failures(answered: Sequence[Answered]) -> None:
    """Raise a CatmorphError when a training failed."""
    for one in answered:
        if one.failures:
            network, reason = next(iter(one.failures.items()))
            raise CatmorphError(
                f"{len(one.failures)} of {len(NETWORKS)} networks failed, the first of them ({network}): {reason}",
                where=one.question.folder, hint="run again to try them again",
            )
