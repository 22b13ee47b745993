"""Pictures of stamps in colour: which bands, which stretch, what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from release_run import clash, galaxies, given, write_run

from catmorph.cli import cli
from catmorph.recipe import BandColumns
from catmorph.report.colour import GREY, MISSING, Palette, chosen_planes, palette_for, picture
from catmorph.report.gallery import gallery
from catmorph.stamps.store import ShardContent, write_shard

FIVE = ["F275W", "F336W", "F438W", "F555W", "F814W"]
WEI = ["F814W", "F438W+F555W", "F275W+F336W"]
"""Red, green and blue of Wei et al. (2020)."""
RGB = Palette(((0,), (1,), (2,)))


def bands(colour=(), names=FIVE):
    return BandColumns(names=tuple(names), colour=tuple(colour))


def stars(*colours, seed=0, side=24):
    """A stamp of noise with a star in the middle; each of `colours` is its peak in a band."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    noise = np.random.default_rng(seed).normal(0, 1, (len(colours), side, side))
    return (noise + np.array(colours)[:, None, None] * np.exp(-(x**2 + y**2) / 8)).astype(np.float32)


def recipe(names, *overrides):
    return clash(f"bands.names={names}", f"bands.reference='{names[0]}'", f"views.all={names}", *overrides)


def test_the_bands_of_each_colour():
    assert bands(WEI).colour_bands == (("F814W",), ("F438W", "F555W"), ("F275W", "F336W"))
    assert chosen_planes(bands(WEI).colour_bands, FIVE) == ((4,), (2, 3), (0, 1))
    # What a view does not have is left out of a sum; without any band of a colour there is no composite of that kind.
    assert chosen_planes(bands(WEI).colour_bands, [*FIVE[1:4], "F814W"]) == ((3,), (1, 2), (0,))
    assert chosen_planes(bands(WEI).colour_bands, FIVE[:3]) == ()
    assert bands(["a+b", "c", "a + c"], ["a", "c", "a+b"]).colour_bands == (("a+b",), ("c",), ("a", "c"))


@pytest.mark.parametrize(("colour", "problem"), [
    (["F814W", "F555W"], "colour must name what is red, green and blue, not 2 of them"),
    (["F814W", "F555W", "F438W+F999W"], "colour: unknown band 'F999W'; bands are F275W"),
    (["F814W", "F555W", "F438W+"], "colour: unknown band ''"),
])  # fmt: skip
def test_colours_that_cannot_be(colour, problem):
    with pytest.raises(ValueError, match=problem):
        bands(colour)


def test_the_palette_of_a_view():
    assert palette_for(recipe(FIVE), "all") == Palette(((4,), (2,), (0,)))
    assert palette_for(recipe(FIVE[:4]), "all") == Palette(((3,), (2,), (0,)))
    assert palette_for(recipe(FIVE, f"bands.colour={WEI}"), "all") == Palette(((4,), (2, 3), (0, 1)))
    assert palette_for(recipe(FIVE[:2]), "all") == GREY
    ranged = palette_for(recipe(FIVE, "normalise.method='range'", "normalise.high_value=100.0"), "all")
    assert ranged == Palette(((4,), (2,), (0,)), (0.0, 100.0))


def test_red_is_red_and_grey_is_grey():
    for colours, order in (((900, 300, 100), [0, 1, 2]), ((100, 300, 900), [2, 1, 0])):
        middle = picture(stars(*colours), RGB)[11:13, 11:13].mean(axis=(0, 1))
        assert np.argsort(-middle).tolist() == order
        assert middle.max() > 0.9
        assert middle.min() < 0.4
    even = picture(stars(300, 300, 300), RGB)[11:13, 11:13].mean(axis=(0, 1))
    np.testing.assert_allclose(even, even.mean(), atol=0.1)


def test_bands_of_any_unit_and_depth_have_a_grey_sky():
    stamp = stars(0, 0, 0) * np.array([1, 1e-9, 1e5], np.float32)[:, None, None] + np.array([7, 0, 1e6])[:, None, None]
    image = picture(stamp.astype(np.float32), RGB)
    sky = image.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(sky, sky.mean(), atol=0.01)
    assert 0.05 < sky.mean() < 0.3


