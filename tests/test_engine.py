"""Tasks in this process, on local worker processes that may be killed, and on a Dask cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_workers
import pytest

from catmorph.engine import run_ahead, run_in_order, run_tasks
from catmorph.errors import CatmorphError, MosaicError, UsageError

LONG = 1000.0
"""Estimated seconds that make worker processes worth while."""


def tasks(folder: Path, count: int = 8) -> list[tuple[str, int]]:
    return [(str(folder), number) for number in range(count)]


@pytest.mark.parametrize(("workers", "seconds"), [(1, LONG), (4, 0.9)])
def test_short_work_stays_in_this_process(tmp_path, workers, seconds):
    done = run_tasks(engine_workers.process_of, tasks(tmp_path), workers=workers, estimated_seconds=seconds)
    assert set(done) == {os.getpid()}


def test_long_work_goes_to_worker_processes(tmp_path):
    done = list(run_tasks(engine_workers.process_of, tasks(tmp_path), workers=2, estimated_seconds=LONG))
    assert len(done) == 8
    assert os.getpid() not in done
    assert list(run_tasks(engine_workers.double, [], workers=2, estimated_seconds=LONG)) == []


def test_results_are_all_there(tmp_path):
    done = run_tasks(engine_workers.double, tasks(tmp_path, 40), workers=2, estimated_seconds=LONG)
    assert sorted(done) == [2 * number for number in range(40)]


def test_a_task_whose_process_is_killed_is_done_again(tmp_path):
    done = list(run_tasks(engine_workers.killed_once, tasks(tmp_path), workers=2, estimated_seconds=LONG))
    assert sorted(done) == [2 * number for number in range(8)]
    assert (tmp_path / "was killed").exists()
    assert len(list(tmp_path.glob("done *"))) == 8


def test_a_task_that_kills_every_process_is_an_error(tmp_path):
    done = []
    with pytest.raises(CatmorphError) as caught:  # noqa: PT012
        for result in run_tasks(engine_workers.always_killed, tasks(tmp_path), workers=2, estimated_seconds=LONG):
            done.append(result)
    assert str(caught.value) == (
        "worker processes died 3 times, 1 tasks are left; "
        "lower --workers or run.chunk_rows if memory is short, and run again"
    ).replace("1 tasks", f"{8 - len(done)} tasks")
    assert 6 not in done


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_worker_arrive_as_they_are(tmp_path, workers):
    with pytest.raises(MosaicError, match=r"^a\.fits: is not FITS; download it again$") as caught:
        list(run_tasks(engine_workers.fails, tasks(tmp_path), workers=workers, estimated_seconds=LONG))
    assert (caught.value.message, caught.value.where) == ("is not FITS", "a.fits")


def test_stopping_early_leaves_nothing_running(tmp_path):
    results = run_tasks(engine_workers.double, tasks(tmp_path, 20), workers=2, estimated_seconds=LONG)
    assert next(results) % 2 == 0
    results.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_their_tasks(tmp_path, workers):
    done = list(run_in_order(engine_workers.slow_first, tasks(tmp_path, 12), workers=workers, estimated_seconds=LONG))
    assert done == list(range(12))


@pytest.mark.parametrize(("workers", "begun"), [(1, 1), (2, 3)])
def test_tasks_whose_results_are_large_are_not_begun_before_some_are_taken(tmp_path, workers, begun):
    results = run_in_order(engine_workers.slow_first, tasks(tmp_path, 12), workers=workers, estimated_seconds=LONG)
    for taken in range(3):
        assert next(results) == taken
        assert len(list(tmp_path.glob("begun *"))) <= taken + begun
    results.close()


def test_results_in_order_survive_a_killed_process(tmp_path):
    done = list(run_in_order(engine_workers.killed_once, tasks(tmp_path), workers=2, estimated_seconds=LONG))
    assert done == [2 * number for number in range(8)]
    assert (tmp_path / "was killed").exists()
    with pytest.raises(CatmorphError, match=r"^worker processes died 3 times, [0-9]+ tasks are left; lower --workers"):
        list(run_in_order(engine_workers.always_killed, tasks(tmp_path), workers=2, estimated_seconds=LONG))


def command(folder: Path, code: str, **modules: str) -> subprocess.Popen[str]:
    """Start Python in a folder with modules to import, in a session of its own."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    search = os.pathsep.join(filter(None, [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": search},
                            text=True, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command and of every process that it started; return what they wrote to stderr."""
    try:
        return process.communicate(timeout=60)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 50
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


LEFT_EARLY = """
import engine_workers, time
from catmorph.engine import run_in_order
for number in range(8):
    results = run_in_order(engine_workers.large, [("", one) for one in range(20)], workers=2, estimated_seconds=1000.0)
    next(results)
    time.sleep(number / 200)  # a worker is in the midst of writing what it has made
    results.close()
