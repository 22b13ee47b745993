"""CSV: the plain table, with exactly the leading columns and the probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from catmorph.release.cells import cell_blocks, guarded, join_rows, quoted
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

    def write(self, path: Path, layout: Layout, batches: Iterable[pa.RecordBatch], total_rows: int) -> None:
        """Write the table; see `Format.write`."""
        columns = layout.plain
        with open(path, "wb") as file:
            file.write((",".join(_cell(column.name) for column in columns) + "\n").encode())
            for batch in batches:
                cells = cell_blocks(batch, columns, _cell, fixed=True)
                file.write(join_rows(cells, b"", b",", b"\n"))


def _cell(text: str) -> str:
    return quoted(guarded(text))
