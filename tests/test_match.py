"""Cross-matches on the sky: positions, columns, recipes, real catalogs."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from catmorph.check import check_run
from catmorph.cli import cli
from catmorph.errors import CatmorphError
from catmorph.labels.gather import label_tables
from catmorph.pipeline.ingest import run_ingest
from catmorph.recipe import load_recipe, write_recipe
from catmorph.release.layout import build_layout
from catmorph.release.provenance import recipe_without_paths
from catmorph.schemes import load_scheme
from catmorph.sources.inputs import ingest_parts, ingest_state
from catmorph.sources.sky_match import match_sky
from catmorph.workspace import RunFolder

ARCSEC = 1 / 3600


def sky(*offsets, ra=50.0, dec=40.0):
    """Positions at these offsets (arcsec) in declination."""
    return np.full(len(offsets), ra), dec + np.array(offsets, dtype=float) * ARCSEC


def test_each_row_has_its_nearest_or_what_is_left_of_it():
    first, second = sky(0.0, 1.0, 10.0, np.nan), sky(0.7, 30.0, 1.6)
    single = match_sky(first, second, 2.0)
    # The second is 0.3 from 0.7, and takes it; the first, for which it is the nearest too, gets the next.
    assert single.rows.tolist() == [2, 0, -1, -1]
    np.testing.assert_allclose(single.separation_arcsec[:2], [1.6, 0.3], atol=1e-6)
    assert single.within.tolist() == [2, 2, 0, 0]
    assert (single.contested.tolist(), single.shared) == ([False] * 4, 0)
    shared = match_sky(first, second, 2.0, one_to_one=False)
    assert (shared.rows.tolist(), shared.shared) == ([0, 0, -1, -1], 1)
    narrow = match_sky(first, second, 1.0)
    assert (narrow.rows.tolist(), narrow.contested.tolist()) == ([-1, 0, -1, -1], [True, False, False, False])
    # Rows of one source may share a row.
    alike = match_sky(first, second, 1.0, same=np.array([7, 7, 8, 9]))
    assert (alike.rows.tolist(), alike.shared) == ([0, 0, -1, -1], 0)


def test_matches_across_the_meridian_and_at_a_pole():
    first = np.array([359.99995, 10.0]), np.array([0.0, 89.9999])
    second = np.array([0.00005, 190.0]), np.array([0.0, 89.9999])
    found = match_sky(first, second, 1.0)
    assert found.rows.tolist() == [0, 1]
    np.testing.assert_allclose(found.separation_arcsec, [0.36, 0.72], rtol=1e-6)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=12),
       st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=12), st.floats(0.5, 5))  # fmt: skip
def test_one_to_one_pairs_are_the_closest_ones(first, second, radius):
    def positions(offsets):
        x, y = np.array(offsets).T * ARCSEC
        return 20.0 + x / np.cos(np.radians(-35.0)), -35.0 + y

    one, two = positions(first), positions(second)
    found = match_sky(one, two, radius)
    angles = SkyCoord(*one, unit=u.deg)[:, None].separation(SkyCoord(*two, unit=u.deg)[None, :]).arcsec
    taken = found.rows[found.rows >= 0]
    assert len(set(taken.tolist())) == len(taken)
    matched = np.flatnonzero(found.rows >= 0)
    np.testing.assert_allclose(found.separation_arcsec[matched], angles[matched, taken], atol=1e-6)
    assert (angles[matched, taken] <= radius + 1e-6).all()
    # No two rows could both be closer together than with what they have.
    have = np.where(found.rows >= 0, found.separation_arcsec, np.inf)
    owner = np.full(len(second), np.inf)
    owner[taken] = found.separation_arcsec[matched]
    better = (angles < have[:, None] - 1e-6) & (angles < owner[None, :] - 1e-6) & (angles < radius - 1e-6)
    assert not better.any()


CATALOG = "ID,ra,dec,r\n1,50,40,15\n2,50,40.01,16\n3,50,40.02,17\n4,50,40.03,18\n5,,40,19\n"
RECIPE = """\
name = "x"
scheme = "perseus"
[catalog]
files = "cat.csv"
field = { value = "core" }
id = "ID"
ra = "ra"
dec = "dec"
magnitude = "r"
cuts = "missing(spec_z) or spec_z > 0"
[bands]
names = ["g", "r"]
[stamp]
side = "20 pixels"
[mosaics]
pattern = "{field}_{band}.fits"
[[catalog.match]]
files = "spectra.fits"
ra = "RA"
dec = "DE"
prefix = "spec_"
columns = ["z", "quality", "name", "sure"]
radius_arcsec = 2
"""


@pytest.fixture
def survey(tmp_path):
    """Four sources, of which one has no spectrum, one two, and one a spectrum of which the redshift is negative."""
    (tmp_path / "cat.csv").write_text(CATALOG)
    (tmp_path / "x.toml").write_text(RECIPE)
    rows = [(50.0, 40 + ARCSEC, 0.02, 3, "a", True), (50.0, 40 - 0.5 * ARCSEC, 0.05, 4, "b", False),
            (50.0, 40.02, -1.0, 1, "c", True), (50.0, 40.03 + 1.5 * ARCSEC, np.nan, 2, "", True),
            (np.nan, 40.0, 0.1, 9, "e", True), (51.0, 41.0, 0.3, 9, "f", True)]  # fmt: skip
    table = Table(rows=rows, names=["RA", "DE", "z", "quality", "name", "sure"])
    table["z"].unit = "km/s"
    table.write(tmp_path / "spectra.fits")
    return tmp_path


def made(folder, *overrides):
    run = RunFolder(folder / "run", load_recipe(folder / "x.toml", overrides))
    return run, run_ingest(run)


def test_matched_columns_are_cut_kept_and_told(survey):
    run, report = made(survey)
    columns = pq.ParquetFile(run.sources_path()).read().sort_by("id").to_pydict()
    assert columns["id"] == ["1", "2", "4"]
    assert columns["spec_name"] == ["b", None, None]
    assert columns["spec_z"][0] == 0.05
    assert columns["spec_quality"] == [4, None, 2]
    assert columns["spec_sure"] == [False, None, True]
    assert columns["spec_separation_arcsec"][::2] == pytest.approx([0.5, 1.5], abs=1e-6)
    schema = pq.ParquetFile(run.sources_path()).schema_arrow
    assert (str(schema.field("spec_quality").type), schema.field("spec_z").metadata) == ("int64", {b"unit": b"km / s"})
    rejected = pq.ParquetFile(run.rejected_path()).read().to_pandas()
    assert rejected.set_index("id")["reason"].to_dict() == {
        "3": "cut: missing(spec_z) or spec_z > 0", "5": "ra is missing"
    }
    assert report.counts == {"rows read": 5, "rejected": 2, "sources": 3, "matched with spectra.fits": 3}
    assert report.warnings == [
        "match with spectra.fits: 1 sources have several rows of it within the radius: they took the nearest that was "
        "left",
        "match with spectra.fits: 1 rows have no position",
    ]
    released = ["classifiers.net.checkpoint=net.safetensors", 'release.columns=[{name="Z", source="spec_z"}]']
    build_layout(load_recipe(survey / "x.toml", released), None)


def test_a_release_names_the_other_catalog_without_its_folder(survey):
    recipe = load_recipe(survey / "x.toml")
    assert recipe.catalog.match[0].files == (str(survey / "spectra.fits"),)
    assert recipe_without_paths(recipe)["catalog"]["match"][0]["files"] == ["spectra.fits"]
    (survey / "again.toml").write_text(write_recipe(recipe))
    assert load_recipe(survey / "again.toml") == recipe


def test_matched_redshifts_label_sources(survey):
    rules = 'labels.rules={member="0.01 < spec_z and spec_z < 0.033", background="spec_z > 0.033"}'
    run, _ = made(survey, rules)
    (table,) = label_tables(run, load_scheme("perseus"))
    assert (table.names, table.fractions.tolist()) == (("core/1",), [[1, 0]])


def test_a_changed_file_makes_the_sources_stale(survey):
    run, _ = made(survey)
    assert ingest_state(run).done
    table = Table.read(survey / "spectra.fits")
    table["z"][1] = 0.06
    table.write(survey / "spectra.fits", overwrite=True)
    os.utime(survey / "spectra.fits", (1, 1))
    again = RunFolder(survey / "run", load_recipe(survey / "x.toml"))
    assert ingest_state(again).why == "match 1 1 spectra.fits changed"
    found = CliRunner().invoke(cli, ["status", "-r", str(survey / "x.toml"), "-w", str(survey / "run")])
    assert "match 1 1 spectra.fits changed" in found.stdout + found.stderr
    _, report = made(survey)
    assert report.made == 1
    assert pq.ParquetFile(run.sources_path()).read()["spec_z"].to_pylist()[0] == 0.06


def test_a_recipe_without_a_match_keeps_its_fingerprint(survey):
    text = RECIPE[: RECIPE.index("[[catalog.match]]")].replace('cuts = "missing(spec_z) or spec_z > 0"\n', "")
    (survey / "x.toml").write_text(text)
    parts = ingest_parts(RunFolder(survey / "run", load_recipe(survey / "x.toml")))
    assert "match" not in parts.values["[catalog]"]
    assert not [key for key in parts.values if key.startswith("match")]


def test_matches_count_over_all_files_of_the_catalog(survey):
    # Both files are one catalog: a spectrum goes to the nearer source, wherever it is listed.
    (survey / "cat2.csv").write_text("ID,ra,dec,r\n1,50,40.0001,15\n9,50,40.05,15\n")
    both = f'catalog.files=["{survey}/cat.csv", "{survey}/cat2.csv"]'
    _, single = made(survey, both, "catalog.duplicates=first")
    # Rows 1 of both files are one source, and may share a spectrum.
    assert single.counts["matched with spectra.fits"] == 4
    text = (survey / "cat2.csv").read_text().replace("\n1,", "\n8,")
    (survey / "cat2.csv").write_text(text)
    run, other = made(survey, both)
    rows = pq.ParquetFile(run.sources_path()).read().to_pandas().set_index("id")
    assert rows.loc[["1", "8"], "spec_name"].tolist() == ["b", "a"]
    assert other.counts["matched with spectra.fits"] == 4


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"spectra.fits"', '"nowhere.fits"', "nowhere.fits: no such catalog file"),
    ('ra = "RA"', 'ra = "RAA"', "spectra.fits: no column 'RAA' for catalog.match.ra; did you mean 'RA'?"),
    ('"quality"', '"qualty"', "spectra.fits: no column 'qualty' for catalog.match.columns; did you mean 'quality'?"),
    ('dec = "DE"', 'dec = "name"', "none of 6 rows has a position; check ra, dec and their units in [[catalog.match]]"),
    ('prefix = "spec_"', 'prefix = "9"', "catalog.match.0.prefix: must be letters, digits and '_'"),
    ('prefix = "spec_"\ncolumns = ["z",', 'columns = ["RA", "magnitude",',
     "catalog.match: the sources would have two columns 'magnitude'; set a prefix"),
    ("radius_arcsec = 2", "radius_arcsec = 0", "catalog.match.0.radius_arcsec: Input should be greater than 0"),
    ("radius_arcsec = 2", "radius = 2", "catalog.match.0.radius: unknown key, did you mean 'radius_arcsec'?"),
    ('ra = "RA"', 'ra = { column = "RA", unit = "parsec" }', "catalog.match.0.ra.unit: unknown unit 'parsec'"),
    ('columns = ["z", ', 'columns = ["z", "z", ', "catalog.match: the sources would have two columns 'spec_z'"),
    ("missing(spec_z) or spec_z > 0", "spec_zz > 0", "names unknown column 'spec_zz'; did you mean 'spec_z'?"),
])  # fmt: skip
def test_wrong_matches_say_what_is_wrong(survey, old, new, message):
    assert old in RECIPE
    (survey / "x.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(CatmorphError) as caught:
        made(survey)
    assert message in str(caught.value)


def test_a_matched_column_may_not_hide_one_of_the_survey(survey):
    (survey / "cat.csv").write_text(CATALOG.replace(",r\n", ",spec_z\n"))
    (survey / "x.toml").write_text(RECIPE.replace('magnitude = "r"', 'magnitude = "spec_z"'))
    with pytest.raises(CatmorphError, match=r"^catalog.match: the survey table has a column 'spec_z' of its own; s"):
        made(survey)


def test_check_tells_of_a_match(survey):
    found = check_run(RunFolder(survey / "run", load_recipe(survey / "x.toml")))
    assert "match with spectra.fits: 3 rows of the catalog matched, 1 not" in found.notes
    (survey / "spectra.fits").unlink()
    found = check_run(RunFolder(survey / "run", load_recipe(survey / "x.toml")))
    assert any("spectra.fits: no such catalog file" in problem for problem in found.problems)


def test_real_galaxies_find_themselves_where_they_were_moved_to(real_data, tmp_path):
    evcc = Table.read(real_data / "virgo" / "evcc.fits")
    galaxies = SkyCoord(evcc["ra"], evcc["dec"], unit=u.deg)
    random = np.random.default_rng(1)
    distance = random.uniform(0, 3, len(evcc))
    moved = galaxies.directional_offset_by(random.uniform(0, 360, len(evcc)) * u.deg, distance * u.arcsec)
    order = random.permutation(len(evcc))
    spectra = pd.DataFrame({"RAJ": moved.ra.deg, "DEJ": moved.dec.deg, "cz": np.asarray(evcc["cz_sdss"], float),
                            "of": np.asarray(evcc["id_evcc"]).astype(str)}).iloc[order]  # fmt: skip
    spectra.to_csv(tmp_path / "spectra.csv", index=False)
    (tmp_path / "v.toml").write_text(f"""
