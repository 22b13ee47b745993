"""What is wrong with the images of a recipe, before stamps are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from catmorph.stamps.images import ImageError, decode, shape_of, top_first
from catmorph.stamps.images_block import ImagePlan, ImageReader
from catmorph.stamps.images_plan import ChunkImages
from catmorph.stamps.reasons import by_reason
from catmorph.workspace import Chunk, RunFolder

_MOST_REASONS = 100


def check_images(run: RunFolder, chunks: Sequence[Chunk], *, deep: bool = False) -> tuple[list[str], list[str]]:
    """Look for the image of every source, and at the kind, size and planes of each.

    Parameters
    ----------
    deep : bool
        Also decode every image, which tells one that is damaged or cut short.

    Returns
    -------
    problems, notes : list of str

    Raises
    ------
    UsageError
        When no image shows a source.
    """
    found = ChunkImages(run, chunks)
    warnings = found.warnings()
    sources = sum(chunk.count for chunk in chunks)
    imaged = sum(int((found.rows(chunk) >= 0).all(axis=0).sum()) for chunk in chunks)
    notes = [f"images: {len(found.images):,}", *warnings, *found.images.notes]
    if imaged < sources:
        notes.append(f"images: {sources - imaged:,} of {sources:,} sources have none, or not in every band")
    faults: dict[str, list[str]] = {}
    mixed = 0
    for chunk in chunks:
        plan = found.whole_plan(chunk)
        tops = np.full(len(plan.files), -1)
        for name, reason in _faults(plan, deep, tops):
            faults.setdefault(reason, []).append(name)
        mixed += _mixed(plan.index, tops)
    if mixed:
        notes.append(f"images: {mixed:,} sources have bands of both kinds, JPEG or PNG (first row on top) and FITS "
                     "(at the bottom): the network sees these bands turned over against each other")
    return [": ".join(pair) for pair in by_reason(faults, _MOST_REASONS)], notes


def _mixed(index: np.ndarray, tops: np.ndarray) -> int:
    """Count the sources some of whose images (file, source) have their top row first (`tops` 1), some last (0)."""
    kinds = np.where(index >= 0, np.append(tops, -1)[index], -1)
    return int(np.count_nonzero((kinds == 1).any(axis=0) & (kinds == 0).any(axis=0)))


def _faults(plan: ImagePlan, deep: bool, tops: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield images that cannot be used, and why; note in `tops` (file,) whether each has its top row first."""
    order = np.lexsort((plan.files["offset"], plan.files["path"]))
    with closing(ImageReader()) as reader:
        for row, entry in zip(order.tolist(), plan.files.iloc[order].itertuples(index=False), strict=True):
            try:
                data = reader.read(entry)
                tops[row] = top_first(data)
                plan.check(decode(data, plan.section.hdu).shape if deep else shape_of(data, plan.section.hdu))
            except ImageError as fault:
                yield str(entry.file), fault.reason
            except OSError as error:
                yield str(entry.file), f"cannot be opened: {error.strerror or error}"
