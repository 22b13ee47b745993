"""The scripts of benchmarks/: what they share, and (slow) that each runs and writes what its published result has."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "cutout_speed": "--sources 50 --side 500 --bands 2 --rounds 2 --sections 5",
    "core_speed": "--sources 60 --part 20 --side 500 --rounds 2",
    "classify_speed": "--sources 8 --rounds 1 --devices cpu",
    "release_speed": "--galaxies 60 --bands 2",
    "training_speed": "--model clash-inception-narrow --steps 2 --batch 4 --stamps 8 --rounds 1",
    "scaling": "--sources 40 80 --workers 1",
}
PUBLISHED = {"cutout_speed": "cutouts-16-bands", "core_speed": "cutouts-workers", "classify_speed": "classify",
             "release_speed": "release", "training_speed": "training-speed-wide"}  # fmt: skip
LEFT_BEHIND = """\
import subprocess, sys
subprocess.Popen([sys.executable, "-c", '''
import time
held = bytearray(60_000_000)
held[::4096] = b"1" * len(held[::4096])
until = time.process_time() + 0.5
while time.process_time() < until: pass
'''])
"""
"""Starts a process that holds 60 MB and computes for half a second, and ends before it."""
MEASURE = """\
import json, sys
from pathlib import Path
from measure import measure
print(json.dumps(measure(sys.executable, "-c", sys.argv[1], folder=Path(".")).rounded()))
"""
STOPPED = """\
import time
from pathlib import Path
from script import Report, scratch
report = Report(Path("deep/result.json"))
with scratch(Path("."), gigabytes=0) as folder:
    (folder / "file").write_text("")
    report.keep(step=1)
    print("kept", flush=True)
    time.sleep(60)
"""

TOO_LARGE = """\
from pathlib import Path
from script import scratch
with scratch(Path("."), gigabytes=1e9):
    print("began")
"""


def python(code: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Start Python where the modules of the benchmarks can be imported, in a process of its own: it waits for all."""
    path = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})  # fmt: skip


def script(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script in this process."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")


def result_of(name: str, arguments: str, *, folder: Path) -> dict[str, Any]:
    """Run a script as a user does; return its result, which is all that it leaves."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments.split()]
    done = subprocess.run([*command, "--folder", ".", "--out", "result.json"], cwd=folder, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    found = json.loads((folder / "result.json").read_text())
    assert json.loads(done.stdout) == found
    return found


def test_a_process_left_behind_is_part_of_what_is_measured(tmp_path):
    out, errors = python(MEASURE, LEFT_BEHIND, folder=tmp_path).communicate()
    assert not errors
    found = json.loads(out)
    assert found["seconds"] >= 0.5
    assert found["processor_seconds"] >= 0.5
    assert 60 <= found["peak_anonymous_mb"] < 120


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path):
    process = python(MEASURE, "import sys; sys.exit('no such galaxy')", folder=tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == f"{sys.executable} -c import sys; sys.exit('no such galaxy') ...: status 1. no such galaxy\n"


def test_a_stopped_benchmark_keeps_its_result_and_no_files(tmp_path):
    process = python(STOPPED, folder=tmp_path)
    assert process.stdout.readline() == "kept\n"
    assert len(list(tmp_path.glob("catmorph-benchmark-*/file"))) == 1
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    found = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert found["step"] == 1
    assert found["unfinished"] is True


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    process = python(TOO_LARGE, folder=tmp_path)
    out, errors = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert errors.startswith(f"{tmp_path.resolve()}: ")
    assert errors.endswith("GB are free and 1000000000.0 needed; give another place by --folder\n")


def test_simulated_truth(tmp_path, monkeypatch):
    """The votes are off by 0.1, the network by 0.2 from the truth; two voters at p = 0.5 have a floor of sqrt(1/8)."""
    pd.DataFrame({"field": "a", "id": ["1", "2"], "view": "g", "human_x": 0.6, "human_y": 0.4,
                  "probability_x": 0.3, "probability_y": 0.7}).to_csv(tmp_path / "predictions.csv")  # fmt: skip
    pd.DataFrame({"field": "a", "id": [1, 2], "band": "g", "p_x": 0.5, "p_y": 0.5, "votes": 2}
                 ).to_parquet(tmp_path / "truth.parquet")  # fmt: skip
    script("simulated_truth", tmp_path / "predictions.csv", tmp_path / "truth.parquet", "--out",
           tmp_path / "result.json", monkeypatch=monkeypatch)  # fmt: skip
    found = json.loads((tmp_path / "result.json").read_text())
    assert set(found) == set(json.loads((BENCHMARKS / "results" / "shipped-checkpoint.json").read_text()))
    assert found["stamps"] == 2
    assert [found[name] for name in ("rmse_votes", "rmse_truth", "truth_rmse_votes", "floor")] == pytest.approx(
        [0.3, 0.2, 0.1, 0.125**0.5])


def test_real_images(tmp_path, monkeypatch):
    """Of the test's two spirals one is found, and of two others none is taken for one."""
    ids = ["1", "2", "3", "4", "5"]
    pd.DataFrame({"id": ids, "folder": ["odd_spirals"] * 2 + ["others"] * 3,
                  "rgb_odd_spiral": [0.9, 0.4, 0.1, 0.2, 0.9]}).to_csv(tmp_path / "catalog.csv")  # fmt: skip
    pd.DataFrame({"id": ids, "subset": ["test"] * 4 + ["training"]}).to_csv(tmp_path / "split.csv")
    script("real_images", tmp_path / "catalog.csv", tmp_path / "split.csv", "--out", tmp_path / "result.json",
           monkeypatch=monkeypatch)  # fmt: skip
    found = json.loads((tmp_path / "result.json").read_text())
    assert set(found) == {"versions", "test"}
    rates = [found["test"][name] for name in ("tpr", "precision", "accuracy")]
    assert [(rate["count"], rate["of"]) for rate in rates] == [(1, 2), (1, 1), (3, 4)]


def test_the_figure_is_drawn_from_the_published_results(tmp_path, monkeypatch):
    script("figure", "--out", tmp_path / "figure.png", monkeypatch=monkeypatch)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_each_runs_and_writes_what_the_published_result_has(name, tmp_path):
    if name == "training_speed":
        pytest.importorskip("torchvision")
    found = result_of(name, TINY[name], folder=tmp_path)
    if name in PUBLISHED:
        assert list(json.loads((BENCHMARKS / "results" / f"{PUBLISHED[name]}.json").read_text())) == list(found)


@pytest.mark.slow
def test_one_mosaic_replaced_is_its_share_of_the_night(tmp_path):
    """20 galaxies in 2 clusters and 2 bands: of 4 shards one is made again."""
    found = result_of("night", "--fields 2 --bands 2 --galaxies 20 --side 400 --repeats 2 --workers 1", folder=tmp_path)
    made = [found[run]["cutouts"]["made"] for run in
            ("stages", "stages_with_nothing_changed", "stages_with_one_mosaic_replaced")]  # fmt: skip
    assert made == [4, 0, 1]
    assert list(found["measured"]) == ["from nothing", "nothing changed", "one mosaic replaced"]


@pytest.mark.slow
def test_one_stage_is_measured_alone(tmp_path):
    found = result_of("scaling", "--stage export --sizes 60 30", folder=tmp_path)
    assert {count: list(stages) for count, stages in found["measured"].items()} == {"30": ["export"], "60": ["export"]}
    assert list(found["time_ratio"]) == list(found["memory_ratio"]) == ["60 / 30"]
