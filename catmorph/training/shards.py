"""Labelled stamps from the shards of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catmorph.quality import blocked
from catmorph.recipe import TrainingSection
from catmorph.schemes import load_scheme
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import open_shard
from catmorph.training.data import LabelledStamps
from catmorph.training.labels import match_labels, read_labels, stamp_names
from catmorph.workspace import RunFolder


@dataclass(frozen=True)
class _Place:
    """Where one stamp lies."""

    shard: Path
    row: int
    view: str
    field: str
    identifier: str


def labelled_stamps(run: RunFolder, section: TrainingSection) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps of `run` that have a label, and what was left over, a line each.

    Raises
    ------
    CatmorphError
        When a shard is missing or the label table does not fit.
    """
    table = read_labels(
        section.labels, load_scheme(run.recipe.scheme), id_column=section.id_column, votes_column=section.votes_column
    )
    places = _places(run)
    names = stamp_names(
        section.label_id, [p.field for p in places], [p.identifier for p in places], [p.view for p in places]
    )
    match = match_labels(table, names)
    chosen = [places[i] for i in match.stamps]
    data = LabelledStamps(
        inputs=_inputs(run, chosen),
        fractions=table.fractions[match.labels],
        fields=np.array([place.field for place in chosen]),
        ids=np.array([place.identifier for place in chosen]),
        views=np.array([place.view for place in chosen]),
        votes=None if table.votes is None else table.votes[match.labels],
    )
    return data, match.report()


def _places(run: RunFolder) -> list[_Place]:
    places = []
    for view in run.recipe.all_views:
        for chunk in run.chunks():
            path = run.shard_path(view, chunk)
            with open_shard(path) as shard:
                places += [
                    _Place(path, int(shard.rows[i]), view, chunk.field, shard.ids[i])
                    for i in np.flatnonzero(~blocked(shard.flags))
                ]
    return places


def _inputs(run: RunFolder, chosen: list[_Place]) -> np.ndarray:
    channels = len(next(iter(run.recipe.all_views.values())))
    pixels = run.recipe.stamp.pixels
    inputs = np.empty((len(chosen), channels, pixels, pixels), np.float32)
    by_shard: dict[Path, list[int]] = {}
    for index, place in enumerate(chosen):
        by_shard.setdefault(place.shard, []).append(index)
    for path, indices in by_shard.items():
        with open_shard(path) as shard:
            pixels_read = shard.read(np.array([chosen[i].row for i in indices]))
        inputs[indices] = normalise(pixels_read, run.recipe.normalise)
    return inputs
