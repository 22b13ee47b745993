"""Simulated image files: reproducible bytes, pictures of what the truth says, votes that obey the tree."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catmorph.cli.simulate import simulate
from catmorph.errors import UsageError
from catmorph.schemes import load_scheme
from catmorph.simulate import ImageSpec, load_spec, parse_spec, simulate_images
from catmorph.simulate.images.files import stretch
from catmorph.simulate.images.galaxies import Companion, Galaxy
from catmorph.simulate.images.questions import ANSWERS, QUESTIONS
from catmorph.simulate.images.render import ZERO_POINT, magnitudes, r90_arcsec, see
from catmorph.simulate.images.voters import answer_chances, count_votes, cumulative

CONFIGS = Path(__file__).parent.parent / "configs" / "simulations"
BANDS = [
    {"name": "g", "wavelength_nm": 475.0},
    {"name": "r", "wavelength_nm": 620.0},
    {"name": "i", "wavelength_nm": 760.0},
]
SDSS = {"name": "sdss", "pixel_scale_arcsec": 0.396, "fwhm_arcsec": 1.3, "sky_noise": {"g": 25.9, "r": 25.5, "i": 25.0}}
DES = {"name": "des", "pixel_scale_arcsec": 0.263, "fwhm_arcsec": 0.9, "sky_noise": {"g": 27.5, "r": 27.2, "i": 26.6}}


def spec(**changes):
    table = {
        "sources": 6, "first_id": 41, "bands": BANDS, "surveys": [SDSS, DES], "images": {"side_pixels": 48},
        "populations": [{"mix": {"smooth": 1, "disk": 2, "merger": 1}, "size_arcsec": 2.0}],
        "labels": [
            {"file": "labels/{survey}-bar.csv", "answers": {"bar": "bar_yes"}},
            {"file": "labels/{survey}.csv", "fraction": "cumulative", "answers": {name: name for name in ANSWERS}},
        ],
    }  # fmt: skip
    return parse_spec(ImageSpec, table | changes)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return simulate_images(spec(), tmp_path_factory.mktemp("images") / "out")


def test_files(drawn):
    assert sorted(digests(drawn.folder)) == [
        "catalog.csv", "des.tar", "labels/des-bar.csv", "labels/des.csv", "labels/sdss-bar.csv", "labels/sdss.csv",
        "sdss.tar", "truth.parquet",
    ]  # fmt: skip
    with tarfile.open(drawn.folder / "sdss.tar") as tar:
        assert tar.getnames() == [f"{number}.jpg" for number in range(41, 47)]
        image = Image.open(io.BytesIO(tar.extractfile("41.jpg").read()))
    assert (image.size, image.mode) == ((48, 48), "RGB")
    catalog = pd.read_csv(drawn.folder / "catalog.csv")
    assert list(catalog) == ["id", "ra", "dec", "r90", "z", "mag_g", "mag_r", "mag_i"]
    assert list(catalog["id"]) == list(range(41, 47))


def test_workers_do_not_change_a_byte_and_sources_do_not_depend_on_the_others(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("catmorph.simulate.images.run._SECONDS_AN_IMAGE", 60.0)
    monkeypatch.setattr("catmorph.simulate.images.run.BLOCK", 2)
    again = simulate_images(spec(), tmp_path / "again", workers=2)
    assert digests(again.folder) == digests(drawn.folder)
    fewer = simulate_images(spec(sources=2), tmp_path / "fewer")
    with tarfile.open(fewer.folder / "des.tar") as some, tarfile.open(drawn.folder / "des.tar") as every:
        assert some.extractfile("42.jpg").read() == every.extractfile("42.jpg").read()
    other = simulate_images(spec(sources=2, seed=2), tmp_path / "other")
    with tarfile.open(fewer.folder / "des.tar") as some, tarfile.open(other.folder / "des.tar") as others:
        assert some.extractfile("42.jpg").read() != others.extractfile("42.jpg").read()


def test_labels_are_fractions_of_the_votes_and_obey_the_tree(drawn):
    truth = drawn.truth[drawn.truth["survey"] == "des"].set_index("id")
    labels = pd.read_csv(drawn.folder / "labels" / "des.csv", index_col="ID")
    for question in QUESTIONS:
        sums = labels[list(question.answers)].sum(axis=1)
        parent = 1.0 if question.parent is None else labels[question.parent]
        np.testing.assert_allclose(sums, parent, atol=5e-6)
    assert labels["votes"].between(35, 55).all()
    bars = pd.read_csv(drawn.folder / "labels" / "des-bar.csv", index_col="ID")
    asked = truth["n_bar_yes"] + truth["n_bar_no"]
    assert list(bars.index) == list(asked.index[asked > 0])
    np.testing.assert_allclose(bars["bar"], (truth["n_bar_yes"] / asked)[asked > 0], atol=1e-6)
    np.testing.assert_array_equal(bars["votes"], asked[asked > 0])


def galaxy(**changes):
    return Galaxy(**{
        "number": 1, "population": "galaxies", "kind": "smooth", "magnitude": 15.5, "redshift": 0.05, "r50_arcsec": 4.0,
        "axis_ratio": 0.9, "angle": 0.4, "redness": 1.0, "sersic_index": 2.0,
    } | changes)  # fmt: skip


def disk(**changes):
    return galaxy(**{"kind": "disk", "sersic_index": 1.0, "bulge_fraction": 0.2} | changes)


ARMS = {"arms": 2, "arm_strength": 1.0, "pitch_deg": 19.0}
PAIR = Companion(distance=2.0, angle=1.0, flux=0.8, size=0.8, axis_ratio=0.8, turn=0.0)


def answers(source, survey=0):
    what = spec(neighbours=0)
    look = see(source, r90_arcsec(source, what), what.surveys[survey], what)
    return answer_chances(source, look, what.surveys[survey].fwhm_arcsec)


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ("smooth", galaxy()),
        ("round_completely", galaxy(axis_ratio=0.97)),
        ("round_between", galaxy(axis_ratio=0.65)),
        ("round_cigar", galaxy(axis_ratio=0.25)),
        ("features", disk(**ARMS)),
        ("spiral_yes", disk(**ARMS)),
        ("winding_tight", disk(**ARMS | {"pitch_deg": 9.0})),
        ("winding_loose", disk(**ARMS | {"pitch_deg": 35.0})),
        ("arms_2", disk(**ARMS)),
        ("arms_3", disk(**ARMS | {"arms": 3, "pitch_deg": 30.0})),
        ("spiral_no", disk()),
        ("bar_yes", disk(bar_fraction=0.2)),
        ("bar_no", disk(**ARMS)),
        ("edge_on_yes", disk(axis_ratio=0.13)),
        ("edge_on_no", disk(axis_ratio=0.8)),
        ("edge_bulge_none", disk(axis_ratio=0.13, bulge_fraction=0.02)),
        ("edge_bulge_boxy", disk(axis_ratio=0.13, bulge_fraction=0.3, boxiness=4.0)),
        ("bulge_none", disk(bulge_fraction=0.0)),
        ("bulge_obvious", disk(bulge_fraction=0.38)),
        ("odd_no", galaxy()),
        ("ring", disk(ring_fraction=0.3)),
        ("merger", galaxy(kind="merger", companion=PAIR, tail_fraction=0.25)),
        ("disturbed", disk(kind="disturbed", tail_fraction=0.3)),
        ("irregular", galaxy(kind="irregular", sersic_index=1.0, clump_fraction=0.6)),
        ("lens", galaxy(kind="lens", arc_fraction=0.2)),
        ("dust_lane", disk(axis_ratio=0.13, dust_depth=1.5)),
        ("artifact", galaxy(kind="star", r50_arcsec=0.0)),
    ],
)
def test_what_is_drawn_is_what_most_voters_answer(answer, source):
    chances = answers(source)
    question = next(one for one in QUESTIONS if answer in one.answers)
    assert max(question.answers, key=chances.get) == answer
    assert sum(chances[one] for one in question.answers) == pytest.approx(1.0)


def test_arms_and_bars_wash_out_in_the_wider_seeing():
    small = disk(**ARMS, bar_fraction=0.15, r50_arcsec=1.5, magnitude=17.0)
    wide, sharp = answers(small, survey=0), answers(small, survey=1)
    assert sharp["spiral_yes"] > 0.7 > 0.3 > wide["spiral_yes"]
    for answer in ("features", "bar_yes"):
        assert sharp[answer] > wide[answer] + 0.03


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 60))
def test_votes_and_chances_obey_the_tree(seed, number):
    rng = np.random.default_rng(seed)
    chances = {}
    for question in QUESTIONS:
        chances |= zip(question.answers, rng.dirichlet(np.full(len(question.answers), 0.3)), strict=True)
    votes, grown = count_votes(chances, number, rng), cumulative(chances)
    for question in QUESTIONS:
        asked = number if question.parent is None else votes[question.parent]
        assert sum(votes[one] for one in question.answers) == asked
        parent = 1.0 if question.parent is None else grown[question.parent]
        assert sum(grown[one] for one in question.answers) == pytest.approx(parent)


def test_pixels_hold_the_magnitude_at_any_pixel_scale_and_are_centred(tmp_path):
    what = spec(images={"side_pixels": 64, "format": "fits", "container": "folder"}, neighbours=0)
    source = galaxy(axis_ratio=1.0)
    r90 = r90_arcsec(source, what)
    for survey in what.surveys:
        planes = see(source, r90, survey, what).planes
        assert planes.shape == (3, 64, 64)
        pixel = 10.0 * r90 / 64
        for plane, band in zip(planes, what.planes, strict=True):
            wanted = 10 ** (-0.4 * (magnitudes(source, what)[band] - ZERO_POINT))
            assert plane.sum() * pixel**2 == pytest.approx(wanted, rel=0.04)
        line = np.arange(64) - 31.5
        light = planes.sum(axis=0)[22:42, 22:42]
        for axis in (0, 1):
            assert light.sum(axis=axis) @ line[22:42] / light.sum() == pytest.approx(0.0, abs=0.15)


def test_r90_holds_nine_tenths_of_an_exponential_disk():
    """R90 of an exponential disk is 2.32 half-light radii (3.89 scale lengths), here with the seeing in quadrature."""
    what = spec()
    source = disk(bulge_fraction=0.0, axis_ratio=1.0)
    assert r90_arcsec(source, what) == pytest.approx(np.hypot(2.32 * 4.0, 0.7 * 1.3), rel=0.05)


def test_fits_cubes_png_and_faults(tmp_path):
    files = {"side_pixels": 32, "format": "fits", "container": "folder", "planes": ["g", "i"]}
    done = simulate_images(spec(sources=4, surveys=[DES], images=files, labels=[],
                                dirt={"truncated": 1, "grey": 1, "missing": 1}), tmp_path / "cubes")  # fmt: skip
    assert sorted(path.name for path in (done.folder / "des").iterdir()) == ["41.fits", "43.fits", "44.fits"]
    cube = fits.getdata(done.folder / "des" / "41.fits")
    assert (cube.shape, cube.dtype.kind) == ((2, 32, 32), "f")
    assert fits.getheader(done.folder / "des" / "41.fits")["PLANES"] == "g,i"
    assert fits.getdata(done.folder / "des" / "43.fits").shape == (1, 32, 32)
    assert list(done.truth["fault"]) == ["", "missing", "grey", "truncated"]
    pictures = simulate_images(spec(sources=3, surveys=[DES], labels=[], dirt={"truncated": 1, "grey": 1},
                                    images={"side_pixels": 32, "format": "png", "container": "folder"}),
                               tmp_path / "png")  # fmt: skip
    with Image.open(pictures.folder / "des" / "42.png") as grey:
        assert grey.mode == "L"
    with Image.open(pictures.folder / "des" / "43.png") as cut, pytest.raises(OSError, match="truncated"):
        cut.load()


def test_the_stretch_keeps_colours_and_puts_the_north_up():
    images = spec().images
    planes = np.zeros((3, 4, 4), dtype=np.float32)
    planes[:, 3, 0] = [20.0, 10.0, 5.0]
    picture = stretch(planes, np.ones(3), images)
    assert (picture[3, 0] == round(255 * images.black)).all()
    red, green, blue = (picture[0, 0] / 255 - images.black) / (1 - images.black)
    assert (red / green, green / blue) == pytest.approx((2.0, 2.0), rel=0.05)
    planes[:, 3, 0] = 1e6
    assert (stretch(planes, np.ones(3), images)[0, 0] == 255).all()


def test_wrong_specs_say_where():
    with pytest.raises(UsageError, match=r"unknown key 'populations\.0\.bar'; did you mean 'bars'\?"):
        spec(populations=[{"mix": {"disk": 1}, "bar": 0.5}])
    with pytest.raises(UsageError, match=r"mix names 'disc', which is not known; did you mean 'disk'\?"):
        spec(populations=[{"mix": {"disc": 1}}])
    with pytest.raises(UsageError, match="sky_noise has no band 'i'"):
        spec(surveys=[DES | {"sky_noise": {"g": 27.0, "r": 27.0}}])
    with pytest.raises(UsageError, match="answers of one question alone"):
        spec(labels=[{"file": "{survey}.csv", "answers": {"a": "bar_yes", "b": "odd_yes"}}])
    with pytest.raises(UsageError, match="plain name"):
        spec(labels=[{"file": "../{survey}.csv", "answers": {"a": "bar_yes"}}])
    with pytest.raises(UsageError, match=r"labels\.file needs \{survey\}"):
        spec(labels=[{"file": "one.csv", "answers": {"a": "bar_yes"}}])
    with pytest.raises(UsageError, match="three planes, not 2"):
        spec(images={"planes": ["g", "r"]})


def test_command(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text(
        'sources = 2\n[[bands]]\nname = "r"\nwavelength_nm = 620\n[[surveys]]\nname = "one"\n'
        "pixel_scale_arcsec = 0.4\nfwhm_arcsec = 1.2\nsky_noise = { r = 25 }\n[images]\nside_pixels = 32\n"
        'format = "fits"\n[[populations]]\nmix = { smooth = 1 }\n'
    )
    done = CliRunner().invoke(simulate, [str(file), "--out", str(tmp_path / "out"), "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert "2 sources, 2 images" in done.output
    again = CliRunner().invoke(simulate, [str(file), "--out", str(tmp_path / "out")])
    assert "the output folder is not empty" in str(again.exception)


@pytest.mark.parametrize("name", ["gz2-sample", "gz2-training", "des-sample", "des-training"])
def test_configs_are_valid(name):
    loaded = load_spec(CONFIGS / f"{name}.toml")
    assert isinstance(loaded, ImageSpec)
    if name.startswith("gz2"):
        scheme = load_scheme("gz2")
        assert loaded.labels[0].answers == {one.label: one.name for one in scheme.classes}


def test_a_survey_sees_its_part_of_the_sources():
    survey = replace_survey(first=3, sources=2)
    assert [number for number in range(1, 8) if survey.sees(number)] == [3, 4]
    assert [number for number in range(1, 8) if replace_survey(first=5).sees(number)] == [5, 6, 7]


def replace_survey(**changes):
    return spec(surveys=[DES | changes], labels=[]).surveys[0]


def test_a_dust_lane_dims_and_reddens():
    what = spec(neighbours=0)
    clean = disk(axis_ratio=0.13)
    dusty = replace(clean, dust_depth=1.5)
    r90 = r90_arcsec(clean, what)
    fluxes = [see(one, r90, what.surveys[1], what).planes.sum(axis=(1, 2)) for one in (clean, dusty)]
    passed = fluxes[1] / fluxes[0]
    assert (passed < 0.95).all()
    assert passed[0] < passed[1] < passed[2]  # g, r, i: dust reddens
