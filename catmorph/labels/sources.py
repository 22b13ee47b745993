"""Labels that the sources themselves carry: columns that hold a class, and rules on their columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatalogError, UsageError, suggest
from catmorph.labels.reading import Cells
from catmorph.labels.rules import NO_RULE, apply_rules
from catmorph.labels.tables import SOURCE_NAME, LabelTable, label_table, read_rows, stamp_names
from catmorph.recipe import LabelsSection
from catmorph.schemes import Scheme
from catmorph.workspace import RunFolder

_OWN = {"size_arcsec": "size"}
_HIDDEN = ("cell", "file", "row")


def read_all_sources(run: RunFolder, columns: list[str] | None = None) -> pa.Table:
    """Return the sources of a run folder, by default with all columns.

    Raises
    ------
    UsageError
        When they are not there yet.
    """
    path = run.sources_path()
    if not path.exists():
        raise UsageError("the survey table is not read in yet", where=run.path, hint="run `catmorph ingest`")
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def source_names(table: pa.Table) -> np.ndarray:
    """Return the names of sources, objects (row,): field/id."""
    fields, ids = (table[name].to_pylist() for name in ("field", "id"))
    return np.array(stamp_names(SOURCE_NAME, fields, ids, [""] * len(ids)), dtype=object)


def column_labels(run: RunFolder, scheme: Scheme) -> LabelTable:
    """Return the labels of the columns of the sources that ``labels.class_column`` names.

    Raises
    ------
    CatalogError
        When the sources have no such column, or an entry is no class.
    """
    section, path = run.recipe.labels, run.sources_path()
    table = read_all_sources(run)

    def values(name: str | int, key: str) -> Any:
        called = f"col{name}" if isinstance(name, int) else name
        if called not in table.column_names:
            raise CatalogError(f"the sources have no column {called!r} for {key}", where=path,
                               hint=f"{suggest(called, table.column_names)}; catalog.keep carries columns along")
        return masked_cells(table[called])

    cells = Cells(path, table.column_names, len(table), values)
    return label_table(path, source_names(table), read_rows(cells, scheme, section), scheme, section, SOURCE_NAME)


def rule_labels(run: RunFolder, scheme: Scheme) -> LabelTable:
    """Return the labels that ``labels.rules`` give the sources; where others come first, no rule need be true.

    Raises
    ------
    RecipeError, UsageError
        As `apply_rules`.
    """
    section, path = run.recipe.labels, run.sources_path()
    table = read_all_sources(run)
    columns = {_OWN.get(name, name): masked_cells(table[name]) for name in table.column_names if name not in _HIDDEN}
    rows = apply_rules(section, scheme, columns, len(table))
    made = label_table(path, source_names(table), rows, scheme, _all_of(section), SOURCE_NAME)
    if section.table is None and not section.class_column:
        return made
    return replace(made, left_out=tuple(one for one in made.left_out if one.reason != NO_RULE))


def _all_of(section: LabelsSection) -> LabelsSection:
    # A rule is no vote.
    return section.model_copy(update={"minimum_agreement": None, "votes": "mean"})


def masked_cells(column: pa.ChunkedArray) -> Any:
    """Return a column of the sources as an array (row,): text with None, numbers and conditions masked where null."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    if not column.null_count:
        return column.to_numpy()
    fill = False if pa.types.is_boolean(column.type) else 0
    return np.ma.array(column.fill_null(fill).to_numpy(), mask=column.is_null().to_numpy())
