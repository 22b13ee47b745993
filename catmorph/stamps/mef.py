"""`cutouts --format mef`: the stamps of a shard as one multi-extension FITS file a source. See docs/formats.md."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.files import atomic, checksum, digest, write_many
from catmorph.ledger import Ledger, Parts, State
from catmorph.places import MEF_STAMPS
from catmorph.quality import describe
from catmorph.stamps.fits_bytes import Card, header_text, image, primary
from catmorph.stamps.mef_names import clashing, file_stem
from catmorph.stamps.store import Shard, open_shard
from catmorph.stamps.upright import upright
from catmorph.workspace import Chunk, RunFolder, read_columns, read_row_group, safe_name

CODE_VERSION = 2
"""Raised when the files change; part of their fingerprint."""

_READ_AHEAD = 256


@dataclass(frozen=True)
class MefTask:
    """The files of one chunk in one view: paths and settings, no pixels; `marked` ids have a hash in their name."""

    view: str
    bands: tuple[str, ...]
    chunk: Chunk
    sources: Path
    shard: Path
    run_folder: Path
    list: Path
    marked: frozenset[str]
    parts: Parts


@dataclass(frozen=True)
class MefReport:
    """What came of one task."""

    task: MefTask
    sources: int
    files: int


def list_path(run: RunFolder, view: str, chunk: Chunk) -> Path:
    """The list of a chunk's files, beside them: one row a source."""
    return run.path / MEF_STAMPS / view / safe_name(chunk.field) / f"{chunk.cell}.parquet"


def mef_tasks(run: RunFolder, views: Iterable[str]) -> list[MefTask]:
    """Return a task for every (view, chunk), whether its files are there or not."""
    chunks = run.chunks()
    marked = _marked(run, chunks)
    return [_task(run, view, chunk, ids) for view in views for chunk, ids in zip(chunks, marked, strict=True)]


def _marked(run: RunFolder, chunks: Sequence[Chunk]) -> list[frozenset[str]]:
    """Return, for each chunk, the ids that another one of the field is like but for capitals."""
    ids = [_ids(run.sources_path(), chunk) for chunk in chunks]
    by_field: dict[str, list[str]] = {}
    for chunk, names in zip(chunks, ids, strict=True):
        by_field.setdefault(chunk.field, []).extend(names)
    clashes = {field: clashing(names) for field, names in by_field.items()}
    return [clashes[chunk.field].intersection(names) for chunk, names in zip(chunks, ids, strict=True)]


def _ids(sources: Path, chunk: Chunk) -> list[str]:
    return [str(one) for one in read_row_group(sources, chunk.group)["id"].to_pylist()]


def _task(run: RunFolder, view: str, chunk: Chunk, marked: frozenset[str]) -> MefTask:
    shard = run.shard_path(view, chunk)
    marker = run.ledger.read(shard) or {}
    values: dict[str, Any] = {"stamps": marker.get("fingerprint"), "unreadable mosaics": marker.get("failures", []),
                              "code": CODE_VERSION}
    if marked:
        values["names that differ in capitals alone"] = sorted(marked)
    return MefTask(
        view=view, bands=run.recipe.all_views[view], chunk=chunk, sources=run.sources_path(), shard=shard,
        run_folder=run.path, list=list_path(run, view, chunk), marked=marked, parts=Parts(values),
    )


