"""Pictures of stamps to vote on, with the manifest that Zooniverse takes."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.visualization import PercentileInterval
from PIL import Image

from catmorph.errors import CatalogError, UsageError, listed
from catmorph.files import TEMPORARY_PREFIX, cannot_write, write_bytes
from catmorph.labels.cells import number_cell, text_cell, write_table
from catmorph.labels.places import StampPlace, stamp_places
from catmorph.labels.sample import SampleRow
from catmorph.progress import progress
from catmorph.stamps.store import open_shard
from catmorph.stamps.upright import upright
from catmorph.workspace import RunFolder, safe_name

MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("filename", "#stamp", "#field", "#id", "#view", "#magnitude", "#ra", "#dec")
"""A leading # hides a column from all volunteers (README of panoptes-cli); it comes back in the export."""
UNKNOWN = "unknown"
"""What the manifest says where a number is missing: the uploader takes an empty cell for a file, and stops."""
LARGEST_BYTES = 1024 * 1024
"""What Zooniverse takes as one image (MAX_UPLOAD_FILE_SIZE of panoptes-cli)."""

_GAP = 8
_INVALID = (70, 90, 170)
_BETWEEN = (255, 255, 255)
_LONGEST = 120


@dataclass(frozen=True)
class SubjectsResult:
    """The manifest, and how many pictures were made and how many were there already."""

    manifest: Path
    made: int
    kept: int


def write_subjects(
    run: RunFolder, sample: Sequence[SampleRow], folder: Path, *, side_pixels: int = 400, shown: bool = False,
    where: Path | None = None,
) -> SubjectsResult:  # fmt: skip
    """Write one PNG for each stamp of `sample` into `folder`, and then its manifest.

    Each picture is made, compared with the file of its name, and written where that is missing or different: the
    same stamps give the same bytes, and an interrupted command goes on. The manifest comes last, so that where
    it is, all pictures are.

    Parameters
    ----------
    where : Path, optional
        The file of the sample, for messages.

    Raises
    ------
    CatalogError
        When the sample is empty or names a stamp twice, or a stamp that the run folder does not have, or calls one
        otherwise than the recipe: its votes would find no stamp.
    CatmorphError
        When a shard is missing or damaged, or the disk is full.
    """
    places = _find(run, sample, where)
    names = file_names([row.stamp for row in sample])
    _make(folder)
    for partial in folder.glob(TEMPORARY_PREFIX + "*"):
        partial.unlink(missing_ok=True)
    stretches = run.recipe.labels.stretches
    made = 0
    for index, stamp in progress(_stamps(places), total=len(places), label="subjects", shown=shown):
        made += _write(folder / names[index], picture(stamp, stretches, side_pixels))
    rows = zip(names, sample, places, strict=True)
    write_table(folder / MANIFEST, MANIFEST_COLUMNS, [_manifest_row(*row) for row in rows])
    return SubjectsResult(folder / MANIFEST, made, len(names) - made)


