"""Stamps as multi-extension FITS files: where the pixels are on the sky, names, restarts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import fitsio
import numpy as np
import pyarrow.parquet as pq
import pytest
import tomli_w
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, Sip
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_files import centroid, draw_sources, tan_wcs

from catmorph.cli import cli
from catmorph.stamps.fits_bytes import header_text, image, primary
from catmorph.stamps.mef_names import clashing, file_stem
from catmorph.stamps.store import open_shard

RA, DEC = 150.0, 41.0
SHAPE = (360, 340)
SIGMA = 0.25
OFFSET = np.array([1.2, -0.8])
"""Arcsec to the east and north from each source to its companion."""
SCALES = {"V": 0.06, "I": 0.04}


def mosaic_wcs(band):
    """V: mirrored, turned by 30 degrees, with a camera's distortion; I: smaller pixels, turned the other way."""
    if band == "I":
        return tan_wcs(RA, DEC, scale=0.04, shape=SHAPE, angle=-75.0)
    wcs = tan_wcs(RA + 1e-4, DEC - 1e-4, scale=0.06, shape=SHAPE, angle=30.0, flip=True)
    wcs.wcs.ctype = "RA---TAN-SIP", "DEC--TAN-SIP"
    terms = np.zeros((3, 3))
    terms[2, 0], terms[0, 2], terms[1, 1] = 8e-6, -5e-6, 6e-6  # those of the ACS camera
    wcs.sip = Sip(terms, terms / 2, None, None, wcs.wcs.crpix)
    return wcs


def beside(ra, dec):
    return ra + OFFSET[0] / 3600 / np.cos(np.deg2rad(dec)), dec + OFFSET[1] / 3600


def survey(folder: Path, ids, *, bands=("V", "I"), field="f", **sections) -> Path:
    """Write a recipe, a table of sources around the middle and a mosaic a band; return the recipe."""
    angle = np.arange(len(ids)) * 2.4
    radius = 2.0 * np.sqrt(np.arange(len(ids)) % 9) / 3
    ra = RA + radius * np.cos(angle) / 3600 / np.cos(np.deg2rad(DEC))
    dec = DEC + radius * np.sin(angle) / 3600
    folder.mkdir(parents=True, exist_ok=True)
    Table({"name": ids, "ra": ra, "dec": dec, "field": [field] * len(ids)}).write(folder / "cat.ecsv", overwrite=True)
    (folder / "m").mkdir(exist_ok=True)
    for band in bands:
        wcs = mosaic_wcs(band)
        places = np.array([ra, dec]) if len(ids) > 3 else np.concatenate([[ra, dec], beside(ra, dec)], axis=1)
        pixels = draw_sources(wcs, SHAPE, *places, SIGMA, SCALES[band])
        pixels += np.random.default_rng(len(band)).normal(0, 1e-5, SHAPE).astype(np.float32)
        header = wcs.to_header(relax=True)
        fits.PrimaryHDU(pixels, header).writeto(folder / "m" / f"f_{band}.fits", overwrite=True)
    recipe = {
        "name": "t", "scheme": "clash",
        "catalog": {"files": "cat.ecsv", "field": {"column": "field"}, "id": "name", "ra": "ra", "dec": "dec"},
        "bands": {"names": ["V", "I"]}, "views": {"VI": ["V", "I"]}, "mosaics": {"pattern": "m/f_{band}.fits"},
        "stamp": {"side": "6 arcsec", "pixels": 60}, "run": {"chunk_rows": 4},
    }
    for name, section in sections.items():
        recipe[name] = {**recipe.get(name, {}), **section}
    path = folder / "t.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def run(recipe: Path, *arguments, status=0):
    command = [*arguments[:1], "-r", str(recipe), "-w", str(recipe.parent / "run"), *arguments[1:]]
    result = CliRunner().invoke(cli, command, prog_name="catmorph")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == status, result.stderr
    assert "internal error" not in result.stderr
    return result


def made(recipe: Path, *arguments):
    run(recipe, "ingest")
    return run(recipe, "cutouts", "--format", "mef", *arguments)


