"""Survey tables of every format, and files that are none."""

import gc
import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from catalogs import section

from catmorph.errors import CatalogError
from catmorph.sources.columns import masked, numbers, texts
from catmorph.sources.inputs import catalog_files
from catmorph.sources.tables import column, guess_format, read_table

BIG = 9007199254740993  # 2**53 + 1: a float64 cannot hold it


def example() -> Table:
    return Table(
        {
            "ID": Column([1, 2, BIG], dtype=np.int64),
            "RA": Column([10.123456789012345, 20.5, 359.9], unit="deg"),
            "DEC": Column([-10.0, 0.25, 89.9], unit="deg"),
            "MAG": MaskedColumn([20.5, 0.0, 22.25], mask=[False, True, False], unit="mag"),
            "NAME": ["a b", "c,d", "e"],
        }
    )


def written(folder, name):
    path = folder / name
    table = example()
    if name.endswith(".parquet"):
        columns = {key: pa.array(table[key].tolist()) for key in table.colnames}
        units = {"RA": "deg", "DEC": "deg", "MAG": "mag"}
        fields = [pa.field(k, v.type, metadata={"unit": units[k]} if k in units else None) for k, v in columns.items()]
        pq.write_table(pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields)), path)
    elif name.endswith(".hdf5"):
        table["NAME"] = table["NAME"].astype("S")
        table["MAG"] = table["MAG"].filled(np.nan)
        for name_of in ("RA", "DEC", "MAG"):
            table[name_of].unit = None
        table.write(path, path="catalog", serialize_meta=False)
    else:
        formats = {".csv": "ascii.csv", ".tbl": "ascii.ipac", ".mrt": "ascii.mrt", ".xml": "votable",
                   ".ecsv": "ascii.ecsv", ".fits": "fits", ".gz": "fits", ".cat": "ascii.basic"}
        table.write(path, format=formats[path.suffix])
    return path


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.ecsv", "a.xml", "a.tbl", "a.csv", "a.mrt", "a.cat",
                                  "a.parquet", "a.hdf5"])
def test_every_format_gives_the_same_cells(tmp_path, name):
    table = read_table(written(tmp_path, name), section())
    assert texts(table["ID"]).tolist() == ["1", "2", str(BIG)]
    np.testing.assert_array_equal(numbers(table["RA"])[0], example()["RA"])
    np.testing.assert_array_equal(numbers(table["MAG"])[0], [20.5, np.nan, 22.25])
    assert texts(table["NAME"]).tolist() == ["a b", "c,d", "e"]


@pytest.mark.parametrize("name", ["a.fits", "a.ecsv", "a.xml", "a.tbl", "a.mrt", "a.parquet"])
def test_units_are_kept(tmp_path, name):
    assert read_table(written(tmp_path, name), section())["RA"].unit == u.deg


@pytest.mark.parametrize(("name", "separator"), [("a.tab", " "), ("a.txt", "\t"), ("a.csv", ",")])
def test_a_table_without_header_by_column_number(tmp_path, name, separator):
    path = tmp_path / name
    path.write_text("".join(separator.join(row) + "\n" for row in (["7", "10.5", "-3"], ["8", "11.5", "-4"])))
    table = read_table(path, section(id=1, ra=2, dec=3))
    assert texts(column(table, 1, key="catalog.id", where=path)).tolist() == ["7", "8"]
    assert column(table, 3, key="catalog.dec", where=path).tolist() == [-3, -4]
    with pytest.raises(CatalogError, match=r"no column number 4 for catalog\.size, there are 3"):
        column(table, 4, key="catalog.size", where=path)


def test_a_table_of_r_is_read_exactly(tmp_path):
    path = tmp_path / "profound.tab"
    path.write_text(f'"ID" "RA" "the mag" "NAME"\n"1" {BIG} 220.908261580867 NA "NA x"\n"2" NA 1.5e-300 20.1 ""\n')
    table = read_table(path, section())
    assert table.colnames == ["ID", "RA", "the mag", "NAME"]
    assert texts(table["ID"]).tolist() == [str(BIG), None]
    assert numbers(table["RA"])[0].tolist() == [220.908261580867, 1.5e-300]
    np.testing.assert_array_equal(numbers(table["the mag"])[0], [np.nan, 20.1])
    assert texts(table["NAME"]).tolist() == ["NA x", None]