def task_state(run: RunFolder, task: MefTask) -> State:
    """Return whether the files are there, made of today's stamps, each of the size it was written with."""
    if run.ledger.read(task.shard) is None:
        return State("missing", "no stamps yet")
    state = run.ledger.state(task.list, task.parts, deep=True)
    if not state.done:
        return state
    bad = [name for name, size, _ in _files(task.list) if _size(task.list.parent / name) != size]
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return State("stale", f"damaged: {bad[0]}{others} is gone or not of the size that was written", state.marker)
    return state


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _files(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield name, size and sha256 of the files in a list."""
    try:
        table = read_columns(path, ["file", "bytes", "sha256"])
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"is damaged: {error}", where=path, hint="delete it and run again") from error
    columns = (table[name].to_pylist() for name in ("file", "bytes", "sha256"))
    yield from (row for row in zip(*columns, strict=True) if row[0] is not None)


def listed_files(path: Path) -> list[Path]:
    """Return the files of a list; none where there is no sound list."""
    try:
        return [path.parent / name for name, _, _ in _files(path)]
    except CatmorphError:
        return []


def damaged_files(run: RunFolder) -> list[Path]:
    """Hash every file of every sound list again; return those whose bytes are not what was written."""
    found = []
    for path in sorted((run.path / MEF_STAMPS).rglob("*.parquet")):
        marker = run.ledger.read(path)
        # A list that is damaged itself is told as every other product.
        if marker and checksum(path) == marker.get("checksum"):
            files = ((path.parent / name, sha256) for name, _, sha256 in _files(path))
            found += [file for file, sha256 in files if not file.is_file() or digest(file) != sha256]
    return found


def write_chunk(task: MefTask) -> MefReport:
    """Write the files of one chunk, then their list, then its marker."""
    ledger = Ledger(task.run_folder)
    # The old marker goes first: it must never stand beside files that it does not describe.
    ledger.forget(task.list)
    rows = read_row_group(task.sources, task.chunk.group)
    with open_shard(task.shard) as shard:
        if [str(one) for one in rows["id"].to_pylist()] != shard.ids:
            raise CatmorphError("holds other sources than its chunk has now", where=task.shard,
                                hint="run `catmorph cutouts`")
        listed: dict[int, tuple[str, int, str]] = {}
        positions = np.stack([rows[name].to_numpy().astype(float) for name in ("ra", "dec")], axis=1)
        write_many(_contents(task, shard, positions, listed))
        names, sizes, digests = zip(*(listed.get(row, (None,) * 3) for row in range(len(shard.ids))), strict=True)
        table = pa.table({
            "id": pa.array(shard.ids, pa.string()), "flags": pa.array(shard.flags, pa.uint32()),
            "file": pa.array(names, pa.string()), "bytes": pa.array(sizes, pa.int64()),
            "sha256": pa.array(digests, pa.string()),
        })
    with atomic(task.list) as temporary:
        pq.write_table(table, temporary)
    ledger.write(task.list, task.parts, sources=len(table), files=len(listed))
    return MefReport(task, len(table), len(listed))


def _contents(
    task: MefTask, shard: Shard, positions: np.ndarray, listed: dict[int, tuple[str, int, str]]
) -> Iterator[tuple[Path, bytes]]:
    """Yield path and bytes of each source's file, and list it."""
    usable = np.flatnonzero(shard.rows >= 0)
    for start in range(0, len(usable), _READ_AHEAD):
        block = usable[start : start + _READ_AHEAD]
        rows = shard.rows[block]
        for source, planes, top_first in zip(block.tolist(), shard.read(rows), shard.top_first[rows], strict=True):
            # FITS rows go from the bottom up, those of a JPEG from the top down.
            data = _file(task, shard, source, positions[source], upright(planes, top_first))
            name = file_stem(shard.ids[source], marked=shard.ids[source] in task.marked) + ".fits"
            listed[source] = name, len(data), hashlib.sha256(data).hexdigest()
            yield task.list.parent / name, data


def _file(task: MefTask, shard: Shard, source: int, position: np.ndarray, planes: np.ndarray) -> bytes:
    name: Card = ("OBJECT", header_text(shard.ids[source]), "source identifier")
    ra, dec = position.tolist()
    flags = int(shard.flags[source])
    head: list[Card] = [
        name, ("FIELD", header_text(task.chunk.field), "field of the survey"), ("VIEW", task.view, "bands cut as one"),
        ("RA_OBJ", ra, "[deg] ICRS"), ("DEC_OBJ", dec, "[deg] ICRS"),
        ("FLAGS", flags, "quality flags, a sum of bits"), ("FLAGTEXT", describe(flags), "their names"),
        ("BADFRAC", float(shard.bad_fraction[source]), "share of the stamp without valid pixels"),
        ("SIGNAL", float(shard.signal[source]), "rough signal-to-noise ratio"),
        ("VALUES", shard.attributes["stamp"]["values"], "what a pixel holds"), ("ORIGIN", "catmorph", ""),
    ]
    parts = [primary(head)]
    wcs = _wcs_cards(shard, source, ra, dec)
    seen: dict[str, int] = {}
    for channel, (band, pixels) in enumerate(zip(task.bands, planes, strict=True)):
        version = seen[band.lower()] = seen.get(band.lower(), 0) + 1
        cards: list[Card] = [("EXTNAME", band, "band"), ("EXTVER", version, ""), name,
                             ("MISSING", bool(np.isnan(pixels).all()), "no pixels of this band")]
        parts.append(image(pixels, [*cards, *_mosaic_cards(shard, source, channel), *wcs]))
    return b"".join(parts)


def _mosaic_cards(shard: Shard, source: int, channel: int) -> list[Card]:
    mosaic = int(shard.mosaic[source, channel])
    if mosaic < 0:
        return []
    x, y = shard.centre[source, channel].tolist()
    return [
        ("MOSAIC", header_text(shard.mosaics[mosaic]), "where it was cut from"),
        ("XMOSAIC", x + 1, "pixel there under the middle; the first is 1"), ("YMOSAIC", y + 1, ""),
        ("NATSCALE", float(shard.pixel_scale[source, channel]), "[arcsec] pixel of the mosaic"),
    ]


def _wcs_cards(shard: Shard, source: int, ra: float, dec: float) -> list[Card]:
    """Return a tangential projection about the source, whatever that of the mosaic; none for stamps off the sky."""
    # Straight lines on the sky over a stamp differ from those of a distorted mosaic by far less than a pixel.
    if shard.axes is None or not np.isfinite([*shard.axes[source].flat, ra, dec]).all():
        return []
    axes, middle = shard.axes[source], (shard.attributes["stamp"]["pixels"] + 1) / 2
    cd = (axes / 3600).tolist()
    return [
        ("PIXSCALE", float(np.sqrt(abs(np.linalg.det(axes)))), "[arcsec] pixel of the stamp"),
        ("WCSAXES", 2, ""), ("CTYPE1", "RA---TAN", ""), ("CTYPE2", "DEC--TAN", ""),
        ("CUNIT1", "deg", ""), ("CUNIT2", "deg", ""),
        ("CRPIX1", middle, ""), ("CRPIX2", middle, ""),
        ("CRVAL1", ra, ""), ("CRVAL2", dec, ""), ("CD1_1", cd[0][0], ""), ("CD1_2", cd[0][1], ""),
        ("CD2_1", cd[1][0], ""), ("CD2_2", cd[1][1], ""), ("RADESYS", "ICRS", ""),
    ]


def remove_unlisted(run: RunFolder, views: Iterable[str]) -> int:
    """Delete FITS files of `views` that no list names any more: of sources that have no stamp now; return how many."""
    chunks, removed = run.chunks(), 0
    for view in views:
        listed = {path for chunk in chunks for path in listed_files(list_path(run, view, chunk))}
        for path in sorted((run.path / MEF_STAMPS / view).rglob("*.fits")):
            if path not in listed:
                path.unlink()
                removed += 1
    return removed
