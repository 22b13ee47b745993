"""Survey tables are read in, divided and sorted piece by piece, to what they would be as a whole."""

import gzip
import io
import os
import random
import resource
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from catalogs import new_run, read_in, section
from hypothesis import example, given
from hypothesis import strategies as st

from catmorph.errors import CatalogError, CatmorphError
from catmorph.sources import chunking, plain_csv, ranked, shelf, survey
from catmorph.sources.cells import sky_keys, split_keys
from catmorph.sources.ingest import ingest, planned_chunks
from catmorph.sources.ranked import Ranked
from catmorph.sources.rows import Rows
from catmorph.sources.shelf import Shelf
from catmorph.sources.tables import read_blocks, read_table


def in_small_pieces(patch):
    """Let everything be done in pieces of a few rows."""
    patch.setattr(survey, "_BLOCK", 13)
    patch.setattr(plain_csv, "_AHEAD", 150)
    for module in (shelf, ranked, chunking):
        patch.setattr(module, "BLOCK", 8)


def dirty_table(count=230):
    """Return a table with what is rejected, duplicate and missing in it, far and near on the sky."""
    dice = random.Random(3)
    near = [dice.random() < 0.5 for _ in range(count)]
    table = Table({
        "ID": [str(dice.choice([row, row, row, dice.randrange(count)])) for row in range(count)],
        "RA": [150 + dice.random() / 1e6 if one else dice.uniform(0, 361) for one in near],
        "DEC": [2 + dice.random() / 1e6 if one else dice.uniform(-89, 89) for one in near],
        "MAG": MaskedColumn([dice.uniform(18, 26) for _ in near], mask=[dice.random() < 0.1 for _ in near]),
        "CLUSTER": [dice.choice(["north", "south", "a b"]) for _ in range(count)],
        "Q": MaskedColumn(range(count), mask=[dice.random() < 0.2 for _ in range(count)]),
        "NAME": [dice.choice(["x", "NGC 12", "e"]) for _ in range(count)],
    })
    table["ID"][count - 2 :], table["RA"][count - 2 :] = "end", 150.0
    table["RA"][7:200:40] = 400.0
    return table


SETTINGS = {"field": {"column": "CLUSTER"}, "magnitude": "MAG", "keep": ["Q", "NAME"], "cuts": "magnitude < 25.5"}


@pytest.mark.parametrize("name", ["cat.csv", "cat.parquet", "cat.fits", "cat.ecsv", "cat.xml"])
@pytest.mark.parametrize("duplicates", ["first", "brightest"])
def test_pieces_change_nothing(tmp_path, monkeypatch, name, duplicates):
    dirty_table().write(tmp_path / name, **({"format": "votable"} if name == "cat.xml" else {}))
    changes = {**SETTINGS, "files": name, "duplicates": duplicates}
    sources, rejected, counts = read_in(tmp_path, "run.chunk_rows=5", where="whole", **changes)
    assert set(rejected["kind"]) == {"bad_cell", "cut", "duplicate"}
    in_small_pieces(monkeypatch)
    again = read_in(tmp_path, "run.chunk_rows=5", where="pieces", **changes)
    assert again[2] == counts
    assert again[1].equals(rejected)
    for product in ("sources", "plan"):
        assert (tmp_path / "pieces" / f"{product}.parquet").read_bytes() \
            == (tmp_path / "whole" / f"{product}.parquet").read_bytes()
    planned = planned_chunks(new_run(tmp_path, "run.chunk_rows=5", where="none", **changes))
    plan = pq.read_table(tmp_path / "whole" / "plan.parquet")
    assert [chunk.digest for chunk in planned] == plan["digest"].to_pylist()
    assert sum(chunk.count for chunk in planned) == len(sources)


