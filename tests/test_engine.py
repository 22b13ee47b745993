"""Tasks in this process, on local worker processes that may be killed, and on a Dask cluster."""

from __future__ import annotations

import os
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
def test_a_scheduler_that_does_not_answer():
    pytest.importorskip("distributed")
    with pytest.raises(UsageError, match=r"^not-an-address: no Dask scheduler answers: .*; start one"):
        list(run_tasks(engine_workers.double, [("", 1)], workers=1, estimated_seconds=1, scheduler="not-an-address"))