def test_parquet_keeps_integers_beside_nulls(tmp_path):
    pq.write_table(pa.table({
        "ID": pa.array([BIG, None, 3]), "D": pa.array(["x", None, "y"]).dictionary_encode(),
        "B": pa.array([True, None, False]), "T": pa.array([["a"], None, ["b"]]),
    }), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", section())
    assert texts(table["ID"]).tolist() == [str(BIG), None, "3"]
    assert texts(table["D"]).tolist() == ["x", None, "y"]
    assert masked(table["B"]).tolist() == [True, None, False]


def test_ids_beyond_64_bits_keep_their_digits(tmp_path):
    (tmp_path / "a.csv").write_text("ID,RA\n123456789012345678901234567890,1\n2,2\n")
    ids = texts(read_table(tmp_path / "a.csv", section())["ID"])
    assert ids.tolist() == ["123456789012345678901234567890", "2"]


def test_identifiers_keep_what_they_are(tmp_path):
    odd = ["a,b", 'say "x"', "two\nlines", "ünï☉", "=1+1", "0003", "@cmd", "1e5", "-"]
    pd.DataFrame({"ID": odd, "RA": 1.0}).to_csv(tmp_path / "a.csv", index=False)
    assert texts(read_table(tmp_path / "a.csv", section())["ID"]).tolist() == odd
    Table({"ID": np.array(["0003", "12 ", "é"], dtype="U4")}).write(tmp_path / "a.xml", format="votable")
    assert texts(read_table(tmp_path / "a.xml", section())["ID"]).tolist() == ["0003", "12", "é"]


@pytest.mark.parametrize("name", ["a.csv", "a.cat", "a.txt", "a.tab"])
def test_identifiers_keep_their_leading_zeros(tmp_path, name):
    rows = [["ID", "RA", "FIELD"], ["0003", "1.5", "007"], ["0012", "2.5", "008"]]
    if name == "a.tab":
        rows = [['"ID"', '"RA"', '"FIELD"'], *(['"9"', *row] for row in rows[1:])]
    header = rows[1:] if name == "a.txt" else rows
    (tmp_path / name).write_text("".join(("," if name == "a.csv" else " ").join(row) + "\n" for row in header))
    keys = {"id": 1, "field": {"column": 3}, "ra": 2} if name == "a.txt" else {"field": {"column": "FIELD"}}
    table = read_table(tmp_path / name, section(**keys))
    assert [texts(table.columns[n]).tolist() for n in (0, 2)] == [["0003", "0012"], ["007", "008"]]
    assert numbers(table.columns[1])[0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(("name", "change"), [
    ("a.csv.gz", gzip.compress), ("a.csv", gzip.compress), ("a.csv", lambda data: b"\xef\xbb\xbf" + data),
    ("a.csv", lambda data: data.replace(b"\n", b"\r\n")), ("a.csv", lambda data: data.replace(b",", b", ")),
])
def test_text_as_other_programs_leave_it(tmp_path, name, change):
    (tmp_path / name).write_bytes(change(b"ID,RA\n0003,1\n0004,2\n"))
    table = read_table(tmp_path / name, section())
    assert texts(column(table, "ID", key="catalog.id", where=name)).tolist() == ["0003", "0004"]
    assert column(table, "RA", key="catalog.ra", where=name).tolist() == [1, 2]


def test_column_names_with_dots_and_spaces(tmp_path):
    (tmp_path / "a.csv").write_text("R.A.,my id\n1,2\n")
    table = read_table(tmp_path / "a.csv", section())
    assert column(table, "R.A.", key="catalog.ra", where="a").tolist() == [1]
    assert column(table, "my id", key="catalog.id", where="a").tolist() == [2]


def test_a_missing_column_suggests_the_nearest(tmp_path):
    (tmp_path / "a.csv").write_text("PETRO_RADIUS,RA\n1,2\n")
    table = read_table(tmp_path / "a.csv", section())
    with pytest.raises(CatalogError, match=r"a.csv: no column 'PETRORADIUS' for catalog.size; did you mean 'PETRO_RAD"):
        column(table, "PETRORADIUS", key="catalog.size", where="a.csv")
    with pytest.raises(CatalogError, match="valid: PETRO_RADIUS, RA"):
        column(table, "zzz", key="catalog.size", where="a.csv")


def test_a_column_of_one_value_a_row_may_have_an_axis_more(tmp_path):
    table = Table({"RA": [[1.5], [2.5]], "BANDS": [[1, 2], [3, 4]]})
    table.write(tmp_path / "a.fits")
    table = read_table(tmp_path / "a.fits", section())
    assert column(table, "RA", key="catalog.ra", where="a").tolist() == [1.5, 2.5]
    with pytest.raises(CatalogError, match=r"column 'BANDS' for catalog.ra holds \(2,\) values a row, not one"):
        column(table, "BANDS", key="catalog.ra", where="a")


def test_duplicate_column_names(tmp_path):
    (tmp_path / "a.csv").write_text("ID,RA,ID\n1,2,3\n")
    (tmp_path / "a.tab").write_text('"ID" "RA" "ID"\n"1" 1 2 3\n')
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["ID", "ID"]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.tab", "a.parquet"):
        with pytest.raises(CatalogError, match="more than one column 'ID'; rename one of them"):
            read_table(tmp_path / name, section())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("suffix", [".fits", ".ecsv", ".csv", ".tbl", ".mrt", ".vot", ".parquet", ".hdf5", ".cat"])
@pytest.mark.parametrize(("content", "message"), [
    (b"", "the file is empty"),
    (b" \n\n", "the file is empty"),
    (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page, not a table; download it again"),
    (b"\n <HTML><table><tr><td>ID</td></tr></table></HTML>", "is a web page, not a table"),
    (np.random.default_rng(1).bytes(3000), "cannot be read as .*; check the file, or set catalog.format"),
    (b"PK\x03\x04" + np.random.default_rng(2).bytes(300), "cannot be read as .*; check the file"),
    (b"\x1f\x8b\x08" + np.random.default_rng(3).bytes(300), "cannot be read as .*; check the file"),
])
def test_a_file_that_is_no_table(tmp_path, suffix, content, message):
    path = tmp_path / f"cat{suffix}"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message) as caught:
        read_table(path, section())
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    # astropy leaves a broken compressed file open until its traceback is gone.
    del caught
    gc.collect()


def test_a_truncated_fits_table(tmp_path):
    path = tmp_path / "a.fits"
    Table({"ID": np.arange(10000), "RA": np.zeros(10000)}).write(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(CatalogError, match="cannot be read as fits"):
        read_table(path, section())

def test_a_text_table_with_a_cell_too_many_of_a_guessed_format(tmp_path):
    path = tmp_path / "a.cat"
    path.write_text("# id ra dec r\n1 2 3 4\n2 3 4 5 6\n")
    with pytest.raises(CatalogError, match=(
        r"cannot be read as ascii: none of the formats that are guessed fits all lines; where a row has more or fewer "
        r"cells than others, catalog\.format in the recipe \(such as 'ascii\.commented_header'\) lets that be told"
    )):  # fmt: skip
        read_table(path, section())
    with pytest.raises(CatalogError, match=r"Number of header columns \(4\) inconsistent with .* in data line 1"):
        read_table(path, section(format="ascii.commented_header"))



def test_a_text_file_of_another_encoding_or_ragged(tmp_path):
    (tmp_path / "a.csv").write_bytes("ID,RA\nAndré,2\n".encode("latin-1"))
    with pytest.raises(CatalogError, match=r"cannot be read as ascii\.csv: line 2 is not UTF-8; convert it"):
        read_table(tmp_path / "a.csv", section())
    (tmp_path / "b.csv").write_text('ID,RA\n1,2\n"1\n2",2\n1,2,3\n')
    with pytest.raises(CatalogError, match="line 5 has 3 cells, the header 2; text with commas in it needs quotes"):
        read_table(tmp_path / "b.csv", section())
    # Not a matter of encoding or of commas: what the reader says.
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(CatalogError, match="the file is empty"):
        read_table(tmp_path / "c.csv", section())


@pytest.mark.parametrize(("header", "hint"), [
    ("ID;RA;DEC", "seem to be separated by ';': save the table with commas"),
    ("ID RA DEC", "seem to be separated by ' ': set catalog.format = 'ascii'"),
    ("ID|RA|DEC", r"seem to be separated by '\|': set catalog.format = 'ascii'"),
    ("identifier", "valid: identifier"),
])  # fmt: skip
def test_a_table_of_one_column_may_have_another_separator(tmp_path, header, hint):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{header.replace('ID', '1').replace('RA', '2').replace('DEC', '3')}\n")
    with pytest.raises(CatalogError, match=f"no column 'ID' for catalog.id; .*{hint}"):
        column(read_table(path, section()), "ID", key="catalog.id", where=path)
    if "'ascii'" in hint:
        assert column(read_table(path, section(format="ascii")), "RA", key="catalog.ra", where=path).tolist() == [2]


def test_the_hdu_of_a_table(tmp_path):
    path = tmp_path / "a.fits"
    tables = [fits.BinTableHDU(Table({"ID": [n]}), name=f"T{n}") for n in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path)
    assert read_table(path, section())["ID"].tolist() == [1]
    assert read_table(path, section(hdu="T2"))["ID"].tolist() == [2]
    with pytest.raises(CatalogError, match="cannot be read as fits"):
        read_table(path, section(hdu="T3"))
    (tmp_path / "a.csv").write_text("ID\n1\n")
    with pytest.raises(CatalogError, match=r"catalog\.hdu does not apply to the format ascii\.csv"):
        read_table(tmp_path / "a.csv", section(hdu=1))


def test_files_and_globs(tmp_path):
    for name in ("b.cat", "a.cat", "odd[1].cat"):
        (tmp_path / name).write_text("ID\n1\n")
    (tmp_path / "c.cat").mkdir()
    names = [path.name for path in catalog_files(section(files=[f"{tmp_path}/b.cat", f"{tmp_path}/*.cat"]))]
    assert names == ["b.cat", "a.cat", "odd[1].cat"]
    assert catalog_files(section(files=f"{tmp_path}/odd[1].cat")) == [tmp_path / "odd[1].cat"]
    with pytest.raises(CatalogError, match=r"x\*: no such catalog file; check catalog.files in the recipe"):
        catalog_files(section(files=[f"{tmp_path}/x*"]))


@pytest.mark.parametrize(("name", "expected"), [("A.FITS", "fits"), ("a.fits.gz", "fits"), ("a.vot", "votable"),
                                                ("a.dat", "ascii"), ("a.csv.txt", "ascii")])
def test_the_format_is_told_from_the_name(tmp_path, name, expected):
    (tmp_path / name).write_text("ID RA\n1 2\n")
    assert guess_format(tmp_path / name, section()) == expected