def test_refused_duplicates_are_the_first_five_wherever_they_are(tmp_path, monkeypatch):
    rows = [(f"s{row % 40}", row, 1.0) for row in range(120)]
    Table(rows=rows, names=["ID", "RA", "DEC"]).write(tmp_path / "cat.csv")
    in_small_pieces(monkeypatch)
    with pytest.raises(CatalogError, match=r"80 duplicate ids: f s0 \(row 41\); .*; f s4 \(row 45\);"):
        ingest(new_run(tmp_path))


def test_rows_are_numbered_by_file_and_kept_types_are_those_of_all_files(tmp_path, monkeypatch):
    for name, kept in (("a.csv", [str(row) for row in range(40)]), ("b.csv", ["0.5"] * 40), ("c.csv", ["x"] * 40)):
        Table({"ID": [f"{name}{row}" for row in range(40)], "RA": np.arange(40.0), "DEC": np.ones(40), "K": kept}
              ).write(tmp_path / name)
    in_small_pieces(monkeypatch)
    sources, _, _ = read_in(tmp_path, files=["a.csv", "b.csv"], keep="K")
    assert sources["K"].dtype == float
    assert sorted(sources["row"]) == sorted([*range(1, 41)] * 2)
    sources, _, _ = read_in(tmp_path, files=["a.csv", "b.csv", "c.csv"], keep="K", where="two")
    assert set(sources["K"]) == {*map(str, range(40)), "0.5", "x"}


@pytest.mark.parametrize(("cells", "kind"), [
    (["1"] * 60 + ["x"], "O"), (["1"] * 60 + ["1.5"], "f"), (["1"] * 60, "i"), ([""] * 60 + ["7"], "i"),
    (["1.5"] * 60 + ["1"], "f"), (["a"] + ["1"] * 60, "O"), ([""] * 61, "i"),
])
def test_a_column_of_csv_has_one_type_whatever_its_first_rows_are(tmp_path, monkeypatch, cells, kind):
    (tmp_path / "cat.csv").write_text("ID,K\n" + "".join(f"s{row},{cell}\n" for row, cell in enumerate(cells)))
    in_small_pieces(monkeypatch)
    parts = list(read_blocks(tmp_path / "cat.csv", section(keep="K"), 13))
    assert len(parts) > 1
    assert {part["K"].dtype.kind for part in parts} == {kind}
    whole = read_table(tmp_path / "cat.csv", section())
    assert [cell for part in parts for cell in part["K"].tolist()] == whole["K"].tolist()


@pytest.mark.parametrize("cells", [["1.5"] * 60 + ["1e400"], ["1"] * 60 + ["9223372036854775808"],
                                   ["5"] * 60 + ["0x1F"], ["1.5"] * 60 + ["5_0"]])
def test_what_is_odd_further_down_is_left_to_astropy(tmp_path, monkeypatch, cells):
    (tmp_path / "cat.csv").write_text("ID,K\n" + "".join(f"s{row},{cell}\n" for row, cell in enumerate(cells)))
    in_small_pieces(monkeypatch)
    assert plain_csv.plain_types(tmp_path / "cat.csv", lambda names: []) is None


@pytest.mark.parametrize("cell", ["infinity", "nan", "-Inf", "nan(1)", "five"])
def test_whether_a_cell_is_a_number_does_not_depend_on_the_others(tmp_path, cell):
    reasons = []
    for other in ("20.5", "1d1"):
        rows = [("a", 1.0, 1.0, other), ("b", 2.0, 1.0, cell), ("c", 3.0, 1.0, "x")]
        Table(rows=rows, names=["ID", "RA", "DEC", "MAG"]).write(tmp_path / "cat.csv", overwrite=True)
        _, rejected, _ = read_in(tmp_path, magnitude="MAG", where=other)
        reasons.append(rejected.set_index("id")["reason"].get("b"))
    assert reasons[0] == reasons[1]
    assert (reasons[0] is None) == (cell in ("infinity", "nan", "-Inf"))


