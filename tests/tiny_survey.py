"""A tiny simulated survey with an untrained checkpoint, and the command line run in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from catmorph.cli import cli

TINY_RECIPE = """\
name = "tiny"
title = "A tiny simulated survey"
scheme = "clash"

[catalog]
files = "catalogs/*.cat"
field = { pattern = "{field}.cat" }
id = "ID"
ra = { column = "RA", unit = "deg" }
dec = { column = "DEC", unit = "deg" }
size = { column = "PETRO_RADIUS", unit = "pixels" }
pixel_scale = 0.065
magnitude = "F160W_MAG"
null = [-99, 99]
cuts = "magnitude < 30"
duplicates = "first"

[bands]
names = ["F435W", "F814W", "F160W"]
reference = "F160W"

[mosaics]
pattern = "mosaics/{field}_{band|lower}.fits"

[normalise]
method = "asinh"

[classifiers.net]
checkpoint = "untrained.safetensors"
precision = "float32"
batch = 16

[release]
name = "Tiny"
decimals = 3

[summary]
merger_class = "irregular"

[run]
tolerance = 0.2
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on stderr."""
        return self.err.splitlines()


@dataclass(frozen=True)
class Survey:
    """A folder with catalogs/, mosaics/, a checkpoint and a recipe; a call runs a command in it."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe file."""
        return self.folder / "tiny.toml"

    @property
    def run(self) -> Path:
        """The default run folder."""
        return self.folder / "runs" / "tiny"

    def copy(self, to: Path) -> Survey:
        """Copy it, the checkpoint as a link: it has 20 MB."""
        shutil.copytree(self.folder, to, symlinks=True)
        weights = to / "untrained.safetensors"
        if not weights.is_symlink():
            weights.unlink()
            weights.symlink_to(self.folder / weights.name)
        return Survey(to)

    def edit(self, old: str, new: str) -> None:
        """Replace a text that must be in the recipe."""
        text = self.recipe.read_text()
        assert old in text
        self.recipe.write_text(text.replace(old, new))

    def __call__(self, *arguments: object) -> Outcome:
        """Run a command in this process, as from a shell in the folder."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(cli, [str(one) for one in arguments], prog_name="catmorph")
        finally:
            os.chdir(before)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "internal error" not in result.stderr, result.stderr
        return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def pristine_survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Two fields, three bands, nine sources, some dirt; one mosaic covers half, one is not there. Read only."""
    pytest.importorskip("galsim")
    from catmorph.simulate import simulate_fields, tiny_spec

    folder = tmp_path_factory.mktemp("survey") / "tiny"
    bands = [("F435W", 433.0, 0.09, 27.2), ("F814W", 805.0, 0.10, 27.0), ("F160W", 1540.0, 0.18, 27.5)]
    spec = tiny_spec(
        bands=[dict(zip(("name", "wavelength_nm", "fwhm_arcsec", "depth"), band, strict=True)) for band in bands],
        fields=[
            {"name": "alpha", "ra": 150.1, "dec": 2.2, "side_pixels": 200, "sources": 5, "rotation_deg": 8.0,
             "coverage": {"F435W": [0.0, 0.5, 0.0, 1.0]}},
            {"name": "beta", "ra": 10.0, "dec": -30.0, "side_pixels": 160, "sources": 4, "bands": ["F814W", "F160W"]},
        ],
        dirt={"duplicates": 1, "off_image": 1},
    )  # fmt: skip
    simulate_fields(spec, folder)
    survey = Survey(folder)
    survey.recipe.write_text(TINY_RECIPE)
    made = survey("models", "create", "clash-inception", "-r", "tiny.toml", "--output", "untrained.safetensors")
    assert made.status == 0, made.err
    return survey


def start(survey: Survey, *arguments: object, code: str = "") -> subprocess.Popen[str]:
    """Start a command as a shell does; `code` is Python to run before."""
    command = [sys.executable, "-c", f"{code}\nfrom catmorph.cli import main; main()"]
    environment = {key: value for key, value in os.environ.items() if key != "CATMORPH_RECIPE"}
    return subprocess.Popen([*command, *map(str, arguments)], cwd=survey.folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.fixture(scope="session")
def first_run(pristine_survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> tuple[Survey, Outcome]:
    """The tiny survey after `catmorph run`, and what that printed. Read only."""
    survey = pristine_survey.copy(tmp_path_factory.mktemp("finished") / "tiny")
    done = survey("run", "tiny.toml")
    assert done.status == 0, done.err
    return survey, done


@pytest.fixture(scope="session")
def finished_survey(first_run: tuple[Survey, Outcome]) -> Survey:
    """The tiny survey after `catmorph run`. Read only."""
    return first_run[0]


@pytest.fixture
def survey(pristine_survey: Survey, tmp_path: Path) -> Survey:
    """A copy of the tiny survey to change; nothing has been run."""
    return pristine_survey.copy(tmp_path / "tiny")


@pytest.fixture
def finished(finished_survey: Survey, tmp_path: Path) -> Survey:
    """A copy of the tiny survey after `catmorph run`, to change."""
    return finished_survey.copy(tmp_path / "tiny")


@pytest.fixture(scope="session")
def release_bytes() -> Callable[[Survey], dict[str, bytes]]:
    """Return a function that reads every file of a release, and the lists of rejected and omitted rows."""

    def read(survey: Survey) -> dict[str, bytes]:
        lists = [survey.run / "rejected.parquet", survey.run / "omitted.parquet"]
        return {path.name: path.read_bytes() for path in [*sorted((survey.run / "release").iterdir()), *lists]}

    return read
