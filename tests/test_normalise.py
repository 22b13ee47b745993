from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io import fits
from astropy.visualization.lupton_rgb import AsinhMapping
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from catmorph.recipe import NormaliseSection
from catmorph.recipe.pixels import USED_OPTIONS
from catmorph.stamps.cut import Placement, cut_stamp
from catmorph.stamps.normalise import METHODS, normalise

FILLS = ("zero", "median", "minimum")
SCOPED = [method for method, options in USED_OPTIONS.items() if "scope" in options]
ALL = [NormaliseSection(method=method, fill=fill) for method in METHODS for fill in FILLS]
ALL += [NormaliseSection(method=method, fill=fill, scope="stamp") for method in SCOPED for fill in FILLS]


def stamp(*rows):
    """One stamp of one channel."""
    return np.array(rows, dtype=np.float32)[None, None]


def galaxies(count, side=20, seed=0, channels=1):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    sky = random.normal(0, 1, (count, channels, side, side))
    return (sky + 50 * np.exp(-(x**2 + y**2) / 20)).astype(np.float32)


pixels = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 5), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    elements=st.one_of(
        st.floats(-(2.0**100), 2.0**100, width=32), st.just(np.float32(np.nan)), st.just(np.float32(np.inf))
    ),
)


@settings(max_examples=60, deadline=None)
@given(pixels, st.sampled_from(ALL), st.randoms(use_true_random=False))
def test_a_stamps_result_does_not_depend_on_its_neighbours(stamps, section, random):
    order = list(range(len(stamps)))
    random.shuffle(order)
    alone = [normalise(stamps[i : i + 1], section)[0] for i in order]
    together = normalise(stamps[order], section)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(alone, together, strict=True))


@settings(max_examples=60, deadline=None)
@given(pixels, st.sampled_from(ALL))
def test_the_network_sees_only_finite_numbers(stamps, section):
    result = normalise(stamps, section)
    assert result.shape == stamps.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


@pytest.mark.parametrize("section", ALL, ids=lambda one: f"{one.method}-{one.fill}-{one.scope}")
def test_blocks_do_not_change_the_bits(section):
    stamps = galaxies(150, side=11)
    stamps[::7, :, :3] = np.nan
    together = normalise(stamps, section)
    if section.method == "lupton":
        three = galaxies(50, side=11, channels=3)
        three[::7, 1] = np.nan
        assert normalise(three, section)[49:].tobytes() == normalise(three[49:], section).tobytes()
        assert normalise(three, section)[20:23].tobytes() == normalise(three[20:23], section).tobytes()
    assert together[149:].tobytes() == normalise(stamps[149:], section).tobytes()
    assert together[64:66].tobytes() == normalise(stamps[64:66], section).tobytes()


def test_minmax_runs_from_0_to_1():
    assert normalise(stamp([2, 4], [6, 10]), NormaliseSection(method="minmax")).tolist() == [[[[0, 0.25], [0.5, 1]]]]


def test_each_channel_is_scaled_alone():
    two = np.array([[[[0, 1]], [[10, 30]]]], dtype=np.float32)
    assert normalise(two, NormaliseSection(method="minmax")).tolist() == [[[[0, 1]], [[0, 1]]]]


def test_none_keeps_the_pixels_and_fills_the_rest():
    section = NormaliseSection(method="none", fill="median")
    assert normalise(stamp([1, np.nan], [3, 7]), section).tolist() == [[[[1, 3], [3, 7]]]]


@pytest.mark.parametrize(("fill", "value"), [("zero", 0.0), ("minimum", 1.0), ("median", 4.0)])
def test_fill(fill, value):
    section = NormaliseSection(method="none", fill=fill)
    assert normalise(stamp([1, 3], [5, 9], [np.nan, np.inf]), section)[0, 0, 2].tolist() == [value, value]


def test_invalid_pixels_do_not_stretch_the_scale():
    section = NormaliseSection(method="minmax", fill="zero")
    assert normalise(stamp([10, 20], [15, np.nan]), section).tolist() == [[[[0, 1], [0.5, 0]]]]


def test_bytescale_has_256_steps():
    ramp = np.linspace(-3, 9, 1000, dtype=np.float32).reshape(1, 1, 20, 50)
    steps = normalise(ramp, NormaliseSection(method="bytescale"))[0, 0] * 255
    assert np.array_equal(steps, np.round(steps))
    assert len(np.unique(steps)) == 256


def test_percentile_agrees_with_numpy():
    stamps = galaxies(3)
    low, high = np.percentile(stamps.astype(np.float64), [2, 95], axis=(2, 3), keepdims=True)
    wanted = np.clip((stamps - low) / (high - low), 0, 1)
    section = NormaliseSection(method="percentile", low=2, high=95)
    np.testing.assert_allclose(normalise(stamps, section), wanted, atol=2e-6)


