"""The ingest stage: each row of the survey table ends in one place."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from catalogs import new_run, read_in
from hypothesis import given, settings
from hypothesis import strategies as st

from catmorph.errors import CatalogError, RecipeError, UsageError
from catmorph.sources.ingest import ingest
from catmorph.sources.inputs import ingest_state
from catmorph.sources.survey import map_catalog

cell = st.sampled_from(["1", "2", "2", "3.5", "10", "-99", "", "x", "nan", "400", "-91", "1e3", "a,b", "ü", '"',
                        "../y"])
dirty = st.lists(st.tuples(cell, cell, cell, cell, cell), min_size=1, max_size=25)


def catalog(folder, rows, name="cat.csv", columns=("ID", "RA", "DEC", "MAG", "CLUSTER")):
    frame = pd.DataFrame(rows, columns=list(columns)[: len(rows[0])] if len(rows) else list(columns), dtype=str)
    frame.to_csv(folder / name, index=False)
    return folder / name


def good_rows(count, start=1):
    return [(str(start + n), f"{10 + n / 1000:.6f}", f"{-5 + n / 1000:.6f}", f"{18 + n % 7}") for n in range(count)]


@settings(max_examples=15)
@given(dirty)
def test_read_is_rejected_plus_sources(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("dirty")
    catalog(folder, [*rows, ("good", "1", "1", "1", "f")])
    sources, rejected, counts = read_in(
        folder, field={"column": "CLUSTER"}, magnitude="MAG", cuts="magnitude < 50", duplicates="brightest", null=-99,
        keep="MAG",
    )
    assert counts == {"read": len(rows) + 1, "rejected": len(rejected), "sources": len(sources)}
    assert sorted([*sources["row"], *rejected["row"]]) == list(range(1, len(rows) + 2))
    assert set(rejected["kind"]) <= {"bad_cell", "cut", "duplicate"}
    assert rejected["reason"].notna().all()
    assert not sources.duplicated(["field", "id"]).any()
    assert sources["ra"].between(0, 360, inclusive="left").all()


def test_rows_and_reasons(tmp_path):
    catalog(tmp_path, [
        ("1", "10", "-5", "20"), ("2", "x", "-5", "20"), ("3", "10", "-91", "20"), ("", "10", "-5", "20"),
        ("5", "10", "", "20"), ("6", "10", "-5", "bright"), ("7", "10", "-5", "25"), ("8", "10", "-5", "-99"),
        ("99", "400", "-5", "20"),
    ])
    cuts = ["magnitude < 24.5", "id != '1'"]
    sources, rejected, counts = read_in(tmp_path, magnitude="MAG", cuts=cuts, null=[-99, 99], allow_empty=True)
    assert counts == {"read": 9, "rejected": 9, "sources": 0}
    assert list(zip(rejected["row"], rejected["id"].fillna(""), rejected["kind"], rejected["reason"], strict=True)) == [
        (1, "1", "cut", "cut: id != '1'"),
        (2, "2", "bad_cell", "ra is not a number: 'x'"),
        (3, "3", "bad_cell", "dec -91 deg is outside -90..90"),
        (4, "", "bad_cell", "id is missing"),
        (5, "5", "bad_cell", "dec is missing"),
        (6, "6", "bad_cell", "magnitude is not a number: 'bright'"),
        (7, "7", "cut", "cut: magnitude < 24.5"),
        (8, "8", "cut", "cut: magnitude < 24.5 (a value is missing)"),
        (9, "99", "bad_cell", "ra 400 deg is outside -180..360"),
    ]
    assert set(rejected["file"]) == {"cat.csv"}
    assert len(sources) == 0


def test_several_files_with_the_field_in_their_names(tmp_path):
    for name, start in (("a611_molino.cat", 1), ("ms2137_molino.cat", 100)):
        catalog(tmp_path, good_rows(30, start), name)
    sources, _, counts = read_in(tmp_path, files="*_molino.cat", field={"pattern": "{field}_molino.cat"})
    assert counts == {"read": 60, "rejected": 0, "sources": 60}
    assert sources.groupby("field")["row"].apply(list).to_dict() == {f: list(range(1, 31)) for f in ("a611", "ms2137")}
    with pytest.raises(CatalogError, match=r"does not match catalog\.field\.pattern '\{field\}\.csv'"):
        read_in(tmp_path, files="*_molino.cat", field={"pattern": "{field}.csv"})


def test_the_same_id_in_two_files_of_one_field_is_a_duplicate(tmp_path):
    catalog(tmp_path, [("7", "10", "1", "20"), ("8", "10", "1", "20")], "a.csv")
    catalog(tmp_path, [("07", "10", "1", "19"), ("7a", "10", "1", "19"), ("8", "10", "2", "19")], "b.csv")
    with pytest.raises(CatalogError, match=r"b\.csv: 1 duplicate ids: f 8 \(row 3\); set catalog.duplicates to 'fir"):
        read_in(tmp_path, files=["a.csv", "b.csv"])
    sources, rejected, _ = read_in(tmp_path, files=["a.csv", "b.csv"], duplicates="first")
    assert sources[sources["id"] == "8"]["file"].tolist() == ["a.csv"]
    assert rejected[["file", "row", "kind", "reason"]].to_numpy().tolist() == [
        ["b.csv", 3, "duplicate", "duplicate id; kept the first"]
    ]
    sources, rejected, _ = read_in(tmp_path, files=["a.csv", "b.csv"], duplicates="brightest", magnitude="MAG")
    assert sources[sources["id"] == "8"]["file"].tolist() == ["b.csv"]
    assert rejected["reason"].tolist() == ["duplicate id; kept the brightest"]
    for name in ("a", "b"):
        read_in(tmp_path, files=f"{name}.csv", where=name)  # no duplicate in each alone


def test_the_brightest_of_duplicates_is_not_one_without_magnitude(tmp_path):
    catalog(tmp_path, [("1", "10", "1", "-99"), ("1", "11", "1", "22"), ("1", "12", "1", "22"), ("1", "x", "1", "10")])
    sources, _, _ = read_in(tmp_path, duplicates="brightest", magnitude={"column": "MAG", "null": -99})
    assert sources["row"].tolist() == [2]


def test_a_duplicate_that_is_cut_is_no_duplicate(tmp_path):
    catalog(tmp_path, [("1", "10", "1", "22"), ("1", "11", "1", "26")])
    _, rejected, _ = read_in(tmp_path, magnitude="MAG", cuts="magnitude < 25")
    assert rejected["kind"].tolist() == ["cut"]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", ".hidden", "..", "x" * 300, "é" * 100, "a\nb", "a\tb", "\x7f", "a\0b"]
)
def test_hostile_field_names_are_bad_cells(tmp_path, name):
    # A FITS or CSV reader ends text at NUL: only Parquet brings one in.
    rows = pd.DataFrame({"ID": ["1", "2"], "RA": [1.0, 2.0], "DEC": [0.0, 0.0], "CLUSTER": [name, "good"]})
    rows.to_parquet(tmp_path / "cat.parquet")
    sources, rejected, _ = read_in(tmp_path, files="cat.parquet", field={"column": "CLUSTER"})
    assert sources["field"].tolist() == ["good"]
    assert rejected["kind"].tolist() == ["bad_cell"]
    assert rejected["reason"][0].startswith("field '")
    assert rejected["reason"][0].endswith(("cannot be part of a file name", "is longer than a file name may be"))
    assert {path.name for path in tmp_path.iterdir()} == {"cat.parquet", "run", "small.toml"}


def test_odd_but_harmless_fields(tmp_path):
    names = ["Abell 611", "MACS J0416-24", "NGC*", "ü", "[x]", "50%", "~root", "-rf"]
    rows = [(str(n), "1", "1", "1", name) for n, name in enumerate(names)]
    catalog(tmp_path, rows)
    sources, _, _ = read_in(tmp_path, field={"column": "CLUSTER"})
    assert sorted(sources["field"]) == sorted(names)


def test_missing_fields_are_bad_cells(tmp_path):
    catalog(tmp_path, [("1", "1", "1", "1", ""), ("2", "1", "1", "1", "f")])
    _, rejected, _ = read_in(tmp_path, field={"column": "CLUSTER"})
    assert rejected["reason"].tolist() == ["field is missing"]


def test_nothing_left_or_nothing_there(tmp_path):
    catalog(tmp_path, [("1", "x", "1", "1"), ("2", "y", "1", "1")])
    with pytest.raises(CatalogError, match=r"cat.csv: every row is bad, row 1: ra is not a number: 'x'; check the col"):
        read_in(tmp_path)
    catalog(tmp_path, good_rows(3))
    with pytest.raises(CatalogError, match=r"no row of the catalog is left \(3 cut\); check catalog.cuts"):
        read_in(tmp_path, cuts="MAG > 90")
    (tmp_path / "cat.csv").write_text("ID,RA,DEC\n")
    with pytest.raises(CatalogError, match=r"the catalog has no rows"):
        read_in(tmp_path)
    sources, rejected, counts = read_in(tmp_path, allow_empty=True)
    assert counts == {"read": 0, "rejected": 0, "sources": 0}
    assert len(sources) == len(rejected) == 0
    assert new_run(tmp_path, allow_empty=True).chunks() == []


def test_kept_columns_keep_type_unit_and_digits(tmp_path):
    Table({
        "ID": [2, 1], "RA": [1.0, 2.0], "DEC": [0.0, 0.0], "big": [2**60 + 1, -99], "r": np.array([18.1, -99.9], "f4"),
        "ok": [True, False], "name": ["x", "INDEF"], "u8": np.array([2**63, 1], dtype="u8"),
    }, units={"r": "mag"}).write(tmp_path / "cat.fits")
    _, _, _ = read_in(tmp_path, files="cat.fits", keep=["big", "r", "ok", "name", "u8"], null=[-99, -99.9, "INDEF"])
    table = pq.read_table(tmp_path / "run" / "sources.parquet")
    rows = table.select(["id", "big", "r", "ok", "name", "u8"]).to_pylist()
    assert rows == [
        {"id": "1", "big": None, "r": None, "ok": False, "name": None, "u8": "1"},
        {"id": "2", "big": 2**60 + 1, "r": np.float32(18.1), "ok": True, "name": "x", "u8": str(2**63)},
    ]
    assert [str(table.schema.field(n).type) for n in ("big", "r", "ok", "name")] == ["int64", "float", "bool", "string"]
    assert table.schema.field("r").metadata == {b"unit": b"mag"}
    with pytest.raises(CatalogError, match=r"kept column 'magnitude' has the name of one of catmorph's own"):
        read_in(tmp_path, files="cat.fits", keep="magnitude")


def test_kept_columns_of_files_that_differ(tmp_path):
    Table({"ID": [1], "RA": [1.0], "DEC": [0.0], "k": [5]}, units={"k": "mag"}).write(tmp_path / "a.fits")
    Table({"ID": [2], "RA": [1.0], "DEC": [0.0], "k": ["x"]}).write(tmp_path / "b.fits")
    sources, _, _ = read_in(tmp_path, files="?.fits", keep="k")
    assert sources["k"].tolist() == ["5", "x"]
    Table({"ID": [3], "RA": [1.0], "DEC": [0.0], "k": [5.0]}, units={"k": "Jy"}).write(tmp_path / "c.fits")
    with pytest.raises(CatalogError, match=r"c.fits: column 'k' has unit Jy here, but mag in another catalog file"):
        read_in(tmp_path, files=["a.fits", "c.fits"], keep="k")


def test_kept_conditions_beside_numbers_and_missing_integers_beside_text(tmp_path):
    catalog(tmp_path, [("1", "1", "0", "5", "7"), ("2", "1", "0", "5", "")], "a.csv")
    flags = {"ID": [3, 4], "RA": [1.0, 2.0], "DEC": [0.0, 0.0], "MAG": [True, None], "CLUSTER": ["x", None]}
    pd.DataFrame(flags).to_parquet(tmp_path / "b.parquet")
    sources, _, _ = read_in(tmp_path, files=["a.csv", "b.parquet"], keep=["MAG", "CLUSTER"])
    sources = sources.astype(object).where(sources.notna(), None).sort_values("id")
    assert sources["MAG"].tolist() == ["5", "5", "true", None]
    assert sources["CLUSTER"].tolist() == ["7", None, "x", None]


def test_cuts_see_sentinels_as_missing_everywhere(tmp_path):
    Table({
        "ID": [99, 2, 3], "RA": [1.0, 2.0, 3.0], "DEC": [0.0, 1.0, 2.0], "m": np.array([99, 20, 21], "f4"),
        "morph": ["E", "none", "S"], "magnitude": [1, 2, 3], "size": [7, 8, 9],
    }).write(tmp_path / "cat.fits")

    def ids(*cuts, **more):
        catalog_section = {"files": "cat.fits", "null": [99, "none"], "allow_empty": True, **more}
        return read_in(tmp_path, cuts=list(cuts), **catalog_section)[0]["id"].tolist()

    assert ids("m > 0") == ids("not (m < 0)") == ["2", "3"]
    assert ids("morph != 'S'") == ["99"]
    assert set(ids("missing(m) or missing(morph)")) == {"2", "99"}
    assert ids("ID == 99") == ids("id == '99'") == ["99"]
    assert set(ids("field == 'f' and ra < 2.5")) == {"2", "99"}
    assert ids("magnitude > 1 and size < 9") == ["2"]  # the table's own, where the recipe maps none
    assert ids("magnitude > 5", magnitude="m") == ["2", "3"]
    assert ids('col("magnitude") > 2', magnitude="m") == ["3"]
    with pytest.raises(RecipeError, match=r"cut 'morf == 1' names unknown column 'morf'; did you mean 'morph'\?"):
        ids("morf == 1")


def test_sentinels_of_positions_are_missing(tmp_path):
    catalog(tmp_path, [("1", "-99", "1"), ("2", "1", "-1"), ("99", "1", "1")])
    dec, identifier = {"column": "DEC", "null": -1}, {"column": "ID", "null": "7"}
    sources, rejected, _ = read_in(tmp_path, null=-99, dec=dec, id=identifier)
    assert sources["id"].tolist() == ["99"]
    assert rejected["reason"].tolist() == ["ra is missing", "dec is missing"]


def test_ids_that_lost_digits_are_refused(tmp_path):
    Table({"ID": [1.0, 1e17], "RA": [1.0, 2.0], "DEC": [0.0, 0.0]}).write(tmp_path / "cat.fits")
    _, rejected, _ = read_in(tmp_path, files="cat.fits")
    assert rejected["reason"].tolist() == ["id 100000000000000000 was read as a float and may have lost digits"]


def test_outputs_are_the_same_bytes_again(tmp_path):
    catalog(tmp_path, [*good_rows(300), ("x", "y", "z", "0")])
    for where in ("one", "two"):
        read_in(tmp_path, "run.chunk_rows=20", where=where, magnitude="MAG", cuts="magnitude < 23")
    for name in ("sources.parquet", "rejected.parquet", "plan.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@settings(max_examples=5)
@given(st.randoms())
def test_the_order_of_rows_changes_only_their_numbers(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("order")
    rows = good_rows(60)
    catalog(folder, rows)
    before, _, _ = read_in(folder, "run.chunk_rows=7", where="one")
    catalog(folder, random.sample(rows, len(rows)))
    after, _, _ = read_in(folder, "run.chunk_rows=7", where="two")
    pd.testing.assert_frame_equal(before.drop(columns="row"), after.drop(columns="row"))
    assert (folder / "one" / "plan.parquet").read_bytes() == (folder / "two" / "plan.parquet").read_bytes()


def test_the_plan_names_the_row_groups(tmp_path):
    catalog(tmp_path, good_rows(50))
    run = new_run(tmp_path, "run.chunk_rows=8")
    ingest(run)
    seen = []
    for chunk in run.chunks():
        rows = run.read_sources(chunk)
        assert rows.num_rows == chunk.count <= 8
        assert set(rows["cell"].to_pylist()) == {chunk.cell}
        assert rows["id"].to_pylist() == sorted(rows["id"].to_pylist(), key=int)
        seen += rows["id"].to_pylist()
    assert sorted(seen, key=int) == [str(n) for n in range(1, 51)]


def test_ingest_is_valid_until_its_inputs_change(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [str(catalog(tmp_path, good_rows(3, start), f"{where}/cat.csv")) for where, start in (("a", 1), ("b", 9))]
    assert ingest_state(new_run(tmp_path, files=files)).name == "missing"
    ingest(new_run(tmp_path, files=files))
    assert ingest_state(new_run(tmp_path, files=files)).done
    assert ingest_state(new_run(tmp_path, files=files, cuts="MAG < 30")).why == "[catalog] changed"
    catalog(tmp_path, good_rows(4, 9), "b/cat.csv")
    assert ingest_state(new_run(tmp_path, files=files)).why == "catalog cat.csv (2) changed"
    ingest(new_run(tmp_path, files=files))
    catalog(tmp_path, good_rows(5, 1), "a/cat.csv")
    assert ingest_state(new_run(tmp_path, files=files)).why == "catalog cat.csv changed"
    new_run(tmp_path).plan_path().unlink()
    assert ingest_state(new_run(tmp_path, files=files)).name == "missing"


def test_mapping_alone_tells_what_would_be_rejected(tmp_path):
    catalog(tmp_path, [*good_rows(2), ("3", "x", "1", "1")])
    survey = map_catalog(new_run(tmp_path).recipe)
    assert survey.rows.texts("kind").to_pylist() == [None, None, "bad_cell"]
    assert survey.rejected == {"bad_cell": 1}
    assert not (tmp_path / "run").exists()


def test_what_was_not_read_in_yet(tmp_path):
    run = new_run(tmp_path)
    for question in (run.chunks, run.ingest_counts):
        with pytest.raises(UsageError, match=r"not read in yet; run `catmorph ingest`"):
            question()
