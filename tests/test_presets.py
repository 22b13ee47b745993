"""`catmorph init`: what it writes stands by itself, wherever it is written and however catmorph is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from catmorph.cli import cli
from catmorph.recipe import load_recipe, preset_names, preset_path, presets
from catmorph.recipe.paths import paths_in

ROOT = Path(__file__).parents[1]
SAMPLES = [name for name in preset_names() if name.startswith("samples/")]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder of shipped recipes without a checkout around it, as in a wheel."""
    folder = tmp_path / "site-packages" / "catmorph" / "configs"
    shutil.copytree(ROOT / "configs", folder)
    monkeypatch.setattr(presets, "preset_folder", lambda: folder)
    return folder


def init(name, output):
    done = CliRunner().invoke(cli, ["init", name, "-o", str(output)])
    assert (done.exit_code, done.stdout) == (0, f"{output}\n"), done.stderr
    return load_recipe(output), done.stderr.rstrip("\n").split("; ") if done.stderr else []


def paths(table: Any) -> list[str]:
    """Return every path of a recipe."""
    return [path for _, path, _ in paths_in(table)]


def without_paths(recipe):
    text = str(recipe.model_dump(mode="json"))
    for path in sorted(paths(recipe.model_dump(mode="json")), key=len, reverse=True):
        text = text.replace(repr(path), repr(Path(path).name))
    return text


@pytest.mark.parametrize("name", preset_names())
def test_a_written_recipe_is_the_shipped_one_with_paths_of_its_folder(tmp_path, name):
    recipe, _ = init(name, tmp_path / "mine.toml")
    assert without_paths(recipe) == without_paths(load_recipe(preset_path(name)))
    for path in paths(recipe.model_dump(mode="json")):
        own = Path(path).is_relative_to(tmp_path)
        assert own or Path(path).is_relative_to(ROOT / "sample_data"), path
    training = recipe.training
    assert training is None or Path(training.output).is_relative_to(tmp_path), "it would replace a shipped one"


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_lie_beside_the_recipe_where_there_is_no_checkout(tmp_path, installed, name):
    recipe, needs = init(name, tmp_path / "mine.toml")
    named = re.findall(r'"((?:sample_data|simulated)/[^"]*)"', (tmp_path / "mine.toml").read_text())
    assert {str(tmp_path / path) for path in named} <= set(paths(recipe.model_dump(mode="json")))
    assert "../" not in (tmp_path / "mine.toml").read_text()
    if any(path.startswith("sample_data") for path in named):
        assert needs == ["its data: the folder sample_data of catmorph's repository, beside the recipe"]


def test_what_a_recipe_needs_is_told(tmp_path):
    told = {name: init(name, tmp_path / f"{Path(name).name}-mine.toml")[1]
            for name in ("samples/clash", "samples/clash-like-experiments", "des-bar", "gz2")}  # fmt: skip
    assert told == {
        "samples/clash": [],
        "samples/clash-like-experiments": [
            "its data: `catmorph simulate candels-like --out simulated/candels-like`",
            "its data: `catmorph simulate clash-like --out simulated/clash-like`",
            "candels-like-training.toml: `catmorph init samples/candels-like-training -o candels-like-training.toml`"],
        "des-bar": ["its data: des.csv: positions and petroR90_r, https://skyserver.sdss.org",
                    "cut-outs: make them from the DES images, https://des.ncsa.illinois.edu",
                    "votes of Galaxy Zoo DECaLS: https://doi.org/10.5281/zenodo.4573248",
                    "des-bar-sdss.toml: `catmorph init des-bar-sdss -o des-bar-sdss.toml`"],
        "gz2": ["its data: images and labels: https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge/data "
                "(free account)",
                "the checkpoint: gz2-training.toml trains it"],
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SAMPLES if "-" in name])
def test_the_simulations_that_are_told_are_there(tmp_path, name):
    from catmorph.simulate import load_spec

    _, needs = init(name, tmp_path / "mine.toml")
    simulated = [need.split()[-3] for need in needs if "catmorph simulate" in need]
    assert simulated
    for one in simulated:
        assert load_spec(presets.simulation_path(Path(one)))


def test_the_sample_runs_from_what_init_writes(tmp_path):
    init("samples/clash", tmp_path / "mine.toml")
    done = CliRunner().invoke(cli, ["check", "-r", str(tmp_path / "mine.toml"), "-w", str(tmp_path / "run")])
    assert done.exit_code == 0, done.stderr


def test_a_simulation_by_a_name_that_there_is_not(tmp_path):
    done = CliRunner().invoke(cli, ["simulate", "clash-trainin", "--out", str(tmp_path / "new")])
    assert done.exit_code == 2
    told = "catmorph: error: clash-trainin: no such file, and no shipped simulation; did you mean 'clash-"
    assert done.stderr.startswith(told)


def test_a_missing_recipe_that_is_shipped(tmp_path):
    done = CliRunner().invoke(cli, ["check", "-r", str(tmp_path / "gz2.toml")])
    assert done.stderr == (f"catmorph: error: {tmp_path}/gz2.toml: no such recipe; `catmorph init gz2 -o gz2.toml` "
                           "writes it\n")  # fmt: skip