def test_asinh_puts_the_sky_at_0_and_the_peak_at_1():
    stamps = galaxies(4, side=80)
    result = normalise(stamps, NormaliseSection(method="asinh", softening=3))
    median = np.median(stamps, axis=(2, 3), keepdims=True)
    noise = 1.4826 * np.median(np.abs(stamps - median), axis=(2, 3), keepdims=True)
    wanted = np.arcsinh((stamps - median) / (3 * noise))
    np.testing.assert_allclose(result, wanted / wanted.max(axis=(2, 3), keepdims=True), atol=2e-6)
    np.testing.assert_allclose(np.median(result, axis=(2, 3)), 0, atol=1e-6)


def test_asinh_does_not_depend_on_the_unit_of_the_pixels():
    stamps = galaxies(2)
    section = NormaliseSection(method="asinh")
    np.testing.assert_allclose(normalise(stamps * 1e-9, section), normalise(stamps, section), atol=1e-6)


@pytest.mark.parametrize("method", ["minmax", "bytescale", "percentile", "asinh", "lupton"])
def test_a_flat_stamp_becomes_zero(method):
    section = NormaliseSection(method=method)
    assert not normalise(np.full((1, 1, 8, 8), 7, np.float32), section).any()
    assert not normalise(np.full((1, 1, 8, 8), np.nan, np.float32), section).any()


# --- several bands ----------------------------------------------------------------------------------------


def test_maximum_divides_each_band_by_its_own():
    two = np.array([[[[0, 1], [2, 4]], [[-10, 10], [np.nan, 20]]]], dtype=np.float32)
    section = NormaliseSection(method="maximum", fill="zero")
    assert normalise(two, section).tolist() == [[[[0, 0.25], [0.5, 1]], [[-0.5, 0.5], [0, 1]]]]


def test_maximum_of_a_band_that_is_nowhere_positive_and_of_one_with_a_hole():
    three = np.array([[[[-3, -1]], [[0, 0]], [[-1e30, 1e-40]]]], dtype=np.float32)
    assert normalise(three, NormaliseSection(method="maximum")).tolist() == [[[[0, 0]], [[0, 0]], [[-1, 1]]]]


def test_range_of_8_bit_values():
    section = NormaliseSection(method="range")
    assert normalise(stamp([0, 51], [255, 300]), section).tolist() == [[[[0, np.float32(0.2)], [1, 1]]]]
    section = NormaliseSection(method="range", low_value=-2, high_value=2)
    assert normalise(stamp([-5, -1], [0, 2]), section).tolist() == [[[[0, 0.25], [0.5, 1]]]]


def test_over_the_whole_stamp_the_ratios_of_the_bands_stay():
    two = np.array([[[[0, 1], [2, 4]], [[1, 3], [np.nan, 8]]]], dtype=np.float32)
    section = NormaliseSection(method="minmax", scope="stamp", fill="zero")
    assert normalise(two, section).tolist() == [[[[0, 0.125], [0.25, 0.5]], [[0.125, 0.375], [0, 1]]]]
    section = NormaliseSection(method="maximum", scope="stamp", fill="median")
    assert normalise(two, section).tolist() == [[[[0, 0.125], [0.25, 0.5]], [[0.125, 0.375], [0.375, 1]]]]


@pytest.mark.parametrize("method", SCOPED)
def test_the_scaling_over_the_stamp_is_that_of_its_pixels_in_one_band(method):
    stamps = galaxies(3, side=12, channels=4) + np.arange(4, dtype=np.float32)[:, None, None] ** 2
    stamps[:, 1, 3:5] = np.nan
    section = NormaliseSection(method=method, fill="zero", scope="stamp")
    alone = normalise(stamps.reshape(3, 1, 48, 12), section.model_copy(update={"scope": "band"}))
    assert normalise(stamps, section).tobytes() == alone.tobytes()


@pytest.mark.parametrize("section", ALL, ids=lambda one: f"{one.method}-{one.fill}-{one.scope}")
def test_a_missing_band_is_zero_and_does_not_touch_the_others(section):
    stamps = galaxies(2, side=10, channels=3) + 5
    stamps[0, 1] = np.nan
    result = normalise(stamps, section)
    assert not result[0, 1].any()
    assert np.abs(result[0, [0, 2]]).max() > 0.1
    np.testing.assert_array_equal(result[0, [0, 2]], normalise(stamps[:1, [0, 2]], section)[0])


def test_a_missing_band_is_zero_where_the_range_begins_below():
    empty = np.full((1, 1, 4, 4), np.nan, np.float32)
    assert not normalise(empty, NormaliseSection(method="range", low_value=-10, high_value=10)).any()


@pytest.mark.parametrize("channels", [3, 1])
def test_lupton_is_the_composite_of_astropy(channels):
    stamps = galaxies(3, side=30, channels=channels) * np.linspace(1, 4, channels, dtype=np.float32)[:, None, None]
    found = normalise(stamps, NormaliseSection(method="lupton", stretch=6, q=5))
    for stamp, image in zip(stamps, found, strict=True):
        light = stamp.astype(np.float64) - np.median(stamp, axis=(1, 2), keepdims=True)
        intensity = light.mean(axis=0)
        noise = 1.4826 * np.median(np.abs(intensity - np.median(intensity)))
        planes = light if channels == 3 else np.repeat(light, 3, axis=0)
        wanted = AsinhMapping(0, 6 * noise, 5).make_rgb_image(*planes)  # 0 to 255, cut to whole numbers
        np.testing.assert_allclose(255 * image, np.moveaxis(wanted, 2, 0)[:channels], atol=1.001)
    assert found.max() > 0.8


