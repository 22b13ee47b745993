"""Tables that are read without astropy and pandas: their cells are those that astropy reads."""

import random
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from catalogs import new_run, section
from hypothesis import given
from hypothesis import strategies as st

from catmorph.sources.arrow import missing_texts, number_array, numbers_of, text_array, texts_of
from catmorph.sources.astropy_tables import read_any
from catmorph.sources.columns import _FACTORS
from catmorph.sources.light import _OWN_UNITS, LightTable, column_of, from_arrow
from catmorph.sources.plain_csv import plain_names, read_plain_csv
from catmorph.sources.rows import Rows, distinct, joined, numbered
from catmorph.sources.tables import labels, read_table

CELLS = {
    "integers": ["0", "1", "7", "-3", "12345", "9223372036854775807", "-9223372036854775808", "99", "1000000"],
    "large": ["9223372036854775808", "-9223372036854775809", "1000000000000000000", "18446744073709551616", "5"],
    "zeros": ["007", "0012", "00", "-0", "+0", "000.5", "01e2", "0.", ".0", "0.0", "00.0e-3"],
    "floats": ["1.5", "-0.1", "150.02364324940052", "1e5", "1E-05", "1.", ".5", "-99.0", "nan", "NaN", "+nan"],
    "odd": ["1e400", "1e-400", "5e-324", "inf", "-inf", "1e", "e5", ".", "-", "+5", "+5.5", "--", "1_000", "0x1F",
            "1d5", "1+5", "٣", "½", "True", "N/A", "1 2", "1.5.5", "nan(1)", "infx", "n", "1f", "1j", "00:12:30", "#1",
            "'1'",
            "12\xa0", "\u20031", "0.1000000000000000055511151231257827021181583404541015625", "99999999999999999999.5",
            "00000000000000000000000012", "1e0005", "2.2250738585072011e-308", " 5", "5\t", "a\x0b", "\x851"],
    "texts": ["a", "b c", "NGC 12", "J0123+45", "é", "#x", "F160W", "=1+1", "n/a"],
}  # fmt: skip
NAMES = ["ID", "RA", "DEC", "CLUSTER", "x.y", "e", "d1", "f(1)", "a-b", "_u"]


def random_csv(dice):
    """Return a CSV file of columns of various cells, now and then broken."""
    names = ["ID", *dice.sample(NAMES[1:], dice.randint(0, 3))]
    kinds = [dice.choices(list(CELLS), [6, 1, 2, 6, 1, 3], k=dice.randint(1, 2)) for _ in names]
    empty = [dice.random() < 0.3 for _ in names]
    rows = [["" if dice.random() < 0.3 and none else dice.choice(CELLS[dice.choice(kind)])
             for kind, none in zip(kinds, empty, strict=True)] for _ in range(dice.choice([0, 1, 2, 4, 12]))]
    end = dice.choices(["\n", "\r\n", "\n\n", "\r"], [20, 3, 1, 1])[0]
    if dice.random() < 0.05:
        dice.choice([names, *rows]).append(dice.choice(["1", "x", "", "nan", "5y", "ID"]))
    text = end.join(",".join(row) for row in [names, *rows])
    if dice.random() < 0.05:
        place = dice.randrange(len(text) + 1)
        text = text[:place] + dice.choice(['"', " ", "\r", "\n", "\t", "\0", "\x85", ",", "\ufeff"]) + text[place:]
    return text + (end if dice.random() < 0.8 else "")


def read_both(path, **keys):
    """Return a CSV file as it is read here, None where it is left to astropy, and as astropy reads it."""
    how = section(**keys)
    plain = read_plain_csv(path, lambda names: labels(names, how))
    if plain is None:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain, read_any(path, "ascii.csv", how, path.read_bytes()[:512])


def assert_same(plain, astropy):
    assert plain.colnames == astropy.colnames
    for name in plain.colnames:
        here, there = np.ma.asarray(plain[name]), np.ma.asarray(astropy[name])
        assert here.dtype.kind.replace("O", "U") == there.dtype.kind
        missing = np.ma.getmaskarray(here)
        np.testing.assert_array_equal(missing, np.ma.getmaskarray(there))
        cells = [np.asarray(one.data[~missing]) for one in (here, there)]
        np.testing.assert_array_equal(*cells)
        if here.dtype.kind == "f":
            np.testing.assert_array_equal(*np.signbit([np.nan_to_num(one, nan=1) for one in cells]))


