"""Real survey tables, through the environment variable CATMORPH_REAL_DATA."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from catalogs import read_in


def account(counts, rejected, read):
    assert counts["read"] == read == counts["sources"] + counts["rejected"]
    assert len(rejected) == counts["rejected"]


def test_wise_every_row_is_accounted_for(real_data, tmp_path):
    path = real_data / "wise" / "w5_wise.tbl"
    sources, rejected, counts = read_in(
        tmp_path, files=str(path), id="designation", ra="ra", dec="dec", magnitude="w1mpro",
        cuts="magnitude < 12 and w1snr > 10", field={"value": "w5"}, keep=["w1snr", "w2mpro"], duplicates="first",
    )
    account(counts, rejected, 6387)
    assert set(rejected["kind"]) == {"cut"}
    table = Table.read(path, format="ascii.ipac")
    passing = np.ma.filled((table["w1mpro"] < 12) & (table["w1snr"] > 10), False)
    assert counts["sources"] == np.count_nonzero(passing) > 100
    by_row = sources.sort_values("row")
    assert by_row["row"].tolist() == (np.flatnonzero(passing) + 1).tolist()
    np.testing.assert_array_equal(by_row["ra"], table["ra"][passing])
    np.testing.assert_array_equal(by_row["w2mpro"], np.ma.filled(table["w2mpro"][passing].astype(float), np.nan))
    assert pq.read_schema(tmp_path / "run" / "sources.parquet").field("w2mpro").metadata == {b"unit": b"mag"}


def test_wise_sexagesimal_positions_agree_with_the_degrees(real_data, tmp_path):
    sources, _, _ = read_in(
        tmp_path, files=str(real_data / "wise" / "w5_wise.tbl"), id="designation",
        ra={"column": "clon", "unit": "sexagesimal"}, dec={"column": "clat", "unit": "sexagesimal"},
    )
    table = Table.read(real_data / "wise" / "w5_wise.tbl", format="ascii.ipac")
    row = sources["row"].to_numpy() - 1
    assert len(row) == 6387
    assert np.abs(sources["ra"] - table["ra"][row]).max() * 3600 < 0.08  # clon has 0.01 s, 0.15 arcsec
    assert np.abs(sources["dec"] - table["dec"][row]).max() * 3600 < 0.006


def test_legus_by_column_numbers(real_data, tmp_path):
    path = next((real_data / "legus").glob("*.tab"))
    sources, rejected, counts = read_in(
        tmp_path, files=str(path), id=1, ra=4, dec=5, magnitude={"column": 10, "null": 99.999},
        field={"value": "ngc1566"}, keep=["col34", "col2"],
    )
    account(counts, rejected, 2752)
    assert counts["sources"] == 2752
    table = pd.read_csv(path, sep=r"\s+", header=None)
    assert sources["col34"].value_counts().to_dict() == table[33].value_counts().to_dict()
    by_row = sources.sort_values("row")
    assert by_row["id"].tolist() == table[0].astype(str).tolist()
    np.testing.assert_allclose(by_row["ra"], table[3], rtol=0, atol=0)
    classified, _, counts = read_in(
        tmp_path, files=str(path), id=1, ra=4, dec=5, field={"value": "ngc1566"}, where="cut",
        cuts="col34 in [1, 2, 3, 4]",
    )
    assert len(classified) == counts["sources"] == int(table[33].isin([1, 2, 3, 4]).sum())


def test_virgo_keeps_ids_units_and_missing_values(real_data, tmp_path):
    path = real_data / "virgo" / "evcc.fits"
    keep = ["cz_sdss", "morph_pri", "ngc", "r_kron"]
    sources, rejected, counts = read_in(
        tmp_path, files=str(path), id="id_evcc", ra="ra", dec="dec", size={"column": "r_50", "unit": "arcsec"},
        magnitude="r", field={"value": "virgo"}, keep=keep, null="-",
    )
    account(counts, rejected, 1589)
    assert counts["sources"] == 1589
    table = Table.read(path)
    by_row = sources.sort_values("row")
    assert by_row["id"].tolist() == [str(one).strip() for one in table["id_evcc"]]
    assert "0003" in set(by_row["id"])
    np.testing.assert_array_equal(by_row["cz_sdss"], table["cz_sdss"].filled(np.nan))
    radius = table["r_50"].astype(float)
    np.testing.assert_array_equal(by_row["size_arcsec"], np.where(radius > 0, radius, np.nan))
    ngc = [None if str(one).strip() == "-" else str(one).strip() for one in table["ngc"]]
    assert by_row["ngc"].astype(object).where(by_row["ngc"].notna(), None).tolist() == ngc


def test_virgo_units_of_the_file(real_data, tmp_path):
    table = Table.read(real_data / "virgo" / "evcc.fits")
    units = {name: table[name].unit for name in table.colnames if table[name].unit}
    read_in(tmp_path, files=str(real_data / "virgo" / "evcc.fits"), id="id_evcc", ra="ra", dec="dec",
            keep=[name for name in table.colnames if name not in ("ra", "dec")])
    schema = pq.read_schema(tmp_path / "run" / "sources.parquet")
    kept = {field.name: field.metadata[b"unit"].decode() for field in schema if field.metadata}
    own = {"ra": "deg", "dec": "deg", "size_arcsec": "arcsec", "magnitude": "mag"}
    assert kept == {**own, **{name: str(unit) for name, unit in units.items() if name not in own}}


def test_coma_has_one_value_a_row_in_an_axis_of_its_own(real_data, tmp_path):
    _, rejected, counts = read_in(
        tmp_path, files=str(real_data / "virgo" / "a1656-spectro.fits"), id="ra", ra="ra", dec="dec",
        keep=["z", "clazz"], cuts="z > 0.01 and z < 0.04 and clazz == 'G'", duplicates="first",
    )
    account(counts, rejected, 1068)
    table = Table.read(real_data / "virgo" / "a1656-spectro.fits")
    z, kind = np.asarray(table["z"])[:, 0], np.char.strip(np.ma.filled(table["clazz"], b"").astype("U8"))
    passing = (z > 0.01) & (z < 0.04) & (kind == "G")
    duplicates = np.count_nonzero(rejected["kind"] == "duplicate")
    assert counts["sources"] + duplicates == np.count_nonzero(passing) > 0


def test_xdf(real_data, tmp_path):
    sources, rejected, counts = read_in(
        tmp_path, files=str(real_data / "xdf" / "xdf_catalog.fits"), magnitude="MAG_F775W", pixel_scale=0.03,
        size={"column": "A_IMAGE_03", "unit": "pixels"}, field={"value": "xdf"},
    )
    account(counts, rejected, 203)
    table = Table.read(real_data / "xdf" / "xdf_catalog.fits")
    by_row = sources.sort_values("row")
    np.testing.assert_allclose(by_row["size_arcsec"], table["A_IMAGE_03"].astype(float) * 0.03, rtol=1e-12)
    assert by_row["id"].tolist() == [str(one) for one in table["ID"]]
    finite = np.isfinite(np.ma.filled(table["MAG_F775W"].astype(float), np.nan))
    assert by_row["magnitude"].notna().tolist() == finite.tolist()


def test_viking(real_data, tmp_path):
    sources, rejected, counts = read_in(
        tmp_path, files=str(real_data / "viking" / "profound.tab"), id="segID", ra="RAcen", dec="Deccen",
        magnitude="mag", size={"column": "R90", "unit": "arcsec"}, field={"value": "viking"},
        keep=["xcen", "ycen"],
    )
    account(counts, rejected, 97)
    assert counts["sources"] == 97
    lines = (real_data / "viking" / "profound.tab").read_text().splitlines()
    names = lines[0].replace('"', "").split()
    by_row = sources.sort_values("row").reset_index(drop=True)
    for row in (0, 50, 96):
        cells = dict(zip(names, lines[row + 1].replace('"', "").split()[1:], strict=True))
        assert by_row["id"][row] == cells["segID"]
        for name, key in (("ra", "RAcen"), ("dec", "Deccen"), ("size_arcsec", "R90"), ("xcen", "xcen")):
            assert by_row[name][row] == pytest.approx(float(cells[key]), rel=1e-15)


def test_legus_takes_the_galaxy_from_the_file_name(real_data, tmp_path):
    sources, _, _ = read_in(
        tmp_path, files=str(real_data / "legus" / "*.tab"), id=1, ra=4, dec=5,
        field={"pattern": "hlsp_legus_hst_*_{field}_multiband_v1_padagb-mwext-avgapcor.tab"},
    )
    assert set(sources["field"]) == {"ngc1566"}
