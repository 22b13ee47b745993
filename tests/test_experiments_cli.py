"""`catmorph experiment`, on stamp files and on stamps that it cuts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from experiment_data import stamps
from tiny_survey import TINY_RECIPE

from catmorph.cli import cli

LABELS = """
[labels]
table = "labels.csv"
{files}

[training]
model = "clash-inception-narrow"
output = "net.safetensors"
validation = {held}
test = {held}
epochs = 2
batches_per_epoch = 2
batch = 8
learning_rate = 1e-3

[experiments]
repeats = 3
splits = 1
crop_sizes = [3, 4]
"""
HEADER = "ID,p_smooth,p_features,p_irregular,p_point_source,p_unclassifiable\n"


def call(folder, *arguments):
    before = os.getcwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(cli, ["experiment", *map(str, arguments)], prog_name="catmorph")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recipe with 48 labelled stamp files."""
    folder = tmp_path_factory.mktemp("cli")
    data = stamps()
    (folder / "stamps").mkdir()
    names = [f"a_{view.lower()}_{name}" for view, name in zip(data.views, data.ids, strict=True)]
    for name, pixels in zip(names, data.inputs, strict=True):
        fits.PrimaryHDU(pixels[0]).writeto(folder / "stamps" / f"{name}.fits")
    rows = [",".join([name, *(f"{one:.2f}" for one in row)]) for name, row in zip(names, data.fractions, strict=True)]
    (folder / "labels.csv").write_text(HEADER + "\n".join(rows) + "\n")
    recipe = TINY_RECIPE.replace('"F435W", "F814W", "F160W"', '"F475W", "F160W"').replace('"asinh"', '"none"')
    text = recipe + LABELS.format(files='stamp_files = "stamps/*.fits"', held=8)
    (folder / "tiny.toml").write_text(text)
    return folder


def test_a_grid_from_the_command_line(folder):
    listed = call(folder, "repeat", "tiny.toml", "--dry-run")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["trainings", "done", "trainings"], ["all", "0", "3"], ["all", "0", "3"]]  # fmt: skip
    assert not (folder / "experiments").exists()
    done = call(folder, "repeat", "tiny.toml", "--quick", "--workers", 1, "--device", "cpu", "--set",
                "experiments.quick.repeats=2")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    made = folder / "experiments" / "tiny" / "repeat-quick"
    assert done.stdout.splitlines()[-1] == str(made / "summary.md")
    assert "repeat: 0 of 2 trainings are done, 2 to do\n" in done.stderr
    assert "1 training, about " in done.stderr
    assert "This is the quick grid" in (made / "summary.md").read_text()
    again = call(folder, "repeat", "tiny.toml", "--quick", "--workers", 1, "--device", "cpu", "--json", "--set",
                 "experiments.quick.repeats=2")  # fmt: skip
    report = json.loads(again.stdout)
    assert "to do" not in again.stderr
    assert report["trainings"] == {"done": 2, "failed": 0, "total": 2}
    assert all(os.path.isfile(path) for path in report["files"])
    listed = json.loads(call(folder, "repeat", "tiny.toml", "--quick", "--dry-run", "--json").stdout)
    assert listed["trainings"] == {"done": 2, "total": 3}


def test_failed_trainings_are_exit_status_1(folder):
    done = call(folder, "learning-rate", "tiny.toml", "--workers", 1, "--device", "cpu", "--set",
                "experiments.learning_rates=[1e-3, 1e30]")  # fmt: skip
    made = folder / "experiments" / "tiny" / "learning-rate"
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"catmorph: error: {made}: 1 of 2 trainings failed, the first of them 1e30-00: ")
    assert (made / "learning-rate.png").exists()


def test_misuse_is_status_2_and_nothing_is_made(folder):
    for arguments, wanted in (
        (["crops", "tiny.toml"], "unknown experiment 'crops'; did you mean 'crop-size'?"),
        (["freezing", "tiny.toml"], "freezing needs a checkpoint to start from; give --from or set experiments.start"),
        (["repeat", "tiny.toml", "--from", "none.safetensors"], "none.safetensors: "),
        (["crop-size", "tiny.toml"], "crop-size cuts stamps anew"),
    ):
        done = call(folder, *arguments)
        assert done.exit_code == 2, arguments
        assert done.stderr.startswith(f"catmorph: error: {wanted}"), done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_killed_grid_goes_on_to_the_same_tables(folder, tmp_path):
    """Kill it, and its worker processes with it, after the first result."""
    tables = []
    for name in ("whole", "killed"):
        to = tmp_path / name
        arguments = ["repeat", "tiny.toml", "--workers", "2", "--device", "cpu", "--set",
                     f"experiments.folder={to}", "--set", "training.epochs=6"]  # fmt: skip
        command = [sys.executable, "-c", "from catmorph.cli import main; main()", "experiment", *arguments]
        results = to / "tiny" / "repeat" / "results"
        if name == "killed":
            first = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while not list(results.glob("*.json")):
                assert first.poll() is None
                time.sleep(0.05)
            first.send_signal(signal.SIGKILL)
            first.wait()
            assert len(list(results.glob("*.json"))) < 3
            time.sleep(3)  # the workers end by themselves
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        tables.append({path.name: path.read_bytes() for path in (to / "tiny" / "repeat").iterdir()
                       if path.suffix in (".csv", ".md", ".png", ".pdf")})  # fmt: skip
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_crops_are_cut_and_compared(survey):
    """Stamps of two sides: the recipe's own from its run folder, the other from one of its own."""
    assert survey("cutouts" if survey.run.exists() else "ingest", "-r", "tiny.toml").status == 0
    made = survey("cutouts", "-r", "tiny.toml")
    assert made.status == 0, made.err
    from catmorph import open_run, open_stamps

    run, rows = open_run(survey.recipe, survey.run), []
    for view in ("F435W", "F814W", "F160W"):
        with open_stamps(run, view) as found:
            rows += [f"{field}_{view.lower()}_{name}" for field, name in zip(found.fields, found.ids, strict=True)]
    shares = np.eye(5)[np.arange(len(rows)) % 5]
    text = "".join(f"{name}," + ",".join(map(str, row)) + "\n" for name, row in zip(rows, shares, strict=True))
    (survey.folder / "labels.csv").write_text(HEADER + text)
    with open(survey.recipe, "a") as file:
        file.write(LABELS.format(files="", held=0.25))
    done = survey("experiment", "crop-size", "tiny.toml", "--workers", 1, "--device", "cpu", "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert [point["setting"]["side"] for point in report["points"]] == [3.0, 4.0]
    assert report["points"][0]["minus"] == {"side": 4.0}
    crops = survey.folder / "experiments" / "tiny" / "crops"
    assert [path.name for path in crops.iterdir()] == ["3-radii"]
    listed = json.loads(survey("experiment", "crop-size", "tiny.toml", "--dry-run", "--json").out)
    assert listed["trainings"] == {"done": 2, "total": 2}