def test_a_sum_of_bands_is_one_colour_and_a_missing_band_none():
    stamp = stars(0, 200, 200, 0, 0)
    wei = Palette(((4,), (2, 3), (0, 1)))
    middle = picture(stamp, wei)[11:13, 11:13].mean(axis=(0, 1))
    assert middle[0] < 0.2 * middle[1:].min()
    stamp[0] = np.nan
    assert picture(stamp, wei)[11, 11, 2] > 0.5
    stamp[1] = np.nan
    assert not picture(stamp, wei)[..., 2].any()


def test_invalid_pixels_are_bluish_where_no_band_has_one():
    stamp = stars(50, 50, 50)
    stamp[:, :3] = np.nan
    stamp[1, 5] = np.nan
    image = picture(stamp, RGB)
    assert (image[:3] == MISSING).all()
    assert not (image[5] == MISSING).all(axis=-1).any()
    assert np.isfinite(image).all()
    for palette in (GREY, RGB):
        assert (picture(np.full((3, 4, 4), np.nan, np.float32), palette) == MISSING).all()
        assert np.isfinite(picture(np.ones((3, 4, 4), np.float32), palette)).all()


def test_values_of_a_known_range_stay_as_they_are():
    stamp = np.array([[[0, 51], [255, 300]], [[102] * 2] * 2, [[-5, 0], [np.nan, 1]]], np.float32)
    image = picture(stamp, Palette(RGB.planes, (0, 255)))
    np.testing.assert_allclose(image[..., 0], [[0, 0.2], [1, 1]], atol=1e-6)
    np.testing.assert_allclose(image[..., 1], 0.4, atol=1e-6)
    np.testing.assert_allclose(image[..., 2], [[0, 0], [0, 1 / 255]], atol=1e-6)
    np.testing.assert_array_equal(picture(stamp, Palette(RGB.planes, (0, 255), top_first=True)), image[::-1])


@pytest.fixture
def run(tmp_path):
    """Four sources in a view of five bands, the first two red, the others blue."""
    made = write_run(tmp_path / "run", recipe(FIVE, f"bands.colour={WEI}"), [galaxies(4)],
                     given([0] * 4, [[1, 0, 0, 0, 0]] * 4))  # fmt: skip
    peaks = [(1, 1, 20, 30, 400)] * 2 + [(400, 90, 20, 9, 1)] * 2
    stamps = np.stack([stars(*one, seed=seed) for seed, one in enumerate(peaks)])
    n, (chunk,) = len(stamps), made.chunks()
    content = ShardContent(
        ["1", "2", "3", "4"], np.zeros(n, "u4"), np.arange(n, dtype="i4"), np.zeros(n, "f4"), np.ones(n, "f4"),
        np.zeros((n, 5, 2)), np.ones((n, 5), "f4"), np.zeros((n, 5), "i2"), stamps, ["a.fits"],
    )  # fmt: skip
    write_shard(made.shard_path("all", chunk), content, {})
    return made


def test_the_gallery_is_in_colour(run, tmp_path):
    image = imread(gallery(run, ["all"], 4, 1, tmp_path / "a.png").path)
    assert image.shape[:2] == (22 + 152, 4 * 126 + 6)
    middles = [image[22 + 60, 6 + 60 + 126 * index, :3] for index in range(4)]
    assert sorted(bool(red > blue + 0.5) for red, _, blue in middles) == [False, False, True, True]
    assert sorted(bool(blue > red + 0.5) for red, _, blue in middles) == [False, False, True, True]
    assert gallery(run, ["all"], 4, 1, tmp_path / "b.png").path.read_bytes() == (tmp_path / "a.png").read_bytes()


def test_a_wrong_colour_on_the_command_line():
    result = CliRunner().invoke(cli, ["check", "-r", "configs/clash.toml", "--set", "bands.colour=['F814W', 'V', 'B']"])
    assert result.exit_code == 2
    assert "bands: colour: unknown band 'V'; bands are F225W" in result.stderr
    assert len(result.stderr.splitlines()) == 1
