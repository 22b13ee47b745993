"""Simulated surveys whose kinds of sources the spec describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table

from catmorph.errors import ProblemsError
from catmorph.simulate import load_spec, simulate_fields, tiny_spec

CONFIGS = Path(__file__).parents[1] / "configs" / "simulations"
ROUND = {"weight": 1.0, "answer": "1", "redshift": [0.01, 0.03], "parts": [{"colour": "red", "r50_arcsec": [0.2, 0.3]}]}
GROUP = {"weight": 1.0, "answer": "2", "parts": [
    {"profile": "point", "number": [3, 5], "spread_arcsec": [0.3, 0.5], "share": [0.8, 0.8], "colour": "blue"},
    {"colour": "blue", "r50_arcsec": [0.5, 0.6], "share": [0.2, 0.2]},
]}
STAR = {"weight": 0.7, "flag": 4, "parts": [{"profile": "point", "colour": "red"}]}
HIDDEN = {"weight": 0.7, "listed": False, "magnitude": [22.5, 23.0], "parts": [{"profile": "point", "colour": "blue"}]}
COLOURS = {"red": {"F435W": 2.0, "F160W": 0.0}, "blue": {"F435W": -0.5, "F160W": 0.0}}


def spec(**changes):
    table = {
        "kinds": {"round": ROUND, "group": GROUP, "star": STAR, "hidden": HIDDEN}, "colours": COLOURS,
        "fields": [{"name": "a", "ra": 10.0, "dec": 2.0, "side_pixels": 420, "sources": 60, "bands": ["F160W"]}],
        "population": {"magnitude_faint": 22.0},
        "experts": {"number": 3, "agreement": 0.9, "spectra": 0.5},
        "artefacts": {"cosmic_rays": 0, "satellite_trails": 0, "saturated_stars": 0, "hot_pixels": 0},
    }
    return tiny_spec(**(table | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_fields(spec(), tmp_path_factory.mktemp("kinds") / "out")


def of_kind(made, kind: str) -> pd.DataFrame:
    return made.truth[made.truth["kind"] == kind]


def test_the_catalog_lists_what_is_listed(made):
    catalog = Table.read(made.folder / "catalogs" / "a.cat", format="ascii.sextractor").to_pandas()
    listed = made.truth[made.truth["listed"]]
    assert sorted(catalog["ID"]) == sorted(listed["id"])
    assert 0 < len(listed) < len(made.truth) == 60
    rows = catalog.set_index("ID")
    assert (rows.loc[of_kind(made, "star")["id"], "FLAG"] & 4 == 4).all()
    assert (rows.loc[of_kind(made, "round")["id"], "FLAG"] & 4 == 0).all()


def test_photometry_has_the_colours_and_redshifts_the_ranges(made):
    rows = Table.read(made.folder / "catalogs" / "a.cat", format="ascii.sextractor").to_pandas().set_index("ID")
    for kind, colour in (("round", 2.0), ("group", -0.5)):
        one = rows.loc[of_kind(made, kind)["id"]]
        bright = one[one["F160W_MAG"] < 21]
        assert len(bright) > 3
        # The colours of a source are stretched by 5%; photon noise is small at these magnitudes.
        assert np.median(bright["F435W_MAG"] - bright["F160W_MAG"]) == pytest.approx(colour, abs=0.15)
    redshifts = rows.loc[of_kind(made, "round")["id"], "Z_SPEC"]
    assert 0 < redshifts.notna().sum() < len(redshifts)
    assert redshifts.dropna().between(0.01, 0.03).all()
    assert rows.loc[of_kind(made, "group")["id"], "Z_SPEC"].isna().all()


def test_hidden_sources_are_in_the_mosaic(made):
    pixels = fits.getdata(made.folder / "mosaics" / "a_f160w.fits")
    sigma = 1.4826 * np.median(np.abs(pixels - np.median(pixels)))
    for row in of_kind(made, "hidden").itertuples():
        x, y = round(row.x), round(row.y)
        assert pixels[y - 1 : y + 2, x - 1 : x + 2].max() > 10 * sigma


def test_experts_mostly_agree_with_what_was_drawn(made):
    labels = made.labels
    assert list(labels) == ["ID", "expert_1", "expert_2", "expert_3"]
    drawn = {f"a_{row.id}": row[made.truth.columns.get_loc("class") + 1] for row in made.truth.itertuples()}
    assert set(labels["ID"]) == {name for name, answer in drawn.items() if answer}
    right = np.mean([[labels[f"expert_{n}"] == labels["ID"].map(drawn)] for n in (1, 2, 3)])
    # 0.9, and half of the other tenth by chance.
    assert 0.88 < right < 0.99


def test_the_same_spec_gives_the_same_bytes(made, tmp_path):
    again = simulate_fields(spec(), tmp_path / "again")
    files = sorted(path.relative_to(made.folder) for path in made.folder.rglob("*") if path.is_file())
    assert len(files) == 4
    for name in files:
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()


@pytest.mark.parametrize(("changes", "message"), [
    ({"colours": {"red": COLOURS["red"]}}, "kinds.group names colour 'blue', which \\[colours\\] does not have"),
    ({"colours": COLOURS | {"red": {"F435W": 1.0}}}, "colours.red has no value for band 'F160W'"),
    ({"kinds": {"round": ROUND | {"weight": 0.0}}}, "no weight is above 0"),
    ({"kinds": {"round": ROUND | {"redshift": [0.3, 0.1]}}}, "the lower end 0.3 is above the upper one 0.1"),
    ({"kinds": {"round": ROUND | {"parts": []}}}, "kinds.round.parts"),
])
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ProblemsError, match=message):
        spec(**changes)


@pytest.mark.parametrize("name", ["phangs-sample", "phangs-training", "perseus-sample", "perseus-training"])
def test_the_shipped_specs_are_valid(name):
    loaded = load_spec(CONFIGS / f"{name}.toml")
    assert loaded.kinds
    assert {kind.answer for kind in loaded.kinds.values()} >= {"1", "2", "3", "4"}