def test_parts_of_a_fits_table_have_the_cells_of_the_whole(tmp_path):
    count = 45
    columns = [
        fits.Column("J", "J", null=-9, array=np.arange(count) - 9),
        fits.Column("L", "L", array=np.arange(count) % 2 == 0),
        fits.Column("E", "E", unit="arcsec", array=np.where(np.arange(count) % 3 == 0, np.nan, np.arange(count))),
        fits.Column("A", "5A", array=np.array([f"s{row} "[: row % 4] for row in range(count)])),
        fits.Column("U", "J", bzero=2**31, array=np.arange(count, dtype=np.uint32) + 2**31),
        fits.Column("I", "I", array=np.arange(count)), fits.Column("M", "3E", array=np.zeros((count, 3))),
    ]
    tables = [fits.BinTableHDU.from_columns(columns, name="ONE"),
              fits.BinTableHDU.from_columns(columns[::-1], name="TWO")]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2))), *tables]).writeto(tmp_path / "cat.fits")
    with fits.open(tmp_path / "cat.fits", mode="update") as file:
        file["TWO"].header["TSCAL2"], file["TWO"].header["TZERO2"] = 0.5, 1.0
    for hdu in (None, "TWO", 2):
        whole = read_table(tmp_path / "cat.fits", section(hdu=hdu))
        parts = list(read_blocks(tmp_path / "cat.fits", section(hdu=hdu), 13))
        assert [len(part) for part in parts] == [13, 13, 13, 6]
        for name in whole.colnames:
            cells = np.ma.concatenate([np.ma.asarray(part[name]) for part in parts])
            assert {part[name].dtype for part in parts} == {whole[name].dtype}
            assert {part[name].unit for part in parts} == {whole[name].unit}
            np.testing.assert_array_equal(np.ma.getmaskarray(cells), np.ma.getmaskarray(np.ma.asarray(whole[name])))
            assert cells.tolist() == np.ma.asarray(whole[name]).tolist()


def fits_table(**changes):
    """Return the bytes of a FITS file with a table of 60 good rows; header keywords may be changed."""
    columns = [fits.Column("ID", "4A", array=np.array([f"s{row}" for row in range(60)])),
               fits.Column("RA", "D", array=np.arange(60.0)), fits.Column("DEC", "D", array=np.ones(60)),
               *([fits.Column("V", "PJ()", array=np.array([[]] * 60, dtype=object))] if "vla" in changes else [])]
    table = fits.BinTableHDU.from_columns(columns)
    held = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(np.zeros((50, 50)))]).writeto(held)
    data = held.getvalue()
    for name, value in changes.items():
        if name != "vla":
            card = f"{name:8}=".encode()
            place = data.index(card, data.index(b"XTENSION"))
            data = data[:place] + card + f"{value:>21}".encode() + data[place + 30 :]
    return data


def in_zip(data):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("cat.fits", data)
    return held.getvalue()


@pytest.mark.parametrize("data", [
    fits_table(), fits_table(vla=True), in_zip(fits_table()), gzip.compress(fits_table()), fits_table(NAXIS1=21),
], ids=["plain", "empty heap", "zip", "gzip", "another length of rows"])
def test_fits_files_that_astropy_reads_are_read_the_same(tmp_path, monkeypatch, data):
    (tmp_path / "cat.fits").write_bytes(data)
    in_small_pieces(monkeypatch)
    whole = read_table(tmp_path / "cat.fits", section())
    parts = list(read_blocks(tmp_path / "cat.fits", section(), 13))
    for name in ("ID", "RA", "DEC"):
        assert [cell for part in parts for cell in part[name].tolist()] == whole[name].tolist()


