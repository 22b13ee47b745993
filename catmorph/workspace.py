"""The run folder: where each product lies, its chunks, and the lock that lets one run at a time work."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as with_default
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError, HeldError, UsageError, suggest
from catmorph.files import checksum, read_json, write_bytes, write_json
from catmorph.ledger import Identities, Ledger, stamp_of
from catmorph.places import IDENTITIES, LEDGER, LOGITS, PRODUCT_FOLDERS, STAMPS

if TYPE_CHECKING:
    from catmorph.recipe import Recipe

FOLDER_FORMAT = 1
"""Version of the run folder's layout; a newer one is refused."""

_LONGEST_NAME = 180
"""Of the 255 bytes of a file name the cell, the ending and the mark of a partial file need up to 60."""


@dataclass(frozen=True)
class Chunk:
    """The sources of one field in one cell of the sky.

    Attributes
    ----------
    field, cell : str
        Name of the field and of the HEALPix cell (``o<order>p<pixel>``, nested) or, without positions, of the cell of
        hashed identifiers (``h<order>p<cell>``).
    group : int
        Row group of ``sources.parquet`` that holds the rows.
    count : int
        Number of sources.
    digest : str
        sha256 of what their stamps depend on: ids, positions, sizes.
    planned : pyarrow.Table, optional
        ``id`` and ``file`` of the rows of a chunk that is only planned, and not in ``sources.parquet``.
    """

    field: str
    cell: str
    group: int
    count: int
    digest: str
    planned: pa.Table | None = with_default(default=None, compare=False, repr=False)

    @cached_property
    def key(self) -> str:
        """Name of the chunk in file names; safe whatever the field is called."""
        return f"{safe_name(self.field)}-{self.cell}"


def safe_name(text: str) -> str:
    """Return `text` as one harmless path component: everything but letters, digits, _ . - is percent-coded."""
    quoted = quote(text, safe="").replace("~", "%7E")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted or "%"


def field_problem(name: str) -> str | None:
    """Return why `name` cannot be a field, or None: fields become parts of file names, here and in mosaic patterns."""
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        return f"field {name[:40]!r} cannot be part of a file name"
    if len(safe_name(name)) > _LONGEST_NAME:
        return f"field {name[:40] + '...'!r} is longer than a file name may be"
    return None


WRITTEN = (
    "recipe.toml", "sources.parquet", "rejected.parquet", "omitted.parquet", "plan.parquet", "failures.parquet",
    "run.json", *PRODUCT_FOLDERS, "release",
)
"""What a run writes into its folder, but for names that are its own: folder.json, ledger, lock, logs."""


