"""The names of a survey table's columns, from its header where that tells them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq

from catmorph.errors import CatmorphError
from catmorph.recipe import CatalogSection
from catmorph.sources.plain_csv import plain_names
from catmorph.sources.tables import COMPRESSED, READ_ERRORS, guess_format, read_table

_LINES = 100
"""Lines of a text table that are enough to guess its layout."""


def column_names(path: Path, section: CatalogSection, wanted: Collection[str]) -> list[str] | None:
    """Return the names of the columns of a table; None where its header does not tell, or it cannot be read.

    Of a text table the first lines are read; the whole, whose layout may be another, only where these lack a column.

    Parameters
    ----------
    wanted : collection of str
        The columns that are looked for.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table_format = section.format or guess_format(path, section)
            if table_format == "parquet":
                return list(pq.read_schema(path).names)
            if table_format == "fits":
                return _fits_names(path, section.hdu)
            names = _first_lines(path, table_format)
            return names if names is None or set(wanted) <= set(names) else read_table(path, section).colnames
    except (*READ_ERRORS, CatmorphError):
        return None  # `ingest` tells what is wrong


def _fits_names(path: Path, hdu: int | str | None) -> list[str] | None:
    from astropy.io import fits

    with fits.open(path, memmap=True) as hdus:
        chosen = hdus if hdu is None else [hdus[hdu]]
        tables = (one for one in chosen if isinstance(one, fits.BinTableHDU | fits.TableHDU))
        return next((list(one.columns.names) for one in tables), None)


def _first_lines(path: Path, table_format: str) -> list[str] | None:
    kind = table_format.removeprefix("ascii.")
    with open(path, "rb") as file:
        if kind in ("votable", "hdf5", "r") or file.peek().startswith(COMPRESSED):
            return None
        plain = plain_names(file.readline()) if kind == "csv" else None
    if plain is not None:
        return plain
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.rstrip("\r\n") for line in itertools.islice(file, _LINES)]
    from catmorph.sources.astropy_tables import read_lines

    return list(read_lines(lines, table_format).colnames)
