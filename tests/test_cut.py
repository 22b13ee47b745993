"""Resampling: positions, fluxes, invalid pixels, and agreement with PIL."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mosaic_files import ArrayMosaic, gaussian, moments
from PIL import Image
from scipy.ndimage import map_coordinates

from catmorph.stamps import cut
from catmorph.stamps.cut import Placement, cut_stamp
from catmorph.stamps.separable import axis_taps

METHODS = ("bilinear", "area")


def turned(step: float, degrees: float = 0.0, flip: bool = False) -> np.ndarray:
    """Return mosaic pixels a stamp step: `step` long, turned by `degrees`."""
    angle = np.deg2rad(degrees)
    matrix = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return matrix @ np.diag([-1, 1]) if flip else matrix


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(10, 3, shape).astype(np.float32)


@pytest.mark.parametrize("step", [4.0, 2.7, 1.0, 0.37])
@pytest.mark.parametrize("centre", [(100.0, 90.0), (103.37, 88.61), (99.5, 91.5)])
def test_bilinear_agrees_with_pil(step, centre):
    pixels, image = 20, noise((200, 200))
    stamp = cut_stamp(ArrayMosaic(image), Placement(centre, turned(step), pixels), "bilinear").pixels
    half = step * pixels / 2
    x, y = centre[0] + 0.5, centre[1] + 0.5  # PIL counts from the pixel's corner
    expected = Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BILINEAR,
                                             box=(x - half, y - half, x + half, y + half))
    # PIL keeps the box in float32: 4e-6 pixels at 100, times the slope between pixels.
    np.testing.assert_allclose(stamp, np.asarray(expected), rtol=0, atol=1e-4)


def test_native_pixels_come_out_as_they_are():
    image = noise((50, 60))
    stamp = cut_stamp(ArrayMosaic(image), Placement((30.5, 20.5), np.eye(2), 10), "area")
    np.testing.assert_array_equal(stamp.pixels, image[16:26, 26:36])
    assert (stamp.bad_fraction, stamp.off_fraction, stamp.centre_valid) == (0, 0, True)


def test_area_is_the_mean_of_the_pixels_under_it():
    image = noise((64, 64))
    stamp = cut_stamp(ArrayMosaic(image), Placement((31.5, 31.5), turned(4.0), 8), "area").pixels
    expected = image[16:48, 16:48].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(stamp, expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [0.5, 1.0, 3.3])
def test_a_mirrored_axis_mirrors_the_stamp(method, step):
    mosaic = ArrayMosaic(noise((80, 80)))
    straight = cut_stamp(mosaic, Placement((40.2, 39.7), turned(step), 12), method).pixels
    mirrored = cut_stamp(mosaic, Placement((40.2, 39.7), turned(step, flip=True), 12), method).pixels
    np.testing.assert_allclose(mirrored, straight[:, ::-1], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@given(
    offset=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)), step=st.floats(0.3, 5.0),
    degrees=st.sampled_from([0.0, 90.0, 180.0, 1e-4]) | st.floats(-180, 180), flip=st.booleans(),
)
def test_flux_and_position_are_kept(method, offset, step, degrees, flip):
    sigma = max(2.0, 1.2 * step)
    pixels = int(np.ceil(11 * sigma / step)) + 4
    shape = (121, 121)
    centre = (60 + offset[0], 60 + offset[1])
    mosaic = ArrayMosaic(gaussian(shape, centre, sigma, flux=100.0))
    result = cut_stamp(mosaic, Placement(centre, turned(step, degrees, flip), pixels), method)
    total, middle, _ = moments(np.nan_to_num(result.pixels))
    # Triangles and bilinear samples whose step is no whole number beat with the pixels, as PIL's do: at most
    # 1.7% in flux and 0.025 pixels. Areas along the axes tile the plane.
    exact = method == "area" and degrees == 0
    assert total * step**2 == pytest.approx(100.0, rel=1e-6 if exact else 0.025)
    np.testing.assert_allclose(middle, (pixels - 1) / 2, atol=0.03)


@given(offset=st.tuples(st.floats(-3, 3), st.floats(-3, 3)), step=st.floats(0.3, 4.0), degrees=st.floats(-180, 180))
def test_an_offset_source_lands_where_the_matrix_says(offset, step, degrees):
    assume(np.hypot(*offset) < 3)
    sigma = max(2.0, 1.2 * step)
    # The stamp holds four sigmas on every side: a source cut off at one would have its moments moved.
    matrix, pixels = turned(step, degrees), 2 * int(np.ceil(4 * sigma / step + 3))
    centre = np.array([70.0, 70.0])
    where = centre + matrix @ np.array(offset)
    mosaic = ArrayMosaic(gaussian((141, 141), tuple(where), sigma))
    stamp = cut_stamp(mosaic, Placement(tuple(centre), matrix, pixels), "bilinear").pixels
    stamp = np.nan_to_num(stamp)
    y, x = np.indices(stamp.shape) - (pixels - 1) / 2
    near = (x - offset[0]) ** 2 + (y - offset[1]) ** 2 < (4 * sigma / step) ** 2
    window = np.where(near, stamp, 0)
    np.testing.assert_allclose(moments(window)[1] - (pixels - 1) / 2, offset, atol=0.03)


@given(centre=st.tuples(st.floats(45, 55), st.floats(45, 55)), step=st.floats(0.3, 4.0),
       degrees=st.floats(-180, 180), method=st.sampled_from(METHODS))
def test_a_constant_stays_constant(centre, step, degrees, method):
    stamp = cut_stamp(ArrayMosaic(np.full((100, 100), 3.7)), Placement(centre, turned(step, degrees), 8), method)
    np.testing.assert_allclose(stamp.pixels, 3.7, rtol=1e-6)
    assert stamp.bad_fraction == 0


def test_turned_axes_sample_between_pixels_where_nothing_shrinks():
    image, matrix, centre = noise((60, 60)), turned(0.6, 33.0), (30.3, 28.8)
    stamp = cut_stamp(ArrayMosaic(image), Placement(centre, matrix, 16), "bilinear").pixels
    steps = np.arange(16) - 7.5
    u, v = np.meshgrid(steps, steps)
    x = centre[0] + matrix[0, 0] * u + matrix[0, 1] * v
    y = centre[1] + matrix[1, 0] * u + matrix[1, 1] * v
    np.testing.assert_allclose(stamp, map_coordinates(image, [y, x], order=1), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_strips_of_samples_change_nothing(method, monkeypatch):
    placement = Placement((150.2, 149.9), turned(7.3, 30.0), 32)
    mosaic = ArrayMosaic(noise((400, 400)))
    whole = cut_stamp(mosaic, placement, method).pixels
    monkeypatch.setattr(cut, "_STRIP_SAMPLES", 3000)
    np.testing.assert_allclose(cut_stamp(mosaic, placement, method).pixels, whole, rtol=2e-6)


@given(block=st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(1, 8), st.integers(1, 8)),
       shrink=st.sampled_from([1, 2, 4]))
def test_bad_fraction_counts_pixels_exactly(block, shrink):
    row, column, height, width = block
    image = noise((96, 96))
    image[32 + row : 32 + row + height, 32 + column : 32 + column + width] = np.nan
    stamp = cut_stamp(ArrayMosaic(image), Placement((47.5, 47.5), turned(float(shrink)), 32 // shrink), "area")
    assert stamp.bad_fraction == height * width / 32**2
    assert stamp.off_fraction == 0


def test_one_bad_pixel_of_a_large_square_is_counted():
    image = noise((1200, 1200))
    image[600, 600] = np.nan
    stamp = cut_stamp(ArrayMosaic(image), Placement((600.0, 600.0), turned(20.0), 50), "bilinear")
    assert stamp.bad_fraction == pytest.approx(1e-6, rel=1e-3)
    assert stamp.off_fraction == 0
    assert not stamp.centre_valid
    assert np.isfinite(stamp.pixels).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("degrees", [0.0, 40.0])
def test_invalid_pixels_do_not_leak_into_their_neighbours(method, degrees):
    image = np.full((100, 100), 5.0, dtype=np.float32)
    image[40:60, 48:52] = np.nan
    image[40, 40] = np.inf
    stamp = cut_stamp(ArrayMosaic(image), Placement((50.0, 50.0), turned(1.5, degrees), 24), method)
    finite = np.isfinite(stamp.pixels)
    assert 0 < (~finite).sum() < 80
    np.testing.assert_allclose(stamp.pixels[finite], 5.0, rtol=1e-6)
    assert not stamp.centre_valid


def test_invalid_pixels_in_the_margin_alone_are_not_counted():
    clean, image = noise((60, 60)), noise((60, 60))
    image[:, 41:] = np.nan  # the stamp ends with pixel 39, its triangle with 40
    placement = Placement((29.5, 29.5), np.eye(2), 20)
    stamp = cut_stamp(ArrayMosaic(image), placement, "bilinear")
    assert stamp.bad_fraction == 0
    np.testing.assert_array_equal(stamp.pixels, cut_stamp(ArrayMosaic(clean), placement, "bilinear").pixels)


@pytest.mark.parametrize("degrees", [0.0, 90.0, 25.0])
@pytest.mark.parametrize("corner", [(2.0, 50.0), (97.6, 50.2), (50.0, 1.0), (0.0, 0.0), (98.9, 99.4)])
def test_a_stamp_near_the_edge_stays_centred(corner, degrees):
    """A source 2 px from the edge came 15 px off-centre and zero-filled from another tool."""
    mosaic = ArrayMosaic(gaussian((100, 100), corner, 2.0) + 1e-9)
    stamp = cut_stamp(mosaic, Placement(corner, turned(1.0, degrees), 41), "bilinear")
    peak = np.unravel_index(np.nanargmax(stamp.pixels), stamp.pixels.shape)
    assert np.hypot(peak[0] - 20, peak[1] - 20) < 1.5
    assert np.isnan(stamp.pixels).any()
    assert 0 < stamp.off_fraction < 1
    assert stamp.bad_fraction == stamp.off_fraction
    assert stamp.centre_valid


def test_the_share_outside_the_mosaic_is_exact():
    stamp = cut_stamp(ArrayMosaic(noise((40, 40))), Placement((-0.5, 19.5), np.eye(2), 20), "area")
    assert stamp.off_fraction == 0.5
    assert np.isnan(stamp.pixels[:, :10]).all()
    assert np.isfinite(stamp.pixels[:, 10:]).all()


def test_a_square_off_the_mosaic_is_all_invalid():
    stamp = cut_stamp(ArrayMosaic(noise((40, 40))), Placement((500.0, 500.0), np.eye(2), 20), "bilinear")
    assert np.isnan(stamp.pixels).all()
    assert (stamp.bad_fraction, stamp.off_fraction, stamp.centre_valid) == (1.0, 1.0, False)


def test_a_stamp_larger_than_its_mosaic():
    stamp = cut_stamp(ArrayMosaic(np.ones((6, 6))), Placement((2.5, 2.5), np.eye(2), 12), "area")
    assert stamp.off_fraction == 0.75
    assert np.isfinite(stamp.pixels).sum() == 36


@given(start=st.tuples(st.integers(0, 30), st.integers(0, 30)), degrees=st.sampled_from([0.0, 12.3]))
def test_bits_depend_on_the_pixels_in_reach_alone(start, degrees):
    """The same sky in a larger or smaller mosaic, from a view or a copy, gives the same bits."""
    image = noise((130, 130))
    placement = Placement((65.3, 64.9), turned(1.7, degrees), 20)
    row, column = start
    part = ArrayMosaic(image[row:, column:])
    moved = Placement((65.3 - column, 64.9 - row), placement.matrix, 20)
    whole = cut_stamp(ArrayMosaic(image), placement, "bilinear").pixels
    # Moving the origin rounds the centre: to 1e-14 pixels.
    np.testing.assert_allclose(cut_stamp(part, moved, "bilinear").pixels, whole, rtol=3e-6)
    again = cut_stamp(ArrayMosaic(image.copy(order="F")), placement, "bilinear").pixels
    assert again.tobytes() == whole.tobytes()


@given(pixels=st.integers(1, 40), step=st.floats(0.05, 8.0), centre=st.floats(30, 60),
       sign=st.sampled_from([-1, 1]), method=st.sampled_from(METHODS))
def test_weights_sum_to_one(pixels, step, centre, sign, method):
    half = int(np.ceil(step * pixels / 2 + step)) + 2
    taps = axis_taps(pixels, half + centre % 1, sign * step, method)
    assert (taps.weights >= 0).all()
    np.testing.assert_allclose(taps.weights.sum(axis=0, dtype=float), 1, rtol=1e-6)
    placed = taps.placed(3, 2 * half + 5)
    assert placed.first.min() >= 0
    assert (placed.first + len(placed.weights) <= 2 * half + 5).all()
    np.testing.assert_array_equal(dense(placed, 2 * half + 5)[:, 3:], dense(taps, 2 * half + 2))


def dense(taps, length):
    """Return the weights of all pixels (pixels, length); taps beyond them have none."""
    at = taps.first + np.arange(len(taps.weights))[:, None]
    assert not taps.weights[(at < 0) | (at >= length)].any()
    weights = np.zeros((len(taps.first), length), np.float32)
    for place, weight in zip(at, taps.weights, strict=True):
        np.add.at(weights, (np.arange(len(place)), np.clip(place, 0, length - 1)), weight)
    return weights