"""


def test_large_results_that_nobody_takes_are_not_waited_for(tmp_path):
    process = command(tmp_path, LEFT_EARLY)
    assert said(process) == ""
    assert process.returncode == 0


IMPORTS_LATE = """
import os, time
end = time.monotonic() + 50
while not os.path.exists("semaphores are gone") and time.monotonic() < end:
    time.sleep(0.01)
"""

INTERRUPTED = """
import os, sys, time
from multiprocessing import forkserver, util
import engine_workers
from catmorph.engine import run_in_order
def interrupted(descriptor):
    raise KeyboardInterrupt
forkserver.read_signed = interrupted  # it waits for a worker to be forked
engine_workers.WORKERS_IMPORT = ["late"]
try:
    list(run_in_order(engine_workers.double, [("", 1), ("", 2)], workers=2, estimated_seconds=1000.0))
except KeyboardInterrupt as error:
    kept = error  # and all that it refers to
util._run_finalizers(0)  # as Python does at the end
"""


@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_worker_says_nothing_when_its_command_ends_while_it_begins(tmp_path, ends):
    """It begins when its imports are done, which a command does not wait for when it is interrupted again."""
    late = "open('semaphores are gone', 'w').close(); time.sleep(1)" if ends == "after" else ""
    process = command(tmp_path, INTERRUPTED + late, late=IMPORTS_LATE)
    assert process.wait(60) == 0
    (tmp_path / "semaphores are gone").touch()
    assert said(process) == ""


def test_a_worker_that_cannot_begin_says_why_while_its_command_lives(tmp_path):
    unable = """
import multiprocessing.spawn
import catmorph.forked
def unable(fd, parent_sentinel):
    raise OSError("no room for a worker")
multiprocessing.spawn._main = unable  # before it reads what it is to do
catmorph.forked._END_SECONDS = 0.3
"""
    code = """
import engine_workers
from catmorph.engine import run_tasks
engine_workers.WORKERS_IMPORT = ["unable"]
list(run_tasks(engine_workers.double, [("", 1), ("", 2)], workers=2, estimated_seconds=1000.0))
"""
    process = command(tmp_path, code, unable=unable)
    text = said(process)
    assert process.returncode == 1
    assert text.count("OSError: no room for a worker") >= 3
    assert "worker processes died 3 times" in text


def test_a_worker_that_is_being_started_begins_and_is_ended_too(tmp_path):
    """It has been told its files by number: they are not to be closed meanwhile."""
    code = """
import signal, time
from multiprocessing import forkserver
import engine_workers
from catmorph.engine import run_tasks
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
connect, numbers = forkserver.connect_to_new_process, []
def slow(files):
    numbers.append(files)
    if len(numbers) == 2:
        open("starting", "w").close()
        time.sleep(1.5)
    return connect(files)
forkserver.connect_to_new_process = slow
try:
    list(run_tasks(engine_workers.takes_minutes, [("", 1), ("", 2)], workers=2, estimated_seconds=1000.0))
except KeyboardInterrupt:
    pass
"""
    process = command(tmp_path, code)
    wait_for(tmp_path / "starting")
    time.sleep(0.5)  # until all threads rest: only the main thread, where the signal goes then, looks whether one came
    process.send_signal(signal.SIGINT)
    assert said(process) == ""
    assert process.returncode == 0


def test_an_interrupt_while_a_worker_is_started_comes_after(tmp_path):
    """What a pool keeps of its processes is whole then: none is left that nobody ends."""
    code = """
import multiprocessing, os, signal
from multiprocessing import forkserver
import engine_workers
from catmorph.engine import run_in_order
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
read, answers = forkserver.read_signed, []
def interrupted(descriptor):
    answers.append(read(descriptor))
    if len(answers) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return answers[-1]
