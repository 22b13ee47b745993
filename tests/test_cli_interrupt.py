"""Runs that are interrupted, killed or find the folder held: the same bytes in the end."""

from __future__ import annotations

import os
import signal
import time

from tiny_survey import start


def wait_for(condition, process):
    end = time.monotonic() + 50
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


SLOW = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import catmorph.engine as engine
engine.WORTH_A_POOL_SECONDS = {pool}
import catmorph.stamps.build as build
import catmorph.inference.classify as classify
def slowed(function, seconds=0.3):
    def slow(*arguments, **options):
        time.sleep(seconds)
        return function(*arguments, **options)
    return slow
build.write_shard = slowed(build.write_shard)
classify._write = slowed(classify._write)
"""
"""Makes the stages slow enough to be interrupted half-way."""


def test_an_ended_run_says_so_and_goes_on(survey, finished_survey, release_bytes):
    process = start(survey, "run", "tiny.toml", "--workers", "2", code=SLOW.format(pool="1e9"))
    wait_for(lambda: len(list(survey.run.glob("stamps/*/*.h5"))) >= 2, process)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[1:] == ["catmorph: error: interrupted; run the same command again to go on"]
    assert not list(survey.run.rglob(".partial-*"))
    done = survey("run", "tiny.toml")
    assert done.status == 0
    assert "0 up to date" not in done.lines[1]
    assert release_bytes(survey) == release_bytes(finished_survey)


def test_an_interrupt_reaches_the_worker_processes(survey, finished_survey, release_bytes):
    """Ctrl-C goes to every process of the terminal's group: none may print a traceback or stay."""
    code = "import os; os.setsid()" + SLOW.format(pool="0")
    process = start(survey, "run", "tiny.toml", "--workers", "2", code=code)
    wait_for(lambda: len(list(survey.run.glob("stamps/*/*.h5"))) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[1:] == ["catmorph: error: interrupted; run the same command again to go on"]
    assert survey("run", "tiny.toml").status == 0
    assert release_bytes(survey) == release_bytes(finished_survey)


def test_killed_twice_it_still_gives_the_same_bytes(survey, finished_survey, release_bytes):
    for reached in ("stamps/*/*.h5", "logits/net/*/*.parquet"):
        process = start(survey, "run", "tiny.toml", code=SLOW.format(pool="1e9"))
        wait_for(lambda reached=reached: len(list(survey.run.glob(reached))) >= 2, process)
        process.kill()
        process.communicate(timeout=60)
    assert survey("run", "tiny.toml", "-q").status == 0
    assert release_bytes(survey) == release_bytes(finished_survey)
    assert not list(survey.run.rglob(".partial-*"))


def test_the_workers_of_a_killed_run_end(survey):
    many = ("--workers", "2", "--set", "run.chunk_rows=1")
    process = start(survey, "run", "tiny.toml", *many, code=SLOW.format(pool="0"))
    wait_for(lambda: list(survey.run.glob("stamps/*/*.h5")), process)
    process.kill()
    process.communicate(timeout=60)  # ends when the last worker has closed its stderr
    assert survey("ingest", "-r", "tiny.toml", "-q").status == 0


def test_another_run_in_the_folder_is_refused(survey):
    process = start(survey, "run", "tiny.toml", code=SLOW.format(pool="1e9"))
    try:
        wait_for(lambda: list(survey.run.glob("stamps/*/*.h5")), process)
        for command in (["run", "tiny.toml"], ["ingest", "-r", "tiny.toml"], ["summarize", "-r", "tiny.toml"]):
            held = survey(*command)
            assert held.status == 4
            (line,) = held.lines
            assert line.startswith(
                f"catmorph: error: {survey.run}: another run holds this folder (process {process.pid} on "
            )
            assert line.endswith("); wait for it, or choose another -w/--workdir")
        assert survey("status", "-r", "tiny.toml").status == 0
    finally:
        process.kill()
        process.communicate(timeout=60)




def test_an_interrupt_that_a_library_swallows_is_no_internal_error(pristine_survey):
    """As numpy does when it is interrupted while it imports a part of itself: what it lacks later is no bug of ours."""
    code = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import catmorph.recipe as recipe
def half_imported(*arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    except BaseException:
        pass
    raise AttributeError("module has no attribute 'records'")
recipe.load_recipe = half_imported
"""
    process = start(pristine_survey, "status", "-r", "tiny.toml", code=code)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "catmorph: error: interrupted; run the same command again to go on\n")