def picture(stamp: np.ndarray, stretches: Sequence[float], side_pixels: int) -> bytes:
    """Return the PNG of a stamp: a row of grey panels for each of its bands, one panel a stretch, north as cut.

    Parameters
    ----------
    stamp : ndarray of float32, shape (channel, y, x)
        NaN where invalid, which is shown bluish.
    stretches : sequence of float
        Per cent of the valid pixels that lie between black and white, linearly: the same share is cut off at
        both ends (`astropy.visualization.PercentileInterval`), over the pixels of the panel's own band. The
        95% and 99.5% of Perez-Carrasco et al. (2019, Sect. 3.2) are read so; the paper does not say it.
    side_pixels : int
        Smallest side of a panel: stamp pixels are enlarged a whole number of times, without interpolation.
    """
    rows = [_joined([_panel(plane, stretch, side_pixels) for stretch in stretches], axis=1) for plane in stamp]
    image = Image.fromarray(_joined(rows, axis=0))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def file_names(stamps: Sequence[str]) -> list[str]:
    """Return a file name for each stamp: harmless whatever it is called, of bounded length, none twice.

    Names that differ in the case of letters alone are one file on some file systems: they get part of their
    sha256, as do names that are cut off.
    """
    safe = [safe_name(name) for name in stamps]
    folded = Counter(name.casefold() for name in safe)
    names = []
    for stamp, name in zip(stamps, safe, strict=True):
        mark = hashlib.sha256(stamp.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        if len(name) > _LONGEST or folded[name.casefold()] > 1:
            name = f"{name[:_LONGEST]}-{mark}"
        names.append(f"{name}.png")
    return names


def _find(run: RunFolder, sample: Sequence[SampleRow], where: Path | None) -> list[StampPlace]:
    """Return where each stamp of the sample lies, in its order."""
    if not sample:
        raise CatalogError("the sample has no rows", where=where)
    counts = Counter(row.stamp for row in sample)
    twice = [row for row in sample if counts[row.stamp] > 1]
    if twice:
        raise CatalogError(f"{len(twice)} rows of the sample share their stamps: {_told(twice)}", where=where)
    views = dict.fromkeys(row.view for row in sample)
    unknown = [row for row in sample if row.view not in run.recipe.all_views]
    if unknown:
        names = listed(dict.fromkeys(row.view for row in unknown))
        raise UsageError(f"{len(unknown)} rows of the sample have views that the recipe has not ({names}): "
                         f"{_told(unknown)}", where=where, hint=f"valid: {', '.join(run.recipe.all_views)}")
    wanted = {(row.view, row.field, row.id) for row in sample}
    found = {
        (place.view, place.field, place.id): place
        for view in views for places in stamp_places(run, view) for place in places
        if (place.view, place.field, place.id) in wanted
    }  # fmt: skip
    missing = [row for row in sample if (row.view, row.field, row.id) not in found]
    if missing:
        raise CatalogError(f"{len(missing)} stamps of the sample are not in the run folder, or blocked: "
                           f"{_told(missing)}", where=where, hint="draw it again with `catmorph labels sample`")
    places = [found[(row.view, row.field, row.id)] for row in sample]
    other = [row for row, place in zip(sample, places, strict=True) if row.stamp != place.name]
    if other:
        name = found[(other[0].view, other[0].field, other[0].id)].name
        raise CatalogError(f"{len(other)} stamps are not called as labels.stamp says, the first {name!r}: "
                           f"{_told(other)}", where=where, hint="draw it again with `catmorph labels sample`")
    return places


def _told(rows: Sequence[SampleRow]) -> str:
    return listed(f"{row.stamp} (row {row.number})" if row.number else row.stamp for row in rows)


def _stamps(places: Sequence[StampPlace]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield index and pixels (channel, y, x) of each place, shard by shard."""
    by_shard: dict[Path, list[int]] = {}
    for index, place in enumerate(places):
        by_shard.setdefault(place.shard, []).append(index)
    for path, indices in by_shard.items():
        with open_shard(path) as shard:
            for index in indices:
                row = places[index].row
                yield index, upright(shard.read(np.array([row]))[0], shard.top_first[row])


def _panel(plane: np.ndarray, stretch: float, side_pixels: int) -> np.ndarray:
    """Return one panel (y, x, 3) of uint8, the top row of the picture first."""
    valid = np.isfinite(plane)
    grey = np.zeros(plane.shape, np.uint8)
    if valid.any():
        low, high = map(float, PercentileInterval(stretch).get_limits(plane[valid].astype(np.float64)))
        span = high - low if high > low else 1.0
        grey[valid] = np.rint(255 * np.clip((plane[valid].astype(np.float64) - low) / span, 0, 1)).astype(np.uint8)
    image = np.repeat(grey[..., None], 3, axis=2)
    image[~valid] = _INVALID
    factor = max(1, -(-side_pixels // max(plane.shape)))
    return image[::-1].repeat(factor, axis=0).repeat(factor, axis=1)


def _joined(panels: Sequence[np.ndarray], axis: int) -> np.ndarray:
    shape = list(panels[0].shape)
    shape[axis] = _GAP
    gap = np.broadcast_to(np.array(_BETWEEN, np.uint8), shape)
    parts = [part for panel in panels for part in (panel, gap)]
    return np.concatenate(parts[:-1], axis=axis)


def _write(path: Path, content: bytes) -> bool:
    """Write a picture unless it is there already; return whether it was written."""
    if len(content) > LARGEST_BYTES:
        raise UsageError(f"the picture has {len(content)} bytes, Zooniverse takes {LARGEST_BYTES}", where=path,
                         hint="lower --side")
    try:
        if path.read_bytes() == content:
            return False
    except OSError:
        pass
    write_bytes(path, content)
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _manifest_row(name: str, row: SampleRow, place: StampPlace) -> list[str]:
    numbers = [number_cell(value) or UNKNOWN for value in (place.magnitude, place.ra, place.dec)]
    return [text_cell(name), *map(text_cell, (row.stamp, place.field, place.id, place.view)), *numbers]
