"""Parquet, with units and descriptions as column metadata and a VOTable header (VOParquet)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table.meta import get_yaml_from_table

from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.formats.ecsv import empty_table
from catmorph.release.formats.votable import votable_header
from catmorph.release.layout import Layout, OutputColumn

GROUP_ROWS = 65_536
"""Rows of a row group, whatever the chunks were: small groups of a hundred columns read slowly."""


@FORMATS.register("parquet")
class ParquetFormat(Format):
    """Apache Parquet; missing values are null. The VOTable header follows the VOParquet convention 1.0."""

    suffix = "parquet"
    title = "columnar binary with units (pandas, pyarrow, astropy, TOPCAT)"

    def write(self, path: Path, layout: Layout, batches: Iterable[pa.RecordBatch], total_rows: int) -> None:
        """Write the table; see `Format.write`."""
        schema = _schema(layout)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in _groups(batches, layout.schema):
                writer.write_table(table.cast(schema), row_group_size=GROUP_ROWS)


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(one.num_rows for one in waiting) >= GROUP_ROWS:
            table = pa.Table.from_batches(waiting, schema)
            yield table.slice(0, GROUP_ROWS)
            waiting = table.slice(GROUP_ROWS).to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _schema(layout: Layout) -> pa.Schema:
    fields = [
        pa.field(column.name, column.type, metadata=_column_metadata(column)) for column in layout.columns
    ]
    return pa.schema(fields, metadata=_table_metadata(layout))


def _table_metadata(layout: Layout) -> dict[str, str]:
    return {
        "title": layout.title,
        "reference": layout.reference,
        "scheme": layout.scheme,
        "producer": producer(),
        "flags": json.dumps(layout.flag_meanings),
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": votable_header(layout) + "</TABLE>\n</RESOURCE>\n</VOTABLE>\n",
        # What astropy's own reader takes units and text widths from.
        "table_meta_yaml": "\n".join(get_yaml_from_table(empty_table(layout))),
        **{
            f"table::len::{column.name}": str(column.width)
            for column in layout.columns
            if column.kind == "text"
        },
    }


def _column_metadata(column: OutputColumn) -> dict[str, str]:
    facts = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    return {key: value for key, value in facts.items() if value}
