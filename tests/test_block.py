"""From plans and positions to stamps: tiles, bands, sides, orientation, flags."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS
from mosaic_files import centroid, draw_sources, moments, tan_wcs, write_mosaic

from catmorph.quality import blocked, describe
from catmorph.recipe import StampSection
from catmorph.stamps.block import BlockPlan, cut_block
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.store import ShardContent

RA, DEC = 150.0, 2.2
SHAPE = (200, 200)
SCALE = 0.1


def sources(ra: object, dec: object, size: object = 1.0) -> dict[str, np.ndarray]:
    ra = np.atleast_1d(np.asarray(ra, float))
    ids = np.array([f"s{i}" for i in range(len(ra))], dtype=object)
    return {"id": ids, "ra": ra, "dec": np.broadcast_to(np.asarray(dec, float), ra.shape),
            "size_arcsec": np.broadcast_to(np.asarray(size, float), ra.shape)}


def cut(
    bands: list[list[Path | ImageFiles]], rows: dict[str, np.ndarray], reference: list[Path] | None = None,
    **stamp: object,
) -> tuple[ShardContent, list[tuple[str, str]]]:
    tiles = tuple(tuple(t if isinstance(t, ImageFiles) else ImageFiles(str(t)) for t in band) for band in bands)
    section = StampSection(**{"side": "4 arcsec", "pixels": 40, **stamp})
    named = None if reference is None else tuple(ImageFiles(str(tile)) for tile in reference)
    return cut_block(BlockPlan(tiles, named, StampSettings.of(section)), rows)


def flags_of(content: ShardContent) -> list[str]:
    return [describe(int(value)) for value in content.flags]


def sky(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def offset(wcs: WCS, x: object, y: object) -> tuple[np.ndarray, np.ndarray]:
    return wcs.all_pix2world(np.atleast_1d(x), np.atleast_1d(y), 0)


@pytest.fixture
def mosaic(tmp_path) -> Path:
    return write_mosaic(tmp_path / "a.fits", sky(), tan_wcs(RA, DEC))


def test_rows_and_stamps(mosaic):
    wcs = tan_wcs(RA, DEC)
    ra, dec = offset(wcs, [100.0, 500.0, 3.0, 60.5], [90.0, 90.0, 50.0, 61.25])
    content, failures = cut([[mosaic]], sources(ra, dec))
    assert flags_of(content) == ["", "OFF_IMAGE", "EDGE", ""]
    assert content.rows.tolist() == [0, -1, 1, 2]
    assert content.stamps.shape == (3, 1, 40, 40)
    assert failures == []
    np.testing.assert_allclose(content.centre[[0, 2, 3], 0], [[100, 90], [3, 50], [60.5, 61.25]], atol=1e-6)
    assert np.isnan(content.centre[1]).all()
    np.testing.assert_allclose(content.pixel_scale[[0, 2, 3], 0], SCALE, rtol=1e-5)
    assert content.mosaic[:, 0].tolist() == [0, -1, 0, 0]
    assert content.bad_fraction[0] == 0
    # 4 arcsec are 40 pixels: from -17 to 23, and the mosaic begins at -0.5.
    assert content.bad_fraction[2] == pytest.approx(16.5 / 40, abs=1e-4)
    assert np.isnan(content.bad_fraction[1])


def test_each_reason_for_no_stamp(tmp_path, mosaic):
    inside = sources(RA, DEC)
    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(mosaic.read_bytes()[:80000])
    nan = write_mosaic(tmp_path / "nan.fits", np.full(SHAPE, np.nan, np.float32), tan_wcs(RA, DEC))
    flat = write_mosaic(tmp_path / "flat.fits", np.full(SHAPE, 3.7, np.float32), tan_wcs(RA, DEC))
    ring = sky()
    ring[95:105, 95:105] = np.nan
    hole = write_mosaic(tmp_path / "hole.fits", ring, tan_wcs(RA, DEC))
    surround = np.full(SHAPE, np.nan, np.float32)
    surround[95:105, 95:105] = sky()[:10, :10]
    island = write_mosaic(tmp_path / "island.fits", surround, tan_wcs(RA, DEC))
    cases = {
        "NO_MOSAIC": cut([[]], inside),
        "OFF_IMAGE": cut([[mosaic]], sources(RA, DEC + 1)),
        "UNREADABLE": cut([[truncated]], inside),
        "NO_DATA|SOME_BAD_PIXELS": cut([[nan]], inside),
        "FLAT": cut([[flat]], inside, pixels=27, side="3.1 arcsec"),
        "BAD_PIXELS|SOME_BAD_PIXELS": cut([[island]], inside),
        "SOME_BAD_PIXELS": cut([[hole]], inside),
        "BAD_SIZE": cut([[mosaic]], sources(RA, DEC, np.nan), side="4 radii"),
    }
    for expected, (content, _) in cases.items():
        assert flags_of(content) == [expected]
        assert blocked(content.flags)[0] == (content.rows[0] < 0) == (len(content.stamps) == 0)
    assert cases["UNREADABLE"][1] == [("truncated.fits", "is truncated: 80000 of at least 162880 bytes")]


def test_all_invalid_is_blocked_even_where_any_fraction_is_allowed(tmp_path):
    nan = write_mosaic(tmp_path / "nan.fits", np.full(SHAPE, np.nan, np.float32), tan_wcs(RA, DEC))
    content, _ = cut([[nan]], sources(RA, DEC), max_bad_fraction=1.0)
    assert flags_of(content) == ["NO_DATA|SOME_BAD_PIXELS"]


@pytest.mark.parametrize("size", [np.nan, 0.0, -3.0, np.inf, 1e-4, 1e6])
def test_sizes_that_cannot_be(mosaic, size):
    content, _ = cut([[mosaic]], sources([RA, RA], DEC, [1.0, size]), side="4 radii")
    assert flags_of(content) == ["", "BAD_SIZE"]


def test_weight_map_that_cannot_be_read(tmp_path, mosaic):
    weight = tmp_path / "wht.fits"
    weight.write_text("<html>")
    content, failures = cut([[ImageFiles(str(mosaic), weight=str(weight))]], sources(RA, DEC))
    assert flags_of(content) == ["UNREADABLE"]
    assert failures == [("wht.fits", "is a web page saved under a FITS name")]


def tiles(tmp_path: Path) -> tuple[Path, Path]:
    """Two tiles side by side, of 200 x 200 pixels, that share 60 columns; the second one is turned."""
    left, right = tan_wcs(RA, DEC), tan_wcs(RA, DEC, angle=-90.0)
    left.wcs.crpix = 170.5, 100.5
    right.wcs.crpix = 100.5, 170.5
    return (write_mosaic(tmp_path / "left.fits", sky(1), left), write_mosaic(tmp_path / "right.fits", sky(2), right))


def test_the_tile_farthest_inside_is_taken(tmp_path):
    left, right = tiles(tmp_path)
    wcs = tan_wcs(RA, DEC)
    wcs.wcs.crpix = 170.5, 100.5
    ra, dec = offset(wcs, [100.0, 165.0, 176.0, 230.0, 400.0], [100.0] * 5)
    for order in ((left, right), (right, left)):
        content, failures = cut([list(order)], sources(ra, dec))
        names = [content.mosaics[i] if i >= 0 else None for i in content.mosaic[:, 0]]
        assert names == ["left.fits", "left.fits", "right.fits", "right.fits", None]
        assert failures == []
        assert flags_of(content) == ["", "", "", "", "OFF_IMAGE"]


def test_a_tile_without_data_gives_way_to_another(tmp_path):
    left, _ = tiles(tmp_path)
    wcs = tan_wcs(RA, DEC)
    empty = write_mosaic(tmp_path / "empty.fits", np.full(SHAPE, np.nan, np.float32), wcs)
    content, _ = cut([[empty, left]], sources(RA, DEC))
    assert flags_of(content) == [""]
    assert content.mosaic[0, 0] == 1
    np.testing.assert_allclose(content.centre[0, 0], [169.5, 99.5], atol=1e-6)
    holed = sky()
    holed[:, 85:95] = np.nan
    partly = write_mosaic(tmp_path / "partly.fits", holed, wcs)
    content, _ = cut([[partly, left]], sources(RA, DEC))
    assert flags_of(content) == [""]
    assert content.mosaics[content.mosaic[0, 0]] == "left.fits"


def test_an_unreadable_tile_flags_only_its_own(tmp_path, mosaic):
    """One missing file aborted the whole run of another tool."""
    broken = tmp_path / "broken.fits"
    broken.write_bytes(b"SIMPLE  = garbage")
    content, failures = cut([[broken, mosaic]], sources([RA, RA], [DEC, DEC + 1]))
    # The second may lie on the tile that cannot be read.
    assert flags_of(content) == ["", "UNREADABLE"]
    assert [name for name, _ in failures] == ["broken.fits"]


def damaged(path: Path) -> Path:
    """Write a tile whose header can be read and whose pixels cannot."""
    from astropy.io import fits

    header = tan_wcs(RA, DEC).to_header()
    fits.CompImageHDU(sky(5), header, compression_type="GZIP_1", quantize_level=0).writeto(path)
    data = bytearray(path.read_bytes())
    data[20000:-3000] = bytes(len(data) - 23000)
    path.write_bytes(data)
    return path


def test_pixels_that_cannot_be_read(tmp_path, mosaic):
    broken = damaged(tmp_path / "broken.fits")
    for rows in (([RA, RA + 1], DEC), ([RA + 1, RA], DEC)):
        content, failures = cut([[broken]], sources(*rows))
        assert sorted(flags_of(content)) == ["OFF_IMAGE", "UNREADABLE"]
        assert [name for name, _ in failures] == ["broken.fits"]
        assert failures[0][1].startswith("pixels cannot be read: ")
    content, failures = cut([[broken, mosaic]], sources(RA, DEC))
    assert flags_of(content) == [""]
    assert content.mosaics[content.mosaic[0, 0]] == "a.fits"
    assert len(failures) == 1


SETUPS = [
    {"scale": 0.1}, {"scale": 0.06, "shape": (330, 340)}, {"scale": 0.13, "angle": 37.0, "shape": (220, 210)},
    {"scale": 0.1, "angle": 180.0}, {"scale": 0.08, "angle": -90.0, "flip": True, "shape": (280, 260)},
]


@pytest.mark.parametrize("orientation", ["mosaic", "north"])
@pytest.mark.parametrize("resample", ["bilinear", "area"])
def test_bands_agree_whatever_their_mosaics(tmp_path, orientation, resample):
    """A source is at the same place and of the same shape in all planes of a view."""
    ra, dec = RA + np.array([0.0, 2.0, -3.1]) / 3600, DEC + np.array([0.0, 1.7, -2.6]) / 3600
    bands = []
    for i, setup in enumerate(SETUPS):
        shape = setup.get("shape", SHAPE)
        wcs = tan_wcs(RA + 0.3e-4 * i, DEC - 0.2e-4 * i, **{"shape": shape, **setup})
        image = draw_sources(wcs, shape, ra, dec, 0.3, setup["scale"])
        bands.append([write_mosaic(tmp_path / f"{i}.fits", image, wcs)])
    content, _ = cut(bands, sources(ra, dec), side="5 arcsec", pixels=50, orientation=orientation, resample=resample)
    assert flags_of(content) == [""] * 3
    y, x = np.indices((50, 50)) - 24.5
    for stamp in content.stamps:
        near = np.hypot(x, y) < 12.5
        measured = [moments(np.where(near, plane, 0)) for plane in stamp]
        for total, centre, shape in measured:
            np.testing.assert_allclose(centre, 24.5, atol=0.06)
            # 0.3 arcsec are 3 stamp pixels; each way of resampling adds its own width.
            np.testing.assert_allclose(np.sqrt(np.diag(shape)), 3.0, rtol=0.05)
            assert abs(shape[0, 1]) < 0.05
            assert total == pytest.approx(2 * np.pi * 9, rel=0.03)


@pytest.mark.parametrize("orientation", ["mosaic", "north"])
def test_a_source_lies_on_the_same_stamp_pixel_in_every_projection(tmp_path, orientation):
    ra, dec = np.array([RA, RA + 1.3 / 3600]), np.array([DEC, DEC - 0.9 / 3600])
    bands = []
    mosaics = [(0.06, 0.0, "TAN"), (0.04, 30.0, "SIN"), (0.05, -100.0, "STG"), (0.1, 77.0, "ZEA")]
    for scale, angle, projection in mosaics:
        wcs = tan_wcs(RA + 2e-4, DEC - 1e-4, scale=scale, shape=(260, 260), angle=angle, projection=projection,
                      flip=projection == "STG")
        image = draw_sources(wcs, (260, 260), ra, dec, 0.25, scale)
        bands.append([write_mosaic(tmp_path / f"{projection}.fits", image, wcs)])
    content, _ = cut(bands, sources(RA, DEC), side="6 arcsec", pixels=60, orientation=orientation)
    # 1.3 arcsec to the east and 0.9 to the south; the first band has north up too.
    for plane in content.stamps[0]:
        np.testing.assert_allclose(centroid(plane, (29.5, 29.5)), 29.5, atol=0.01)
        found = centroid(plane, (29.5 - 13, 29.5 - 9))
        np.testing.assert_allclose(found, [29.5 - 13 * np.cos(np.deg2rad(DEC)), 29.5 - 9], atol=0.01)


def test_north_is_up_and_east_left(tmp_path):
    for i, setup in enumerate(SETUPS):
        shape = setup.get("shape", SHAPE)
        wcs = tan_wcs(RA, DEC, **{"shape": shape, **setup})
        east, north = RA + 1.0 / 3600 / np.cos(np.deg2rad(DEC)), DEC + 1.5 / 3600
        image = draw_sources(wcs, shape, np.array([east, RA]), np.array([DEC, north]), 0.15, setup["scale"])
        path = write_mosaic(tmp_path / f"{i}.fits", image, wcs)
        stamp = cut([[path]], sources(RA, DEC), orientation="north")[0].stamps[0, 0]  # 0.1 arcsec a pixel
        for column, row in ((19.5 - 10, 19.5), (19.5, 19.5 + 15)):
            y, x = np.indices(stamp.shape)
            near = np.hypot(x - column, y - row) < 5
            np.testing.assert_allclose(moments(np.where(near, stamp, 0))[1], [column, row], atol=0.05)


def test_mosaic_orientation_keeps_the_axes_of_the_first_band(tmp_path):
    wcs = tan_wcs(RA, DEC, angle=37.0)
    image = sky()
    path = write_mosaic(tmp_path / "a.fits", image, wcs)
    content, _ = cut([[path]], sources(*offset(wcs, [99.5], [99.5])), side="4 arcsec", pixels=40)
    np.testing.assert_allclose(content.stamps[0, 0], image[80:120, 80:120], atol=1e-3)


def test_pixels_that_are_not_square(tmp_path):
    """The stamp is a square on the sky."""
    wcs = tan_wcs(RA, DEC)
    wcs.wcs.cd = wcs.wcs.cd @ np.diag([1.0, 2.0])
    image = draw_sources(tan_wcs(RA, DEC), SHAPE, np.array([RA]), np.array([DEC]), 0.4, SCALE)[::2]
    wcs.wcs.crpix = 100.5, 50.75
    path = write_mosaic(tmp_path / "a.fits", image, wcs)
    stamp = cut([[path]], sources(RA, DEC))[0].stamps[0, 0]
    shape = moments(stamp)[2]
    assert shape[0, 0] == pytest.approx(shape[1, 1], rel=0.06)


def test_the_planes_of_a_view_stay_aligned_when_the_first_choice_of_tile_fails(tmp_path):
    ra, dec = np.array([RA, RA + 1e-4]), np.array([DEC, DEC + 1.6e-4])
    paths = []
    for name, angle in (("first", 30.0), ("second", 0.0), ("other band", 10.0)):
        wcs = tan_wcs(RA, DEC, angle=angle)
        wcs.wcs.crpix = wcs.wcs.crpix + {"first": 0, "second": 3, "other band": 0}[name]
        image = draw_sources(wcs, SHAPE, ra, dec, 0.25, SCALE)
        if name == "first":
            image[:] = np.nan
        paths.append(write_mosaic(tmp_path / f"{name}.fits", image, wcs))
    content, _ = cut([paths[:2], paths[2:]], sources(RA, DEC))
    first, second = content.stamps[0]
    assert content.mosaics[content.mosaic[0, 0]] == "second.fits"
    np.testing.assert_allclose(moments(first)[1], moments(second)[1], atol=0.05)


@pytest.mark.parametrize(("side", "arcsec"), [("3 radii", 3.6), ("5 arcsec", 5.0), ("30 pixels", 6.0)])
def test_sides(tmp_path, mosaic, side, arcsec):
    reference = write_mosaic(tmp_path / "ref.fits", sky(), tan_wcs(RA, DEC, scale=0.2))
    ramp = np.indices(SHAPE)[1].astype(np.float32)
    path = write_mosaic(tmp_path / "ramp.fits", ramp, tan_wcs(RA, DEC))
    stamp = cut([[path]], sources(RA, DEC, 1.2), [reference] if "pixels" in side else None, side=side)[0].stamps[0, 0]
    # What a ramp rises by from end to end is the stamp's side; a pixel's value is right within 0.03.
    assert (stamp[20, 39] - stamp[20, 0]) * 40 / 39 == pytest.approx(arcsec / SCALE, abs=0.06)


def test_pixels_of_the_views_own_first_band_without_reference(mosaic):
    content, _ = cut([[mosaic]], sources(*offset(tan_wcs(RA, DEC), [100.5], [99.5])), side="40 pixels")
    np.testing.assert_allclose(content.stamps[0, 0], sky()[80:120, 81:121], atol=1e-3)


def test_no_reference_to_measure_pixels_by(tmp_path, mosaic):
    reference = write_mosaic(tmp_path / "ref.fits", sky(), tan_wcs(RA + 1, DEC))
    assert flags_of(cut([[mosaic]], sources(RA, DEC), [reference], side="30 pixels")[0]) == ["OFF_IMAGE"]


@pytest.mark.parametrize("resample", ["bilinear", "area"])
def test_flux_per_stamp_pixel(tmp_path, resample):
    wcs = tan_wcs(RA, DEC)
    image = draw_sources(wcs, SHAPE, np.array([RA]), np.array([DEC]), 0.5, SCALE)
    path = write_mosaic(tmp_path / "a.fits", image, wcs)
    settings = {"side": "8 arcsec", "pixels": 31, "resample": resample}
    brightness = cut([[path]], sources(RA, DEC), **settings)[0].stamps[0, 0]
    flux = cut([[path]], sources(RA, DEC), values="flux", **settings)[0].stamps[0, 0]
    assert flux.sum() == pytest.approx(image.sum(), rel=3e-3)
    np.testing.assert_allclose(flux, brightness * (80 / 31) ** 2, rtol=1e-4)


def test_low_signal_and_signals_that_are_no_number(tmp_path):
    wcs = tan_wcs(RA, DEC)
    image = sky() + draw_sources(wcs, SHAPE, np.array([RA]), np.array([DEC]), 0.3, SCALE) * 20
    bright = write_mosaic(tmp_path / "a.fits", image, wcs)
    faint = write_mosaic(tmp_path / "b.fits", sky(3), wcs)
    assert flags_of(cut([[bright]], sources(RA, DEC), min_signal=5.0)[0]) == [""]
    assert flags_of(cut([[faint]], sources(RA, DEC), min_signal=15.0)[0]) == ["LOW_SIGNAL"]
    rim = sky(4)
    rim[:85], rim[115:], rim[:, :85], rim[:, 115:] = np.nan, np.nan, np.nan, np.nan
    rimless = write_mosaic(tmp_path / "c.fits", rim, wcs)
    for order in ([[rimless], [bright]], [[bright], [rimless]]):
        content, _ = cut(order, sources(RA, DEC), min_signal=5.0, max_bad_fraction=0.9)
        assert flags_of(content) == ["SOME_BAD_PIXELS"]
        assert content.signal[0] > 5


def test_bits_do_not_depend_on_the_other_sources(tmp_path):
    left, right = tiles(tmp_path)
    wcs = tan_wcs(RA, DEC)
    wcs.wcs.crpix = 170.5, 100.5
    rng = np.random.default_rng(8)
    ra, dec = offset(wcs, rng.uniform(-20, 360, 40), rng.uniform(-20, 220, 40))
    rows = sources(ra, dec, rng.uniform(0.4, 2.0, 40))
    bands = [[left, right], [right]]
    whole, _ = cut(bands, rows, side="4 radii", orientation="north")
    order = rng.permutation(40)
    for part in (order[:1], order[1:12], order[12:]):
        content, _ = cut(bands, {name: values[part] for name, values in rows.items()}, side="4 radii",
                         orientation="north")
        for name in ("flags", "centre", "bad_fraction", "signal", "mosaic", "pixel_scale"):
            assert getattr(content, name).tobytes() == getattr(whole, name)[part].tobytes()
        for row, source in zip(content.rows, part, strict=True):
            if row >= 0:
                assert content.stamps[row].tobytes() == whole.stamps[whole.rows[source]].tobytes()


# --- missing bands ----------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path) -> Path:
    return write_mosaic(tmp_path / "empty.fits", np.full(SHAPE, np.nan, np.float32), tan_wcs(RA, DEC))


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    return write_mosaic(tmp_path / "elsewhere.fits", sky(7), tan_wcs(RA + 0.1, DEC, scale=0.05))


def test_a_missing_band_becomes_an_empty_plane(tmp_path, mosaic, empty, elsewhere):
    other = write_mosaic(tmp_path / "b.fits", sky(5), tan_wcs(RA, DEC))
    rows = sources(*offset(tan_wcs(RA, DEC), [100.5], [99.5]))
    both = cut([[mosaic], [other]], rows)[0].stamps[0]
    for gap, reason in (([], "NO_MOSAIC"), ([elsewhere], "OFF_IMAGE"), ([empty], "NO_DATA|SOME_BAD_PIXELS")):
        for place in range(3):
            bands = [[mosaic], [other]]
            bands.insert(place, gap)
            assert flags_of(cut(bands, rows)[0]) == [reason]
            content, failures = cut(bands, rows, missing="zero")
            assert flags_of(content) == ["MISSING_BAND"]
            assert failures == []
            assert not blocked(content.flags).any()
            assert content.rows.tolist() == [0]
            assert np.isnan(content.stamps[0, place]).all()
            np.testing.assert_array_equal(np.delete(content.stamps[0], place, axis=0), both)
            assert content.bad_fraction[0] == 0
            assert np.isfinite(content.signal[0])


def test_more_missing_bands_than_allowed(mosaic, empty):
    rows = sources(RA, DEC)
    assert flags_of(cut([[mosaic], [], [empty]], rows, missing="zero")[0]) == ["NO_MOSAIC|NO_DATA|SOME_BAD_PIXELS"]
    assert flags_of(cut([[mosaic], [], [empty]], rows, missing="zero", max_missing=2)[0]) == ["MISSING_BAND"]
    content, _ = cut([[], [empty]], rows, missing="zero", max_missing=5)
    assert flags_of(content) == ["NO_MOSAIC|NO_DATA|SOME_BAD_PIXELS"]
    assert len(content.stamps) == 0
    assert flags_of(cut([[]], rows, missing="zero", max_missing=5)[0]) == ["NO_MOSAIC"]


def test_what_is_no_missing_band(tmp_path, mosaic):
    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(mosaic.read_bytes()[:80000])
    flat = write_mosaic(tmp_path / "flat.fits", np.zeros(SHAPE, np.float32), tan_wcs(RA, DEC))
    rows = sources(RA, DEC)
    assert flags_of(cut([[mosaic], [truncated]], rows, missing="zero")[0]) == ["UNREADABLE"]
    assert flags_of(cut([[mosaic], [flat]], rows, missing="zero")[0]) == ["FLAT"]
    blank = ImageFiles(str(flat), blank=(0.0,))
    assert flags_of(cut([[mosaic], [blank]], rows, missing="zero")[0]) == ["MISSING_BAND"]


def test_the_first_band_that_is_there_gives_the_axes(tmp_path):
    wcs = tan_wcs(RA, DEC, angle=30.0)
    turned = write_mosaic(tmp_path / "turned.fits", sky(2), wcs)
    straight = write_mosaic(tmp_path / "straight.fits", sky(3), tan_wcs(RA, DEC))
    rows = sources(*offset(wcs, [99.5], [99.5]))
    content, _ = cut([[], [turned], [straight]], rows, missing="zero")
    np.testing.assert_allclose(content.stamps[0, 1], sky(2)[80:120, 80:120], atol=1e-3)


def test_a_side_in_pixels_of_a_missing_band(tmp_path, elsewhere):
    ramp = write_mosaic(tmp_path / "ramp.fits", np.indices(SHAPE)[1].astype(np.float32), tan_wcs(RA, DEC))
    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(ramp.read_bytes()[:80000])

    def side(bands, reference):
        settings = {"side": "60 pixels", "missing": "zero"}
        content, _ = cut(bands, sources(*offset(tan_wcs(RA, DEC), [99.5], [99.5])), reference, **settings)
        if not len(content.stamps):
            return flags_of(content)
        rows = content.stamps[0, bands.index([ramp])][20]
        return round(float(rows[39] - rows[0]) * 40 / 39 * SCALE, 1)

    # The mosaic of 0.05 arcsec a pixel ends beside the source; then there is none, and 0.1 arcsec a pixel count.
    assert side([[elsewhere], [ramp]], [elsewhere]) == 3.0
    assert side([[elsewhere], [ramp]], None) == 3.0
    assert side([[], [ramp]], []) == 6.0
    assert side([[], [ramp]], None) == 6.0
    assert side([[elsewhere], [ramp]], [truncated]) == ["UNREADABLE"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_more_tiles_than_open_files(tmp_path):
    resource = pytest.importorskip("resource")
    paths = [write_mosaic(tmp_path / f"{i}.fits", sky(i, (20, 20)), tan_wcs(RA + i * 1e-3, DEC, shape=(20, 20)))
             for i in range(60)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
    try:
        content, failures = cut([paths], sources([RA, RA + 0.03], DEC), side="1 arcsec", pixels=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert failures == []
    assert flags_of(content) == ["", ""]
    assert len(os.listdir("/proc/self/fd")) == used
