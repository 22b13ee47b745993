"""Errors that may pass are tried again; others are not; neither is remembered as final."""

from __future__ import annotations

import builtins
import errno
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from catmorph import patience
from catmorph.errors import MosaicError
from catmorph.ledger import Identities
from catmorph.patience import may_pass, patiently

MOSAIC = "beta_f160w.fits"


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited, without waiting."""
    waited = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    return waited


class Failing:
    """Fails some calls about one file with an error, then does what it replaces; -1 times is for ever."""

    def __init__(self, function, concerns, number, times):
        self.function, self.concerns, self.number, self.times, self.calls = function, concerns, number, times, 0

    def __call__(self, *arguments, **options):
        if self.times and self.concerns(*arguments):
            self.times -= 1
            self.calls += 1
            raise OSError(self.number, os.strerror(self.number))
        return self.function(*arguments, **options)


def of_mosaic(path, *_, **__):
    return str(path).endswith(MOSAIC)


def of_folder(path):
    return str(path).endswith("/mosaics")


def of_descriptor(descriptor, *_):
    return of_mosaic(os.readlink(f"/proc/self/fd/{descriptor}"))


def fail(monkeypatch, where, number, times):
    """Let opening, hashing or reading pixels of the mosaic fail."""
    target = builtins if where == "open" else os
    concerns = {"scandir": of_folder, "preadv": of_descriptor}.get(where, of_mosaic)
    failing = Failing(getattr(target, where), concerns, number, times)
    monkeypatch.setattr(target, where, failing)
    return failing


def faults(survey):
    return pq.read_table(survey.run / "failures.parquet").to_pylist()


@pytest.mark.parametrize("where", ["open", "stat", "scandir", "preadv"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN])
def test_an_error_that_passes_leaves_no_trace(
    survey, finished_survey, release_bytes, monkeypatch, waits, where, number
):
    failing = fail(monkeypatch, where, number, 2)
    done = survey("run", "tiny.toml")
    assert done.status == 0, done.err
    assert "warning" not in done.err
    assert failing.calls == 2
    # The first stat asks whether it is a folder, and any error is a no; the stamps of a strip that could not be read
    # are read one by one instead, before any waiting.
    assert waits == ([0.2] if where in ("stat", "preadv") else [0.2, 1.0])
    assert release_bytes(survey) == release_bytes(finished_survey)


@pytest.mark.parametrize(("where", "sources"), [("open", 5), ("preadv", 4)])
def test_an_error_that_stays_flags_the_sources_and_is_not_final(
    survey, finished_survey, release_bytes, monkeypatch, waits, where, sources
):
    with monkeypatch.context() as patched:
        fail(patched, where, errno.ESTALE, -1)
        done = survey("run", "tiny.toml")
    assert done.status == 3
    assert f"catmorph: warning: {MOSAIC}" in done.err
    assert "Stale file handle; its sources are flagged UNREADABLE" in done.err
    assert len(waits) <= 9  # not once more for every source
    assert [(row["file"], row["sources"]) for row in faults(survey)] == [(MOSAIC, sources)]
    again = survey("run", "tiny.toml")
    assert again.status == 0, again.err
    assert "1 made, 5 up to date" in again.lines[1]
    assert faults(survey) == []
    assert release_bytes(survey) == release_bytes(finished_survey)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES])
def test_a_folder_that_cannot_be_read_is_no_folder_without_mosaics(
    finished, finished_survey, release_bytes, monkeypatch, waits, number
):
    with monkeypatch.context() as patched:
        fail(patched, "scandir", number, -1)
        done = finished("run", "tiny.toml", "-q")
    assert (done.status, done.lines) == (1, [
        f"catmorph: error: {finished.folder}/mosaics: the folder of mosaics cannot be read: {os.strerror(number)}; "
        "run again when it can"
    ])  # fmt: skip
    assert finished("run", "tiny.toml", "-q").status == 0
    assert release_bytes(finished) == release_bytes(finished_survey)


def not_fits(data):
    return b"<html>" + data[6:]


def truncated(data):
    return data[:50000]


def without_wcs(data):
    return data.replace(b"CTYPE1  = 'RA", b"CTYPE1  = 'XX").replace(b"CTYPE2  = 'DEC", b"CTYPE2  = 'XXX")


@pytest.mark.parametrize("spoil", [not_fits, truncated, without_wcs])
def test_a_bad_file_is_read_once_and_tried_again_the_next_night(
    survey, finished_survey, release_bytes, waits, spoil
):
    path = survey.folder / "mosaics" / MOSAIC
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    done = survey("run", "tiny.toml", "-q")
    assert (done.status, waits) == (3, [])
    (failure,) = faults(survey)
    assert failure["file"] == MOSAIC
    assert failure["reason"]
    assert "1 made, 5 up to date" in survey("run", "tiny.toml").lines[1]
    path.write_bytes(good)
    assert survey("run", "tiny.toml", "-q").status == 0
    assert release_bytes(survey) == release_bytes(finished_survey)


def test_a_file_without_permission_is_not_waited_for(tmp_path, waits):
    def read():
        raise MosaicError("cannot be opened") from PermissionError(errno.EACCES, "no")

    with pytest.raises(MosaicError):
        patiently(read)
    assert waits == []


def test_what_may_pass():
    assert may_pass(OSError(errno.ESTALE, ""))
    assert may_pass(OSError("FITSIO status = 108: error reading from FITS file"))
    assert not may_pass(OSError("FITSIO status = 107: tried to move past end of file"))
    assert not may_pass(OSError("FITSIO status = 1081"))
    assert not may_pass(FileNotFoundError(errno.ENOENT, ""))
    assert not may_pass(ValueError())


def test_a_mosaic_that_is_cut_short_meanwhile_is_an_error_and_no_crash(survey):
    from catmorph.stamps.pixels import Image

    path = survey.folder / "mosaics" / MOSAIC
    image = Image(str(path))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(MosaicError, match="has become shorter while it was read"):
        image.window(slice(0, 160), slice(0, 160))
    image.close()
    image.close()


def test_pixels_are_those_of_astropy(tmp_path):
    from catmorph.stamps.pixels import Image

    pixels = np.arange(35, dtype=">i2").reshape(5, 7)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels)]).writeto(tmp_path / "a.fits")
    image = Image(str(tmp_path / "a.fits"))
    windows = [(0, 5, 0, 7), (1, 3, 2, 4), (4, 5, 6, 7), (2, 2, 0, 7), (0, 5, 3, 3), (3, 9, 5, 9)]
    for top, bottom, left, right in windows:
        rows, columns = slice(top, bottom), slice(left, right)
        assert np.array_equal(image.window(rows, columns), pixels[rows, columns])
    image.close()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path, monkeypatch):
    path, cache = tmp_path / "mosaic.fits", tmp_path / "identities.json"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))

    def hashed_too_early(path):
        path.write_bytes(b"two")
        return "half of one, half of two"

    identities = Identities(cache)
    with monkeypatch.context() as patched:
        patched.setattr("catmorph.ledger.checksum", hashed_too_early)
        assert identities.of(path) == "half of one, half of two"
    identities.save()
    assert not cache.exists()
    assert Identities(cache).of(path).startswith("xxh3:")