def files(recipe: Path) -> dict[str, bytes]:
    folder = recipe.parent / "run" / "stamps-mef"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- where the pixels are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ["mosaic", "north"])
def test_each_image_gives_back_the_places_on_the_sky(tmp_path, orientation):
    recipe = survey(tmp_path, ["one"], stamp={"orientation": orientation})
    made(recipe)
    ra, dec = Table.read(tmp_path / "cat.ecsv")[0]["ra", "dec"]
    planes = []
    with fits.open(tmp_path / "run/stamps-mef/VI/f/one.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "V", "I"]
        for hdu in hdus[1:]:
            wcs = WCS(hdu.header)
            assert hdu.data.dtype == ">f4"
            np.testing.assert_allclose(wcs.all_world2pix(ra, dec, 0), 29.5, atol=1e-4)
            companion = np.array(wcs.all_world2pix(*beside(ra, dec), 0))
            # The header against the pixels: the companion is where the header says, in each band.
            np.testing.assert_allclose(centroid(hdu.data, companion), companion, atol=0.01)
            np.testing.assert_allclose(centroid(hdu.data, (29.5, 29.5)), 29.5, atol=0.01)
            assert hdu.header["PIXSCALE"] == pytest.approx(0.1, rel=1e-6)
            mosaic = mosaic_wcs(hdu.name)
            x, y = mosaic.all_world2pix(ra, dec, 1)
            assert hdu.header["XMOSAIC"] == pytest.approx(float(x), abs=1e-4)
            assert hdu.header["YMOSAIC"] == pytest.approx(float(y), abs=1e-4)
            assert hdu.header["NATSCALE"] == pytest.approx(SCALES[hdu.name], rel=3e-3)
            assert hdu.header["MOSAIC"] == f"f_{hdu.name}.fits"
            planes.append(centroid(hdu.data, companion))
            if orientation == "north":
                np.testing.assert_allclose(companion - 29.5, OFFSET / 0.1 * [-1, 1], atol=0.01)
            else:
                # The first band's own axes: V is mirrored.
                assert np.linalg.det(wcs.wcs.cd) > 0
                here, there = (np.array(mosaic_wcs("V").all_world2pix(*at, 0)) for at in ((ra, dec), beside(ra, dec)))
                np.testing.assert_allclose(companion - 29.5, 0.6 * (there - here), atol=0.02)
    np.testing.assert_allclose(planes[0], planes[1], atol=0.01)


def test_the_pixels_are_those_of_the_shard(tmp_path):
    recipe = survey(tmp_path, ["a", "b"])
    made(recipe)
    (shard_path,) = (tmp_path / "run/stamps/VI").glob("*.h5")
    with open_shard(shard_path) as shard:
        for row, name in enumerate(shard.ids):
            with fits.open(tmp_path / f"run/stamps-mef/VI/f/{name}.fits") as hdus:
                np.testing.assert_array_equal([hdu.data for hdu in hdus[1:]], shard.read(np.array([row]))[0])
                assert hdus[0].header["OBJECT"] == name
                assert (hdus[0].header["FIELD"], hdus[0].header["VIEW"], hdus[0].header["FLAGS"]) == ("f", "VI", 0)
                assert hdus[0].header["SIGNAL"] == pytest.approx(float(shard.signal[row]), rel=1e-6)


def test_a_missing_band_and_one_without_stamp(tmp_path):
    recipe = survey(tmp_path, ["a", "b"], bands=("V",), stamp={"missing": "zero"})
    text = (tmp_path / "cat.ecsv").read_text().splitlines()
    (tmp_path / "cat.ecsv").write_text("\n".join([*text[:-1], f"b {RA + 1} {DEC} f"]) + "\n")
    result = made(recipe)
    assert "mef: 2 (source, view)s, 1 files, 1 without stamp; " in result.stderr
    listed = [row for path in sorted((tmp_path / "run/stamps-mef").rglob("*.parquet"))
              for row in pq.read_table(path).to_pylist()]
    assert {row["id"]: (row["file"], row["flags"]) for row in listed} == {"a": ("a.fits", 1 << 19), "b": (None, 3)}
    with fits.open(tmp_path / "run/stamps-mef/VI/f/a.fits") as hdus:
        assert hdus[0].header["FLAGTEXT"] == "MISSING_BAND"
        assert [hdu.header["MISSING"] for hdu in hdus[1:]] == [False, True]
        assert np.isnan(hdus["I"].data).all()
        assert "MOSAIC" not in hdus["I"].header
        assert WCS(hdus["I"].header).wcs.ctype[0] == "RA---TAN"


@pytest.mark.parametrize(("missing", "warned"), [("zero", False), ("flag", True)])
def test_a_mosaic_that_goes_takes_stamps_along_only_where_none_may_be_missing(tmp_path, missing, warned):
    recipe = survey(tmp_path, ["a"], stamp={"missing": missing})
    made(recipe)
    (tmp_path / "m" / "f_I.fits").unlink()
    result = run(recipe, "cutouts", "--format", "mef")
    assert ("VI, field f: the mosaic has gone; its 1 stamps are given up" in result.stderr) == warned
    assert ("a.fits" in str(list(files(recipe)))) != warned


# --- names ------------------------------------------------------------------------------------------------

ODD = ["../../etc/passwd", "a/b", "-rf", "A1", "a1", "x" * 300, "ünï☃", "O'Brien 50%", ".hidden", "NGC 1559/7 ", "",
       "~root", "a_b", "$(touch x)", "=1+1", "*", "'" * 90, "x&" * 40]


def test_odd_identifiers(tmp_path):
    recipe = survey(tmp_path, ODD, field="o'dd ü%")
    made(recipe)
    folder = tmp_path / "run" / "stamps-mef" / "VI"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.ecsv", "m", "run", "t.toml"]
    rows = [row for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    sources = pq.read_table(tmp_path / "run/sources.parquet")["id"].to_pylist()
    assert len(sources) >= len(ODD) - 2  # an empty name is no identifier
    assert sorted(row["id"] for row in rows) == sorted(sources)
    names = [row["file"] for row in rows]
    assert len({name.lower() for name in names}) == len(names)
    (inner,) = (path for path in folder.iterdir())
    assert sorted(path.name for path in inner.iterdir() if path.suffix == ".fits") == sorted(names)
    for row in rows:
        with fits.open(inner / row["file"]) as hdus:
            hdus.verify("exception")
            assert unquote(hdus[0].header["OBJECT"]) == row["id"]
            assert unquote(hdus["V"].header["OBJECT"]) == row["id"]
            assert unquote(hdus[0].header["FIELD"]) == "o'dd ü%"
        assert unquote(fitsio.read_header(str(inner / row["file"]))["OBJECT"]) == row["id"]
    plain = {row["id"]: row["file"] for row in rows}
    assert plain["a_b"] == "a_b.fits"
    assert plain["A1"].startswith("A1~")


@given(st.lists(st.text(max_size=120), min_size=2, max_size=6, unique=True))
@settings(max_examples=50, deadline=None)
def test_names_are_harmless_and_no_two_alike(identifiers):
    taken = [*identifiers, *(file_stem(one) for one in identifiers)]
    taken = list(dict.fromkeys(taken))
    marked = clashing(taken)
    stems = [file_stem(one, marked=one in marked) for one in taken]
    assert len({stem.lower() for stem in stems}) == len(stems)
    for stem in stems:
        assert stem.isascii()
        assert 0 < len(stem) <= 100
        assert not set(stem) & set("/\\\0 :*?\"<>|'$")
        assert stem[0] not in ".-~"


@given(st.text(max_size=400), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**62), 2**62))
@settings(max_examples=50, deadline=None)
def test_headers_give_back_what_was_written(tmp_path_factory, text, number, integer):
    path = tmp_path_factory.getbasetemp() / "header.fits"
    cards = [("NAME", header_text(text), "a comment"), ("NUMBER", number, ""), ("COUNT", integer, "")]
    pixels = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(primary(cards) + image(pixels, cards))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            assert unquote(hdu.header["NAME"]) == text
            assert hdu.header["NUMBER"] == pytest.approx(number, rel=1e-15)
            assert hdu.header["COUNT"] == integer
        np.testing.assert_array_equal(hdus[1].data, pixels)


