"""SIGTERM and Ctrl-C at any moment: an end within seconds, one line that says how to go on, no process left behind."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from killing import Runs, processes_of, workers_of

RUN = ("run", "tiny.toml", "--set", "run.chunk_rows=2")
SAID = "catmorph: error: interrupted; run the same command again to go on"
SECONDS = 30
STAGES = ("ingest:", "cutouts:", "classify:")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    launched = Runs(tmp_path_factory.mktemp("runs"))
    yield launched
    launched.close()


def reached(runs, survey, stages):
    """Wait until so many stages are done, and the next has the folder; return whether the run still goes on."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not runs.ended(0.002):
        text = runs.output.read_text()
        if (survey.run / "lock").exists() and sum(stage in text for stage in STAGES) >= stages:
            return True
    return False


def stopped(runs, process, number, *, group):
    """Send a signal, wait, and return exit status, lines and seconds."""
    start = time.monotonic()
    (os.killpg if group else os.kill)(process, number)
    status, text = runs.wait(60)
    return status, text.splitlines(), time.monotonic() - start


def goes_on(runs, survey, expected, release_bytes):
    runs.start(survey.folder, *RUN)
    status, text = runs.wait()
    assert status == 0, text
    assert release_bytes(survey) == expected


@pytest.fixture(scope="module")
def expected(pristine_survey, tmp_path_factory, runs, release_bytes):
    survey = pristine_survey.copy(tmp_path_factory.mktemp("reference") / "tiny")
    runs.start(survey.folder, *RUN)
    assert runs.wait()[0] == 0
    return release_bytes(survey)


WAYS = [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
"""As `kill` sends it, as systemd does to every process of a service, as a terminal does on Ctrl-C."""


@pytest.mark.parametrize(("number", "group"), WAYS)
def test_a_signal_while_workers_cut(survey, runs, expected, release_bytes, number, group):
    process = runs.start(survey.folder, *RUN, "--workers", "2", pool=True)
    assert reached(runs, survey, 1)
    while not workers_of(process):
        assert not runs.ended(0.01)
    runs.ended(0.6)
    status, lines, seconds = stopped(runs, process, number, group=group)
    assert (status, lines[1:]) == (1, [SAID]), lines
    assert seconds < SECONDS
    assert not processes_of(process)
    goes_on(runs, survey, expected, release_bytes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_takes_minutes_is_not_waited_for(survey, runs, number):
    (survey.run.parent).mkdir()
    (survey.run.parent / "be-slow").touch()
    process = runs.start(survey.folder, *RUN, "--workers", "2", pool=True)
    assert reached(runs, survey, 1)
    while not list(survey.run.parent.glob("slow-*")):
        assert not runs.ended(0.01)
    status, lines, seconds = stopped(runs, process, number, group=True)
    assert (status, lines[1:]) == (1, [SAID]), lines
    assert seconds < SECONDS
    assert not processes_of(process)


@pytest.mark.parametrize("stages", [0, 2, 3])
def test_a_signal_in_a_stage(survey, runs, expected, release_bytes, stages):
    for number, _ in WAYS[1:]:
        # The lock file of the run before would be taken for that of this one, which still imports.
        (survey.run / "lock").unlink(missing_ok=True)
        process = runs.start(survey.folder, *RUN)
        if reached(runs, survey, stages):
            status, lines, seconds = stopped(runs, process, number, group=True)
            assert status in (0, 1), lines
            assert status == 0 or lines[-1] == SAID
            assert "Traceback" not in "".join(lines)
            assert seconds < SECONDS
        else:
            assert runs.wait()[0] == 0
    goes_on(runs, survey, expected, release_bytes)


@pytest.mark.faults
@pytest.mark.parametrize("pool", [False, True])
def test_signals_at_any_moment(survey, runs, expected, release_bytes, pool):
    """While worker processes start, their imports are waited for: about 3 s, more on a busy machine."""
    generator, said, slowest = random.Random(4), 0, 0.0
    for i in range(20):
        if i % 4 == 3:
            goes_on(runs, survey, expected, release_bytes)
            survey.run.rename(survey.folder / f"old-{i}")
        (survey.run / "lock").unlink(missing_ok=True)
        process = runs.start(survey.folder, *RUN, *(["--workers", "2"] if pool else []), pool=pool)
        assert reached(runs, survey, 0)
        runs.ended(generator.uniform(0, 3 if pool else 1.5))
        number, group = WAYS[i % 3]
        if runs.ended(0):
            assert runs.wait()[0] == 0
            continue
        status, lines, seconds = stopped(runs, process, number, group=group)
        if "Tiny.csv" in " ".join(lines):
            continue  # everything was done; Python itself may take a signal while it winds up
        assert (status, lines[-1], seconds < 3 * SECONDS) == (1, SAID, True), (i, lines, seconds)
        assert "Traceback" not in "".join(lines)
        said, slowest = said + 1, max(slowest, seconds)
    print(f"\n{said} of 20 interrupted, {slowest:.1f} s at most")
    assert said >= 10
