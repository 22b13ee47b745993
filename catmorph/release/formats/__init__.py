"""Formats of the released catalog, one file each; a new file here is a new format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from catmorph.registry import Registry
from catmorph.release.layout import Layout


class Format(ABC):
    """A format of the released catalog.

    Attributes
    ----------
    suffix : str
        Ending of the file name, without dot.
    title : str
        What it is, for help texts.
    full : bool
        Whether it holds all columns in full precision (classes, entropies and flags too), or the plain table.
    """

    suffix: ClassVar[str]
    title: ClassVar[str]
    full: ClassVar[bool] = True

    def check(self, layout: Layout) -> None:  # noqa: B027
        """Refuse, with a UsageError, a layout that the format cannot hold."""

    @abstractmethod
    def write(self, path: Path, layout: Layout, batches: Iterable[pa.RecordBatch], total_rows: int) -> None:
        """Write the table to `path`, a batch at a time.

        Parameters
        ----------
        path : Path
            File to write; the caller makes it atomic.
        layout : Layout
            Columns, with the widths of text columns.
        batches : iterable of RecordBatch
            All rows in order, in the layout's columns; null where there is no value.
        total_rows : int
            Number of rows that will come.
        """


FORMATS: Registry[type[Format]] = Registry("format", "catmorph.release.formats")
"""Format name -> its class."""


def producer() -> str:
    """Return what the headers say made the file: name and version, no date."""
    return f"catmorph {version('catmorph')}"
