"""Labelled stamps on disk, for the processes that train: written once, mapped into memory by each."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from catmorph.errors import CatmorphError
from catmorph.files import atomic, digest, read_sealed, write_sealed
from catmorph.labels import LabelledStamps

INPUTS, COLUMNS, SEAL = "inputs.npy", "columns.npz", "stamps.json"


def _columns(data: LabelledStamps) -> dict[str, np.ndarray]:
    """Return the columns that a training may look at: which row is drawn on top decides no result."""
    return {name: array for name, array in data.columns().items() if name != "top_first"}


def fingerprint(data: LabelledStamps) -> str:
    """Return the sha256 of every column of `data`: its name, number format, shape and values."""
    total = hashlib.sha256()
    for name, array in sorted(_columns(data).items()):
        array = np.ascontiguousarray(array)
        text = array.dtype.kind in "UO"
        values = "\0".join(map(str, array)).encode() if text else array.data
        total.update(f"{name} {'text' if text else array.dtype.str} {array.shape}\n".encode())
        total.update(values)
    return total.hexdigest()


def prepare(data: LabelledStamps, folder: Path) -> Path:
    """Write `data` into a folder of its own below `folder`, unless it is there undamaged, and return that folder."""
    key = fingerprint(data)
    path = folder / key[:16]
    seal = read_sealed(path / SEAL)
    if seal is not None and seal == {"fingerprint": key, **_digests(path)}:
        return path
    with atomic(path / INPUTS) as temporary, open(temporary, "wb") as file:
        np.save(file, data.inputs, allow_pickle=False)
    columns = {name: array for name, array in _columns(data).items() if name != "inputs"}
    texts = {name: array.astype(str) for name, array in columns.items() if array.dtype.kind in "UO"}
    with atomic(path / COLUMNS) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **(columns | texts))
    write_sealed(path / SEAL, {"fingerprint": key, **_digests(path)})
    return path


def opened(path: Path) -> LabelledStamps:
    """Open what `prepare` wrote: the pixels are mapped, not read; writing to them would not reach the file.

    Raises
    ------
    CatmorphError
        When a file is missing or damaged.
    """
    try:
        # Copy on write: torch warns of arrays that cannot be written.
        inputs = np.load(path / INPUTS, mmap_mode="c", allow_pickle=False)
        with np.load(path / COLUMNS, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise CatmorphError(f"the prepared stamps cannot be read: {error}", where=path, hint="run again") from error
    return LabelledStamps(inputs=np.asarray(inputs), **columns)


def keep_only(folder: Path, needed: Collection[Path]) -> None:
    """Remove the prepared stamps below `folder` that are not `needed`."""
    for path in folder.glob("*"):
        if path not in needed and (path / SEAL).exists():
            shutil.rmtree(path, ignore_errors=True)


def _digests(path: Path) -> dict[str, str]:
    return {name: digest(path / name) for name in (INPUTS, COLUMNS) if (path / name).is_file()}
