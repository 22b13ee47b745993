"""Parquet, with units and descriptions as column metadata and a VOTable header (VOParquet)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.formats.votable import votable_header
from catmorph.release.layout import Layout, OutputColumn

GROUP_ROWS = 65_536
"""Rows of a row group, whatever the chunks were: small groups of a hundred columns read slowly."""


@FORMATS.register("parquet")
class ParquetFormat(Format):
    """Apache Parquet; missing values are null. The VOTable header follows the VOParquet convention 1.0."""

    suffix = "parquet"
    title = "columnar binary with units (pandas, pyarrow, astropy, TOPCAT)"

    def encode(self, batch: pa.RecordBatch, layout: Layout) -> pa.RecordBatch:
        """Return the rows as they are: row groups do not end where batches do."""
        return batch

    @contextmanager
    def open(self, path: Path, layout: Layout, total_rows: int) -> Iterator[Callable[[pa.RecordBatch], object]]:
        """Write the table; see `Format.open`."""
        schema = _schema(layout)
        waiting = layout.schema.empty_table()

        def add(batch: pa.RecordBatch) -> None:
            nonlocal waiting
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch], layout.schema)])
            while waiting.num_rows >= GROUP_ROWS:
                writer.write_table(waiting.slice(0, GROUP_ROWS).cast(schema), row_group_size=GROUP_ROWS)
                waiting = waiting.slice(GROUP_ROWS)

        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_repeating(layout)) as writer:
            yield add
            if waiting.num_rows:
                writer.write_table(waiting.cast(schema), row_group_size=GROUP_ROWS)


def _repeating(layout: Layout) -> list[str]:
    """Return the columns whose values come again and again, which a dictionary of them makes shorter.

    Of measured and computed numbers, and of identifiers, a dictionary is larger than the column itself: with one of
    every column the file is half as large again, and takes four times as long to write.
    """
    return [column.name for column in layout.columns if column.kind != "float" and column.source != "id"]


def _schema(layout: Layout) -> pa.Schema:
    fields = [
        pa.field(column.name, column.type, metadata=_column_metadata(column)) for column in layout.columns
    ]
    return pa.schema(fields, metadata=_table_metadata(layout))


def _table_metadata(layout: Layout) -> dict[str, str]:
    # Half a second, which processes that only encode do without.
    from astropy.table.meta import get_yaml_from_table

    from catmorph.release.formats.ecsv import empty_table

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
