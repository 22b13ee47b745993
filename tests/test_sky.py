"""Positions and local pixel grids through every kind of world coordinate system."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from mosaic_files import tan_wcs

from catmorph.stamps.sky import LocalGrid, locate

SIP = {
    "A_ORDER": 3, "B_ORDER": 3, "A_2_0": 2.3e-5, "A_0_2": -1.1e-5, "A_1_1": 1.4e-5, "A_3_0": -2e-8,
    "B_2_0": -9e-6, "B_0_2": 2.7e-5, "B_1_1": 1.7e-5, "B_0_3": 1e-8, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP",
}
TPV = {
    "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_0": 2e-4, "PV1_1": 1.01, "PV1_2": 3e-3, "PV1_4": 0.02,
    "PV2_0": -1e-4, "PV2_1": 0.995, "PV2_2": -2e-3, "PV2_5": 0.015, "PV1_7": 0.1,
}
ZPN = {
    "CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 42.0, "PV2_5": -1000.0,
}
KINDS = {
    "TAN": {}, "SIP": SIP, "TPV": TPV, "ZPN": ZPN,
    "SIN": {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"}, "SIN slanted": {
        "CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "PV2_1": 0.1, "PV2_2": -0.2},
    "CAR": {"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "CRVAL2": 0.0, "CRPIX2": -40000.0},
    "ZEA": {"CTYPE1": "RA---ZEA", "CTYPE2": "DEC--ZEA"}, "STG": {"CTYPE1": "RA---STG", "CTYPE2": "DEC--STG"},
    "ARC": {"CTYPE1": "RA---ARC", "CTYPE2": "DEC--ARC"}, "AIT": {"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT"},
    "galactic": {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "FK5": {"RADESYS": "FK5", "EQUINOX": 2000.0},
    "FK5 of 1975": {"RADESYS": "FK5", "EQUINOX": 1975.0}, "FK4": {"RADESYS": "FK4", "EQUINOX": 1950.0},
    "no RADESYS": {"RADESYS": None}, "declination first": {
        "CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 31.0, "CRVAL2": 214.0},
}


def wcs_of(kind: str = "TAN", **cards: object) -> WCS:
    """Return the WCS of a 1000 x 1000 mosaic of 0.9 arcsec a pixel, turned by 20 degrees."""
    header = fits.Header()
    turn, scale = np.deg2rad(20), 0.9 / 3600
    header.update({
        "NAXIS": 2, "NAXIS1": 1000, "NAXIS2": 1000, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "RADESYS": "ICRS",
        "CRVAL1": 214.0, "CRVAL2": 31.0, "CRPIX1": 520.0, "CRPIX2": 480.0, "CD1_1": -scale * np.cos(turn),
        "CD1_2": scale * np.sin(turn), "CD2_1": scale * np.sin(turn), "CD2_2": scale * np.cos(turn),
    })
    for key, value in {**KINDS[kind], **cards}.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wcs = WCS(header)
        wcs.wcs.set()
    return wcs


def sky_at(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sky = wcs.pixel_to_world(x, y).icrs
    return sky.ra.deg, sky.dec.deg


def pixels_within(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.uniform(-0.5, 999.5, count), rng.uniform(-0.5, 999.5, count)


@pytest.mark.parametrize("kind", KINDS)
def test_centres_lead_from_pixel_to_sky_to_pixel(kind):
    wcs = wcs_of(kind)
    x, y = pixels_within()
    grid = locate(wcs, *sky_at(wcs, x, y))
    np.testing.assert_allclose(grid.centre, np.stack([x, y], axis=-1), atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_centres_agree_with_astropy(kind):
    wcs = wcs_of(kind)
    ra, dec = sky_at(wcs, *pixels_within())
    expected = np.stack(wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg")), axis=-1)
    np.testing.assert_allclose(locate(wcs, ra, dec).centre, expected, atol=1e-3)  # astropy stops at 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_agree_with_steps_over_a_pixel(kind):
    wcs = wcs_of(kind)
    ra, dec = sky_at(wcs, *pixels_within(20))
    grid = locate(wcs, ra, dec)
    here = SkyCoord(ra, dec, unit="deg")
    for column, angle in enumerate((90, 0)):
        there = [here.directional_offset_by((angle + turn) * u.deg, 1 * u.arcsec) for turn in (0, 180)]
        ends = [locate(wcs, end.ra.deg, end.dec.deg).centre for end in there]
        np.testing.assert_allclose(grid.jacobian[:, :, column], (ends[0] - ends[1]) / 2, atol=2e-5)


def test_pixel_scale_and_directions():
    grid = locate(tan_wcs(150.0, 2.0, scale=0.25), np.array([150.0]), np.array([2.0]))
    np.testing.assert_allclose(grid.pixel_scale, 0.25, rtol=1e-6)
    np.testing.assert_allclose(grid.jacobian[0], [[-4, 0], [0, 4]], atol=1e-5)  # east to the left, north up


@pytest.mark.parametrize("kind", ["TAN", "SIP", "TPV", "ZPN"])
@pytest.mark.parametrize("dec0", [90.0, -90.0, 89.95, -89.95])
def test_poles(kind, dec0):
    wcs = wcs_of(kind, CRVAL2=dec0)
    x, y = pixels_within()
    x, y = np.append(x, 519.0), np.append(y, 479.0)
    grid = locate(wcs, *sky_at(wcs, x, y))
    np.testing.assert_allclose(grid.centre, np.stack([x, y], axis=-1), atol=1e-5)
    scale = np.full(len(x), 0.9)
    np.testing.assert_allclose(grid.pixel_scale, scale, rtol=0.06)


@pytest.mark.parametrize("kind", ["TAN", "CAR", "SIP", "ZEA"])
@pytest.mark.parametrize("ra0", [0.0, 360.0, 359.99, 0.01])
def test_right_ascension_wraps(kind, ra0):
    wcs = wcs_of(kind, CRVAL1=ra0, CRVAL2=0.0, CRPIX2=480.0)
    x, y = pixels_within()
    ra, dec = sky_at(wcs, x, y)
    assert (ra < 1).any()
    assert (ra > 359).any()
    expected = np.stack([x, y], axis=-1)
    for turns in (0, 360, -360):
        np.testing.assert_allclose(locate(wcs, ra + turns, dec).centre, expected, atol=2e-6)


def test_the_seam_of_a_map_of_the_whole_sky():
    wcs = wcs_of("CAR", CRVAL1=0.0, CRPIX1=500.5, CRPIX2=250.5, CD1_1=-0.36, CD1_2=0.0, CD2_1=0.0, CD2_2=0.36)
    grid = locate(wcs, np.array([180.0 - 1e-3, 180.0 + 1e-3, 179.0, 181.0]), np.array([10.0, 10.0, -5.0, -5.0]))
    assert grid.inside((500, 1000)).all()
    np.testing.assert_allclose(grid.centre[:, 0], [-0.5, 999.5, 499.5 - 179 / 0.36, 499.5 + 179 / 0.36], atol=4e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_side_of_the_sky_is_not_on_the_mosaic(kind):
    wcs = wcs_of(kind)
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 300), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 300)))
    ra, dec = np.append(ra, [34.0, 34.0, 214.0]), np.append(dec, [-31.0, 31.0, -59.0])
    far = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(214.0, 31.0, unit="deg")).deg > 1
    grid = locate(wcs, ra, dec)
    assert not grid.inside((1000, 1000))[far].any()
    assert np.isfinite(grid.jacobian).all()


def test_positions_that_are_not_numbers_are_nowhere():
    grid = locate(wcs_of(), np.array([np.nan, 214.0]), np.array([31.0, np.nan]))
    assert np.isnan(grid.centre).all()
    assert not grid.inside((1000, 1000)).any()


def test_no_sources_at_all():
    grid = locate(wcs_of("SIP"), np.empty(0), np.empty(0))
    assert grid.centre.shape == (0, 2)
    assert grid.jacobian.shape == (0, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_other_sources(kind):
    """astropy's inverse of a distortion iterates until the worst source has converged."""
    wcs = wcs_of(kind)
    ra, dec = sky_at(wcs, *pixels_within(40))
    ra, dec = np.append(ra, [34.0, 220.0]), np.append(dec, [-31.0, 35.0])
    together = locate(wcs, ra, dec)
    for part in (slice(0, 1), slice(3, 20), slice(20, 42), slice(41, 42)):
        alone = locate(wcs, ra[part], dec[part])
        assert alone.centre.tobytes() == together.centre[part].tobytes()
        assert alone.jacobian.tobytes() == together.jacobian[part].tobytes()


