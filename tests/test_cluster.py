"""Cutting on a Dask cluster: a scheduler and workers that are processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import engine_workers
import pytest

from catmorph.engine import run_tasks
from catmorph.errors import CatmorphError, MosaicError

WAIT_SECONDS = 60


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler with two workers, which are killed at the end."""
    address = tmp_path / "scheduler.json"
    search = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search}
    with ExitStack() as stack:
        log = stack.enter_context(open(tmp_path / "cluster.log", "w"))

        def start(*command):
            process = subprocess.Popen([sys.executable, "-m", "distributed.cli." + command[0], *command[1:],
                                        "--scheduler-file", str(address), "--no-dashboard"],
                                       env=environment, stdout=log, stderr=log)  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)

        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        for _ in range(2):
            start("dask_worker", "--nthreads", "1", "--local-directory", str(tmp_path))
        end = time.monotonic() + WAIT_SECONDS
        while not address.exists():
            assert time.monotonic() < end, (tmp_path / "cluster.log").read_text()
            time.sleep(0.05)
        from distributed import Client

        with Client(scheduler_file=str(address), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=WAIT_SECONDS)
            found = client.scheduler.address
        yield found


def stamps(survey):
    return {path.name: path.read_bytes() for path in (survey.run / "stamps").rglob("*.h5")}


@pytest.mark.filterwarnings("ignore")
def test_stamps_cut_on_a_cluster_are_those_of_this_machine(survey, finished_survey, cluster):
    done = survey("cutouts", "-r", "tiny.toml", "--scheduler", cluster)
    assert done.status == 0, done.err
    assert stamps(survey) == stamps(finished_survey)
    assert "0 made, 6 up to date" in survey("cutouts", "-r", "tiny.toml", "--scheduler", cluster).err


@pytest.mark.filterwarnings("ignore")
def test_errors_on_a_cluster_arrive_as_they_are(cluster):
    with pytest.raises(MosaicError, match=r"^a\.fits: is not FITS; download it again$"):
        list(run_tasks(engine_workers.fails, [("", 1), ("", 2)], workers=1, estimated_seconds=1, scheduler=cluster))


@pytest.mark.filterwarnings("ignore")
def test_a_task_whose_worker_is_killed_is_done_by_another(tmp_path, cluster):
    tasks = [(str(tmp_path), number) for number in range(8)]
    done = run_tasks(engine_workers.killed_once, tasks, workers=1, estimated_seconds=1, scheduler=cluster)
    assert sorted(done) == [2 * number for number in range(8)]
    assert (tmp_path / "was killed").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_task_that_kills_every_worker_is_an_error(tmp_path, cluster):
    tasks = [(str(tmp_path), 3)]
    error = r"worker processes on the cluster kept dying: .*; lower run\.chunk_rows"
    with pytest.raises(CatmorphError, match=error):
        list(run_tasks(engine_workers.always_killed, tasks, workers=1, estimated_seconds=1, scheduler=cluster))
