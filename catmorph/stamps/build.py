"""The `cutouts` stage: one task a (view, chunk), each writing one shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catmorph.ledger import Ledger, Parts, State, stamp_of
from catmorph.quality import Flag, blocked, count_flags
from catmorph.stamps.mosaics import ImageFiles, find_mosaics
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.store import ShardContent, write_shard
from catmorph.workspace import Chunk, RunFolder, read_row_group

if TYPE_CHECKING:
    from catmorph.recipe import Recipe
    from catmorph.stamps.images_block import ImagePlan
    from catmorph.stamps.images_plan import ChunkImages

WORKERS_IMPORT = ("catmorph.stamps.block",)
"""What cutting imports when it begins: once for all worker processes, see `catmorph.engine`."""

CODE_VERSION = 7
"""Raised when this stage's results change; part of its fingerprint."""

_STAMP_PART = "[stamp]"

_Failed = list[tuple[str, str]]


@dataclass(frozen=True)
class CutTask:
    """Everything a worker needs to make one shard: paths and settings, no pixels."""

    view: str
    bands: tuple[str, ...]
    chunk: Chunk
    mosaics: tuple[tuple[ImageFiles, ...], ...]
    reference: tuple[ImageFiles, ...] | None
    stamp: StampSettings
    run_folder: Path
    sources: Path
    shard: Path
    parts: Parts
    seen: Mapping[str, list[int]] = field(default_factory=dict)
    images: ImagePlan | None = None


@dataclass(frozen=True)
class ChunkStamps:
    """The stamps of one task, the mosaics that may be read another time, and images that cannot be used as they are."""

    content: ShardContent
    failures: tuple[tuple[str, str], ...] = ()
    bad_images: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CutReport:
    """What came of one task."""

    view: str
    chunk: Chunk
    sources: int
    stamps: int
    blocked: int
    flags: dict[str, int]
    failures: tuple[tuple[str, str], ...] = field(default=())
    bad_images: tuple[tuple[str, str], ...] = field(default=())

    def facts(self) -> dict[str, Any]:
        """Return what the marker of the shard says besides what it was made from."""
        return {
            "sources": self.sources, "stamps": self.stamps, "flags": self.flags, "blocked": self.blocked,
            "failures": self.failures, **({"bad_images": self.bad_images} if self.bad_images else {}),
        }


def cut_tasks(run: RunFolder, views: Iterable[str], chunks: Sequence[Chunk] | None = None) -> list[CutTask]:
    """Return a task for every (view, chunk), whether its shard is there or not; `chunks`: default all."""
    chunks, common = run.chunks() if chunks is None else chunks, _Common(run.recipe)
    if run.recipe.images is not None:
        # Recipes of mosaics do without pandas and pillow, half a second to import; so below.
        from catmorph.stamps.images_plan import ChunkImages

        images = ChunkImages(run, chunks)
        return [_image_task(run, common, images, view, chunk) for view in views for chunk in chunks]
    tiles = _Tiles(run)
    return [_task(run, common, tiles, view, chunk) for view in views for chunk in chunks]


class _Common:
    """What all tasks have in common: settings, and what of them is part of a shard's fingerprint."""

    def __init__(self, recipe: Recipe):
        self.stamp, self.parts = StampSettings.of(recipe.stamp), _settings(recipe)


class _Tiles:
    """The mosaics of a field and band, with their identities."""

    def __init__(self, run: RunFolder):
        self._run = run
        self._found: dict[tuple[str, str], tuple[tuple[ImageFiles, ...], list[dict[str, str]]]] = {}

    def of(self, field_name: str, band: str) -> tuple[tuple[ImageFiles, ...], list[dict[str, str]]]:
        key = field_name, band
        if key not in self._found:
            tiles = find_mosaics(self._run.recipe, field_name, band)
            self._found[key] = tiles, [self._identities(tile) for tile in tiles]
        return self._found[key]

    def _identities(self, tile: ImageFiles) -> dict[str, str]:
        # By role: the same file as weight or as flag map makes other stamps.
        roles = {"image": tile.image, "weight": tile.weight, "flag": tile.flag}
        return {role: self._run.identities.of(Path(path)) for role, path in roles.items() if path}


def task_state(run: RunFolder, task: CutTask) -> State:
    """Return whether the shard is there and valid; one made with a failed mosaic is tried again."""
    return _tried_again(run.ledger.state(task.shard, task.parts))


def recorded_state(run: RunFolder, task: CutTask) -> State:
    """Return whether what is recorded of the stamps is valid; the shard need not be there."""
    return _tried_again(run.ledger.recorded(task.shard, task.parts))


def _tried_again(state: State) -> State:
    if state.done and state.marker.get("failures"):
        return State("stale", "a mosaic could not be read: " + state.marker["failures"][0][1], state.marker)
    return state


def cut_chunk(task: CutTask) -> CutReport:
    """Make one shard: read the rows, cut the stamps, write the file, then its marker."""
    stamps = cut_stamps(task)
    report = cut_report(task, stamps)
    ledger = Ledger(task.run_folder)
    # The old marker goes first: it must never stand beside a shard that it does not describe.
    ledger.forget(task.shard)
    write_shard(task.shard, stamps.content, _attributes(task))
    ledger.write(task.shard, task.parts, **report.facts())
    return report


def note_chunk(task: CutTask, report: CutReport) -> None:
    """Record what was cut and not kept, in the marker of the shard; an older shard is removed."""
    ledger = Ledger(task.run_folder)
    ledger.forget(task.shard)
    task.shard.unlink(missing_ok=True)
    ledger.note(task.shard, task.parts, **report.facts())


