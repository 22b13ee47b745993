"""VOTable 1.4 with TABLEDATA: what TOPCAT, Aladin and the VO's services read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa

from catmorph.release.cells import rows_text
from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.layout import NULLS, Layout, OutputColumn

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TYPES = {
    "bool": 'datatype="boolean"',
    "int64": 'datatype="long"',
    "int32": 'datatype="int"',
    "double": 'datatype="double"',
    "float": 'datatype="float"',
}


@FORMATS.register("votable")
class VotableFormat(Format):
    """VOTable 1.4 as XML text; missing numbers are empty cells, read back as masked or NaN."""

    suffix = "vot"
    title = "XML table of the Virtual Observatory (TOPCAT, Aladin)"

    def encode(self, batch: pa.RecordBatch, layout: Layout) -> bytes:
        """Return the elements of some rows."""
        return rows_text(batch, layout.columns, xml_text, b"<TR><TD>", b"</TD><TD>", b"</TD></TR>\n")

    @contextmanager
    def open(self, path: Path, layout: Layout, total_rows: int) -> Iterator[Callable[[bytes], object]]:
        """Write the table; see `Format.open`."""
        with open(path, "wb") as file:
            file.write((votable_header(layout, total_rows) + "<DATA>\n<TABLEDATA>\n").encode())
            yield file.write
            file.write(b"</TABLEDATA>\n</DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n")


def votable_header(layout: Layout, total_rows: int | None = None) -> str:
    """Return everything up to the end of the FIELDs; the TABLE element is left open."""
    rows = "" if total_rows is None else f' nrows="{total_rows}"'
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">',
        '<RESOURCE type="results">',
        f"<DESCRIPTION>{xml_text(layout.title)}</DESCRIPTION>",
        f'<INFO name="producer" value={_attribute(producer())}/>',
        f'<INFO name="reference" value={_attribute(layout.reference)}/>',
        f'<INFO name="scheme" value={_attribute(layout.scheme)}/>',
        *(
            f'<INFO name="flag_{bit}" value={_attribute(text)}/>'
            for bit, text in layout.flag_meanings.items()
        ),
        f"<TABLE name={_attribute(layout.name)}{rows}>",
        f"<DESCRIPTION>{xml_text(layout.reference)}</DESCRIPTION>",
        *(_field(column) for column in layout.columns),
    ]
    return "\n".join(lines) + "\n"


def xml_text(text: str) -> str:
    """Return `text` for an XML element; characters that XML cannot hold become U+FFFD."""
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text))


def _field(column: OutputColumn) -> str:
    kind = str(column.type)
    facts = {"name": column.name, "ucd": column.ucd, "unit": column.unit}
    attributes = " ".join(f"{key}={_attribute(value)}" for key, value in facts.items() if value)
    null = f'<VALUES null="{NULLS[kind]}"/>' if kind in NULLS else ""
    description = f"<DESCRIPTION>{xml_text(column.description)}</DESCRIPTION>"
    return f"<FIELD {attributes} {_datatype(column)}>{description}{null}</FIELD>"


def _datatype(column: OutputColumn) -> str:
    if column.kind == "text":
        # Of fixed size, so that astropy reads text columns as text and not as objects.
        return f'datatype="unicodeChar" arraysize="{max(1, column.width)}"'
    return _TYPES[str(column.type)]