@given(ra=st.floats(0, 360), dec=st.floats(-90, 90), angle=st.floats(-180, 180), flip=st.booleans(),
       offset=st.tuples(st.floats(-90, 90), st.floats(-90, 90)))
def test_anywhere_on_the_sky(ra, dec, angle, flip, offset):
    wcs = tan_wcs(ra, dec, scale=0.5, angle=angle, flip=flip)
    x, y = 99.5 + np.array([offset[0]]), 99.5 + np.array([offset[1]])
    grid = locate(wcs, *sky_at(wcs, x, y))
    np.testing.assert_allclose(grid.centre, np.stack([x, y], axis=-1), atol=1e-5)
    np.testing.assert_allclose(grid.pixel_scale, 0.5, rtol=1e-5)
    assert np.sign(np.linalg.det(grid.jacobian[0])) == (1 if flip else -1)


def test_inside_ends_at_the_outer_pixels_edges():
    x = np.array([-0.5, -0.51, 9.49, 9.5, 3.0, np.nan])
    y = np.array([0.0, 0.0, 19.4, 3.0, 19.5, 1.0])
    grid = LocalGrid(np.stack([x, y], axis=-1), np.tile(np.eye(2), (6, 1, 1)))
    assert grid.inside((20, 10)).tolist() == [True, False, True, False, False, False]