forkserver.read_signed = interrupted
try:
    list(run_in_order(engine_workers.takes_minutes, [("", 1), ("", 2)], workers=2, estimated_seconds=1000.0))
except KeyboardInterrupt:
    assert len(answers) >= 2
    assert not multiprocessing.active_children()
else:
    raise AssertionError("no interrupt")
"""
    process = command(tmp_path, code)
    assert said(process) == ""
    assert process.returncode == 0


@pytest.mark.parametrize("run", ["run_tasks", "run_in_order"])
def test_a_signal_that_another_thread_gets_is_heeded(tmp_path, run):
    """The main thread sleeps until a result comes, which may take minutes; the system gives a signal to any thread."""
    code = f"""
import signal, threading, time
import engine_workers
from catmorph.engine import {run}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
def interrupted():
    time.sleep(3)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=interrupted, daemon=True).start()
start = time.monotonic()
try:
    list({run}(engine_workers.takes_minutes, [("", 1), ("", 2)], workers=2, estimated_seconds=1000.0))
except KeyboardInterrupt:
    assert time.monotonic() - start < 30
"""
    process = command(tmp_path, code)
    assert said(process) == ""
    assert process.returncode == 0


def test_ctrl_c_does_not_reach_the_process_that_workers_will_be_forked_from(tmp_path):
    slow = """
import sys, time
if "forkserver" in sys.orig_argv[-1]:
    open("starting", "w").close()
    time.sleep(1)
"""
    code = """
import signal, time
from catmorph.engine import expect_workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    expect_workers(2)
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""
    process = command(tmp_path, code, sitecustomize=slow)
    wait_for(tmp_path / "starting")
    os.killpg(process.pid, signal.SIGINT)
    assert said(process) == ""
    assert process.returncode == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_work_ahead_but_not_far(threads):
    asked, begun = [], []

    def worker(number):
        begun.append(number)
        time.sleep(0.01 * (number == 0))
        return 2 * number

    def numbers():
        for number in range(12):
            asked.append(number)
            yield number

    results = run_ahead(worker, numbers(), threads=threads)
    for taken in range(12):
        assert next(results) == 2 * taken
        assert len(asked) <= taken + threads + 1
    assert sorted(begun) == list(range(12))
    assert list(results) == []


def test_threads_that_fail_or_are_stopped_begin_nothing_more():
    begun = []

    def worker(number):
        begun.append(number)
        if number == 3:
            raise MosaicError("is not FITS", where="a.fits")
        return number

    results = run_ahead(worker, range(100), threads=2)
    with pytest.raises(MosaicError, match=r"^a\.fits: is not FITS$"):
        list(results)
    assert len(begun) <= 3 + 3
    results = run_ahead(worker, range(3), threads=2)
    assert next(results) == 0
    results.close()
    assert list(results) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("nowhere", "nowhere: no Dask scheduler answers: missing port number in address 'nowhere'"),
        ("tls://127.0.0.1:9", "tls://127.0.0.1:9: no Dask scheduler answers: "),
        (" ", "the address of the Dask scheduler is empty"),
    ],
)
def test_a_scheduler_that_does_not_answer(address, error):
    with pytest.raises(UsageError) as caught:
        list(run_tasks(engine_workers.double, [("", 1)], workers=1, estimated_seconds=1, scheduler=address))
    assert str(caught.value).startswith(error)
    assert str(caught.value).endswith("; give --scheduler the address of one (tcp://HOST:PORT), which `dask scheduler` "
                                      "starts, or leave it out")


@pytest.mark.parametrize("run", [run_tasks, run_in_order])
def test_nothing_is_begun_or_goes_on_after_an_error(tmp_path, run):
    """Else another run could write the same files, once this one has let go of its folder."""
    work = [(str(tmp_path), number) for number in range(12)]
    with pytest.raises(MosaicError):
        list(run(engine_workers.fails_first, work, workers=2, estimated_seconds=LONG))
    begun = {path.name.split()[1] for path in tmp_path.glob("begun *")}
    ended = {path.name.split()[1] for path in tmp_path.glob("ended *")}
    assert begun - ended == {"0"}
    time.sleep(1)
    assert {path.name.split()[1] for path in tmp_path.glob("begun *")} == begun
    assert len(begun) < 12