@pytest.mark.parametrize("hdu", [99, -2, 0, "NONE"])
def test_a_table_that_is_not_in_a_fits_file(tmp_path, hdu):
    table = fits.BinTableHDU(Table({"ID": ["a"]}))
    fits.HDUList([fits.PrimaryHDU(), table, table.copy()]).writeto(tmp_path / "cat.fits")
    errors = []
    for reading in (read_table, lambda path, how: list(read_blocks(path, how, 13))):
        with pytest.raises(CatalogError) as caught:
            reading(tmp_path / "cat.fits", section(hdu=hdu))
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("name", ["cat.csv", "cat.parquet"])
def test_a_column_number_out_of_range_is_told_though_not_all_are_read(tmp_path, name):
    Table({"ID": ["a"], "RA": [1.0], "x": [5.0], "DEC": [1.0]}).write(tmp_path / name)
    with pytest.raises(CatalogError, match=r"no column number 9 for catalog.dec, there are 4"):
        ingest(new_run(tmp_path, files=name, dec=9))


def test_a_fits_table_cut_off_is_an_error(tmp_path):
    dirty_table().write(tmp_path / "cat.fits")
    data = (tmp_path / "cat.fits").read_bytes()
    (tmp_path / "cat.fits").write_bytes(data[: len(data) - 2880])
    with pytest.raises(CatalogError, match="cannot be read as fits") as caught:
        ingest(new_run(tmp_path, files="cat.fits", **SETTINGS))
    assert "\n" not in str(caught.value)


def test_of_csv_the_columns_that_are_asked_for_are_looked_at(tmp_path):
    (tmp_path / "cat.csv").write_text("ID,odd,RA,DEC,note\na,1e400,1,2,x\nb,1_000,3,4,y\n")
    sources, _, _ = read_in(tmp_path, keep="note")
    assert sources["note"].tolist() == ["x", "y"]
    (part,) = read_blocks(tmp_path / "cat.csv", section(), 10)
    assert part.colnames == ["ID", "odd", "RA", "DEC", "note"]
    with pytest.raises(KeyError, match="odd was not read"):
        part["odd"]
    sources, _, _ = read_in(tmp_path, keep="odd", where="two")
    assert sources["odd"].tolist() == ["1e400", "1_000"]


def test_of_parquet_the_columns_that_are_asked_for_are_read(tmp_path):
    table = pa.table({"ID": ["a", "b"], "RA": [1.0, 2.0], "DEC": [1.0, 2.0], "photo": [b"\xff", b"\xfe"],
                      "R.A.": [5, 6], "note": ["x", "y"]})
    pq.write_table(table, tmp_path / "cat.parquet")
    sources, rejected, _ = read_in(tmp_path, files="cat.parquet", cuts="col('R.A.') < 6")
    assert (sources["id"].tolist(), rejected["id"].tolist()) == (["a"], ["b"])
    with pytest.raises(CatalogError, match=r"no column 'nite' for catalog.keep.*did you mean 'note'"):
        ingest(new_run(tmp_path, files="cat.parquet", keep="nite"))
    (part,) = read_blocks(tmp_path / "cat.parquet", section(), 10)
    assert part.colnames == table.column_names
    with pytest.raises(KeyError, match="photo was not read"):
        part["photo"]


