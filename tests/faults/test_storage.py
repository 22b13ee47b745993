"""Full disks, read-only folders, interrupted renames, files and clocks that change meanwhile."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from launcher import watch_writes

from catmorph.files import cannot_write

RUN = ("run", "tiny.toml")
WORKDIR = "disk/run"


@pytest.fixture
def mounted(survey):
    """Return a function that mounts a file system of some kilobytes at disk/, or again with other options."""
    folder = survey.folder / "disk"
    folder.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")

    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount")
    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def the_error(done):
    (line,) = [line for line in done.lines if "error" in line]
    assert done.status == 1
    assert "internal error" not in line
    return line


def released(survey, folder):
    paths = [*(folder / "release").iterdir(), folder / "rejected.parquet", folder / "omitted.parquet"]
    return {path.name: path.read_bytes() for path in sorted(paths)}


def markers_are_true(survey):
    """Every marker is of a product that is whole."""
    from catmorph.api import open_run

    run = open_run(survey.recipe, survey.folder / WORKDIR)
    for path in (run.path / "ledger").rglob("*.*.json"):  # not what is remembered of the release
        product = run.path / path.relative_to(run.path / "ledger").with_suffix("")
        marker = run.ledger.read(product)
        if marker and "fingerprint" in marker:
            assert marker["size"] == product.stat().st_size


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_space(
    survey, mounted, finished_survey, release_bytes, share
):
    """Of what a run takes: no file fits, the sources do, some shards, some logits, a part of the release."""
    blocks = sum(-(-path.stat().st_size // 4096) for path in finished_survey.run.rglob("*"))
    mounted(f"size={max(4 * int(share * blocks), 4)}k")
    done = survey(*RUN, "-w", WORKDIR, "-q")
    line = the_error(done)
    assert "No space left on device" in line
    assert str(survey.folder / WORKDIR) in line
    markers_are_true(survey)
    mounted("remount,size=20m")
    assert survey(*RUN, "-w", WORKDIR, "-q").status == 0
    assert released(survey, survey.folder / WORKDIR) == release_bytes(finished_survey)


def test_a_full_disk_with_worker_processes(survey, mounted, finished_survey, release_bytes, monkeypatch):
    monkeypatch.setattr("catmorph.engine.WORTH_A_POOL_SECONDS", 0.0)
    mounted("size=300k")
    line = the_error(survey(*RUN, "-w", WORKDIR, "-q", "--workers", "2"))
    assert "No space left on device" in line
    mounted("remount,size=20m")
    assert survey(*RUN, "-w", WORKDIR, "-q", "--workers", "2").status == 0
    assert released(survey, survey.folder / WORKDIR) == release_bytes(finished_survey)


def test_a_disk_without_inodes(survey, mounted, finished_survey, release_bytes):
    mounted("size=20m,nr_inodes=30")
    assert "No space left on device" in the_error(survey(*RUN, "-w", WORKDIR, "-q"))
    mounted("remount,nr_inodes=1000")
    assert survey(*RUN, "-w", WORKDIR, "-q").status == 0
    assert released(survey, survey.folder / WORKDIR) == release_bytes(finished_survey)


def test_a_disk_that_becomes_read_only_half_way(survey, mounted, finished_survey, release_bytes, monkeypatch):
    from catmorph.stamps import build

    mounted("size=20m")
    write_shard, written = build.write_shard, []

    def then_read_only(path, *content):
        if len(written) == 2:
            raise cannot_write(path, OSError(errno.EROFS, os.strerror(errno.EROFS)))
        written.append(path)
        write_shard(path, *content)

    with monkeypatch.context() as patched:
        patched.setattr(build, "write_shard", then_read_only)
        line = the_error(survey(*RUN, "-w", WORKDIR, "-q"))
    assert "cannot be written: Read-only file system" in line
    mounted("remount,ro")
    refused = survey(*RUN, "-w", WORKDIR, "-q")
    assert refused.status in (1, 2)
    (line,) = refused.lines
    assert "cannot be made or written" in line
    assert survey("status", "-r", "tiny.toml", "-w", WORKDIR).status == 0
    mounted("remount,rw")
    done = survey(*RUN, "-w", WORKDIR)
    assert "4 made, 2 up to date" in done.lines[1]
    assert released(survey, survey.folder / WORKDIR) == release_bytes(finished_survey)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_at_any_step_of_any_write(survey, finished_survey, release_bytes, monkeypatch, number):
    """A later step fails in each run, so that the runs creep through all writes: of shards, tables, markers."""
    steps, limit, failed, generator = 0, 0, [], random.Random(number)

    def step(what, path):
        nonlocal steps
        steps += 1
        if what != "renamed" and steps >= limit:
            failed.append(what)
            if what == "sync":
                os.truncate(path, os.path.getsize(path) // 2)
            raise OSError(number, os.strerror(number))

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, getattr(os, name))
    watch_writes(step)
    for _ in range(400):
        steps, limit = 0, 3 * len(failed) + generator.randint(1, 4)
        done = survey(*RUN, "-q")
        if done.status == 0:
            break
        assert os.strerror(number) in the_error(done)
        assert not list(survey.run.rglob(".partial-*"))
    assert done.status == 0, done.err
    assert set(failed) == {"sync", "rename", "folder"}
    assert len(failed) >= 20
    assert release_bytes(survey) == release_bytes(finished_survey)


def test_a_mosaic_that_vanishes_half_way(survey, finished_survey, release_bytes, monkeypatch):
    from catmorph.stamps import build

    path = survey.folder / "mosaics" / "beta_f160w.fits"
    cut_chunk = build.cut_chunk

    def after_it_is_gone(task):
        if path.exists():
            path.rename(survey.folder / "away.fits")
        return cut_chunk(task)

    with monkeypatch.context() as patched:
        patched.setattr(build, "cut_chunk", after_it_is_gone)
        done = survey(*RUN)
    assert done.status == 3
    (warning,) = [line for line in done.lines if "warning" in line]
    assert warning.startswith("catmorph: warning: beta_f160w.fits")
    assert ": cannot be opened: No such file or directory; its sources are flagged UNREADABLE" in warning
    (survey.folder / "away.fits").rename(path)
    again = survey(*RUN)
    assert again.status == 0, again.err
    assert "1 made, 5 up to date" in again.lines[1]
    assert release_bytes(survey) == release_bytes(finished_survey)


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_a_mosaic_that_changes_half_way_and_back_again(survey, finished_survey, release_bytes, monkeypatch, how):
    """What is cut from another mosaic than the run has looked at is not kept, although the old one comes back."""
    from catmorph.stamps import build

    path, away = survey.folder / "mosaics" / "beta_f160w.fits", survey.folder / "away.fits"
    shutil.copy(path, away)
    shutil.copystat(path, away)
    good = path.read_bytes()
    other = bytearray(good)
    other[-5000] ^= 1
    cut_chunk = build.cut_chunk

    def after_a_change(task):
        if path.read_bytes() == good:
            if how == "replaced":
                path.unlink()
            path.write_bytes(other)
        return cut_chunk(task)

    with monkeypatch.context() as patched:
        patched.setattr(build, "cut_chunk", after_a_change)
        done = survey(*RUN)
    assert done.status == 3
    (warning,) = [line for line in done.lines if "warning" in line]
    assert warning.startswith("catmorph: warning: beta_f160w.fits")
    assert warning.endswith(": has changed while the run went on; its sources are flagged UNREADABLE")
    away.rename(path)
    again = survey(*RUN)
    assert again.status == 0, again.err
    assert "1 made, 5 up to date" in again.lines[1]
    assert release_bytes(survey) == release_bytes(finished_survey)


@pytest.mark.parametrize("left", ["product", "partial"])
def test_an_interrupted_rename(finished, finished_survey, release_bytes, left):
    """The new file is there under its own name without a marker, or under its temporary name alone."""
    (shard,) = finished.run.glob("stamps/F160W/alpha-*.h5")
    (marker,) = finished.run.glob("ledger/stamps/F160W/alpha-*.h5.json")
    (logits,) = finished.run.glob("logits/net/F160W/alpha-*.parquet")
    marker.unlink()
    if left == "partial":
        shard.rename(shard.parent / ".partial-abc.h5")
    logits.rename(logits.parent / ".partial-abc.parquet")
    done = finished(*RUN)
    assert done.status == 0, done.err
    assert ("1 made, 5 up to date" in done.lines[1], "1 made, 5 up to date" in done.lines[2]) == (True, True)
    assert not list(finished.run.rglob(".partial-*"))
    assert release_bytes(finished) == release_bytes(finished_survey)


def test_a_clock_that_goes_backwards(survey, finished_survey, release_bytes, monkeypatch):
    """Nothing is compared with the time: not by runs whose clock falls, nor with files from the future."""
    now = time.time_ns()
    for path in [*(survey.folder / "mosaics").iterdir(), *(survey.folder / "catalogs").iterdir()]:
        os.utime(path, ns=(now + 10**18, now + 10**18))
    clock = iter(range(10**9, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 10**9)
    assert survey(*RUN, "-q").status == 0
    for path in survey.run.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(now + 10**18, now + 10**18))
    done = survey(*RUN)
    assert done.status == 0, done.err
    assert "0 made, 6 up to date" in done.lines[1]
    assert "0 made, 6 up to date" in done.lines[2]
    assert release_bytes(survey) == release_bytes(finished_survey)
    mosaic = survey.folder / "mosaics" / "beta_f160w.fits"
    spoiled = bytearray(mosaic.read_bytes())
    spoiled[-5000] ^= 1
    mosaic.write_bytes(bytes(spoiled))
    assert "1 made, 5 up to date" in survey(*RUN).lines[1]


@pytest.mark.parametrize("kept", ["nothing", "time", "size and time", "all"])
def test_what_tells_a_changed_mosaic(finished, kept):
    """Size, time of change to the nanosecond and inode are looked at; the same in all is `check --deep`'s to find."""
    mosaic = finished.folder / "mosaics" / "beta_f160w.fits"
    os.utime(mosaic, ns=(10**18, 10**18))
    assert finished(*RUN, "-q").status == 0
    changed = bytearray(mosaic.read_bytes())
    changed[-5000] ^= 1
    if kept == "time":
        changed += bytes(2880)
    if kept == "size and time":  # written beside it and renamed over it, as rsync --times does
        other = Path(f"{mosaic}.new")
        other.write_bytes(changed)
        other.rename(mosaic)
    else:
        mosaic.write_bytes(changed)
    if kept != "nothing":
        os.utime(mosaic, ns=(10**18, 10**18))
    made = "1 made, 5 up to date" in finished(*RUN).lines[1]
    assert made == (kept != "all")
    if kept == "all":
        from catmorph.ledger import Identities

        cache = finished.run / "ledger" / "identities.json"
        assert Identities(cache).changed_unseen() == [str(mosaic)]
