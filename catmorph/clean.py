"""What a run folder holds that its recipe does not need any more, and how to remove it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from catmorph.files import TEMPORARY_PREFIX
from catmorph.inference.members import all_members, member_logits
from catmorph.places import LEDGER, PRODUCT_FOLDERS
from catmorph.stamps import mef
from catmorph.workspace import RunFolder


@dataclass(frozen=True)
class Leftovers:
    """Files that can go.

    Attributes
    ----------
    products : tuple of Path
        Shards, FITS files and logits of views, classifiers, members of ensembles or cells that the recipe and the
        chunk plan have no more.
    markers : tuple of Path
        Ledger entries of those, or of products that are gone, but for stamps: what is recorded of them stays valid.
    partial : tuple of Path
        What interrupted writes left behind.
    """

    products: tuple[Path, ...]
    markers: tuple[Path, ...]
    partial: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.products, *self.markers, *self.partial)

    @property
    def size_bytes(self) -> int:
        """Bytes they take."""
        return sum(path.stat().st_size for path in self.files if path.exists())


def find_leftovers(run: RunFolder) -> Leftovers:
    """Return what today's recipe and chunk plan do not need; nothing is removed.

    Products that are out of date but still asked for are not leftovers: the next run replaces them.
    """
    shards = set(_needed_shards(run))
    needed = {*shards, *_needed_others(run)}
    partial = tuple(sorted(run.path.rglob(TEMPORARY_PREFIX + "*")))
    products = tuple(path for path in _files(run.path) if path not in needed and path not in partial)
    # What is recorded of stamps counts without them: they may be removed, or never have been kept (--direct).
    wanted_markers = {run.ledger.marker_path(path) for path in needed if path in shards or path.exists()}
    ledger = run.path / LEDGER
    markers = tuple(path for path in _files(ledger) if path not in wanted_markers and path not in partial)
    return Leftovers(products, markers, partial)


def remove(run: RunFolder, leftovers: Leftovers) -> None:
    """Delete the files of `leftovers` and the folders they leave empty."""
    for path in leftovers.files:
        path.unlink(missing_ok=True)
    for path in leftovers.files:
        for folder in path.parents:
            if folder == run.path or run.path not in folder.parents:
                break
            # A folder that is not empty stays.
            with suppress(OSError):
                folder.rmdir()


def _needed_shards(run: RunFolder) -> Iterable[Path]:
    chunks = run.chunks()
    return (run.shard_path(view, chunk) for view in run.recipe.all_views for chunk in chunks)


def _needed_others(run: RunFolder) -> Iterable[Path]:
    chunks = run.chunks()
    for view in run.recipe.all_views:
        for chunk in chunks:
            files = mef.list_path(run, view, chunk)
            yield from (files, *mef.listed_files(files))
    for member in all_members(run.recipe):
        for view in run.recipe.classifier_views(member.classifier):
            yield from (member_logits(run, member, view, chunk) for chunk in chunks)


def _files(folder: Path) -> list[Path]:
    return sorted(path for name in PRODUCT_FOLDERS for path in (folder / name).rglob("*") if path.is_file())
