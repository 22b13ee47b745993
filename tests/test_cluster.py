"""Cutting on a Dask cluster: a scheduler and workers that are processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import engine_workers
import pytest

from catmorph import cluster as dask_cluster
from catmorph.engine import run_tasks
from catmorph.errors import CatmorphError, MosaicError, UsageError

WAIT_SECONDS = 60

pytestmark = pytest.mark.filterwarnings("ignore")


class Cluster:
    """Processes of a scheduler and its workers, and the address of the former."""

    def __init__(self, folder: Path):
        self._folder, self._file, self._processes = folder, folder / "scheduler.json", []
        self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        end = time.monotonic() + WAIT_SECONDS
        while not self._file.exists():
            assert time.monotonic() < end, (folder / "cluster.log").read_text()
            time.sleep(0.05)

    def _start(self, program: str, *options: str, search: Path = Path(__file__).parent) -> None:
        found = os.pathsep.join(filter(None, [str(search), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(self._file), *options]
        with open(self._folder / "cluster.log", "a") as log:
            self._processes.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": found}, stdout=log,
                                                    stderr=log))  # fmt: skip

    def with_workers(self, count: int, search: Path = Path(__file__).parent) -> str:
        """Start workers that look for modules in a folder first; return the scheduler's address when they are there."""
        from distributed import Client

        for _ in range(count):
            self._start("dask_worker", "--nthreads", "1", "--no-dashboard", "--local-directory", str(self._folder),
                        search=search)
        with Client(scheduler_file=str(self._file), set_as_default=False) as client:
            if count:
                client.wait_for_workers(count, timeout=WAIT_SECONDS)
            return client.scheduler.address

    def kill_scheduler(self) -> None:
        self._processes[0].kill()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path)
    yield started
    started.end()


def on(address, worker, tasks):
    return list(run_tasks(worker, tasks, workers=1, estimated_seconds=1, scheduler=address))


def stamps(survey):
    return {path.name: path.read_bytes() for path in (survey.run / "stamps").rglob("*.h5")}


def test_stamps_cut_on_a_cluster_are_those_of_this_machine(survey, finished_survey, cluster):
    address = cluster.with_workers(2)
    done = survey("cutouts", "-r", "tiny.toml", "--scheduler", address)
    assert done.status == 0, done.err
    assert stamps(survey) == stamps(finished_survey)
    assert "0 made, 6 up to date" in survey("cutouts", "-r", "tiny.toml", "--scheduler", address).err


def test_errors_on_a_cluster_arrive_as_they_are(cluster):
    with pytest.raises(MosaicError, match=r"^a\.fits: is not FITS; download it again$"):
        on(cluster.with_workers(1), engine_workers.fails, [("", 1), ("", 2)])


def test_a_task_whose_worker_is_killed_is_done_again(tmp_path, cluster):
    tasks = [(str(tmp_path), number) for number in range(8)]
    done = on(cluster.with_workers(2), engine_workers.killed_once, tasks)
    assert sorted(done) == [2 * number for number in range(8)]
    assert (tmp_path / "was killed").exists()


def test_a_task_that_kills_every_worker_is_an_error(tmp_path, cluster):
    with pytest.raises(CatmorphError, match=r"worker processes on the cluster kept dying: .*; lower run\.chunk_rows"):
        on(cluster.with_workers(1), engine_workers.always_killed, [(str(tmp_path), 3)])


def test_a_scheduler_that_is_killed_is_an_error(cluster):
    address = cluster.with_workers(1)
    killed = threading.Timer(3, cluster.kill_scheduler)
    killed.start()
    with pytest.raises(CatmorphError, match=r": the Dask scheduler is not there any more; start it and its workers"):
        on(address, engine_workers.takes_a_second, [("", number) for number in range(60)])
    killed.join()


def test_a_cluster_without_workers(cluster, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_WORKERS_SECONDS", 1)
    address = cluster.with_workers(0)
    with pytest.raises(UsageError) as caught:
        on(address, engine_workers.double, [("", 1)])
    assert str(caught.value) == (
        f"{address}: the Dask scheduler has had no worker for 1 s; start some, `dask worker {address} --nthreads 1`"
    )


def test_workers_that_cannot_do_the_work_are_told(tmp_path, cluster):
    """They would drop it without a word."""
    with pytest.raises(UsageError, match=(
        r"the Dask worker tcp://127.* cannot do this work with its catmorph: ModuleNotFoundError: No module named "
        r"'engine_workers'; let all workers have catmorph 0"
    )):  # fmt: skip
        on(cluster.with_workers(1, search=tmp_path), engine_workers.double, [("", 1)])
