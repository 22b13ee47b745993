"""The blocks of a shard, which are made here and read back by HDF5, checksums and all."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catmorph.errors import CatmorphError
from catmorph.stamps.fletcher import fletcher32
from catmorph.stamps.store import STAMPS_A_CHUNK, ShardContent, open_shard, write_shard


def of_hdf5(block: np.ndarray) -> int:
    """Return the checksum that HDF5's own filter keeps after a block."""
    with h5py.File("block.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("block", data=block, chunks=block.shape, fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,) * block.ndim)
    assert len(stored) == block.nbytes + 4
    return int.from_bytes(stored[-4:], "little")


def content_of(stamps: np.ndarray) -> ShardContent:
    count, channels = stamps.shape[:2]
    return ShardContent(
        ids=[str(row) for row in range(count)], flags=np.zeros(count, np.uint32),
        rows=np.arange(count, dtype=np.int32), bad_fraction=np.zeros(count, np.float32),
        signal=np.zeros(count, np.float32), centre=np.zeros((count, channels, 2)),
        pixel_scale=np.zeros((count, channels), np.float32), mosaic=np.zeros((count, channels), np.int16),
        stamps=stamps, mosaics=["a.fits"],
    )  # fmt: skip


@settings(deadline=None)
@given(words=st.integers(1, 5000), seed=st.integers(0, 99), highest=st.sampled_from([0, 1, 65535]))
def test_checksums_are_those_of_hdf5(words, seed, highest):
    block = np.random.default_rng(seed).integers(0, highest, words, dtype="<u2", endpoint=True)
    assert fletcher32(block) == of_hdf5(block)


@pytest.mark.parametrize("value", [0x00, 0xFF, 0x80])
def test_sums_of_large_blocks_do_not_run_over(value):
    block = np.full((3, 4096, 1024), value * 0x01010101, "<u4")
    assert fletcher32(block) == of_hdf5(block)


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


def test_files_are_those_that_hdf5_writes_itself(tmp_path, monkeypatch):
    """Stamps of a slice, not of one piece of memory, in blocks of which the last is not full."""
    stamps = np.random.default_rng(0).normal(size=(2 * STAMPS_A_CHUNK - 5, 2, 20, 20)).astype(np.float32)[:, ::-1]
    write_shard(tmp_path / "ours.h5", content_of(stamps), {})

    def by_hdf5(file, stamps):
        file.create_dataset("stamps", data=stamps, chunks=(STAMPS_A_CHUNK, *stamps.shape[1:]), fletcher32=True)

    monkeypatch.setattr("catmorph.stamps.store._write_stamps", by_hdf5)
    write_shard(tmp_path / "theirs.h5", content_of(stamps), {})
    assert (tmp_path / "ours.h5").read_bytes() == (tmp_path / "theirs.h5").read_bytes()


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