# --- whole or not at all, and only what changed -----------------------------------------------------------


def test_the_same_bytes_again_and_only_what_is_not_there(tmp_path):
    recipe = survey(tmp_path, [f"s{i}" for i in range(10)])
    first = made(recipe)
    before = files(recipe)
    assert "10 files" in first.stderr
    again = run(recipe, "cutouts", "--format", "mef")
    assert "; 0 made, " in again.stderr.splitlines()[-1]
    victim = tmp_path / "run/stamps-mef/VI/f/s3.fits"
    for spoil in (victim.unlink, lambda: victim.write_bytes(b"cut off")):
        spoil()
        assert "gone or not of the size" in run(recipe, "status").stdout
        mended = run(recipe, "cutouts", "--format", "mef")
        assert "s3.fits is gone or not of the size that was written; made again" in mended.stderr
        assert "; 1 made, " in mended.stderr.splitlines()[-2] + mended.stderr.splitlines()[-1]
        assert files(recipe) == before
    shutil.rmtree(tmp_path / "run")
    made(recipe)
    assert files(recipe) == before


@pytest.mark.slow
def test_workers_write_the_same_bytes(tmp_path, monkeypatch):
    recipe = survey(tmp_path, [f"s{i}" for i in range(6)])
    made(recipe)
    before = files(recipe)
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr("catmorph.engine.WORTH_A_POOL_SECONDS", 0.0)
    made(recipe, "--workers", "2")
    assert files(recipe) == before


