"""The blocks of a shard: what is written comes back, and what is damaged is told."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from catmorph.errors import CatmorphError
from catmorph.stamps.store import STAMPS_A_CHUNK, ShardContent, open_shard, write_shard


def content_of(stamps: np.ndarray) -> ShardContent:
    count, channels = stamps.shape[:2]
    return ShardContent(
        ids=[str(row) for row in range(count)], flags=np.zeros(count, np.uint32),
        rows=np.arange(count, dtype=np.int32), bad_fraction=np.zeros(count, np.float32),
        signal=np.zeros(count, np.float32), centre=np.zeros((count, channels, 2)),
        pixel_scale=np.zeros((count, channels), np.float32), mosaic=np.zeros((count, channels), np.int16),
        stamps=stamps, mosaics=["a.fits"],
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, STAMPS_A_CHUNK - 1, STAMPS_A_CHUNK, 2 * STAMPS_A_CHUNK + 3])
@pytest.mark.parametrize(("channels", "side"), [(1, 80), (3, 7), (5, 1)])
def test_stamps_come_back(tmp_path, count, channels, side):
    stamps = np.random.default_rng(count).normal(size=(count, channels, side, side)).astype(np.float32)
    stamps[::3, 0, 0] = np.nan
    write_shard(tmp_path / "shard.h5", content_of(stamps), {})
    with open_shard(tmp_path / "shard.h5") as shard:
        np.testing.assert_array_equal(shard.read(slice(None)), stamps)
        np.testing.assert_array_equal(shard.read(np.arange(count)[::-1]), stamps[::-1])
    with h5py.File(tmp_path / "shard.h5") as file:
        assert file["stamps"].fletcher32 == bool(count)


def test_a_flipped_bit_is_told(tmp_path):
    path = tmp_path / "shard.h5"
    stamps = np.arange(40 * 400, dtype=np.float32).reshape(40, 1, 20, 20)
    write_shard(path, content_of(stamps), {})
    data = bytearray(path.read_bytes())
    place = bytes(data).index(stamps[33].tobytes())
    data[place + 17] ^= 4
    path.write_bytes(data)
    with open_shard(path) as shard:
        np.testing.assert_array_equal(shard.read(slice(0, 32)), stamps[:32])
        with pytest.raises(CatmorphError, match="is damaged"):
            shard.read(slice(32, 40))
