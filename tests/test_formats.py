"""Every registered format is tested here; a new one is tested without a new test."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from hypothesis import given as given_that
from hypothesis import strategies as st
from release_run import TWO_BANDS, clash, galaxies, scattered, wide_batches, write_run

from catmorph.errors import CatmorphError, UsageError
from catmorph.quality import Flag
from catmorph.release import cells
from catmorph.release.assemble import release_layout
from catmorph.release.bundle import check_release, export
from catmorph.release.formats import FORMATS
from catmorph.release.layout import Layout, OutputColumn

FULL = [name for name in FORMATS.names() if FORMATS.get(name).full]
READERS = {"fits": "fits", "ecsv": "ascii.ecsv", "votable": "votable", "parquet": "parquet"}
KEPT = (
    'catalog.keep=["z", "note", "visits", "edge_on"]',
    """release.columns=[
      {name="Cluster", source="field"}, {name="ID", source="id"}, {name="R.A.", source="ra", decimals=4},
      {name="z", source="z", ucd="src.redshift"}, {name="note", source="note"}, {name="visits", source="visits"},
      {name="edge_on", source="edge_on"}, {name="size", source="size_arcsec"}]""".replace("\n", " "),
)
NOTES = ["=1+1", None, 'a "b", c', "line\nbreak", "ümlaut <&>", "-5", "@x", "+", "\tt", "plain"]

_STORED = {
    "ecsv": str.strip,  # astropy strips text, here and in VOTable
    "fits": lambda text: cells.ascii_text(text).rstrip(),
    "votable": str.strip,
    "parquet": str,
}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A run with every type of kept column, nulls in each, and all formats written."""
    extra = {
        "z": [0.1, None, 1 / 3, 1e-9, 5.0, None, 0.7, 0.8, 0.9, 1.0],
        "note": NOTES,
        "visits": pa.array([1, None, 3, -4, 5, 6, 7, 8, 9, 2**40]),
        "edge_on": [True, False, False, True, True, False, False, True, True, False],
    }
    chunks = [galaxies(10, **extra), galaxies(10, "ms2137", **extra)]
    folder = tmp_path_factory.mktemp("rich")
    run = write_run(folder, clash(*TWO_BANDS, *KEPT), chunks, scattered(1), units={"z": "km / s"})
    return run, export(run, FORMATS.names())


def _rows(run):
    return pa.Table.from_batches(wide_batches(run, release_layout(run)))


def _read(name, path):
    return Table.read(path, format=READERS[name])


def _lists(name, path):
    """Read a file as column name -> list, with None for masked, NaN and blank."""
    if name == "parquet":  # astropy reads its nulls of text as 'None', and of integers as floats
        return {key: list(map(_plain, column)) for key, column in pq.read_table(path).to_pydict().items()}
    return {key: list(map(_plain, column)) for key, column in _read(name, path).items()}


def _plain(value):
    value = value.decode() if isinstance(value, bytes) else value
    missing = value is None or np.ma.is_masked(value) or value == "" or value != value
    return None if missing else value


@pytest.mark.parametrize("name", FULL)
def test_full_formats_read_back_the_same_values_in_full_precision(rich, name):
    expected, read = _rows(rich[0]), _lists(name, rich[1].files[name])
    assert list(read) == expected.column_names
    for column in expected.column_names:
        wanted = [_plain(value) for value in expected[column].to_pylist()]
        if column == "note":
            wanted = [text and _STORED[name](text) for text in wanted]
        assert read[column] == wanted, column


@pytest.mark.parametrize("name", FULL)
def test_full_formats_keep_types_and_units(rich, name):
    table = _read(name, rich[1].files[name])
    assert table["F435w_PSP"].dtype.newbyteorder("=") == np.float32
    assert table["F435w_flags"].dtype.newbyteorder("=") == np.int32
    assert table["R.A."].dtype.newbyteorder("=") == np.float64
    assert [str(table[column].unit) for column in ("R.A.", "z", "size", "F850lp_entropy")] == [
        "deg", "km / s", "arcsec", "bit",
    ]  # fmt: skip