class TestShelf:
    """Rows on disk."""

    def test_cells_come_back(self, tmp_path):
        held = Shelf(tmp_path)
        held.add(Rows({"t": np.array(["é", None, ""], dtype=object), "i": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
                       "f": np.array([1.5, np.nan, -0.0]), "b": np.array([True, False, True])}))
        held.add(Rows({"t": np.array([None], dtype=object), "i": np.array([4]), "f": np.array([2.5]),
                       "b": np.array([False])}))
        assert (len(held), held.names) == (4, ["t", "i", "f", "b"])
        assert held.texts("t").to_pylist() == ["é", None, "", None]
        rows = np.array([3, 1, 0])
        schema = pa.schema([(name, held.type(name)) for name in held.names])
        assert [str(kind) for kind in schema.types] == ["string", "int64", "double", "bool"]
        assert held.table(rows, schema).to_pydict() == {
            "t": [None, None, "é"], "i": [4, None, 1], "f": [2.5, None, 1.5], "b": [False, False, True]}
        assert held.take(rows, ["i"])["i"].tolist() == [4, None, 1]
        assert list(tmp_path.iterdir()) == []

    def test_types_that_differ(self, tmp_path):
        held = Shelf(tmp_path)
        for cells in (np.array([], dtype=object), np.ma.array([1, 2], mask=[0, 1]), np.array([2.5, np.nan])):
            held.add(Rows({"n": cells, "t": cells}))
        held.add(Rows({"n": np.array([7]), "t": np.array(["x"], dtype=object)}))
        schema = pa.schema([("n", held.type("n")), ("t", held.type("t"))])
        assert held.table(np.arange(5), schema).to_pydict() == {
            "n": [1.0, None, 2.5, None, 7.0], "t": ["1", None, "2.5", None, "x"]}

    def test_types_in_turn_take_no_more_files(self, tmp_path):
        held, expected = Shelf(tmp_path), []
        before = len(os.listdir("/proc/self/fd"))
        for turn in range(200):
            cells = [turn, turn + 1] if turn % 3 else [turn + 0.5]
            held.add(Rows({"n": np.array(cells)}))
            expected += cells
        assert len(os.listdir("/proc/self/fd")) - before <= 6
        assert held.numbers("n").tolist() == expected

    def test_cells_missing_far_down_lie_behind_real_zeros(self, tmp_path):
        # In a hole, not even reading works where the file lies in memory that is full.
        held, rows = Shelf(tmp_path), 5 * shelf.BLOCK
        held.add(Rows({"n": np.zeros(rows, np.int64)}))
        held.add(Rows({"n": np.ma.array([7], mask=[True])}))
        column = held._column("n")
        column.take(np.array([0]))
        sizes = [os.stat(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{number}")]
        (missing,) = [one for one in sizes if one.st_size == rows + 1]
        assert missing.st_blocks * 512 >= rows
        assert held.take(np.array([0, rows]), ["n"])["n"].tolist() == [0, None]

    def test_more_columns_than_files_may_be_open(self, tmp_path):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, limits[1]))
        try:
            held = Shelf(tmp_path)
            held.add(Rows({f"n{number}": np.array(["x", None], dtype=object) for number in range(100)}))
            assert held.texts("n99").to_pylist() == ["x", None]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_without_a_folder_for_temporary_files(self, monkeypatch):
        def none(**keys):
            raise FileNotFoundError(2, "No usable temporary directory found")

        monkeypatch.setattr(shelf.tempfile, "TemporaryFile", none)
        held = Shelf()
        held.add(Rows({"n": np.arange(3)}))
        assert held.numbers("n").tolist() == [0, 1, 2]

    def test_a_full_disk_is_told_once(self, tmp_path):
        script = ("import resource, signal, numpy as np\nfrom catmorph.sources.shelf import Shelf\n"
                  "from catmorph.sources.rows import Rows\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
                  "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\nheld = Shelf()\n"
                  "try:\n    for _ in range(99): held.add(Rows({'n': np.arange(77)}))\n"
                  "except Exception as error: print(error)\n")
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
        assert "cannot be written: File too large" in done.stdout
        assert done.stderr == ""

    def test_nothing_at_all(self, tmp_path):
        held = Shelf(tmp_path)
        held.add(Rows({"t": np.array([], dtype=object), "n": np.array([])}))
        none = np.zeros(0, np.int64)
        assert held.table(none, pa.schema([("t", pa.string()), ("n", pa.float64())])).num_rows == 0
        assert len(held.array(bool)) == 0

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path):
        held = Shelf(tmp_path / "gone")
        with pytest.raises(CatmorphError, match="gone: cannot be written: No such file"):
            held.add(Rows({"n": np.arange(3)}))
        with pytest.raises(CatmorphError, match="gone: cannot be written: No such file"):
            held.array(np.int64, 5)