class RunFolder:
    """A run folder and the recipe that is run in it.

    Parameters
    ----------
    path : path
        The folder; made when the first product is written.
    recipe : Recipe
        The resolved recipe.
    """

    def __init__(self, path: str | os.PathLike[str], recipe: Recipe):
        self.path = Path(path).absolute()
        self.recipe = recipe
        self.ledger = Ledger(self.path)
        self.memory: dict[str, Any] = {}
        """What a command has found out of its inputs and need not find out again."""
        self._check_format()

    def __repr__(self) -> str:
        return f"<run folder {self.path} of {self.recipe.name}>"

    @cached_property
    def identities(self) -> Identities:
        """The identities of the input files."""
        return Identities(self.path / LEDGER / IDENTITIES)

    def sources_path(self) -> Path:
        """The canonical sources, one row group a chunk."""
        return self.path / "sources.parquet"

    def rejected_path(self) -> Path:
        """The rows of the survey table that are no sources, with the reason."""
        return self.path / "rejected.parquet"

    def omitted_path(self) -> Path:
        """The sources that the release leaves out, with the reason."""
        return self.path / "omitted.parquet"

    def plan_path(self) -> Path:
        """The chunk plan."""
        return self.path / "plan.parquet"

    def failures_path(self) -> Path:
        """What could not be read, with the reason."""
        return self.path / "failures.parquet"

    def release_folder(self) -> Path:
        """The folder of released files."""
        return self.path / "release"

    def shard_path(self, view: str, chunk: Chunk) -> Path:
        """The stamps of `chunk` in `view`."""
        return self.path.joinpath(f"{STAMPS}/{view}/{chunk.key}.h5")

    def logits_path(self, classifier: str, view: str, chunk: Chunk, member: str = "") -> Path:
        """The logits of `chunk` in `view` by `classifier`, or by the member of the ensemble with folder `member`."""
        return self.path.joinpath(f"{LOGITS}/{classifier}/{view}/{member}/{chunk.key}.parquet")

    def chunks(self) -> list[Chunk]:
        """Return the chunk plan, in the order of the rows of ``sources.parquet``."""
        path, marker = self.plan_path(), self.ledger.read(self.plan_path())
        if not path.exists():
            raise UsageError("the survey table is not read in yet", where=self.path, hint="run `catmorph ingest`")
        if marker and checksum(path) != marker.get("checksum"):
            raise CatmorphError("is damaged: its bytes are not what was written", where=path,
                                hint="run `catmorph ingest`")
        try:
            return [Chunk(group=group, **row) for group, row in enumerate(read_columns(path).to_pylist())]
        except (pa.ArrowException, OSError, TypeError) as error:  # the last where it has other columns
            raise CatmorphError(f"is damaged: {error}", where=path,
                                hint="delete it and run `catmorph ingest`") from error

    def read_sources(self, chunk: Chunk) -> pa.Table:
        """Return the rows of `chunk` from ``sources.parquet``."""
        return read_row_group(self.sources_path(), chunk.group)

    def read_names(self) -> list[pa.Table]:
        """Return ``id`` and ``file`` of the rows of ``sources.parquet``, a table for each chunk of the plan."""
        path, counts = self.sources_path(), [chunk.count for chunk in self.chunks()]
        try:
            names = read_columns(path, ["id", "file"]).select(["id", "file"])
        except (pa.ArrowException, OSError, KeyError) as error:  # the last where it has other columns
            raise CatmorphError(f"is damaged: {error}", where=path, hint="delete it and run again") from error
        ends = accumulate(counts)
        return [names.slice(end - count, count) for end, count in zip(ends, counts, strict=True)]

    def ingest_counts(self) -> dict[str, int]:
        """Return ``read``, ``rejected`` and ``sources``, as counted by `ingest`."""
        marker = self.ledger.read(self.sources_path())
        if marker is None:
            raise UsageError("the survey table is not read in yet", where=self.path, hint="run `catmorph ingest`")
        return marker["counts"]

    def chosen_views(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the views called `names`, in the recipe's order; of none, all.

        Raises
        ------
        UsageError
            For a name that is no view; the message lists the valid ones.
        """
        views, wanted = self.recipe.all_views, tuple(names)
        for name in wanted:
            if name not in views:
                raise UsageError(f"unknown band or view {name!r}", hint=suggest(name, views))
        return tuple(view for view in views if not wanted or view in wanted)

    def prepare(self) -> None:
        """Make the folder, mark its format and write the resolved recipe into it."""
        write_json(self.path / "folder.json", {"format": FOLDER_FORMAT, "recipe": self.recipe.name})
        from catmorph.recipe import write_recipe

        write_bytes(self.path / "recipe.toml", write_recipe(self.recipe).encode())

    def _check_format(self) -> None:
        mark: Any = read_json(self.path / "folder.json")
        if mark is None:
            return
        if not isinstance(mark, dict) or not isinstance(mark.get("format"), int):
            raise UsageError("is damaged", where=self.path / "folder.json", hint="delete it and run again")
        if mark["format"] > FOLDER_FORMAT:
            raise UsageError(
                f"the run folder has format {mark['format']}, this catmorph knows up to {FOLDER_FORMAT}",
                where=self.path, hint="update catmorph or choose another -w/--workdir",
            )
        if mark.get("recipe") != self.recipe.name:
            raise UsageError(
                f"the run folder belongs to recipe {mark.get('recipe')!r}, not {self.recipe.name!r}",
                where=self.path, hint="choose another -w/--workdir",
            )

    def refuse_strangers(self) -> None:
        """Raise a UsageError where the folder holds somebody's files under names that a run writes to."""
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise UsageError("is no folder", where=self.path, hint="choose another -w/--workdir")
        # folder.json comes first, and may be deleted where it is damaged.
        if any(os.path.lexists(self.path / name) for name in ("folder.json", LEDGER)):
            return
        theirs = [name for name in WRITTEN if os.path.lexists(self.path / name)]
        if theirs:
            raise UsageError(f"is no run folder, and has {', '.join(theirs)}, which a run would write over",
                             where=self.path, hint="choose another -w/--workdir")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; the kernel releases it when the process ends, however it ends.

        Raises
        ------
        HeldError
            When another process holds it; the message says which.
        UsageError
            When it cannot be made, or is no run folder and has files that a run would write over.
        """
        self.refuse_strangers()
        with hold(self.path):
            yield


@contextmanager
def hold(folder: Path, another: str = "choose another -w/--workdir") -> Iterator[None]:
    """Hold a folder, which is made where it is not there, as `RunFolder.lock` does; `another`: how to do without it."""
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UsageError(f"the folder cannot be made or written: {error.strerror}", where=folder,
                         hint=another) from error
    try:
        _take(handle, path, another)
        # On a full disk the holder stays unnamed; it holds the folder all the same.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _take(handle: int, path: Path, another: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = read_json(path) or {}
        raise HeldError(
            f"another run holds this folder (process {holder.get('pid', '?')} on {holder.get('host', '?')})",
            where=path.parent, hint=f"wait for it, or {another}",
        ) from None
    except OSError as error:
        # Some network file systems have no locks.
        raise UsageError(f"the folder cannot be locked: {error.strerror}", where=path.parent,
                         hint=f"{another}, on another file system") from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a Parquet file, by default all.

    Not by `pyarrow.parquet.read_table`, which brings pandas and half a second of imports with it.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def read_row_group(path: Path, group: int) -> pa.Table:
    """Read one row group of a Parquet file; a damaged file is an error that says what to run."""
    try:
        with pq.ParquetFile(path, metadata=_metadata(str(path), *stamp_of(path))) as file:
            return file.read_row_group(group)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise CatmorphError(f"is damaged: {error}", where=path, hint="delete it and run again") from error


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a Parquet file, as `read_row_group` reads them."""
    return _metadata(str(path), *stamp_of(path)).schema.to_arrow_schema()


@lru_cache(maxsize=4)
def _metadata(path: str, *stamp: int) -> pq.FileMetaData:
    """Return what a Parquet file says of its row groups; of a thousand it takes 25 ms to read."""
    return pq.read_metadata(path)