def _write(name, path, run, layout, total_rows):
    writer = FORMATS.get(name)()
    with writer.open(path, layout, total_rows) as add:
        for batch in wide_batches(run, layout):
            add(writer.encode(batch, layout))


@pytest.mark.parametrize("name", FORMATS.names())
def test_a_format_writes_the_same_bytes_again_and_no_date(rich, name, tmp_path):
    run, result = rich
    first = result.files[name].read_bytes()
    again = tmp_path / "again"
    _write(name, again, run, result.layout, result.account.released)
    assert again.read_bytes() == first
    assert b"DATE" not in first
    assert str(run.path).encode() not in first


@pytest.mark.parametrize("name", FORMATS.names())
def test_a_format_writes_a_release_without_rows(name, tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered(lost=1.1))
    result = export(run, [name])
    table = Table.read(result.files[name], format={**READERS, "csv": "ascii.csv"}[name])
    assert len(table) == 0
    assert table.colnames[:5] == ["Cluster", "ID", "R.A.", "DECL.", "F435w_PSP"]


@pytest.mark.parametrize("name", FULL)
def test_flag_bits_are_explained_in_the_file(rich, name):
    assert b"OFF_IMAGE (blocks)" in rich[1].files[name].read_bytes()


def test_fits_conforms_and_describes_its_columns(rich):
    with fits.open(rich[1].files["fits"], checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
        names = {header[f"TTYPE{n}"]: n for n in range(1, header["TFIELDS"] + 1)}
        assert header[f"TUCD{names['z']}"] == "src.redshift"
        assert header[f"TCOMM{names['F435w_PSP']}"] == "probability of spheroid in F435W"
        assert hdus[1].data["note"][1:5].tolist() == ["", 'a "b", c', "line\\x0abreak", "\\xfcmlaut <&>"]
    assert rich[1].files["fits"].stat().st_size % 2880 == 0


def test_fits_keeps_missing_booleans_apart_from_false(tmp_path):
    recipe = clash(*TWO_BANDS, 'catalog.keep=["disc"]', 'release.columns=[{name="disc", source="disc"}]')
    run = write_run(tmp_path, recipe, [galaxies(3, disc=[True, None, False])], scattered(lost=0))
    with fits.open(export(run, ["fits"]).files["fits"], logical_as_bytes=True) as hdus:
        assert hdus[1].data["disc"].tolist() == [b"T", b"", b"F"]


def test_fits_refuses_names_that_differ_in_case_alone(tmp_path):
    recipe = clash('bands.names=["r", "R"]', 'bands.reference="r"', 'release.probability="{view}_{code}"',
                   'release.quantity="{view}_{quantity}"')  # fmt: skip
    check_release(recipe, ["csv", "ecsv", "votable", "parquet"])
    with pytest.raises(UsageError, match="columns 'r_SP' and 'R_SP' are the same to FITS"):
        check_release(recipe, ["fits"])


def test_fits_refuses_another_number_of_rows_than_announced(rich, tmp_path):
    run, result = rich
    with pytest.raises(CatmorphError, match="were announced"):
        _write("fits", tmp_path / "x", run, result.layout, 1)


def test_votable_is_valid_and_its_ucds_are_known(rich):
    table = parse(str(rich[1].files["votable"]), verify="exception").get_first_table()
    assert table.nrows == rich[1].account.released
    for field in table.fields:
        if field.ucd:
            parse_ucd(field.ucd, check_controlled_vocabulary=True)
    assert list(table.array["note"][:5].data) == ["=1+1", "", 'a "b", c', "line\nbreak", "ümlaut <&>"]


def test_parquet_is_read_by_pandas_with_nulls_and_by_the_voparquet_convention(rich):
    run, result = rich
    frame = pd.read_parquet(result.files["parquet"])
    assert frame["visits"].isna().sum() == _rows(run)["visits"].null_count
    table = Table.read(result.files["parquet"], format="parquet.votable")
    assert str(table["R.A."].unit) == "deg"
    assert table["F435w_PSP"].description == "probability of spheroid in F435W"


def test_csv_guards_text_cells_and_leaves_plain_numbers(rich):
    text = rich[1].files["csv"].read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert "\r" not in text
    run = rich[0]
    notes = dict(zip(NOTES, ["'=1+1", "", 'a "b", c', "line\nbreak", "ümlaut <&>", "-5", "'@x", "'+", "'\tt", "plain"],
                     strict=True))  # fmt: skip
    assert [row["note"] for row in rows] == [notes[note] for note in _rows(run)["note"].to_pylist()]
    assert {row["edge_on"] for row in rows} == {"True", "False"}
    visits = _rows(run)["visits"].to_pylist()
    assert [row["visits"] for row in rows] == ["" if number is None else str(number) for number in visits]
    assert [float(row["z"]) if row["z"] else None for row in rows] == _rows(run)["z"].to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1", "'=1"), ("+1", "+1"), ("-1.5e-3", "-1.5e-3"), ("-", "'-"), ("+1+cmd", "'+1+cmd"), ("@a", "'@a"),
        ("\ta", "'\ta"), ("\ra", "'\ra"), ("1-2", "1-2"), ("", ""), ("-.5", "-.5"), ("--5", "'--5"), ("-5 ", "'-5 "),
    ],
)  # fmt: skip
def test_formula_protection(text, expected):
    assert cells.guarded(text) == expected


