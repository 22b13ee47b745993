"""The sky simulator: reproducible bytes, the files it promises, and votes that look like real ones."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from click.testing import CliRunner

pytest.importorskip("galsim")

from catmorph.cli.simulate import simulate
from catmorph.errors import UsageError
from catmorph.simulate import load_spec, simulate_fields, tiny_spec
from catmorph.simulate.population import Source
from catmorph.simulate.render import Renderer, bin_pixels, petrosian_radius
from catmorph.simulate.shapes import draw_components, grid_for
from catmorph.simulate.spec import Votes
from catmorph.simulate.streams import stream
from catmorph.simulate.votes import class_probabilities, probability_columns

CONFIGS = Path(__file__).parent.parent / "configs" / "simulations"
DIRT = {"duplicates": 1, "sentinels": 1, "off_image": 1}
HALF = {"name": "half", "ra": 10.0, "dec": -30.0, "side_pixels": 160, "sources": 5}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two fields, one half covered in one band and compressed, with a dirty catalog."""
    spec = tiny_spec(
        fields=[
            {**HALF, "coverage": {"F435W": [0.0, 0.5, 0.0, 1.0]}},
            {**HALF, "name": "one", "bands": ["F160W"], "rotation_deg": 20.0},
        ],
        dirt=DIRT,
        files={"compression": "rice"},
    )
    return spec, simulate_fields(spec, tmp_path_factory.mktemp("sky") / "out")


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_workers_do_not_change_a_byte(survey, tmp_path):
    spec, done = survey
    again = simulate_fields(spec, tmp_path / "again", workers=2)
    assert digests(again.folder) == digests(done.folder)


def test_another_seed_gives_another_sky(tmp_path):
    spec = tiny_spec(fields=[{**HALF, "sources": 1}])
    one = simulate_fields(spec, tmp_path / "one")
    other = simulate_fields(spec.model_copy(update={"seed": 2}), tmp_path / "other")
    assert set(digests(one.folder)) == set(digests(other.folder))
    assert not set(digests(one.folder).values()) & set(digests(other.folder).values())


def test_a_field_does_not_depend_on_the_others(survey, tmp_path):
    spec, done = survey
    alone = simulate_fields(spec.model_copy(update={"fields": spec.fields[1:]}), tmp_path / "alone")
    name = "mosaics/one_f160w.fits.fz"
    assert digests(alone.folder)[name] == digests(done.folder)[name]


def test_files(survey):
    _, done = survey
    assert sorted(digests(done.folder)) == [
        "catalogs/half.cat",
        "catalogs/one.cat",
        "labels.csv",
        "mosaics/half_f160w.fits.fz",
        "mosaics/half_f435w.fits.fz",
        "mosaics/one_f160w.fits.fz",
        "truth.parquet",
    ]
    assert pd.read_parquet(done.folder / "truth.parquet").equals(done.truth)


def test_mosaic_is_float32_and_blank_where_not_covered(survey):
    _, done = survey
    with fits.open(done.folder / "mosaics" / "half_f435w.fits.fz") as hdus:
        pixels, sigma = hdus[1].data, hdus[1].header["SKYSIGMA"]
    assert pixels.dtype == np.dtype(">f4") or pixels.dtype == np.float32
    assert np.isnan(pixels[:, 80:]).all()
    assert np.isfinite(pixels[:, :80]).all()
    spread = 1.4826 * np.median(np.abs(pixels[:, :80] - np.median(pixels[:, :80])))
    assert spread == pytest.approx(sigma, rel=0.15)
    assert abs(np.median(pixels[:, :80])) < 0.3 * sigma


def test_blank_zero_survives_compression(tmp_path):
    spec = tiny_spec(
        fields=[{**HALF, "sources": 1, "bands": ["F160W"], "coverage": {"F160W": [0.5, 1.0, 0.0, 1.0]}}],
        files={"compression": "rice", "blank": "zero"},
    )
    done = simulate_fields(spec, tmp_path / "out")
    pixels = fits.getdata(done.folder / "mosaics" / "half_f160w.fits.fz", 1)
    assert (pixels[:, :80] == 0).all()