name = "virgo"
scheme = "perseus"
[catalog]
files = "{real_data}/virgo/evcc.fits"
field = {{ value = "virgo" }}
id = "id_evcc"
ra = "ra"
dec = "dec"
magnitude = "r"
[[catalog.match]]
files = "spectra.csv"
ra = "RAJ"
dec = "DEJ"
columns = ["cz", "of"]
prefix = "s_"
radius_arcsec = 2
[bands]
names = ["r"]
[stamp]
side = "40 pixels"
[mosaics]
pattern = "{{field}}_{{band}}.fits"
""")
    run = RunFolder(tmp_path / "run", load_recipe(tmp_path / "v.toml"))
    report = run_ingest(run)
    rows = pq.ParquetFile(run.sources_path()).read().to_pandas().set_index("id")
    near = pd.Series(distance, index=np.asarray(evcc["id_evcc"]).astype(str)).loc[rows.index]
    matched = rows["s_of"].notna()
    # No two galaxies of this catalog are closer than 7 arcsec, so that each is found where it was moved by up to 2.
    assert galaxies.match_to_catalog_sky(galaxies, 2)[1].arcsec.min() > 7
    np.testing.assert_array_equal(matched, near <= 2)
    assert (rows["s_of"][matched] == rows.index[matched].astype(int)).all()
    np.testing.assert_allclose(rows["s_separation_arcsec"][matched], near[matched], atol=1e-5)
    assert report.counts["matched with spectra.csv"] == matched.sum()
    assert not [line for line in report.warnings if "several" in line]


def test_the_real_spectra_of_coma_label_their_galaxies(real_data, tmp_path):
    path = real_data / "virgo" / "a1656-spectro.fits"
    spectra = Table.read(path)
    positions = Table({"n": np.arange(len(spectra)), "ra": np.ravel(spectra["ra"]), "dec": np.ravel(spectra["dec"])})
    positions.write(tmp_path / "coma.csv")
    (tmp_path / "c.toml").write_text(f"""
name = "coma"
scheme = "perseus"
[catalog]
files = "coma.csv"
field = {{ value = "coma" }}
id = "n"
ra = "ra"
dec = "dec"
[[catalog.match]]
files = "{path}"
ra = "ra"
dec = "dec"
columns = "z"
prefix = "spec_"
radius_arcsec = 1
[labels.rules]
member = "0.01 < spec_z and spec_z < 0.033"
background = "spec_z > 0.033"
[bands]
names = ["r"]
[stamp]
side = "40 pixels"
[mosaics]
pattern = "{{field}}_{{band}}.fits"
""")
    run = RunFolder(tmp_path / "run", load_recipe(tmp_path / "c.toml"))
    run_ingest(run)
    (table,) = label_tables(run, load_scheme("perseus"))
    z = np.ravel(spectra["z"]).astype(np.float64)
    assert table.fractions.sum(axis=0).tolist() == [(z > 0.033).sum(), ((z > 0.01) & (z < 0.033)).sum()]
    assert sum(one.count for one in table.left_out) == (z <= 0.01).sum()
    assert json.dumps(run.ledger.read(run.sources_path())["matches"][0]["matched"]) == str(len(z))
