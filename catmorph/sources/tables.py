"""Reading survey tables of any format that astropy or Parquet know."""

from __future__ import annotations

import csv
import glob
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io.registry import IORegistryError
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from catmorph.errors import CatalogError, suggest
from catmorph.recipe import CatalogSection

SUFFIX_FORMATS = {
    ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".fits.fz": "fits",
    ".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".tbl": "ascii.ipac", ".mrt": "ascii.mrt",
    ".vot": "votable", ".vo": "votable", ".xml": "votable",
    ".parquet": "parquet", ".pq": "parquet", ".hdf5": "hdf5", ".h5": "hdf5",
}
"""File name ending -> astropy format; other endings are plain text whose layout astropy guesses."""


def catalog_files(section: CatalogSection) -> list[Path]:
    """Return the catalog files that the recipe names, globs expanded and sorted.

    Raises
    ------
    CatalogError
        When a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in section.files:
        matches = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        files = [Path(match) for match in matches if os.path.isfile(match)]
        if not files:
            raise CatalogError("no such catalog file", where=pattern, hint="check catalog.files in the recipe")
        found += [file for file in files if file not in found]
    return found


def read_table(path: Path, section: CatalogSection) -> Table:
    """Read one survey table.

    Raises
    ------
    CatalogError
        When the file cannot be read as the format it should have.
    """
    table_format = section.format or guess_format(path, section)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            if table_format in ("parquet", "r"):
                return Table.from_pandas(_read_frame(path, table_format))
            return Table.read(path, format=table_format, **_options(table_format, section))
    except (OSError, ValueError, KeyError, IndexError, TypeError, IORegistryError, pa.ArrowException) as error:
        raise CatalogError(
            f"cannot be read as {table_format}: {_first_line(error)}", where=path,
            hint="check the file, or set catalog.format in the recipe",
        ) from error


def guess_format(path: Path, section: CatalogSection) -> str:
    """Tell the format from the file name; columns by number mean a text table without header."""
    name = path.name.lower()
    for suffix in sorted(SUFFIX_FORMATS, key=len, reverse=True):
        if name.endswith(suffix):
            return SUFFIX_FORMATS[suffix]
    if isinstance(section.id.column, int):
        return "ascii.no_header"
    return "r" if _has_row_names(path) else "ascii"


def column(table: Table, name: str | int, *, key: str, where: object) -> Any:
    """Return a column by name or 1-based number.

    Raises
    ------
    CatalogError
        Naming the recipe `key`, and the nearest existing column.
    """
    if isinstance(name, int):
        if not 1 <= name <= len(table.columns):
            raise CatalogError(f"no column number {name} for {key}, there are {len(table.columns)}", where=where)
        return table.columns[name - 1]
    if name not in table.colnames:
        raise CatalogError(f"no column {name!r} for {key}", where=where, hint=suggest(name, table.colnames))
    return table[name]


def as_text(values: Any) -> list[str | None]:
    """Return the cells of a column as text, None where masked or empty."""
    mask = np.broadcast_to(np.ma.getmaskarray(np.ma.asarray(values)), (len(values),))
    cells = np.asarray(np.ma.getdata(values))
    if cells.dtype.kind == "f":
        # An identifier that a reader took for a float: 12.0 is "12".
        texts: Sequence[str] = [repr(float(c)).removesuffix(".0") for c in cells]
    elif cells.dtype.kind == "S":
        texts = [c.decode("utf-8", "replace").strip() for c in cells]
    else:
        texts = [str(c).strip() for c in cells]
    empty = {"", "nan"} if cells.dtype.kind == "f" else {""}
    return [None if masked or text in empty else text for masked, text in zip(mask, texts, strict=True)]


def _options(table_format: str, section: CatalogSection) -> dict[str, Any]:
    if section.hdu is None:
        return {}
    if table_format == "fits":
        return {"hdu": section.hdu}
    if table_format == "votable":
        return {"table_id": section.hdu}
    if table_format == "hdf5":
        return {"path": section.hdu}
    raise CatalogError(f"catalog.hdu does not apply to the format {table_format}")


def _read_frame(path: Path, table_format: str) -> pd.DataFrame:
    if table_format == "parquet":
        return pq.read_table(path).to_pandas()
    return pd.read_csv(path, sep=r"\s+", quotechar='"', na_values=["NA"])


def _has_row_names(path: Path) -> bool:
    """Tell whether a text table is as R's write.table leaves it: a header one name short, all quoted."""
    try:
        with open(path, encoding="utf-8") as file:
            header, row = file.readline(), file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return header.startswith('"') and len(_words(row)) == len(_words(header)) + 1


def _words(line: str) -> list[str]:
    # Split at white space, but not within double quotes.
    return next(csv.reader([" ".join(line.split())], delimiter=" "), [])


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" *")]
    text = lines[0].split(" with the guesses")[0] if lines else type(error).__name__
    return text[:200]
