"""The compiled code and what stands in for it: the same bits."""

from __future__ import annotations

import importlib
import shutil
import sys
import sysconfig
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_files import tan_wcs, write_mosaic

from catmorph.recipe import StampSection
from catmorph.stamps import compiled
from catmorph.stamps.block import BlockPlan, cut_block
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.separable import Taps, axis_taps
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.store import STAMPS_A_CHUNK, ShardContent, write_shard
from catmorph.stamps.weighing import weighted_sums

HEADERS = Path(sysconfig.get_paths()["include"], "Python.h")
needs_kernel = pytest.mark.skipif(compiled.kernel is None, reason="catmorph was installed without a C compiler")


@pytest.mark.skipif(not (shutil.which("cc") and HEADERS.exists()), reason="there is no C compiler")
def test_it_is_there_where_it_can_be():
    assert compiled.kernel is not None, "install catmorph again: pip install -e ."


def both(work):
    """Return what `work` gives with and without compiled code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "kernel", None)
        without = work()
    return work(), without


@needs_kernel
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 20), side=st.integers(1, 40), count=st.integers(0, 4),
       method=st.sampled_from(["bilinear", "area"]), largest=st.sampled_from([0.3, 1.0, 2.5, 9.0]),
       spoilt=st.sampled_from([0.0, 0.01, 1.0]),
       layout=st.sampled_from(["rows", "columns", "backwards", "window", "shifted"]))
def test_sums_have_the_same_bits(seed, side, count, method, largest, spoilt, layout):
    random = np.random.default_rng(seed)
    pixels = (random.normal(size=(420, 431)) * 10.0 ** random.integers(-40, 37, (420, 431))).astype(np.float32)
    pixels[random.random(pixels.shape) < 0.3] = random.choice([0.0, -0.0, 7.0])
    pixels[random.random(pixels.shape) < spoilt] = np.nan
    pixels = {"rows": pixels, "columns": np.asfortranarray(pixels), "backwards": pixels[::-1, ::-1],
              "window": pixels[3:, 5:], "shifted": shifted(pixels)}[layout]
    step = random.uniform(0.1, largest, (2, count)) * random.choice([-1, 1], (2, count))
    centre = random.uniform(190, 230, (2, count))
    y, x = (axis_taps(side, centre[axis], step[axis], method).placed(0, pixels.shape[axis]) for axis in (0, 1))
    fast, slow = both(lambda: weighted_sums(pixels, y, x))
    assert fast.shape == slow.shape == (count, side, side)
    assert np.isnan(fast).tolist() == np.isnan(slow).tolist()
    good = np.isfinite(fast)
    assert fast[good].tobytes() == slow[good].tobytes()
    if spoilt == 0 and count:
        exact = np.einsum("sij,jk,slk->sil", dense(y, pixels.shape[0]), pixels.astype(float), dense(x, pixels.shape[1]))
        np.testing.assert_allclose(fast[good], exact[good], rtol=1e-4, atol=1e-6 * np.abs(exact).max())


def shifted(pixels: np.ndarray) -> np.ndarray:
    """Return a copy that begins a byte after where single precision may begin."""
    room = np.zeros(pixels.nbytes + 1, np.uint8)
    copied = room[1:].view(np.float32).reshape(pixels.shape)
    copied[:] = pixels
    return copied


def dense(taps: Taps, length: int) -> np.ndarray:
    """Return the weights of all pixels (stamp, pixel, length)."""
    weights = np.zeros((*taps.first.shape, length))
    stamp, pixel = np.ogrid[: taps.first.shape[0], : taps.first.shape[1]]
    for tap, values in enumerate(taps.weights):
        weights[stamp, pixel, taps.first + tap] += values
    return weights


@needs_kernel
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 20), side=st.integers(1, 150), shape=st.sampled_from([(), (0,), (1,), (7,)]),
       method=st.sampled_from(["bilinear", "area"]), largest=st.sampled_from([0.0, 1e-9, 0.5, 3.0, 200.0]))
def test_weights_have_the_same_bits(seed, side, shape, method, largest):
    random = np.random.default_rng(seed)
    step = random.uniform(-1, 1, shape) * largest
    centre = random.uniform(-1e5, 1e5, shape).round(random.integers(0, 6))
    if seed % 3 == 0:
        step = np.round(step * 2) / 2  # edges on edges
    fast, slow = both(lambda: axis_taps(side, centre, step, method))
    assert fast.first.shape == (*shape, side)
    assert fast.first.tobytes() == slow.first.tobytes()
    assert fast.weights.tobytes() == slow.weights.tobytes()


@needs_kernel
@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("distance", [np.nan, np.inf])
def test_what_lies_nowhere_has_no_weights(area, distance):
    weights = np.zeros((2, 2), np.float32)
    compiled.kernel.tap_weights(np.array([distance, -0.5]), np.ones(2), area, weights)
    assert np.isnan(weights[:, 0]).all()
    assert np.isfinite(weights[:, 1]).all()


@needs_kernel
@pytest.mark.parametrize("resample", ["bilinear", "area"])
@pytest.mark.parametrize("orientation", ["mosaic", "north"])
def test_chunks_have_the_same_bits(tmp_path, resample, orientation):
    """Whole stamps, some at edges and holes, and of turned mosaics."""
    random = np.random.default_rng(3)
    image = random.normal(size=(260, 260)).astype(np.float32)
    image[100:104, 60:180] = np.nan
    files = []
    for degrees in (0.0, 20.0):
        path = tmp_path / f"{degrees}.fits"
        files.append(ImageFiles(str(write_mosaic(path, image, tan_wcs(150.0, 2.0, shape=(260, 260), angle=degrees)))))
    count = 60
    sources = {"id": [str(row) for row in range(count)], "ra": 150 + random.uniform(-2e-3, 2e-3, count),
               "dec": 2 + random.uniform(-2e-3, 2e-3, count), "size_arcsec": random.uniform(0.2, 0.7, count)}
    section = StampSection.model_validate({"side": "4 radii", "pixels": 24, "resample": resample,
                                           "orientation": orientation})
    plan = BlockPlan(tuple((file,) for file in files), None, StampSettings.of(section))
    (fast, _), (slow, _) = both(lambda: cut_block(plan, sources))
    assert 5 < len(fast.stamps) < count
    for name in ("stamps", "flags", "rows", "bad_fraction", "signal", "axes"):
        assert getattr(fast, name).tobytes() == getattr(slow, name).tobytes(), name


@needs_kernel
@pytest.mark.parametrize("count", [0, 1, STAMPS_A_CHUNK - 1, STAMPS_A_CHUNK, 3 * STAMPS_A_CHUNK + 1])
@pytest.mark.parametrize(("channels", "side"), [(1, 80), (3, 7), (5, 1)])
def test_shards_are_the_same_bytes(tmp_path, count, channels, side):
    stamps = np.random.default_rng(count).normal(size=(count, channels, side, side)).astype(np.float32)
    stamps[::5] = 0
    content = ShardContent(
        ids=[str(row) for row in range(count)], flags=np.zeros(count, np.uint32), rows=np.arange(count, dtype=np.int32),
        bad_fraction=np.zeros(count, np.float32), signal=np.zeros(count, np.float32),
        centre=np.zeros((count, channels, 2)), pixel_scale=np.zeros((count, channels), np.float32),
        mosaic=np.zeros((count, channels), np.int16), stamps=stamps, mosaics=["a.fits"],
    )

    def written() -> bytes:
        write_shard(tmp_path / "shard.h5", content, {"field": "A"})
        return (tmp_path / "shard.h5").read_bytes()

    fast, slow = both(written)
    assert fast == slow


@needs_kernel
@settings(deadline=None)
@given(words=st.integers(1, 1500), seed=st.integers(0, 99), kind=st.sampled_from(["any", "zero", "full", "sparse"]))
def test_checksums_are_those_of_hdf5(words, seed, kind):
    random = np.random.default_rng(seed)
    data = {"any": random.integers(0, 1 << 16, words), "zero": np.zeros(words), "full": np.full(words, 0xFFFF),
            "sparse": random.choice([0, 0xFFFF, 1], words, p=[0.98, 0.01, 0.01])}[kind].astype(np.uint16)
    with h5py.File.in_memory() if hasattr(h5py.File, "in_memory") else h5py.File(
            "checksum", "w", driver="core", backing_store=False) as file:
        file.create_dataset("data", data=data, chunks=data.shape, fletcher32=True)
        file.flush()
        _, stored = file["data"].id.read_direct_chunk((0,))
    assert compiled.kernel.fletcher32(data) == int.from_bytes(stored[-4:], "little")


@needs_kernel
def test_what_does_not_fit_is_refused():
    """Whatever it is given, compiled code reads and writes within the arrays."""
    def arguments(**changed):
        given = {"pixels": np.zeros((9, 7), np.float32), "y_first": np.zeros((2, 3), np.intp),
                 "y_weights": np.zeros((4, 2, 3), np.float32), "x_first": np.zeros((2, 3), np.intp),
                 "x_weights": np.zeros((5, 2, 3), np.float32), "out": np.zeros((2, 3, 3), np.float32), **changed}
        return list(given.values())

    weigh = compiled.kernel.weighted_sums
    assert weigh(*arguments()) is None
    read_only = np.zeros((2, 3, 3), np.float32)
    read_only.flags.writeable = False
    wrong = [
        (TypeError, {"pixels": np.zeros((9, 7))}), (TypeError, {"pixels": np.zeros((9, 7), ">f4")}),
        (TypeError, {"pixels": np.zeros(9, np.float32)}), (TypeError, {"y_first": np.zeros((2, 3))}),
        (TypeError, {"y_first": np.zeros((2, 3), np.int16)}), (TypeError, {"x_weights": np.zeros((2, 3), np.float32)}),
        (TypeError, {"out": None}), (ValueError, {"out": np.zeros((2, 3, 6), np.float32)[..., ::2]}),
        ((ValueError, BufferError), {"out": read_only}),
        (ValueError, {"pixels": np.zeros((9, 14), np.float32)[:, ::2]}),
        (ValueError, {"out": np.zeros((2, 3, 4), np.float32)}), (ValueError, {"out": np.zeros((1, 3, 3), np.float32)}),
        (ValueError, {"x_first": np.zeros((2, 4), np.intp)}),
        (ValueError, {"y_weights": np.zeros((4, 3, 2), np.float32)}),
        (ValueError, {"y_weights": np.zeros((0, 2, 3), np.float32)}),
        (IndexError, {"y_first": np.full((2, 3), 6)}), (IndexError, {"x_first": np.full((2, 3), 3)}),
        (IndexError, {"x_first": np.full((2, 3), -1)}),
        (IndexError, {"y_first": np.full((2, 3), np.iinfo(np.intp).max)}),
        (IndexError, {"pixels": np.zeros((9, 0), np.float32)}), (IndexError, {"pixels": np.zeros((3, 7), np.float32)}),
    ]
    for error, changed in wrong:
        with pytest.raises(error):
            weigh(*arguments(**changed))
    with pytest.raises(TypeError, match="six arrays"):
        weigh(*arguments()[:5])
    four = np.zeros(4)
    for error, wrong_ones in [
        (TypeError, (four, four, True)),
        (TypeError, (four, four.astype(np.float32), True, np.zeros((2, 4), np.float32))),
        (TypeError, (four, four, True, np.zeros(4, np.float32))), (ValueError, (four, four[::2], True, None)),
        (ValueError, (four, four, False, np.zeros((2, 5), np.float32))),
        (ValueError, (four, np.zeros(3), False, np.zeros((2, 4), np.float32))),
        (ValueError, (four, four, False, np.zeros((0, 4), np.float32))),
    ]:
        with pytest.raises(error):
            compiled.kernel.tap_weights(*wrong_ones)
    shifted_by_one = memoryview(bytes(8 * 3 + 1))[1:].cast("d")
    with pytest.raises(TypeError, match="aligned"):
        compiled.kernel.tap_weights(shifted_by_one, np.ones(3), 0, np.empty((2, 3), np.float32))
    with pytest.raises(ValueError, match="odd"):
        compiled.kernel.fletcher32(b"abc")
    with pytest.raises(TypeError):
        compiled.kernel.fletcher32("ab")


@needs_kernel
@pytest.mark.parametrize("version", [0, None])
def test_what_is_left_over_from_another_catmorph_is_not_used(monkeypatch, version):
    if version is None:
        monkeypatch.delattr(sys.modules["catmorph.stamps._kernel"], "VERSION")
    else:
        monkeypatch.setattr(sys.modules["catmorph.stamps._kernel"], "VERSION", version)
    try:
        assert importlib.reload(compiled).kernel is None
    finally:
        monkeypatch.undo()
        assert importlib.reload(compiled).kernel is not None


def test_without_it_catmorph_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "catmorph.stamps._kernel", None)
    monkeypatch.delattr("catmorph.stamps._kernel", raising=False)
    try:
        assert importlib.reload(compiled).kernel is None
    finally:
        monkeypatch.undo()
        importlib.reload(compiled)
