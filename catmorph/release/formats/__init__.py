"""Formats of the released catalog, one file each; a new file here is a new format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

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
        Whether it holds all columns in full precision (classes, entropies and flags too), or `Layout.plain` alone.
    """

    suffix: ClassVar[str]
    title: ClassVar[str]
    full: ClassVar[bool] = True

    def check(self, layout: Layout) -> None:  # noqa: B027
        """Refuse, with a UsageError, a layout that the format cannot hold."""

    @abstractmethod
    def encode(self, batch: pa.RecordBatch, layout: Layout) -> Any:
        """Return rows as the file takes them: bytes, or the batch itself. Several processes do it, out of order.

        Parameters
        ----------
        batch : RecordBatch
            Rows, in the layout's columns; null where there is no value.
        layout : Layout
            Columns, with the widths of text columns.
        """

    @abstractmethod
    def open(self, path: Path, layout: Layout, total_rows: int) -> AbstractContextManager[Callable[[Any], object]]:
        """Write the table to `path`: inside the context, what it gives is called with the encoded rows in order.

        Several formats are written side by side, from one reading of the logits.

        Parameters
        ----------
        path : Path
            File to write; the caller makes it atomic.
        layout : Layout
            Columns, with the widths of text columns.
        total_rows : int
            Number of rows that will come.
        """


FORMATS: Registry[type[Format]] = Registry("format", "catmorph.release.formats")
"""Format name -> its class."""


def producer() -> str:
    """Return what the headers say made the file: name and version, no date."""
    return f"catmorph {version('catmorph')}"
