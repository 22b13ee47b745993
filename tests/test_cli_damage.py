"""Damaged and deleted files of a run folder: found, made again, and never released."""

from __future__ import annotations

import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_survey import Survey

from catmorph.files import read_sealed, write_sealed

RUN = ("run", "tiny.toml")


def flip(path, seed=0):
    """Change bytes in the middle of a file, and leave its size."""
    data, generator = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(3):
        place = generator.randrange(len(data) // 4, 3 * len(data) // 4)
        data[place] ^= 1 + generator.randrange(255)
    path.write_bytes(bytes(data))


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path):
    path.write_bytes(random.Random(3).randbytes(path.stat().st_size))


def another_table(path):
    pq.write_table(pa.table({"x": [1]}), path)


PRODUCTS = ["sources.parquet", "rejected.parquet", "plan.parquet", "logits/net/F160W/alpha-*.parquet",
            "ledger/sources.parquet.json", "ledger/plan.parquet.json", "ledger/identities.json",
            "ledger/stamps/F160W/alpha-*.json", "ledger/logits/net/F160W/alpha-*.json",
            "release/provenance.json"]  # fmt: skip


@pytest.mark.parametrize("spoil", [flip, cut_short, garbage])
def test_run_finds_and_remakes_what_is_damaged(finished_survey, release_bytes, tmp_path, spoil):
    """All products but the shards at once: they are told from the ledger, or remade with it."""
    survey = Survey(finished_survey.folder).copy(tmp_path / "tiny")
    for pattern in PRODUCTS:
        (path,) = survey.run.glob(pattern)
        spoil(path)
    done = survey(*RUN)
    assert done.status == 0, done.err
    assert release_bytes(survey) == release_bytes(finished_survey)


@pytest.mark.parametrize("name", ["sources.parquet", "rejected.parquet", "plan.parquet"])
@pytest.mark.parametrize("spoil", [flip, cut_short, garbage, another_table])
def test_status_tells_of_damaged_sources_what_run_does(finished, release_bytes, name, spoil):
    before = release_bytes(finished)
    spoil(finished.run / name)
    told = finished("status", "-r", "tiny.toml")
    assert (told.status, told.err) == (0, "")
    assert re.search(rf"^ingest  +0 +1 +0  {name} is damaged: its (size|bytes) (is|are) not what was written; "
                     r"`catmorph run` makes it again \(1\)$", told.out, re.MULTILINE)
    assert "ingest: 1 to make" in finished(*RUN, "--dry-run").out
    assert finished(*RUN, "-q").status == 0
    assert release_bytes(finished) == before
    assert re.search(r"^ingest  +1 +0 +0$", finished("status", "-r", "tiny.toml").out, re.MULTILINE)


def test_status_of_a_new_folder(finished, tmp_path):
    told = finished("status", "-r", "tiny.toml", "-w", str(tmp_path / "new"))
    assert re.search(r"^ingest  +0 +0 +1  not made yet \(1\)$", told.out, re.MULTILINE)


def test_status_tells_of_a_plan_that_no_marker_describes(finished):
    garbage(finished.run / "plan.parquet")
    (finished.run / "ledger" / "plan.parquet.json").unlink()
    assert "not made yet" in finished("status", "-r", "tiny.toml").out
    another_table(finished.run / "plan.parquet")
    assert "not made yet" in finished("status", "-r", "tiny.toml").out


def forge(path, *keys, value):
    """Put a value into a file of the ledger and seal it anew; of None the key is removed."""
    found = inner = read_sealed(path)
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    write_sealed(path, found)