def test_lupton_keeps_the_colour_of_the_brightest_pixel():
    sky = np.random.default_rng(3).normal(0, 1, (1, 3, 25, 25)).astype(np.float32)
    sky[0, :, 12, 12] += np.array([1e5, 2e5, 4e5], np.float32)
    peak = normalise(sky, NormaliseSection(method="lupton"))[0, :, 12, 12]
    np.testing.assert_allclose(peak, [0.25, 0.5, 1], atol=1e-4)


def test_lupton_without_noise_takes_the_peak_to_1():
    stamps = np.zeros((1, 2, 9, 9), np.float32)
    stamps[0, :, 4, 4] = 7
    stamps[0, :, 4, 5] = 0.07
    result = normalise(stamps, NormaliseSection(method="lupton"))
    assert result[0, :, 4, 4] == pytest.approx([1, 1], abs=1e-6)
    assert (result[0, :, 4, 5] > 0.05).all()
    assert result.sum() == pytest.approx(result[0, :, 4, 4:6].sum())


def test_options_that_cannot_be():
    with pytest.raises(ValueError, match="low_value must be below high_value"):
        NormaliseSection(method="range", low_value=255)
    with pytest.raises(ValueError, match="scope = 'stamp' is for the methods minmax, bytescale, percentile, asinh, "
                                         "maximum, not lupton"):
        NormaliseSection(method="lupton", scope="stamp")


def test_new_options_at_their_default_leave_fingerprints_alone():
    assert NormaliseSection().fingerprint_values == {
        "method": "minmax", "low": 0.5, "high": 99.5, "softening": 3.0, "fill": "median"
    }
    assert NormaliseSection(scope="stamp").fingerprint_values["scope"] == "stamp"


def test_a_copy_has_a_fingerprint_of_its_own():
    section = NormaliseSection()
    assert section.fingerprint_values["fill"] == "median"
    copy = section.model_copy(update={"fill": "zero"})
    assert copy.fingerprint_values["fill"] == "zero"
    assert section.model_copy() == section != copy


def test_an_empty_array_stays_empty():
    empty = np.empty((0, 3, 8, 8), dtype=np.float32)
    assert normalise(empty, NormaliseSection()).shape == (0, 3, 8, 8)


# --- the preprocessing of the CLASH authors ---------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """A whole image as a mosaic to cut from."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    def window(self, rows, columns):
        return self.values[rows, columns].astype(np.float32)


def cut_whole(image, pixels):
    """Cut a whole square image as one stamp, as `catmorph cutouts` does."""
    side = image.shape[0]
    placement = Placement(((side - 1) / 2,) * 2, np.eye(2) * side / pixels, pixels)
    return cut_stamp(Image(image), placement, "bilinear").pixels


def as_the_authors(image, pixels):
    """Do as the authors' code with an array of one stamp: 8 bits over the image's own minimum and maximum, PIL's
    bilinear, and the extremes of the result to 0 and 1. Returns what each step gives.
    """
    image = image.astype(np.float64)
    scaled = (image - image.min()) * (255 / (image.max() - image.min()))
    bytes_ = (scaled + 0.5).astype(np.uint8)
    resized = np.asarray(PillowImage.fromarray(bytes_).resize((pixels, pixels), PillowImage.Resampling.BILINEAR))
    resized = resized.astype(np.float64)
    return bytes_, resized, (resized - resized.min()) / (resized.max() - resized.min())


def check_against_the_authors(image):
    """Return by how many 255ths the input of the network differs from the authors', at most and on average."""
    section = NormaliseSection(method="bytescale")
    bytes_, resized, wanted = as_the_authors(image, 80)
    # Without a resize the two are the same numbers.
    whole = normalise(image[None, None].astype(np.float32), section)[0, 0]
    assert np.array_equal(np.round(whole * 255), bytes_)
    found = normalise(cut_whole(image, 80)[None, None], section)[0, 0]
    difference = 255 * np.abs(found - wanted)
    # Theirs is rounded before and after the resize and stretched then, ours is rounded once.
    assert difference.max() < 2
    assert difference.mean() < 0.6
    return difference.max(), difference.mean(), 255 * np.abs(found - resized / 255).max()


def test_bytescale_is_the_authors_preprocessing_of_a_stamp_alone():
    for image in galaxies(4, side=48)[:, 0]:
        check_against_the_authors(image)


def test_bytescale_of_a_stamp_of_the_authors(real_data):
    image = fits.getdata(real_data / "clash" / "a611_f475w_860.fits")
    assert image.shape == (48, 48)
    most, mean, without = check_against_the_authors(image)
    # The numbers of docs/models.md.
    assert (round(float(most), 1), round(float(mean), 1), round(float(without))) == (1.5, 0.4, 4)