def test_catalog_positions_hit_the_pixels_of_the_truth(survey):
    _, done = survey
    catalog = Table.read(done.folder / "catalogs" / "one.cat", format="ascii.sextractor").to_pandas()
    assert list(catalog) == ["ID", "RA", "DEC", "PETRO_RADIUS", "F160W_MAG", "FLAG"]
    wcs = WCS(fits.getheader(done.folder / "mosaics" / "one_f160w.fits.fz", 1))
    truth = done.truth.query("field == 'one'")
    first = catalog.iloc[: len(truth)]
    x, y = wcs.world_to_pixel_values(first["RA"], first["DEC"])
    np.testing.assert_array_equal(first["ID"], truth["id"])
    np.testing.assert_allclose(x, truth["x"], atol=0.01)
    np.testing.assert_allclose(y, truth["y"], atol=0.01)


def test_catalog_has_the_dirt_of_the_spec(survey):
    _, done = survey
    catalog = Table.read(done.folder / "catalogs" / "half.cat", format="ascii.sextractor").to_pandas()
    assert len(catalog) == 5 + 2
    assert catalog["ID"].duplicated().sum() == 1
    assert (catalog["PETRO_RADIUS"] == -99).sum() == 1
    wcs = WCS(fits.getheader(done.folder / "mosaics" / "half_f160w.fits.fz", 1))
    x, _ = wcs.world_to_pixel_values(catalog["RA"], catalog["DEC"])
    assert (np.asarray(x) > 160).sum() == 1


def test_truth_and_labels_agree(survey):
    spec, done = survey
    truth, labels = done.truth, done.labels
    covered = truth[truth["covered"]]
    np.testing.assert_allclose(covered[probability_columns()].sum(axis=1), 1.0, atol=1e-12)
    assert truth.loc[~truth["covered"], probability_columns()].isna().all(axis=None)
    np.testing.assert_allclose(labels.iloc[:, 1:6].sum(axis=1), 1.0, atol=1e-9)
    counts = labels.iloc[:, 1:6].mul(labels["votes"], axis=0)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    assert labels["votes"].isin(spec.votes.numbers).all()
    ids = covered["field"] + "_" + covered["band"].str.lower() + "_" + covered["id"].astype(str)
    assert set(labels["ID"]) < set(ids)


def test_labels_of_some(tmp_path):
    done = simulate_fields(tiny_spec(votes={"labelled_per_band": 2}), tmp_path / "out")
    bands = done.labels["ID"].str.split("_").str[1]
    assert bands.value_counts().to_dict() == {"f435w": 2, "f160w": 2}
    header = (done.folder / "labels.csv").read_text().splitlines()[0]
    assert header == "ID,p_smooth,p_features,p_irregular,p_point_source,p_unclassifiable,votes"


def seen(**changes):
    clean = {
        "snr": 100.0, "asymmetry": 0.0, "asymmetry_snr": 0.0, "structure": 0.0, "structure_snr": 0.0,
        "elongation": 0.1, "size_ratio": 4.0, "disk_fraction": 0.0, "artefact": 0.0, "contamination": 0.0,
        "uncovered": 0.0, "covered": True,
    }  # fmt: skip
    return pd.DataFrame([clean | changes])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("spheroid", {}),
        ("disk", {"structure": 0.5, "structure_snr": 60.0, "disk_fraction": 0.8}),
        ("disk", {"elongation": 0.8, "disk_fraction": 0.8}),
        ("irregular", {"asymmetry": 0.4, "asymmetry_snr": 50.0}),
        ("point_source", {"size_ratio": 1.0}),
        ("unclassifiable", {"snr": 0.5}),
        ("unclassifiable", {"artefact": 20.0}),
        ("unclassifiable", {"uncovered": 0.6}),
        ("unclassifiable", {"contamination": 6.0}),
    ],
)
def test_what_is_visible_decides(name, changes):
    chances = class_probabilities(seen(**changes), load_spec(CONFIGS / "clash-training.toml").votes)[0]
    assert probability_columns()[int(chances.argmax())] == f"p_{name}"
    assert chances.max() > 0.6


def test_structure_below_the_noise_is_not_seen():
    votes = Votes()
    visible = class_probabilities(seen(structure=0.5, structure_snr=50.0), votes)[0, 1]
    hidden = class_probabilities(seen(structure=0.5, structure_snr=1.0), votes)[0, 1]
    assert hidden < 0.2 < visible


def renderer(**changes):
    source = Source(
        **{"id": 1, "kind": "disk", "magnitude": 21.0, "r50_arcsec": 0.5, "axis_ratio": 0.9, "angle": 0.3}
        | {"colour": 1.0}
        | changes
    )
    grid = grid_for(source, 0.065)
    return Renderer(source, draw_components(source, grid, stream(1, "test")), grid, tiny_spec())


