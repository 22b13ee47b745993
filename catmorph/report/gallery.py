"""A sheet of stamps with their labels, as a PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from catmorph.errors import CatmorphError, UsageError, suggest
from catmorph.inference.members import all_members
from catmorph.inference.tasks import recorded_tasks, task_state
from catmorph.recipe import Recipe
from catmorph.release.layout import Key
from catmorph.release.reading import read_results
from catmorph.release.results import ViewResult, answer_names
from catmorph.report.colour import GREY, Palette, palette_for
from catmorph.report.sheet import Cell, draw_sheet
from catmorph.schemes import Scheme, load_scheme
from catmorph.stamps.store import Shard, open_shard
from catmorph.workspace import Chunk, RunFolder

Order = Literal["magnitude", "class"]


@dataclass(frozen=True)
class GalleryResult:
    """What `gallery` drew: the file, the ids shown in order, and how many sources have a stamp in all.

    `outdated` says why stamps or labels that are shown may not be what the recipe asks for now; nothing where they are.
    """

    path: Path
    ids: tuple[str, ...]
    available: int
    outdated: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A source that can be shown; `rank` sorts, `group` is its class."""

    rank: tuple[float, str, str]
    group: str
    chunk: Chunk
    row: int
    id: str
    labels: tuple[str, ...]


def gallery(
    run: RunFolder,
    views: Sequence[str],
    per_row: int,
    rows: int,
    path: Path,
    order: Order = "magnitude",
    page: int = 1,
) -> GalleryResult:
    """Draw stamps with id, most probable class and probability; of several classifiers, what each of them says.

    With several views a row is a source and a column a view; with one view a row holds `per_row` sources. Views of
    three bands or more are drawn in colour.

    Parameters
    ----------
    run : RunFolder
        A run folder with stamps and logits.
    views : sequence of str
        Views to show; none given shows all.
    per_row, rows : int
        Size of the sheet.
    path : Path
        PNG file to write.
    order : str
        ``magnitude``: brightest first; ``class``: the surest of each class in turn, class by class. With
        several views the first one that classified a source decides.
    page : int
        Which sheetful to draw, from 1.

    Raises
    ------
    UsageError
        For an unknown view, or a page without sources.
    CatmorphError
        When stamps or logits are missing.
    """
    keys = _keys(run.recipe, views)
    wanted = rows if len(keys) > 1 else rows * per_row
    candidates, available = _best(run, keys, order, wanted * page)
    shown = candidates[wanted * (page - 1) :]
    if not shown:
        raise UsageError(f"page {page} holds no source: {available} have a stamp", hint="choose a lower --page")
    table = _cells(run, keys, shown)
    if len(keys) > 1:
        draw_sheet(path, table, [key.view for key in keys])
    else:
        cells = [row[0] for row in table]
        grid = [cells[start : start + per_row] for start in range(0, len(cells), per_row)]
        draw_sheet(path, grid, [], title=keys[0].view)
    return GalleryResult(path, tuple(source.id for source in shown), available, _outdated(run, keys, shown))


def _outdated(run: RunFolder, keys: Sequence[Key], shown: Sequence[_Candidate]) -> tuple[str, ...]:
    views, chunks = {key.view for key in keys}, list({one.chunk.key: one.chunk for one in shown}.values())
    try:
        tasks = [task for member in all_members(run.recipe) for task in recorded_tasks(run, member, chunks)]
    except CatmorphError as error:  # a checkpoint is gone, or fits no more: what it said is there
        return (str(error),)
    states = [task_state(run, task) for task in tasks if task.view in views]
    return tuple(dict.fromkeys(state.why for state in states if not state.done))


def _keys(recipe: Recipe, views: Sequence[str]) -> list[Key]:
    chosen = list(dict.fromkeys(views)) or list(recipe.all_views)
    for view in chosen:
        if view not in recipe.all_views:
            raise UsageError(f"unknown band or view {view!r}", hint=suggest(view, recipe.all_views))
    return [_first_key(recipe, view) for view in chosen]


def _first_key(recipe: Recipe, view: str) -> Key:
    keys = _who_look(recipe, view)
    if not keys:
        raise UsageError(f"no classifier of the recipe looks at view {view!r}")
    return keys[0]


def _who_look(recipe: Recipe, view: str) -> list[Key]:
    return [Key(name, view) for name in recipe.classifiers if view in recipe.classifier_views(name)]


def _best(run: RunFolder, keys: Sequence[Key], order: Order, wanted: int) -> tuple[list[_Candidate], int]:
    """Return the first `wanted` sources in order, and how many there are; memory is bounded by `wanted`."""
    best: list[_Candidate] = []
    available = 0
    for candidates in _candidates(run, keys, order):
        available += len(candidates)
        best = _sorted(best + candidates, order, wanted)
    return _by_class(best, wanted, _schemes(run.recipe, keys)) if order == "class" else best, available


def _schemes(recipe: Recipe, keys: Sequence[Key]) -> list[Scheme]:
    return [load_scheme(recipe.classifier_scheme(key.classifier)) for key in keys]


