"""Text of table cells that is made of whole columns is that of the values one by one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from release_run import wide_batches

from catmorph.inference.combine import combine
from catmorph.release.assemble import release_layout
from catmorph.release.cells import ascii_text, cell_blocks, fixed_block, guarded, longest_ascii, quoted
from catmorph.release.formats.parquet import ParquetFormat
from catmorph.release.formats.votable import xml_text
from catmorph.release.layout import OutputColumn
from catmorph.release.results import _room, answer_names, answers
from catmorph.schemes import load_scheme

COLUMN = OutputColumn("name", "source", "name", pa.string())
ODD = ["12", "a-b", "=1", "-5", "a,b", "x<y", "\0"]
texts = st.lists(st.one_of(st.none(), st.text(max_size=6), st.sampled_from(ODD)))


def csv_cell(text):
    return quoted(guarded(text))


@pytest.mark.parametrize("text", [csv_cell, quoted, xml_text])
@given(values=texts)
@example(values=["17", "field 3", "a:b+c.d-e", "_"])
@example(values=["17", None, "", "=SUM(A1)", "a\n"])
def test_a_column_of_text_is_its_cells(text, values):
    batch = pa.record_batch([pa.array(values, pa.string())], names=["name"])
    (block,) = cell_blocks(batch, [COLUMN], text)
    made = [row[row != 0].tobytes().decode() for row in block]
    assert made == [text(value).replace("\0", "") if value else "" for value in values]


@given(texts)
def test_the_longest_text_is_that_of_all(values):
    split = pa.chunked_array([pa.array(values[:2], pa.string()), pa.array(values[2:], pa.string())])
    assert longest_ascii(split) == max((len(ascii_text(value or "")) for value in values), default=0)


@pytest.mark.parametrize("name", ["gz2", "gz2-tree", "clash"])
def test_names_of_answers_are_those_of_each_row(name):
    scheme = load_scheme(name)
    p = np.random.default_rng(3).uniform(size=(200, len(scheme.classes)))
    p[5] = np.nan
    names = np.array(scheme.class_names)
    told = ["|".join(names[row]) for row in answers(scheme, p)]
    assert answer_names(scheme, p).to_pylist() == [*told[:5], None, *told[6:]]


@pytest.mark.parametrize(("name", "classes"), [("clash", 5), ("gz2", 37), ("gz2-tree", 37)])
def test_probabilities_do_not_depend_on_the_layout_of_logits(name, classes):
    logits = _room(300, classes)
    logits[:] = np.random.default_rng(4).normal(0, 5, (300, classes))
    logits[7] = np.nan
    scheme, rows = load_scheme(name), np.ascontiguousarray(logits)
    made, expected = combine(scheme, [logits, -logits], (1.0, 0.7)), combine(scheme, [rows, -rows], (1.0, 0.7))
    for field in ("probabilities", "spread", "mutual_information"):
        np.testing.assert_array_equal(getattr(made, field), getattr(expected, field))


def test_parquet_has_dictionaries_of_what_repeats_alone(finished, tmp_path):
    from catmorph.api import open_run

    run = open_run(finished.folder / "tiny.toml", finished.run)
    layout, path = release_layout(run), tmp_path / "release.parquet"
    with ParquetFormat().open(path, layout, 0) as add:
        for batch in wide_batches(run, layout):
            add(batch)
    group = pq.read_metadata(path).row_group(0)
    has = {group.column(i).path_in_schema: group.column(i).has_dictionary_page for i in range(group.num_columns)}
    assert has == {column.name: column.kind != "float" and column.source != "id" for column in layout.columns}


@pytest.mark.parametrize("decimals", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("largest", [1.0, 9.9, 9.99999, 12.0, -3.0])
def test_fixed_decimals_are_those_of_python(decimals, largest):
    values = np.linspace(0, largest, 301, dtype=np.float32).reshape(-1, 7)
    values[3, 2] = np.nan
    made = [row[row != 0].tobytes().decode() for row in fixed_block(values, decimals).reshape(values.size, -1)]
    assert made == ["" if np.isnan(value) else f"{value:z.{decimals}f}" for value in values.ravel().tolist()]