FORGED = [
    ("sources.parquet.json", ("counts",), [1, 2, 3]),
    ("sources.parquet.json", ("counts", "read"), None),
    ("sources.parquet.json", ("counts", "read"), -9),
    ("sources.parquet.json", ("counts", "sources"), 1),
    ("sources.parquet.json", ("parts",), "all"),
    ("sources.parquet.json", ("empty",), 5),
    ("sources.parquet.json", ("matches",), [{"name": "x"}]),
    ("plan.parquet.json", ("fingerprint",), None),
    ("stamps/F160W/alpha-*.json", ("sources",), None),
    ("stamps/F160W/alpha-*.json", ("flags",), [["EDGE", 1]]),
    ("stamps/F160W/alpha-*.json", ("flags",), {"UNREADABLE": 10**30}),
    ("stamps/F160W/alpha-*.json", ("stamps",), -1),
    ("stamps/F160W/alpha-*.json", ("failures",), [["mosaic.fits"]]),
    ("stamps/F160W/alpha-*.json", ("bad_images",), "a.png"),
    ("stamps/F160W/alpha-*.json", ("parts", "[mosaics]"), None),
    ("logits/net/F160W/alpha-*.json", ("parts",), "x"),
    ("logits/net/F160W/alpha-*.json", ("parts", "classifier"), ["x"]),
    ("logits/net/F160W/alpha-*.json", ("classified",), True),
    ("logits/net/F160W/alpha-*.json", ("flags",), None),
    ("identities.json", ("derived",), ["x"]),
    ("identities.json", ("/a",), [1]),
    ("export.json", ("files",), ["Tiny.csv"]),
    ("export.json", ("formats",), None),
    ("export.json", ("account",), {"read": 1}),
    ("counts.json", ("counts",), {}),
    ("counts.json", ("counts", "sources"), 1),
    ("counts.json", ("counts", "fields", "alpha", "tallies"), []),
    ("counts.json", ("counts", "fields", "alpha", "tallies", 0, "mergers"), 99),
    ("counts.json", ("counts", "groups", "each"), {"none": {"sources": 1, "released": 1, "tallies": []}}),
]


@pytest.mark.parametrize(("pattern", "keys", "value"), FORGED)
def test_a_sealed_file_of_another_shape_is_damaged(finished, release_bytes, pattern, keys, value):
    before = release_bytes(finished)
    (path,) = finished.run.glob(f"ledger/{pattern}")
    forge(path, *keys, value=value)
    forged = path.read_bytes()
    recipe = ("-r", "tiny.toml", "-q")
    for command in (("status", *recipe), (*RUN, "--dry-run"), ("summarize", *recipe), ("export", *recipe)):
        done = finished(*command)
        assert len(done.lines) == (done.status != 0), done.err
        if done.status == 0:
            path.write_bytes(forged)
    done = finished(*RUN, "-q")
    assert done.status == 0, done.err
    assert release_bytes(finished) == before
    assert not re.search(r"damaged|stale +[1-9]", finished("status", *recipe).out)


@pytest.mark.parametrize("pattern", PRODUCTS[:4])
def test_a_damaged_product_is_not_released(finished, release_bytes, pattern):
    before = release_bytes(finished)
    (path,) = finished.run.glob(pattern)
    flip(path)
    for command in ("export", "summarize"):
        done = finished(command, "-r", "tiny.toml", "-q")
        assert done.status == 1
        (line,) = done.lines
        assert line.startswith(f"catmorph: error: {path}: ")
        assert re.search(r"damaged: its bytes are not what was written.*; run `catmorph ", line)
    after = release_bytes(finished)
    assert {name: data for name, data in after.items() if name != path.name} == {
        name: data for name, data in before.items() if name != path.name
    }
    assert finished(*RUN, "-q").status == 0
    assert release_bytes(finished) == before


@pytest.mark.parametrize("spoil", [flip, cut_short, garbage])
def test_a_damaged_shard_is_not_classified(finished, finished_survey, release_bytes, spoil):
    (shard,) = finished.run.glob("stamps/F160W/alpha-*.h5")
    spoil(shard)
    (logits,) = finished.run.glob("logits/net/F160W/alpha-*.parquet")
    logits.unlink()
    done = finished(*RUN, "-q")
    if done.status:
        assert (done.status, done.lines) == (1, [
            f"catmorph: error: {shard}: is damaged: its bytes are not what was written; "
            "run `catmorph run` or `catmorph cutouts`, which cut it again"
        ])  # fmt: skip
        assert finished(*RUN, "-q").status == 0
    assert release_bytes(finished) == release_bytes(finished_survey)


@pytest.mark.parametrize(
    "missing", ["sources.parquet", "rejected.parquet", "plan.parquet", "ledger", "stamps", "logits"]
)
def test_what_is_deleted_is_made_again(finished, finished_survey, release_bytes, missing):
    target = finished.run / missing
    target.rename(finished.folder / "away")
    done = finished("export", "-r", "tiny.toml", "-q")
    assert (done.status in (1, 2)) == (missing != "stamps")
    assert len(done.lines) == (missing != "stamps")
    assert finished(*RUN, "-q").status == 0
    assert release_bytes(finished) == release_bytes(finished_survey)