def test_random_files_are_read_as_by_astropy(tmp_path):
    dice, count = random.Random(11), 0
    for _ in range(250):
        (tmp_path / "a.csv").write_bytes(random_csv(dice).encode())
        plain, astropy = read_both(tmp_path / "a.csv", field=dice.choice([{"value": "f"}, {"column": "CLUSTER"}]))
        if plain is not None:
            assert_same(plain, astropy)
            count += 1
    assert count > 60


@pytest.mark.parametrize("text", [
    "ID,RA\n1,2.5\n", "ID,RA\n1,2.5", "ID,RA\r\n1,2.5\r\n", "ID,RA\n,\n", "ID,RA\n0012,1\n", "ID,RA\n0012,1.50\n13,\n",
    "ID,RA\n1,nan\n", "ID,RA\nb c,é\n", "a.b,ID,x-1\n1,2,3\n", "ID,DATE\n1,2020-01-02\n", "ID,RA\n-0,-0.0\n",
    "ID,NAME\n9,inspired\n", "ID,T\n7,00:12:30\n1.50,00:12:31\n",
])
def test_plain_files_are_read_here(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    plain, astropy = read_both(tmp_path / "a.csv")
    assert_same(plain, astropy)
    assert isinstance(read_table(tmp_path / "a.csv", section()), LightTable)


@pytest.mark.parametrize("data", [
    b"ID,RA\n", b"ID\n1\n", b"ID,ID\n1,2\n", b"ID,nan\n1,2\n", b"ID,2\n1,2\n", b'ID,RA\n1,"2"\n', b"ID,RA\n1, 2\n",
    b"ID,RA\n1,2 ", b"ID,RA\n\n1,2\n", b"ID,RA\n1,2\n\n3,4\n", b"ID,RA\r\n1,2\n", b"ID,RA\n1,2\r3,4\n", b"ID,RA\n1\n",
    b"ID,RA\n1,2,3\n", b"# x\nID,RA\n1,2\n", b"\xef\xbb\xbfID,RA\n1,2\n", b"ID,RA\n1,\xff\n", b"ID,RA\n1,\0\n",
    b"ID,RA\n1,0x1F\n", b"ID,RA\n1,1e400\n", b"ID,RA\n1,1e-400\n", b"ID,RA\n1,inf\n", b"ID,RA\n1,+5\n",
    b"ID,RA\n1,9223372036854775808\n", b"ID,RA\n1,1d5\n", b"ID,RA\n1,1_0\n", "ID,RA\n1,2\u2003\n".encode(),
    b"ID,RA\n1,5e-324\n",
])
def test_what_is_not_plain_is_left_to_astropy(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    assert read_both(tmp_path / "a.csv") == (None, None)


def test_a_long_file_is_read_in_blocks(tmp_path):
    rows = "".join(f"{n},{n / 7!r},{'abcdefgh' * 6}\n" for n in range(40_000))
    (tmp_path / "a.csv").write_text("ID,RA,NAME\n" + rows)
    table = read_table(tmp_path / "a.csv", section())
    assert len(table) == 40_000
    np.testing.assert_array_equal(table["RA"], np.arange(40_000) / 7)
    assert table["ID"].dtype == np.int64
    (tmp_path / "a.csv").write_text("ID,RA,NAME\n" + rows + "007,1,\n")
    assert read_table(tmp_path / "a.csv", section())["ID"][[1, -1]].tolist() == ["1", "007"]
    (tmp_path / "a.csv").write_text("ID,RA,NAME\n" + rows + "\n9,1,\n")
    assert not isinstance(read_table(tmp_path / "a.csv", section()), LightTable)


def test_names_of_a_plain_header():
    assert plain_names(b"ID,R.A.,a_1\r\n") == ["ID", "R.A.", "a_1"]
    for header in (b"ID\n", b"ID,\n", b"ID, RA\n", b"ID,1\n", b"ID,ID\n", b"ID,Inf\n", b'"ID",RA\n', b"ID,\xc3\xa9\n"):
        assert plain_names(header) is None


@pytest.mark.parametrize("name", ["cat.csv", "cat.parquet"])
def test_reading_in_a_plain_table_imports_neither_astropy_nor_pandas(tmp_path, name):
    table = pa.table({"ID": [1, 2, 3], "RA": [1.5, 2.5, 3.5], "DEC": [0.0, 1.0, None], "r": ["a", "b", None]})
    with_unit = table.schema.set(1, table.schema.field("RA").with_metadata({"unit": "deg"}))
    pq.write_table(table.cast(with_unit), tmp_path / "cat.parquet")
    (tmp_path / "cat.csv").write_text("ID,RA,DEC,r\n1,1.5,0.0,a\n2,2.5,1.0,b\n3,3.5,,\n")
    new_run(tmp_path, files=name, keep=["r"], cuts=["ra < 3 and r != 'x'"], duplicates="first")
    code = "import sys; from catmorph.cli import cli; cli(sys.argv[1:], standalone_mode=False)\n" \
           "print({name for name in sys.modules if name in ('pandas', 'astropy')})"  # fmt: skip
    command = [sys.executable, "-c", code, "ingest", "-r", "small.toml", "-w", "run", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
    assert pq.read_table(tmp_path / "run" / "sources.parquet")["r"].to_pylist() == ["a", "b"]
    assert pq.read_table(tmp_path / "run" / "rejected.parquet")["reason"].to_pylist() == ["dec is missing"]


def test_factors_of_units_are_those_of_astropy():
    for (unit, target), factor in _FACTORS.items():
        assert factor == float(u.Unit(unit).to(target))


@pytest.mark.parametrize("text", [*_OWN_UNITS, "km/s", "10**-3 Jy", "degrees_of_freedom", "nJy", "1", "ANGSTROM"])
def test_names_of_units_are_those_of_astropy(text):
    column = column_of(np.zeros(1), np.zeros(1, dtype=bool), text)
    assert column.unit == column[:0].unit == str(u.Unit(text, parse_strict="silent"))


optional_texts = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=20)


@given(optional_texts)
def test_text_goes_to_arrow_and_back(cells):
    array = text_array(cells)
    array.validate(full=True)
    assert array.to_pylist() == cells
    assert texts_of(array).tolist() == cells
    assert missing_texts(texts_of(array)).tolist() == [cell is None for cell in cells]


@given(st.lists(st.none() | st.integers(-100, 100), max_size=40), st.integers(0, 9), st.sampled_from(
    [pa.int8(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()]))  # fmt: skip
def test_numbers_go_to_arrow_and_back(cells, start, kind):
    array = pa.array([cell if cell is None or kind != pa.bool_() else cell > 0 for cell in cells], kind)
    for part in (array, array[start:], pa.chunked_array([array[start:], array], kind)):
        data, missing = numbers_of(part)
        again = number_array(np.ma.array(data, mask=missing))
        again.validate(full=True)
        assert again.to_pylist() == part.to_pylist()


def test_columns_of_arrow_keep_type_unit_and_nulls():
    table = from_arrow(pa.table({
        "n": pa.array([2**60 + 1, None]), "f": pa.array([1.5, None], pa.float32()), "t": pa.array(["x", None]),
        "d": pa.array(["x", None]).dictionary_encode(), "b": pa.array([True, None]), "l": pa.array([[1, 2], None]),
    }))  # fmt: skip
    assert [table[name].dtype for name in table.colnames] == [np.int64, np.float32, object, object, bool, object]
    assert all(table[name].mask.tolist() == [False, True] for name in table.colnames)
    assert [table[name][0] for name in table.colnames] == [2**60 + 1, 1.5, "x", "x", True, "[1, 2]"]


def test_rows_are_taken_and_joined():
    first = Rows({"n": np.array([1, 2]), "x": np.array([0.5, 1.5]), "t": np.array(["a", None], dtype=object)})
    taken = first.take(np.array([1, -1, 0]))
    assert taken["n"].tolist() == [2, None, 1]
    np.testing.assert_array_equal(taken["x"], [1.5, np.nan, 0.5])
    assert taken["t"].tolist() == [None, None, "a"]
    assert first["t"].tolist() == ["a", None]
    assert first.take(np.array([False, True]))["n"].tolist() == [2]
    both = joined([taken, Rows({"n": np.array([0.25]), "x": np.array([1], "f4"), "t": np.array(["b"], dtype=object)})])
    np.testing.assert_array_equal(both["n"], [2, np.nan, 1, 0.25])
    assert both.only(["t"]).names == ["t"]
    assert both["t"].tolist() == [None, None, "a", "b"]
    assert len(Rows({}, 3).take(np.array([-1, -1]))) == 2
    assert Rows({"n": np.zeros(0, np.int64)}).take(np.array([-1]))["n"].tolist() == [None]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None, ""]), st.sampled_from(["x", "y", None])), max_size=12))
def test_numbers_of_rows_are_the_same_where_the_texts_are(rows):
    columns = [np.array([row[place] for row in rows], dtype=object) for place in (0, 1)]
    numbers = numbered(*columns).tolist()
    assert all((rows[one] == rows[other]) == (numbers[one] == numbers[other])
               for one in range(len(rows)) for other in range(one))
    places, texts = distinct(columns[0])
    assert [texts[place] for place in places] == columns[0].tolist()
    assert len(set(texts)) == len(texts)