def test_a_source_that_has_gone_takes_its_file_along(tmp_path):
    recipe = survey(tmp_path, ["a", "b", "c"])
    made(recipe)
    text = (tmp_path / "cat.ecsv").read_text().splitlines()
    (tmp_path / "cat.ecsv").write_text("\n".join(text[:-1]) + "\n")
    run(recipe, "ingest")
    assert "missing" in run(recipe, "status").stdout
    result = run(recipe, "cutouts", "--format", "mef")
    assert "1 files removed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "run/stamps-mef/VI/f").glob("*.fits")) == ["a.fits", "b.fits"]


def test_clean_keeps_what_belongs_and_removes_the_rest(tmp_path):
    recipe = survey(tmp_path, ["a", "b"])
    made(recipe)
    before = files(recipe)
    stray = tmp_path / "run/stamps-mef/VI/f/stray.fits"
    stray.write_bytes(b"")
    old = tmp_path / "run/stamps-mef/old/f/a.fits"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    shown = run(recipe, "clean").stdout.split()
    assert sorted(shown) == ["stamps-mef/VI/f/stray.fits", "stamps-mef/old/f/a.fits"]
    assert files(recipe) == before


def test_check_deep_finds_changed_bytes(tmp_path):
    recipe = survey(tmp_path, ["a", "b"], classifiers={})
    made(recipe)
    path = tmp_path / "run/stamps-mef/VI/f/b.fits"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert f"{path}: is damaged: its bytes are not what was written" in run(recipe, "check", "--deep", status=2).stderr


def test_a_run_that_is_killed_leaves_no_half_files(tmp_path, monkeypatch):
    recipe = survey(tmp_path, ["a", "b", "c"])
    run(recipe, "ingest")
    real = os.replace

    def full(source, target):
        if str(target).endswith("b.fits"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("os.replace", full)
    result = run(recipe, "cutouts", "--format", "mef", status=1)
    assert "b.fits: cannot be written: No space left on device" in result.stderr
    monkeypatch.undo()
    left = [path.name for path in (tmp_path / "run/stamps-mef").rglob("*") if path.is_file()]
    assert set(left) <= {"a.fits", "c.fits"}
    run(recipe, "cutouts", "--format", "mef")
    assert len([name for name in files(recipe) if name.endswith(".fits")]) == 3


def test_shards_alone_by_default(tmp_path):
    recipe = survey(tmp_path, ["a"])
    run(recipe, "ingest")
    run(recipe, "cutouts", "--format", "hdf5")
    assert not (tmp_path / "run/stamps-mef").exists()
    assert "mef" not in run(recipe, "status").stdout
    assert "invalid" in run(recipe, "cutouts", "--format", "jpeg", status=2).stderr.lower()