keys = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**62 - 1)), max_size=50)


@given(keys, st.integers(1, 9))
@example([2**62 - 1] * 20, 3)
def test_rows_by_their_keys(values, block):
    held = Shelf()
    held.add(Rows({"n": np.arange(len(values))}))
    rows = np.arange(len(values))
    parts = [(rows[start : start + block], np.array(values[start : start + block], dtype=np.int64))
             for start in range(0, len(values), block)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "BLOCK", block)
        by_key = Ranked(held, len(values), parts, 62)
        heads = [value >> by_key.lost_bits for value in values]
        in_order = sorted(range(len(values)), key=lambda row: (heads[row], row))
        assert by_key.rows(0, len(values)).tolist() == in_order
        for value in (*values, 0, 2**62 - 1):
            head = value >> by_key.lost_bits << by_key.lost_bits
            assert by_key.place(head) == sum(one < value >> by_key.lost_bits for one in heads)
        assert by_key.place(2**62) == len(values)
        repeated = list(by_key.repeated())
        assert sorted(row for part in repeated for row in part.tolist()) \
            == [row for row, head in enumerate(heads) if heads.count(head) > 1]
        # All rows of a key come together.
        assert sum(len({heads[row] for row in part.tolist()}) for part in repeated) == len(
            {head for head in heads if heads.count(head) > 1})


places = st.one_of(
    st.tuples(st.floats(0, 359.9), st.floats(-90, 90)), st.tuples(st.floats(10, 10.0000001), st.just(-5.0)),
    st.just((200.0, 5.0)),
)


@given(st.lists(places, min_size=1, max_size=60), st.integers(1, 6))
def test_chunks_are_those_of_all_rows_at_once(tmp_path_factory, where, chunk_rows):
    folder = tmp_path_factory.mktemp("chunks")
    ids = [f"{row}" for row in range(len(where))]
    Table({"ID": ids, "RA": [ra for ra, _ in where], "DEC": [dec for _, dec in where]}).write(folder / "cat.ecsv")
    with pytest.MonkeyPatch.context() as patch:
        in_small_pieces(patch)
        sources, _, _ = read_in(folder, f"run.chunk_rows={chunk_rows}", files="cat.ecsv")
    ra, dec = np.array(where).T
    deepest = sky_keys(ra, dec)
    cells = split_keys(deepest, chunk_rows, "o")
    assert sources["cell"].tolist() == [cell.name for cell in cells for _ in cell.rows]
    assert [int(name) for name in sources["id"]] \
        == [row for cell in cells for row in sorted(cell.rows.tolist(), key=lambda row: (deepest[row], row))]


def test_small_fields_and_large_ones(tmp_path, monkeypatch):
    dice = random.Random(5)
    fields = ["large"] * 60 + [f"f{row}" for row in range(30)] + ["pair", "pair"]
    rows = [(f"{row}", dice.uniform(0, 360), dice.uniform(-90, 90), field) for row, field in enumerate(fields)]
    dice.shuffle(rows)
    Table(rows=rows, names=["ID", "RA", "DEC", "F"]).write(tmp_path / "cat.csv")
    sources, _, _ = read_in(tmp_path, "run.chunk_rows=7", field={"column": "F"}, where="whole")
    in_small_pieces(monkeypatch)
    read_in(tmp_path, "run.chunk_rows=7", field={"column": "F"}, where="pieces")
    for product in ("sources.parquet", "plan.parquet"):
        assert (tmp_path / "pieces" / product).read_bytes() == (tmp_path / "whole" / product).read_bytes()
    assert list(dict.fromkeys(sources["field"])) == sorted(set(fields))
    for _, part in sources.groupby("field"):
        cells = split_keys(sky_keys(part["ra"].to_numpy(), part["dec"].to_numpy()), 7, "o")
        assert part["cell"].tolist() == [cell.name for cell in cells for _ in cell.rows]
