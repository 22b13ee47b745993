"""Files that appear whole or not at all, and their identities."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from catmorph.errors import CatmorphError

TEMPORARY_PREFIX = ".partial-"

_SYNC_THREADS = 16

_SMALL = 1 << 16

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
"""Made once: thousands of markers are read at a time."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, sync it and rename it to `path`.

    Raises
    ------
    CatmorphError
        When the folder cannot be written or the disk is full; `path` is then as it was before.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # Where it cannot be removed either, the error that says why is on its way; the next run removes it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def passing_files(folder: Path, count: int) -> Iterator[list[Path]]:
    """Give paths of `count` files in `folder` that are there within the block alone.

    Raises
    ------
    CatmorphError
        When they cannot be made.
    """
    paths: list[Path] = []
    try:
        for _ in range(count):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
            except OSError as error:
                raise cannot_write(folder, error) from error
            os.close(handle)
            paths.append(Path(name))
        yield paths
    finally:
        for path in paths:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def refuse_unwritable(folder: Path) -> None:
    """Find out before long work whether files can be made in `folder`; where it is not there, it is not afterwards.

    Raises
    ------
    CatmorphError
        When they cannot.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        with suppress(OSError):
            for one in new:
                one.rmdir()


def refuse_folders(paths: Iterable[Path]) -> None:
    """Find out before long work whether a folder lies where a file is to be written.

    Raises
    ------
    CatmorphError
        When one does.
    """
    for path in paths:
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))


def cannot_write(path: Path, error: OSError) -> CatmorphError:
    """Return the one-line error for a file that could not be written."""
    # Arrow puts other words there.
    reason = os.strerror(error.errno) if error.errno else error.strerror or str(error)
    hint = "free space or choose another place, run again"
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        hint = "move away what is there or choose another name, run again"
    elif error.errno == errno.EMFILE:
        hint = "let the process have more files open (ulimit -n)"
    return CatmorphError(f"cannot be written: {reason}", where=path, hint=hint)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_many(files: Iterable[tuple[Path, bytes]]) -> None:
    """Write files, each whole or not at all: none appears before all of them are on the disk.

    They are synced together by some threads: 2,000 a second where `write_bytes` one by one managed 70.

    Raises
    ------
    CatmorphError
        As `atomic`.
    """
    written: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, data in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
            written.append((Path(name), path))
            with open(handle, "wb") as file:
                file.write(data)
        with ThreadPoolExecutor(_SYNC_THREADS) as pool:
            list(pool.map(_sync, [temporary for temporary, _ in written]))
        mode = 0o666 & ~_umask()
        for temporary, path in written:
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        for folder in {path.parent for _, path in written}:
            _sync(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        for temporary, _ in written:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON with sorted keys."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; None where there is none or it is not valid JSON."""
    try:
        # Nobody may ever write to a pipe.
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return json.loads(file.readall())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise
    raise CatmorphError("is no file but a folder, a pipe or the like", where=Path(path), hint="move it away, run again")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON with its digest, so that a damaged file is told from a good one."""
    write_json(path, {"seal": digest_json(value), "value": value})


def read_sealed(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read what `write_sealed` wrote; None where there is none or it is damaged."""
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("value"), dict):
        return None
    try:
        whole = found.get("seal") == digest_json(found["value"])
    except (ValueError, RecursionError):  # halves of surrogate pairs, or nested deeper than can be written
        return None
    return found["value"] if whole else None


def digest(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: str | os.PathLike[str]) -> str:
    """Return a checksum of a file's bytes, as text: what tells files apart and damage from sound bytes, fast.

    XXH3 of 128 bits reads as fast as memory does, where sha256 (`digest`) makes 0.4 to 2 GB/s: it would take a third of
    the time of cutting. Nothing is kept secret or proven with it: what is released has its sha256.
    """
    state = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        # Of a small file the buffer, which is filled with zeros first, would take longer than the bytes.
        while data := file.read(_SMALL):
            state.update(data)
            if len(data) == _SMALL:
                buffer = bytearray(16 * _SMALL)
                while count := file.readinto(buffer):
                    state.update(memoryview(buffer)[:count])
    return f"xxh3:{state.hexdigest()}"


def digest_json(value: Any) -> str:
    """Return the sha256 of `value` written as canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def remove_partial_files(folder: Path) -> int:
    """Delete what an interrupted write left below `folder`; return how many files."""
    partial = list(folder.rglob(TEMPORARY_PREFIX + "*"))
    for path in partial:
        path.unlink(missing_ok=True)
    return len(partial)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
