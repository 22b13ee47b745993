"""Many stamps at once: the same bits as one by one, however the mosaic is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_files import tan_wcs, write_mosaic

from catmorph.recipe import StampSection
from catmorph.stamps import block, block_whole, whole
from catmorph.stamps.block import BlockPlan, cut_block
from catmorph.stamps.cut import Placement, cut_stamp
from catmorph.stamps.judge import are_flat
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.pixels import Mosaic
from catmorph.stamps.rows import Rows
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.signal import signal_to_noise, signals_to_noise


class Array:
    """An image in memory that counts its reads; `each` is what one costs besides its pixels."""

    def __init__(self, pixels: np.ndarray, each: float = 1e4):
        self.pixels, self.each, self.shape, self.reads = pixels.astype(np.float32), each, pixels.shape, 0

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        self.reads += 1
        return self.pixels[rows, columns].copy()

    def cost(self, first: np.ndarray, past: np.ndarray) -> np.ndarray:
        return self.each + (past - first).prod(axis=-1)


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def placed(count: int, seed: int, side: int = 300) -> whole.ParallelStamps:
    random = np.random.default_rng(seed)
    size = random.uniform(0.2, 3.0, (count, 1)) * random.uniform(0.95, 1, (count, 2))
    step = size * random.choice([-1, 1], (count, 2))
    return whole.ParallelStamps(random.uniform(-5, side + 5, (count, 2)), step, 24)


def one_by_one(mosaic: Array, stamps: whole.ParallelStamps, row: int, resample: str):
    placement = Placement(tuple(stamps.centre[row]), np.diag(stamps.step[row]), stamps.pixels)
    return cut_stamp(mosaic, placement, resample)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), count=st.integers(1, 60), resample=st.sampled_from(["bilinear", "area"]),
       each=st.sampled_from([0.0, 1e9]), strip=st.sampled_from([2000, 20_000, 1 << 23]))
def test_bits_are_those_of_one_by_one(seed, count, resample, each, strip):
    """From strips or single windows, in batches of any size, in any company."""
    mosaic, stamps = Array(noise((300, 300), seed), each), placed(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "_STRIP_PIXELS", strip)
        patch.setattr(whole, "_BATCH_PIXELS", 5000)
        cut = {row: pixels for rows, many, _ in whole.cut_whole(mosaic, stamps, resample)
               for row, pixels in zip(rows.tolist(), many, strict=True)}
    for row in range(count):
        alone = one_by_one(mosaic, stamps, row, resample)
        if row in cut:
            assert cut[row].tobytes() == alone.pixels.tobytes()
            assert alone.bad_fraction == 0
        else:
            x, y = stamps.centre[row]
            near = 12 * np.abs(stamps.step[row]).max() + 16
            assert min(x, y, 300 - x, 300 - y) < near, "left out without reason"


def test_an_invalid_pixel_spoils_its_stamp():
    image = noise((300, 300))
    image[150, 150] = np.nan
    stamps = whole.ParallelStamps(np.array([[150.3, 149.8], [60.0, 60.0]]), np.full((2, 2), 1.3), 24)
    (rows, pixels, blank), = whole.cut_whole(Array(image), stamps, "bilinear")
    assert not blank.any()
    spoilt = dict(zip(rows.tolist(), pixels, strict=True))
    assert np.isnan(spoilt[0]).any()
    assert np.isfinite(spoilt[1]).all()
    assert are_flat(pixels).tolist() == [np.isnan(stamp).any() for stamp in pixels]


def test_windows_without_a_valid_pixel_are_told_from_those_with_one():
    image = np.full((300, 300), np.nan, np.float32)
    image[200, 200] = 1
    stamps = whole.ParallelStamps(np.array([[200.0, 200.0], [60.0, 60.0]]), np.full((2, 2), 1.3), 24)
    (rows, pixels, blank), = whole.cut_whole(Array(image), stamps, "bilinear")
    assert dict(zip(rows.tolist(), blank.tolist(), strict=True)) == {0: False, 1: True}
    assert np.isnan(pixels).all()
    alone = one_by_one(Array(image), stamps, 1, "bilinear")
    assert np.isnan(alone.pixels).all()
    assert (alone.bad_fraction, alone.off_fraction, alone.centre_valid) == (1, 0, False)


def test_dense_windows_are_read_as_one_and_lone_ones_alone():
    random = np.random.default_rng(1)
    dense, lone = Array(noise((2000, 2000)), 2e4), Array(noise((2000, 2000)), 2e4)
    step = np.ones((200, 2))
    for _ in whole.cut_whole(dense, whole.ParallelStamps(random.uniform(100, 400, (200, 2)), step, 24), "area"):
        pass
    corners = np.array([[100.0, 100.0], [1900.0, 1900.0]])
    for _ in whole.cut_whole(lone, whole.ParallelStamps(corners, step[:2], 24), "area"):
        pass
    assert dense.reads == 1
    assert lone.reads == 2


def test_nothing_to_cut():
    assert list(whole.cut_whole(Array(noise((50, 50))), placed(0, 1), "bilinear")) == []
    assert list(whole.cut_whole(Array(noise((9, 9))), placed(5, 1, 9), "bilinear")) == []


def test_tiles_of_compressed_mosaics_cost_as_wholes(tmp_path):
    mosaic = Mosaic(ImageFiles(str(write_mosaic(tmp_path / "a.fits.fz", noise((200, 200)), tan_wcs(150.0, 2.0)))))
    plain = Mosaic(ImageFiles(str(write_mosaic(tmp_path / "a.fits", noise((200, 200)), tan_wcs(150.0, 2.0)))))
    first, past = np.array([[30, 10], [0, 0]]), np.array([[40, 20], [0, 0]])
    try:
        window, nothing = plain.cost(first, past)
        assert window - nothing == 100
        assert (mosaic.cost(first, past) >= [window, nothing]).all()
    finally:
        mosaic.close()
        plain.close()


@pytest.mark.parametrize("settings", [
    {"side": "4 radii"}, {"side": "3 arcsec", "values": "flux"}, {"side": "31.5 pixels", "orientation": "north"},
    {"side": "4 radii", "resample": "area", "min_signal": 1.0, "min_side_pixels": 8},
])
def test_a_chunk_is_the_same_with_and_without(tmp_path, monkeypatch, settings):
    """With holes, edges, a flat part, overlapping tiles and two bands: every column and pixel."""
    first, second = noise((260, 260), 1), noise((260, 260), 2)
    first[100:104, 60:180] = np.nan
    second[180:, :] = 4.5
    wcs = tan_wcs(150.0, 2.0, shape=(260, 260))
    moved = tan_wcs(150.0, 2.0, shape=(260, 260))
    moved.wcs.crpix = 30.2, 128.9
    paths = [write_mosaic(tmp_path / f"{name}.fits", image, world)
             for name, image, world in (("a", first, wcs), ("b", second, wcs), ("c", first[::-1].copy(), moved))]
    tiles = (tuple(ImageFiles(str(path)) for path in (paths[0], paths[2])), (ImageFiles(str(paths[1])),))
    random = np.random.default_rng(5)
    ra, dec = wcs.all_pix2world(random.uniform(-10, 270, 80), random.uniform(-10, 270, 80), 0)
    rows = {"id": np.array([str(row) for row in range(80)]), "ra": ra, "dec": dec,
            "size_arcsec": np.where(random.random(80) < 0.1, np.nan, random.uniform(0.3, 1.5, 80))}
    plan = BlockPlan(tiles, None, StampSettings.of(StampSection(**{"pixels": 24, **settings})))
    stamps, at_once, _ = the_same_with_and_without(monkeypatch, plan, rows)
    assert 5 < at_once < stamps
    assert 10 < stamps < 80


@pytest.mark.parametrize("settings", [{}, {"max_bad_fraction": 1.0}, {"orientation": "north", "values": "flux"}])
def test_blank_parts_of_a_mosaic_are_the_same_with_and_without(tmp_path, monkeypatch, settings):
    """Half of a mosaic is blank, some of that half lies on another tile."""
    first = noise((260, 260), 1)
    first[:, 130:] = np.nan
    wcs = tan_wcs(150.0, 2.0, shape=(260, 260))
    moved = tan_wcs(150.0, 2.0, shape=(260, 260))
    moved.wcs.crpix = 130.2, -28.9
    paths = [write_mosaic(tmp_path / "a.fits", first, wcs), write_mosaic(tmp_path / "b.fits", noise((260, 260)), moved)]
    random = np.random.default_rng(5)
    ra, dec = wcs.all_pix2world(random.uniform(0, 260, 80), random.uniform(0, 260, 80), 0)
    rows = {"id": np.array([str(row) for row in range(80)]), "ra": ra, "dec": dec, "size_arcsec": np.full(80, 0.4)}
    tiles = (tuple(ImageFiles(str(path)) for path in paths),)
    plan = BlockPlan(tiles, None, StampSettings.of(StampSection(**{"pixels": 24, "side": "4 radii", **settings})))
    _, at_once, settled = the_same_with_and_without(monkeypatch, plan, rows)
    assert settled > at_once + 5


def the_same_with_and_without(monkeypatch, plan: BlockPlan, rows: dict[str, np.ndarray]) -> tuple[int, int, int]:
    """Compare every column and pixel; return the stamps, those cut at once, and the sources settled at once."""
    at_once = []

    def keep_whole(kept: Rows, *rest: object) -> None:
        block_whole.keep_whole(kept, *rest)
        at_once.extend([int(kept.kept.sum()), int(kept.settled.sum())])

    monkeypatch.setattr(block, "keep_whole", keep_whole)
    fast, failed = cut_block(plan, rows)
    monkeypatch.setattr(block, "keep_whole", lambda *_: None)
    slow, _ = cut_block(plan, rows)
    assert failed == []
    for name in ("flags", "rows", "bad_fraction", "signal", "centre", "pixel_scale", "mosaic", "stamps", "axes"):
        assert getattr(fast, name).tobytes() == getattr(slow, name).tobytes(), name
    return len(fast.stamps), *at_once


@given(seed=st.integers(0, 100), side=st.integers(5, 40), levels=st.sampled_from([3, 40, 10**6]))
def test_signals_of_many_are_those_of_each(seed, side, levels):
    random = np.random.default_rng(seed)
    stamps = np.round(random.normal(size=(5, side, side)) * levels).astype(np.float32) / levels
    stamps[0] = 2.0
    expected = np.array([signal_to_noise(stamp) for stamp in stamps])
    assert signals_to_noise(stamps).tobytes() == expected.tobytes()


@given(seed=st.integers(0, 100), side=st.integers(5, 30))
def test_signal_is_its_definition(seed, side):
    stamp = np.random.default_rng(seed).normal(1, 2, (side, side)).astype(np.float32)
    offset = np.arange(side) - (side - 1) / 2
    inner = stamp[np.hypot(offset[:, None], offset) <= max(side / 8, 1)].astype(float)
    edge = max(1, side // 10)
    outside = np.ones((side, side), bool)
    outside[edge:-edge, edge:-edge] = False
    border = stamp[outside].astype(float)
    noise_level = 1.4826 * np.median(np.abs(border - np.median(border)))
    expected = (inner.sum() - np.median(border) * inner.size) / (noise_level * np.sqrt(inner.size))
    assert signal_to_noise(stamp) == pytest.approx(expected, rel=1e-4, abs=1e-4)