def test_rendered_flux_is_the_magnitude():
    spec = tiny_spec()
    image = renderer(kind="spheroid", sersic_index=3.0).image(spec.band("F160W"))
    assert image.sum() == pytest.approx(10 ** (-0.4 * (21.0 - spec.zero_point)), rel=0.01)


def test_petrosian_radius_of_an_exponential_disk():
    """eta(r) = 0.2 at 3.65 scale lengths, or 2.17 half-light radii, from its definition."""
    image = renderer(r50_arcsec=0.6, axis_ratio=1.0).image(tiny_spec().band("F435W"))
    assert petrosian_radius(bin_pixels(image)) == pytest.approx(2.17 * 0.6 / 0.065, rel=0.06)


def test_a_point_source_is_as_large_as_the_psf_and_old_galaxies_fade_in_the_blue():
    spec = tiny_spec()
    star, galaxy = renderer(kind="point_source", r50_arcsec=0.0), renderer(kind="spheroid", sersic_index=4.0)
    for band in spec.bands:
        look = star.appearance(band, star.image(band))
        assert look.size_ratio == pytest.approx(1.0, abs=1e-3)
    blue, red = (galaxy.appearance(band, galaxy.image(band)) for band in spec.bands)
    assert blue.snr < 0.2 * red.snr


def test_arms_show_as_structure_and_clumps_as_asymmetry():
    band = tiny_spec().band("F160W")
    disk = renderer(arm_strength=0.9, clumps=8)
    smooth = renderer(arm_strength=0.0, clumps=8)
    lumpy = renderer(kind="irregular", clump_fraction=0.7, clumps=5)
    looks = [one.appearance(band, one.image(band)) for one in (disk, smooth, lumpy)]
    assert looks[0].structure > 0.2 > 0.05 > looks[1].structure
    assert looks[2].asymmetry > 0.2 > looks[0].asymmetry


def test_wrong_specs_say_where():
    with pytest.raises(UsageError, match=r"unknown key 'artefacts\.cosmic_ray'; did you mean 'cosmic_rays'\?"):
        tiny_spec(artefacts={"cosmic_ray": 1})
    with pytest.raises(UsageError, match=r"unknown key 'fields\.0\.sid_pixels'; did you mean 'side_pixels'\?"):
        tiny_spec(fields=[{**HALF, "sid_pixels": 3}])
    with pytest.raises(UsageError, match=r"names 'F160X', which is not known; did you mean 'F160W'\?"):
        tiny_spec(reference_band="F160X")


def test_command_writes_and_refuses_a_full_folder(tmp_path):
    runner = CliRunner()
    spec = tmp_path / "spec.toml"
    spec.write_text(
        '[[bands]]\nname = "F160W"\nwavelength_nm = 1540\nfwhm_arcsec = 0.18\ndepth = 27.5\n'
        '[[fields]]\nname = "f"\nra = 1\ndec = 2\nside_pixels = 100\nsources = 1\n'
    )
    arguments = [str(spec), "--out", str(tmp_path / "out"), "--seed", "3"]
    first = runner.invoke(simulate, arguments)
    assert first.exit_code == 0, first.output
    assert "1 fields, 1 stamps, 1 labelled" in first.output
    second = runner.invoke(simulate, arguments)
    assert isinstance(second.exception, UsageError)
    assert "the output folder is not empty" in str(second.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spec.toml"]
    missing = runner.invoke(simulate, [str(tmp_path / "no.toml"), "--out", str(tmp_path / "out2")])
    assert "no.toml: cannot read the spec: No such file or directory" in str(missing.exception)
    nowhere = runner.invoke(simulate, [str(spec), "--out", "/proc/out"])
    assert str(nowhere.exception).startswith("/proc/out: cannot be written: ")


def test_help_has_an_example():
    assert "catmorph simulate configs/simulations/clash-sample.toml" in CliRunner().invoke(simulate, ["--help"]).output


@pytest.mark.parametrize(("name", "fields", "bands"), [("clash-sample", 2, 16), ("clash-training", 67, 16)])
def test_configs_are_valid(name, fields, bands):
    spec = load_spec(CONFIGS / f"{name}.toml")
    assert (len(spec.all_fields()), len(spec.bands)) == (fields, bands)
