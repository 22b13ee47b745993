"""The cells of a label table: CSV, or any table that the catalog reader knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catmorph.errors import CatalogError, listed
from catmorph.labels.cells import find_column, refuse_no_file
from catmorph.recipe import CatalogSection, LabelsSection
from catmorph.sources.columns import texts
from catmorph.sources.inputs import told_of
from catmorph.sources.tables import SUFFIX_FORMATS, column, read_table


@dataclass(frozen=True)
class Cells:
    """The rows of a table.

    Attributes
    ----------
    path : Path
    names : list of str
        Its columns.
    count : int
        Its rows, after the header.
    values : callable
        (column, recipe key) -> its cells (row,) as the reader gives them.
    """

    path: Path
    names: list[str]
    count: int
    values: Callable[[str | int, str], Any]

    def text(self, name: str | int, key: str) -> np.ndarray:
        """Return the cells of a column as stripped text (objects, row), None where empty.

        Raises
        ------
        CatalogError
            When there is no such column, or it is there twice.
        """
        return texts(self.values(name, key))


def read_cells(path: Path, section: LabelsSection) -> Cells:
    """Read a label table.

    Raises
    ------
    CatalogError
        When it cannot be read.
    """
    refuse_no_file(path)
    return _csv(path) if is_csv(path, section) else _catalog(path, section)


def is_csv(path: Path, section: LabelsSection) -> bool:
    """Return whether a label table is CSV with a header."""
    endings = (suffix for suffix in sorted(SUFFIX_FORMATS, key=len, reverse=True) if path.name.lower().endswith(suffix))
    known = SUFFIX_FORMATS.get(next(endings, ""), "ascii.csv")
    return section.format is None and known == "ascii.csv" and not isinstance(_names_rows(section), int)


def _names_rows(section: LabelsSection) -> str | int:
    return section.id_column if section.ra is None else section.ra.column


def _catalog(path: Path, section: LabelsSection) -> Cells:
    if not path.exists():
        raise CatalogError("no such label table", where=path)
    row: Any = _names_rows(section)
    reading = CatalogSection(
        files=(str(path),), format=section.format, hdu=section.hdu, field={"value": "any"}, id=row, ra=row, dec=row,
    )  # fmt: skip
    with told_of("labels"):
        table = read_table(path, reading)
    return Cells(path, list(table.colnames), len(table), lambda name, key: column(table, name, key=key, where=path))


def _csv(path: Path) -> Cells:
    header, table = _read_csv(path)

    def values(name: str | int, key: str) -> Any:
        if isinstance(name, int):
            if not 1 <= name <= len(header):
                raise CatalogError(f"no column number {name} for {key}, there are {len(header)}", where=path)
            return table.iloc[:, name - 1].to_numpy(dtype=object)
        return table.iloc[:, find_column(header, name, path, key)].to_numpy(dtype=object)

    return Cells(path, header, len(table), values)


def _read_csv(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Return the header as it is in the file, and the table, where pandas renames columns that are there twice."""
    try:
        header = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#", skipinitialspace=True, header=None,
                             nrows=1)  # fmt: skip
        table = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#", skipinitialspace=True)
    except FileNotFoundError:
        raise CatalogError("no such label table", where=path) from None
    except UnicodeDecodeError as error:
        raise CatalogError(f"is not text in UTF-8 (byte {error.object[error.start]:#04x})", where=path,
                           hint="save it as CSV in UTF-8, or set labels.format where it is another kind of table"
                           ) from error
    except pd.errors.EmptyDataError:
        raise CatalogError("is empty, not a label table", where=path) from None
    except (OSError, ValueError) as error:
        raise CatalogError(f"cannot be read as CSV: {error}", where=path,
                           hint="set labels.format where it is another kind of table") from error
    # pandas takes the first cells for an index, and everything moves.
    if not isinstance(table.index, pd.RangeIndex):
        raise CatalogError("the first row has more cells than the header", where=path, hint="name every column")
    return header.iloc[0].tolist(), table


def refuse(wrong: Any, what: str, path: Path) -> None:
    """Raise a CatalogError that names the first rows where `wrong` (row,) holds; the first after the header is 1."""
    bad = np.asarray(wrong, dtype=bool)
    rows = np.flatnonzero(bad)
    if len(rows):
        raise CatalogError(f"{what} in {len(rows)} of {len(bad)} rows: row {listed(rows + 1)}", where=path,
                           hint="correct these rows, or leave them out")
