"""Text of reports: Markdown that hostile names cannot break, and tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKS = re.compile(r"([\\`*_\[\]|~$]|^[#+-]|(?<=\d)\.(?=\s)|(?<=www)\.|:(?=//)|@)")
_LONGEST = 200


def plain_text(text: object) -> str:
    """Return one line of at most 200 printable characters: control and escape characters become ``?``."""
    clean = "".join(one if one.isprintable() else "?" for one in str(text))
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 3] + "..."


def markdown_text(text: object) -> str:
    """Return `text` so that Markdown and HTML show it as it is."""
    clean = plain_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\1", clean)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table; cells are escaped."""
    lines = ["| " + " | ".join(map(markdown_text, header)) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table for the terminal, columns aligned: the first left, the others right."""
    cells = [[plain_text(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