@given_that(
    st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=20),
    st.integers(0, 12),
    st.sampled_from([np.float32, np.float64]),
)
def test_fixed_decimals_are_what_python_prints(values, decimals, dtype):
    array = np.array(values, dtype=dtype)
    lines = cells.join_rows([cells.fixed_block(array, decimals)], b"", b",", b"\n").decode().splitlines()
    assert lines == ["" if np.isnan(value) else f"{float(value):z.{decimals}f}" for value in array]


def test_fixed_decimals_round_exact_halves_to_even_and_near_halves_to_the_nearest():
    values = np.array([0.125, 0.375, 2.675, 1.005, 0.045, -0.001, 1.0, 0.995])
    lines = cells.join_rows([cells.fixed_block(values, 2)], b"", b",", b"\n").decode().split()
    assert lines == ["0.12", "0.38", "2.67", "1.00", "0.04", "0.00", "1.00", "0.99"]


def test_numbers_too_large_for_fixed_integers_are_written_all_the_same():
    values = np.array([1e300, np.inf, -np.inf, np.nan, 0.5])
    lines = cells.join_rows([cells.fixed_block(values, 1)], b"", b",", b"\n").decode().splitlines()
    assert lines == [f"{1e300:.1f}", "inf", "-inf", "", "0.5"]


@given_that(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_csv_text_reads_back(texts):
    layout = Layout("n", "t", "r", "clash", (OutputColumn("a", "source", "id", pa.string()),
                                             OutputColumn("b", "source", "id", pa.string())))  # fmt: skip
    batch = pa.record_batch([texts, texts], names=["a", "b"])
    columns = cells.cell_blocks(batch, layout.plain, lambda text: cells.quoted(cells.guarded(text)), fixed=True)
    data = cells.join_rows(columns, b"", b",", b"\n").decode()
    read = list(csv.reader(io.StringIO(data, newline="")))
    assert [row[0] for row in read] == [row[1] for row in read] == [cells.guarded(text) for text in texts]


def test_blocked_stamps_are_blank_in_csv_and_flagged_in_the_others(rich):
    result = rich[1]
    frame = pd.read_csv(result.files["csv"])
    table = _read("ecsv", result.files["ecsv"])
    off = (np.asarray(table["F435w_flags"]) & int(Flag.OFF_IMAGE)) > 0
    assert off.any()
    assert (frame["F435w_PSP"].isna() == off).all()
    assert (np.ma.getmaskarray(table["F435w_class"]) == off).all()


def test_an_unknown_format_is_refused_with_the_valid_ones(rich):
    with pytest.raises(UsageError, match="unknown format 'xml'; valid: csv, ecsv, fits, parquet, votable"):
        export(rich[0], ["csv", "xml"])