def _sorted(candidates: list[_Candidate], order: Order, wanted: int) -> list[_Candidate]:
    candidates = sorted(candidates, key=lambda one: one.rank)
    if order == "magnitude":
        return candidates[:wanted]
    counts: dict[str, int] = {}
    kept = []
    for one in candidates:
        counts[one.group] = counts.get(one.group, 0) + 1
        if counts[one.group] <= wanted:
            kept.append(one)
    return kept


def _by_class(candidates: list[_Candidate], wanted: int, schemes: Sequence[Scheme]) -> list[_Candidate]:
    """Take the surest of each class in turn until there are enough, then put them class by class."""
    groups: dict[str, list[_Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.group, []).append(one)
    turns = [(turn, one) for members in groups.values() for turn, one in enumerate(members)]
    chosen = [one for _, one in sorted(turns, key=lambda item: (item[0], item[1].rank))[:wanted]]
    every = dict.fromkeys(name for scheme in schemes for name in scheme.class_names)
    classes = {name: number for number, name in enumerate(every)}
    return sorted(chosen, key=lambda one: (classes.get(one.group, len(classes)), one.group, one.rank))


def _candidates(run: RunFolder, keys: Sequence[Key], order: Order) -> Iterator[list[_Candidate]]:
    schemes = _schemes(run.recipe, keys)
    # Whoever looks at a view has a line in its captions.
    for result in read_results(run, keys=[one for key in keys for one in _who_look(run.recipe, key.view)]):
        views = [result.views[key] for key in keys]
        names = [answer_names(scheme, view.probabilities).to_pylist()
                 for scheme, view in zip(schemes, views, strict=True)]
        surest = [_surest(view) for view in views]
        captions = [_captions(run.recipe, key.view, result.views) for key in keys]
        magnitudes = result.sources["magnitude"].to_pylist()
        ids = result.sources["id"].to_pylist()
        found = []
        for row in np.flatnonzero(np.any([view.classified for view in views], axis=0)):
            first = next(n for n, view in enumerate(views) if view.classified[row])
            magnitude = magnitudes[row]
            value = -float(surest[first][row]) if order == "class" else np.inf if magnitude is None else magnitude
            labels = tuple(texts[row] for texts in captions)
            rank = (value, result.field, str(ids[row]))
            found.append(_Candidate(rank, names[first][row], result.chunks[0], int(row), ids[row], labels))
        yield found


def _captions(recipe: Recipe, view: str, views: Mapping[Key, ViewResult]) -> list[str]:
    """Return what every source is called in `view`: a line for each classifier that looks at it."""
    keys = _who_look(recipe, view)
    lines = [_lines(scheme, key.classifier if len(keys) > 1 else "", views[key])
             for key, scheme in zip(keys, _schemes(recipe, keys), strict=True)]  # fmt: skip
    return ["\n".join(parts) for parts in zip(*lines, strict=True)]


def _lines(scheme: Scheme, classifier: str, view: ViewResult) -> list[str]:
    """Return each source's answer and its probability; with `classifier`, one of several, so that it tells whose."""
    names = answer_names(scheme, view.probabilities).to_pylist()
    if classifier:
        alone = scheme.class_names[0] if len(scheme.class_names) == 1 else None
        names = [alone or f"{classifier}: {name or 'none'}" for name in names]
    return [f"{name or 'none'} {sure:.2f}" if done else ""
            for name, sure, done in zip(names, _surest(view), view.classified, strict=True)]  # fmt: skip


def _surest(view: ViewResult) -> np.ndarray:
    return np.nanmax(np.nan_to_num(view.probabilities, nan=-1.0), axis=1)


def _cells(run: RunFolder, keys: Sequence[Key], shown: Sequence[_Candidate]) -> list[list[Cell]]:
    """Return what is drawn of each source in each view."""
    cells: dict[tuple[int, int], Cell] = {}
    for chunk in dict.fromkeys(source.chunk for source in shown):
        numbers = [number for number, source in enumerate(shown) if source.chunk == chunk]
        for index, key in enumerate(keys):
            path = run.shard_path(key.view, chunk)
            with open_shard(path) as shard:
                for number in numbers:
                    source = shown[number]
                    stamp, palette = _one_stamp(run.recipe, key.view, shard, source, path)
                    name = f"{source.chunk.field} {source.id}"
                    cells[number, index] = Cell(stamp, name, source.labels[index], palette)
    return [[cells[number, index] for index in range(len(keys))] for number in range(len(shown))]


def _one_stamp(
    recipe: Recipe, view: str, shard: Shard, source: _Candidate, path: Path
) -> tuple[np.ndarray | None, Palette]:
    """Return a stamp (channel, y, x), None where there is none, and how it is drawn."""
    if source.row >= len(shard.ids) or shard.ids[source.row] != source.id:
        raise CatmorphError("holds other sources than its chunk has now", where=path, hint="run `catmorph cutouts`")
    row = int(shard.rows[source.row])
    if row < 0:
        return None, GREY
    return shard.read(np.array([row]))[0], palette_for(recipe, view, shard.top_first[row])
