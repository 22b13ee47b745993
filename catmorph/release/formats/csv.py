"""CSV: the plain table, with exactly the leading columns and the probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catmorph.release.cells import guarded, quoted, rows_text
from catmorph.release.formats import FORMATS, Format
from catmorph.release.layout import Layout


@FORMATS.register("csv")
class CsvFormat(Format):
    r"""Comma-separated UTF-8 text by RFC 4180, with ``\n`` at line ends and a header line.

    Missing values are blank. Numbers have the decimals of the recipe, correctly rounded (half to even).
    Text that a spreadsheet would run as a formula gets a leading apostrophe, see `cells.guarded`.
    """

    suffix = "csv"
    title = "plain table: leading columns and probabilities, fixed decimals"
    full = False

    def encode(self, batch: pa.RecordBatch, layout: Layout) -> bytes:
        """Return the lines of some rows."""
        return rows_text(batch, layout.plain, _cell, b"", b",", b"\n", fixed=True)

    @contextmanager
    def open(self, path: Path, layout: Layout, total_rows: int) -> Iterator[Callable[[bytes], object]]:
        """Write the table; see `Format.open`."""
        with open(path, "wb") as file:
            file.write((",".join(_cell(column.name) for column in layout.plain) + "\n").encode())
            yield file.write


def _cell(text: str) -> str:
    return quoted(guarded(text))
