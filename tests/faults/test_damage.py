"""Flipped bytes and truncation in every kind of file of a run folder: remade and told, or refused; never released."""

from __future__ import annotations

import random

import h5py
import pytest

from catmorph.api import open_run, open_stamps
from catmorph.errors import CatmorphError

RUN = ("run", "tiny.toml")


def flip(path):
    """Change one bit in the middle of a file, and leave its size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path):
    path.write_bytes(b"")


def zeros(path):
    """What a file system may leave of the blocks that had not reached the disk."""
    path.write_bytes(bytes(path.stat().st_size))


RARE = pytest.mark.faults
SPOILS = [flip, cut_short, pytest.param(empty, marks=RARE), pytest.param(zeros, marks=RARE)]
TOLD = ["sources.parquet", "rejected.parquet", "plan.parquet", "logits/net/F160W/alpha-*.parquet",
        "ledger/sources.parquet.json", "ledger/plan.parquet.json", "ledger/stamps/F160W/alpha-*.json",
        "ledger/logits/net/F160W/alpha-*.json"]  # fmt: skip
SILENT = ["ledger/identities.json", "folder.json", "recipe.toml", "omitted.parquet", "failures.parquet", "lock",
          "release/Tiny.csv", "release/provenance.json", "release/summary.json", "release/summary.md",
          "release/columns.md", "run.json", "logs/catmorph.jsonl"]  # fmt: skip
"""Written anew by every run, or only a cache: nothing is to be told."""


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("pattern", TOLD)
def test_damage_is_told_and_the_product_made_again(finished, finished_survey, release_bytes, pattern, spoil):
    (path,) = finished.run.glob(pattern)
    spoil(path)
    done = finished(*RUN)
    assert done.status == 0, done.err
    product = pattern.removeprefix("ledger/").removesuffix(".json").partition("*")[0]
    told = [line for line in done.lines if line.startswith("catmorph: warning: ")]
    assert len(told) == 1
    assert product in told[0]
    assert "damaged: its " in told[0]
    assert told[0].endswith("; made again")
    assert release_bytes(finished) == release_bytes(finished_survey)
    quiet = finished(*RUN)
    assert "warning" not in quiet.err


@pytest.mark.parametrize("spoil", [flip, cut_short, empty, zeros])
def test_what_every_run_writes_is_mended_without_a_word(finished, finished_survey, release_bytes, spoil):
    paths = [path for pattern in SILENT for path in finished.run.glob(pattern)]
    assert len(paths) >= 11
    for path in paths:
        if path.stat().st_size:
            spoil(path)
    done = finished(*RUN)
    assert done.status == 0, done.err
    assert "warning" not in done.err
    assert release_bytes(finished) == release_bytes(finished_survey)


def pixels_of(path):
    """Return the place in the file of the first chunk of pixels."""
    with h5py.File(path) as file:
        return file["stamps"].id.get_chunk_info(0).byte_offset


def test_a_flipped_bit_in_the_pixels_of_a_shard_is_found_and_the_shard_cut_again(
    finished, finished_survey, release_bytes
):
    (shard,) = finished.run.glob("stamps/F160W/alpha-*.h5")
    (logits,) = finished.run.glob("logits/net/F160W/alpha-*.parquet")
    good, place = shard.read_bytes(), pixels_of(shard) + 1001
    damaged = bytearray(good)
    damaged[place] ^= 16
    shard.write_bytes(bytes(damaged))
    run = open_run(finished.recipe, finished.run)
    with open_stamps(run, "F160W") as stamps, pytest.raises(CatmorphError, match="is damaged: "):
        stamps[0]

    logits.unlink()
    done = finished(*RUN)
    assert done.status == 0, done.err
    assert [line for line in done.lines if "warning" in line] == [
        f"catmorph: warning: {shard}: was damaged, its bytes were not what was written; cut again"
    ]
    assert shard.read_bytes() == good
    assert release_bytes(finished) == release_bytes(finished_survey)


@pytest.mark.parametrize("spoil", [flip, cut_short, empty, zeros])
def test_all_shards_damaged_at_once(finished, finished_survey, release_bytes, spoil):
    shards = sorted(finished.run.glob("stamps/*/*.h5"))
    good = [shard.read_bytes() for shard in shards]
    for shard in shards:
        spoil(shard)
    for logits in finished.run.glob("logits/net/*/*.parquet"):
        logits.unlink()
    done = finished(*RUN)
    assert done.status == 0, done.err
    assert "damaged" in done.err
    assert [shard.read_bytes() for shard in shards] == good
    assert release_bytes(finished) == release_bytes(finished_survey)


def test_a_damaged_shard_whose_mosaic_is_gone_is_refused(finished):
    (shard,) = finished.run.glob("stamps/F160W/alpha-*.h5")
    (logits,) = finished.run.glob("logits/net/F160W/alpha-*.parquet")
    flip(shard)
    logits.unlink()
    (finished.folder / "mosaics" / "alpha_f160w.fits").unlink()
    done = finished("classify", "-r", "tiny.toml", "-q")
    assert (done.status, done.lines) == (1, [
        f"catmorph: error: {shard}: is damaged, and its mosaics are not those it was cut from; "
        "run `catmorph run` or `catmorph cutouts`, which cut it again"
    ])  # fmt: skip
    assert finished(*RUN, "-q").status in (0, 3)


def test_a_damaged_mosaic_that_was_cut_already_changes_its_identity(finished, finished_survey, release_bytes):
    """One flipped bit in a mosaic is another mosaic: its stamps are cut again, from it."""
    path = finished.folder / "mosaics" / "alpha_f160w.fits"
    good = path.read_bytes()
    flip(path)
    assert "1 made, 5 up to date" in finished(*RUN).lines[1]
    path.write_bytes(good)
    assert "1 made, 5 up to date" in finished(*RUN).lines[1]
    assert release_bytes(finished) == release_bytes(finished_survey)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(12))
def test_any_damage_to_any_files(finished, finished_survey, release_bytes, seed):
    """Half of all files of the run folder damaged in some way, or gone."""
    generator = random.Random(seed)
    for path in sorted(finished.run.rglob("*")):
        if path.is_file() and path.stat().st_size and generator.random() < 0.5:
            generator.choice([flip, cut_short, empty, zeros, type(path).unlink])(path)
    done = finished(*RUN)
    assert done.status == 0, (seed, done.err)
    assert release_bytes(finished) == release_bytes(finished_survey)
