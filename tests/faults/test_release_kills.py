"""A release whose formats or name change: what it had before goes, also when the export is killed at any step."""

from __future__ import annotations

import json
import os

import pytest
from launcher import watch_writes

from catmorph.api import open_run
from catmorph.pipeline.release import run_release

OLD = ('release.formats=["csv", "fits"]',)
NEW = ("release.name=Renamed",)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the product catches it."""


@pytest.fixture(scope="module")
def renamed(finished_survey, tmp_path_factory):
    survey = finished_survey.copy(tmp_path_factory.mktemp("renamed") / "tiny")
    run_release(open_run(survey.recipe, survey.run, NEW))
    return listing(survey)


def listing(survey):
    return {path.name: path.read_bytes() for path in (survey.run / "release").iterdir()
            if not path.name.startswith((".partial-", "summary"))}  # fmt: skip


def killed_export(survey, monkeypatch, number):
    """Export under another name, killed at a step; return whether it was."""
    steps = 0

    def step(what, path):
        nonlocal steps
        steps += 1
        if steps == number:
            raise Killed

    with monkeypatch.context() as patched:
        for name in ("fsync", "replace"):
            patched.setattr(os, name, getattr(os, name))
        watch_writes(step)
        try:
            run_release(open_run(survey.recipe, survey.run, NEW))
        except Killed:
            return True
    return False


@pytest.mark.faults
def test_no_file_of_an_older_release_stays(finished_survey, tmp_path, monkeypatch, renamed):
    for number in range(1, 99):
        survey = finished_survey.copy(tmp_path / f"{number}" / "tiny")
        run_release(open_run(survey.recipe, survey.run, OLD))
        assert "Tiny.fits" in listing(survey)
        killed = killed_export(survey, monkeypatch, number)
        run_release(open_run(survey.recipe, survey.run, NEW))
        assert listing(survey) == renamed, number
        if not killed:
            break
    assert number > 12


@pytest.mark.parametrize("spoil", [
    lambda found: [], lambda found: {**found, "files": None}, lambda found: {**found, "files": {"": {}, "..": {}}},
    lambda found: {**found, "files": {"Tiny.csv": None, "../folder.json": {}, "Tiny.fits": {"sha": 1}}},
])  # fmt: skip
def test_a_provenance_that_cannot_be_trusted_removes_nothing_else(finished_survey, tmp_path, spoil):
    survey = finished_survey.copy(tmp_path / "tiny")
    expected, path = listing(survey), survey.run / "release" / "provenance.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    run_release(open_run(survey.recipe, survey.run))
    assert listing(survey) == expected
    assert (survey.run / "folder.json").exists()