def cut_stamps(task: CutTask) -> ChunkStamps:
    """Read the rows of a task and cut their stamps; nothing is written."""
    sources = _columns(read_row_group(task.sources, task.chunk.group))
    content, failures, bad_images = _cut(task, sources)
    changed = _changed_files(task)
    if changed:
        content = _without_stamps(content)
        failures = [*failures, *((name, "has changed while the run went on") for name in changed)]
    return ChunkStamps(content, tuple(failures), tuple(bad_images))


def cut_report(task: CutTask, stamps: ChunkStamps) -> CutReport:
    """Return what came of a task."""
    content, flags = stamps.content, stamps.content.flags
    return CutReport(task.view, task.chunk, len(content.ids), len(content.stamps), int(blocked(flags).sum()),
                     count_flags(flags), stamps.failures, stamps.bad_images)


def _columns(rows: pa.Table) -> dict[str, np.ndarray]:
    """Return what a cut needs of the sources, by way of lists: `to_numpy` brings pandas, a quarter of a second."""
    columns = {name: np.array(rows[name].to_pylist(), dtype=float) for name in ("ra", "dec", "size_arcsec")}
    return {"id": np.array(rows["id"].to_pylist(), dtype=object), **columns}


def _cut(task: CutTask, sources: Mapping[str, np.ndarray]) -> tuple[ShardContent, _Failed, _Failed]:
    """Return the stamps of a task, what may be read another time, and images that cannot be used as they are."""
    if task.images is None:
        # Astropy's WCS, a second to import, which those who only plan do without.
        from catmorph.stamps.block import BlockPlan, cut_block

        content, failures = cut_block(BlockPlan(task.mosaics, task.reference, task.stamp), sources)
        return content, failures, []
    from catmorph.stamps.images_block import cut_images

    content, failed = cut_images(task.images, sources)
    return content, sorted(failed.passing), sorted(failed.lasting)


def _changed_files(task: CutTask) -> list[str]:
    """Return the files that are not any more what the fingerprint says: their pixels must not be kept under it."""
    changed = []
    for path, seen in task.seen.items():
        try:
            now = stamp_of(Path(path))
        except OSError:
            continue  # one that is gone was either read before or is among the failures
        # Not the inode: another machine that sees the same files may number them differently.
        if seen and now[:2] != seen[:2]:
            changed.append(Path(path).name)
    return changed


def _without_stamps(content: ShardContent) -> ShardContent:
    return replace(
        content, flags=content.flags | np.uint32(Flag.UNREADABLE), rows=np.full_like(content.rows, -1),
        bad_fraction=np.full_like(content.bad_fraction, np.nan), signal=np.full_like(content.signal, np.nan),
        stamps=content.stamps[:0], axes=None if content.axes is None else np.full_like(content.axes, np.nan),
        top_first=None,
    )


def recipe_parts(recipe: Recipe, chunk: Chunk) -> dict[str, Any]:
    """Return the inputs of a shard besides its mosaics."""
    return {"sources": chunk.digest, **_settings(recipe)}


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {"code": CODE_VERSION, _STAMP_PART: recipe.stamp.fingerprint_values, **_pixel_settings(recipe)}


def _pixel_settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.mosaics is not None:
        return {"[mosaics]": recipe.mosaics.model_dump(mode="json", exclude={"pattern", "weight", "flag"})}
    assert recipe.images is not None
    return {"[images]": recipe.images.model_dump(mode="json", include={"size", "hdu", "pixel_scale"})}


def _image_task(run: RunFolder, common: _Common, images: ChunkImages, view: str, chunk: Chunk) -> CutTask:
    bands = run.recipe.all_views[view]
    plan = images.plan(view, chunk)
    values = {
        "sources": chunk.digest, **common.parts, "bands": list(bands), "planes": [list(plan.planes), plan.count],
        "images": images.digest(plan),
    }
    return CutTask(
        view=view, bands=bands, chunk=chunk, mosaics=(), reference=None, stamp=common.stamp,
        run_folder=run.path, sources=run.sources_path(), shard=run.shard_path(view, chunk), parts=Parts(values),
        seen={path: run.identities.seen(path) for path in sorted(set(plan.files["path"]))}, images=plan,
    )


def _task(run: RunFolder, common: _Common, tiles: _Tiles, view: str, chunk: Chunk) -> CutTask:
    recipe = run.recipe
    bands = recipe.all_views[view]
    reference: tuple[ImageFiles, ...] | None = None
    values = {"sources": chunk.digest, **common.parts, "bands": list(bands)}
    for band in bands:
        values[f"mosaic {band}"] = tiles.of(chunk.field, band)[1]
    if recipe.stamp.side_unit == "pixels" and recipe.bands.reference:
        reference, values["mosaic of the reference band"] = tiles.of(chunk.field, recipe.bands.reference)
    mosaics = tuple(tiles.of(chunk.field, band)[0] for band in bands)
    paths = {path for band_tiles in (*mosaics, reference or ()) for tile in band_tiles for path in tile.paths}
    return CutTask(
        view=view, bands=bands, chunk=chunk, mosaics=mosaics,
        reference=reference, stamp=common.stamp, run_folder=run.path, sources=run.sources_path(),
        shard=run.shard_path(view, chunk), parts=Parts(values),
        seen={path: run.identities.seen(Path(path)) for path in sorted(paths)},
    )


def image_warnings(run: RunFolder) -> list[str]:
    """Say what of the images that the recipe names is not used; see `ChunkImages.warnings`."""
    from catmorph.stamps.images_plan import ChunkImages

    return ChunkImages(run, run.chunks()).warnings()


def _attributes(task: CutTask) -> dict[str, Any]:
    return {
        "view": task.view, "bands": list(task.bands), "field": task.chunk.field, "cell": task.chunk.cell,
        "stamp": task.parts.values[_STAMP_PART], "fingerprint": task.parts.fingerprint,
    }
