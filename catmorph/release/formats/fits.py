"""FITS binary table, written row by row behind a header that knows the number of rows beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy.io import fits

from catmorph.errors import CatmorphError, UsageError
from catmorph.release.cells import ascii_text
from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.layout import NULLS, Layout, OutputColumn

_BLOCK = 2880
_MAX_FIELDS = 999
_CODES = {
    "bool": ("L", "u1"),
    "int64": ("K", ">i8"),
    "int32": ("J", ">i4"),
    "double": ("D", ">f8"),
    "float": ("E", ">f4"),
}


@FORMATS.register("fits")
class FitsFormat(Format):
    """FITS binary table in the first extension.

    Missing floats are NaN, missing integers TNULL, missing text is blank. Units are TUNITn, UCDs and
    descriptions TUCDn and TCOMMn (as TOPCAT and CDS write them); COMMENT cards say what the flag bits mean.
    FITS text is ASCII: other characters are written as backslash escapes.
    """

    suffix = "fits"
    title = "FITS binary table"

    def check(self, layout: Layout) -> None:
        """Refuse more than 999 columns, and names that differ in case alone."""
        if len(layout.columns) > _MAX_FIELDS:
            raise UsageError(
                f"the release has {len(layout.columns)} columns, FITS holds {_MAX_FIELDS}", hint="use parquet"
            )
        seen: dict[str, str] = {}
        for column in layout.columns:
            other = seen.setdefault(ascii_text(column.name).lower(), column.name)
            if other != column.name:
                raise UsageError(
                    f"columns {other!r} and {column.name!r} are the same to FITS, which ignores case",
                    where="release.probability",
                    hint="name them otherwise, or use another format",
                )

    def encode(self, batch: pa.RecordBatch, layout: Layout) -> bytes:
        """Return the bytes of some rows."""
        rows = np.zeros(batch.num_rows, dtype=_row_type(layout))
        for index, column in enumerate(layout.columns):
            rows[f"c{index}"] = _values(batch.column(column.name), column)
        return rows.tobytes()

    @contextmanager
    def open(self, path: Path, layout: Layout, total_rows: int) -> Iterator[Callable[[bytes], object]]:
        """Write the table; see `Format.open`."""
        row_bytes = _row_type(layout).itemsize
        with open(path, "wb") as file:
            file.write(_header_bytes(_primary_cards(layout)))
            file.write(_header_bytes(_table_cards(layout, row_bytes, total_rows)))
            start = file.tell()
            yield file.write
            written = (file.tell() - start) // row_bytes
            if written != total_rows:
                raise CatmorphError(f"{total_rows} rows were announced, {written} came", where=path)
            file.write(b"\0" * (-written * row_bytes % _BLOCK))


def _text_width(column: OutputColumn) -> int:
    return max(1, column.width)


def _row_type(layout: Layout) -> np.dtype:
    return np.dtype([(f"c{index}", _cell_type(column)) for index, column in enumerate(layout.columns)])


def _cell_type(column: OutputColumn) -> str:
    return f"S{_text_width(column)}" if column.kind == "text" else _CODES[str(column.type)][1]


def _primary_cards(layout: Layout) -> list[tuple[str, object, str]]:
    return [
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
        ("EXTEND", True, ""),
        ("ORIGIN", producer(), ""),
        ("TITLE", ascii_text(layout.title), ""),
        ("REFERENC", ascii_text(layout.reference), ""),
    ]


def _table_cards(layout: Layout, row_bytes: int, total_rows: int) -> list[tuple[str, object, str]]:
    cards: list[tuple[str, object, str]] = [
        ("XTENSION", "BINTABLE", "binary table"),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", row_bytes, "bytes a row"),
        ("NAXIS2", total_rows, "rows"),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", len(layout.columns), ""),
        ("EXTNAME", ascii_text(layout.name), ""),
        ("SCHEME", ascii_text(layout.scheme), "label scheme"),
    ]
    for number, column in enumerate(layout.columns, 1):
        cards += _column_cards(number, column)
    cards += [("COMMENT", f"flag {bit} = {text}", "") for bit, text in layout.flag_meanings.items()]
    return cards


def _column_cards(number: int, column: OutputColumn) -> list[tuple[str, object, str]]:
    text = column.kind == "text"
    form = f"{_text_width(column)}A" if text else _CODES[str(column.type)][0]
    cards: list[tuple[str, object, str]] = [
        (f"TTYPE{number}", ascii_text(column.name), ""),
        (f"TFORM{number}", form, ""),
    ]
    if column.unit:
        cards.append((f"TUNIT{number}", _fits_unit(column.unit), ""))
    if str(column.type) in NULLS:
        cards.append((f"TNULL{number}", NULLS[str(column.type)], ""))
    if column.ucd:
        cards.append((f"TUCD{number}", ascii_text(column.ucd), ""))
    if column.description:
        cards.append((f"TCOMM{number}", ascii_text(column.description), ""))
    return cards


def _fits_unit(unit: str) -> str:
    try:
        return u.Unit(unit).to_string("fits")
    except ValueError:
        return ascii_text(unit)


def _header_bytes(cards: Sequence[tuple[str, object, str]]) -> bytes:
    header = fits.Header()
    for card in cards:
        header.append(card, end=True)
    return header.tostring().encode("ascii")


def _values(array: pa.Array, column: OutputColumn) -> np.ndarray:
    if column.kind == "text":
        return np.array([ascii_text(text or "").encode() for text in array.to_pylist()], dtype="S")
    if column.kind == "bool":
        letters = {True: ord("T"), False: ord("F"), None: 0}
        return np.array([letters[value] for value in array.to_pylist()], dtype=np.uint8)
    if column.kind == "int":
        return array.fill_null(NULLS[str(column.type)]).to_numpy()
    return array.to_numpy(zero_copy_only=False)
