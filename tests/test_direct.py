"""`classify --direct` and `run --direct`: no stamps are kept, and everything else is as with them."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from catmorph import engine


def logits(survey):
    return {str(path.relative_to(survey.run)): path.read_bytes() for path in (survey.run / "logits").rglob("*.parquet")}


def shards(survey):
    return sorted(str(path.relative_to(survey.run)) for path in survey.run.rglob("*.h5"))


@pytest.mark.parametrize("workers", [1, 2])
def test_logits_and_release_are_those_of_stamps_that_are_kept(
    survey, finished_survey, release_bytes, monkeypatch, workers
):
    monkeypatch.setattr(engine, "WORTH_A_POOL_SECONDS", 0.0)
    done = survey("run", "tiny.toml", "--direct", "--workers", workers)
    assert done.status == 0, done.err
    assert shards(survey) == []
    assert logits(survey) == logits(finished_survey)
    assert release_bytes(survey) == release_bytes(finished_survey)
    failures = [pq.read_table(one.run / "failures.parquet") for one in (survey, finished_survey)]
    assert failures[0].equals(failures[1])
    assert done.lines[1].startswith("cutouts, not kept: 33 (source, view)s, 21 stamps; 6 made, 0 up to date; flags: ")


def test_what_is_done_is_not_done_again(survey, finished_survey):
    assert survey("run", "tiny.toml", "--direct").status == 0
    planned = survey("run", "tiny.toml", "--direct", "--dry-run")
    assert planned.out.splitlines()[1] == "classify: 0 to make, 6 up to date"
    again = survey("run", "tiny.toml", "--direct")
    assert again.lines[1].startswith(
        "cutouts, not kept: 33 (source, view)s, 21 stamps; 0 made, 6 up to date; flags: ")
    assert "; 0 made, 6 up to date" in again.lines[2]
    # What is recorded of stamps that were not kept is no leftover.
    assert survey("clean", "-r", "tiny.toml").out == ""
    assert survey("export", "-r", "tiny.toml").status == 0
    # Stamps that are cut for other uses leave the logits valid.
    assert "not kept (2)" in survey("status", "-r", "tiny.toml").out
    cut = survey("cutouts", "-r", "tiny.toml")
    assert "; 6 made, 0 up to date" in cut.lines[0]
    assert shards(survey) == shards(finished_survey)
    assert "; 0 made, 6 up to date" in survey("classify", "-r", "tiny.toml").lines[0]


def test_a_changed_mosaic_has_its_share_done_again(survey):
    assert survey("run", "tiny.toml", "--direct").status == 0
    with fits.open(survey.folder / "mosaics" / "alpha_f814w.fits", mode="update") as file:
        file[0].data *= np.float32(1.01)
    planned = survey("run", "tiny.toml", "--direct", "--dry-run")
    assert planned.out.splitlines()[1].startswith("classify: 1 to make, 5 up to date; 6 (source, view)s")
    again = survey("run", "tiny.toml", "--direct", "--verbose")
    assert "; 1 made, 5 up to date; flags: " in again.lines[1]
    assert "  made because: mosaic F814W changed (1)" in again.lines
    assert "  made because: stamps changed (1)" in again.lines


def test_an_unreadable_mosaic_is_flagged_and_tried_again(survey, finished_survey, release_bytes):
    mosaic = survey.folder / "mosaics" / "beta_f160w.fits"
    whole = mosaic.read_bytes()
    mosaic.write_bytes(b"<html>")
    done = survey("run", "tiny.toml", "--direct")
    assert done.status == 3
    assert any(line.startswith("catmorph: warning: beta_f160w.fits (field beta): ") for line in done.lines)
    assert pq.read_table(survey.run / "failures.parquet")["file"].to_pylist() == ["beta_f160w.fits"]
    stopped = survey("run", "tiny.toml", "--direct", "--fail-fast")
    assert stopped.status == 1
    assert stopped.lines[-1].startswith("catmorph: error: beta_f160w.fits: ")
    mosaic.write_bytes(whole)
    assert survey("run", "tiny.toml", "--direct").status == 0
    assert release_bytes(survey) == release_bytes(finished_survey)
    assert pq.read_table(survey.run / "failures.parquet").num_rows == 0


def test_stamps_that_are_there_are_used(finished, finished_survey):
    shutil.rmtree(finished.run / "logits" / "net" / "F814W")
    before = {name: (finished.run / name).stat().st_mtime_ns for name in shards(finished)}
    done = finished("classify", "-r", "tiny.toml", "--direct")
    assert "; 0 made, 6 up to date" in done.lines[0]
    assert "; 2 made, 4 up to date" in done.lines[1]
    assert {name: (finished.run / name).stat().st_mtime_ns for name in shards(finished)} == before
    assert logits(finished) == logits(finished_survey)


def test_outdated_stamps_are_given_up(finished, pristine_survey, tmp_path):
    """A shard of an older recipe must not lie beside what the newer one is recorded to have cut."""
    survey = pristine_survey.copy(tmp_path / "other")
    for one in (finished, survey):
        one.edit('[normalise]', '[stamp]\nside = "5 radii"\n\n[normalise]')
        assert one("models", "create", "clash-inception", "-r", "tiny.toml", "--output", "new.safetensors").status == 0
        one.edit("untrained.safetensors", "new.safetensors")
    assert len(shards(finished)) == 6
    assert finished("run", "tiny.toml", "--direct").status == 0
    assert shards(finished) == []
    assert survey("run", "tiny.toml").status == 0
    assert logits(finished) == logits(survey)
    with h5py.File(survey.run / shards(survey)[0]) as file:
        assert file["stamps"].shape[1:] == (1, 80, 80)


def test_without_shards_that_were_removed_by_hand_nothing_is_made_again(finished, finished_survey):
    shutil.rmtree(finished.run / "stamps")
    assert finished("clean", "-r", "tiny.toml").out == ""
    planned = finished("run", "tiny.toml", "--direct", "--dry-run")
    assert planned.out.splitlines()[1] == "classify: 0 to make, 6 up to date"
    (lost, *_) = sorted((finished.run / "logits" / "net" / "F160W").iterdir())
    lost.unlink()
    done = finished("run", "tiny.toml", "--direct", "-v")
    assert "; 1 made, 5 up to date" in done.lines[1]
    assert "  made because: stamps are not kept, and a network is to see them (1)" in done.lines
    assert any(line.startswith("classify: ") and line.endswith("; 1 made, 5 up to date") for line in done.lines)
    assert logits(finished) == logits(finished_survey)


def test_what_is_lost_or_damaged_is_told(finished):
    (finished.folder / "mosaics" / "alpha_f814w.fits").unlink()
    (damaged,) = finished.run.glob("stamps/F160W/beta-*.h5")
    damaged.write_bytes(damaged.read_bytes()[:-10])
    done = finished("run", "tiny.toml", "--direct")
    warnings = [line.removeprefix("catmorph: warning: ") for line in done.lines if "warning: " in line]
    assert "F814W, field alpha: the mosaic has gone; its 5 stamps are given up" in warnings
    assert f"{damaged}: damaged: its size is not what was written; removed, as stamps need not be kept" in warnings
    assert not damaged.exists()
    assert "; 1 made, 5 up to date" in done.lines[1]
    assert any(line.startswith("classify: ") and line.endswith("; 1 made, 5 up to date") for line in done.lines)


def test_a_mosaic_that_still_cannot_be_read_leaves_the_logits_valid(survey):
    (survey.folder / "mosaics" / "beta_f160w.fits").write_bytes(b"<html>")
    first, second = survey("run", "tiny.toml", "--direct"), survey("run", "tiny.toml", "--direct")
    assert (first.status, second.status) == (3, 3)
    assert "; 1 made, 5 up to date" in second.lines[1]
    assert any(line.startswith("classify: ") and line.endswith("; 0 made, 6 up to date") for line in second.lines)


def test_rates_of_the_other_way_of_working_are_not_forecast(finished):
    shutil.rmtree(finished.run / "logits")
    (with_shards,), (direct,) = (
        [line for line in finished("run", "tiny.toml", "--dry-run", *more).out.splitlines() if "classify: " in line]
        for more in ((), ("--direct",)))  # fmt: skip
    assert "at the last rate" in with_shards
    assert "at the last rate" not in direct
    (finished.run / "logs" / "catmorph.jsonl").unlink()
    assert finished("run", "tiny.toml", "--direct").status == 0
    shutil.rmtree(finished.run / "logits")
    direct = finished("run", "tiny.toml", "--dry-run", "--direct").out.splitlines()[1]
    with_shards = finished("run", "tiny.toml", "--dry-run").out.splitlines()[2]
    assert "at the last rate" in direct
    assert "at the last rate" not in with_shards


def test_a_new_folder_takes_the_survey_table_in(survey, finished_survey):
    done = survey("classify", "-r", "tiny.toml", "--direct", "--band", "F160W")
    assert done.status == 0, done.err
    assert done.lines[0].startswith("ingest: ")
    assert logits(survey).items() <= logits(finished_survey).items()
    assert len(logits(survey)) == 2


@pytest.mark.parametrize("readers", [1, 3])
def test_threads_that_read_ahead_change_nothing(finished, finished_survey, readers):
    """Whatever is damaged or missing: a shard is cut again, or the same error is told."""
    shutil.rmtree(finished.run / "logits")
    damaged = sorted(finished.run.rglob("*.h5"))[2]
    damaged.write_bytes(damaged.read_bytes()[:-100] + b"!" * 100)
    done = finished("classify", "-r", "tiny.toml", "--workers", readers)
    assert done.status == 0, done.err
    assert logits(finished) == logits(finished_survey)
    assert "was damaged, its bytes were not what was written; cut again" in done.err
    shutil.rmtree(finished.run / "logits")
    damaged.unlink()
    done = finished("classify", "-r", "tiny.toml", "--workers", readers)
    assert done.status == 1
    assert done.lines[-1].endswith("there are no stamps; run `catmorph cutouts`, or classify with --direct")


def test_without_stamps_it_is_told_how_to_classify(survey):
    assert survey("ingest", "-r", "tiny.toml").status == 0
    done = survey("classify", "-r", "tiny.toml")
    assert done.status == 1
    assert done.lines[-1].endswith("there are no stamps; run `catmorph cutouts`, or classify with --direct")


def test_options_that_exclude_each_other_are_refused(survey):
    done = survey("run", "tiny.toml", "--direct", "--scheduler", "tcp://x:1")
    error = "--direct cuts on this machine, --scheduler on others; leave one of them out"
    assert (done.status, done.lines) == (2, [f"catmorph: error: {error}"])
