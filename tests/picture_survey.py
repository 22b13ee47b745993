"""A survey of made images: recipes with [images], their pixels, and how they are packed."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_survey import Outcome, Survey

from catmorph.stamps.store import open_shard

RECIPE = """\
name = "pictures"
scheme = "clash"

[images]
files = ["images"]

[bands]
names = ["red", "green", "blue"]

[views]
rgb = ["red", "green", "blue"]

[stamp]
side = "24 pixels"
pixels = 80
min_side_pixels = 4

[normalise]
method = "range"

[classifiers.net]
checkpoint = "untrained.safetensors"
precision = "float32"
batch = 16

[release]
decimals = 3

[run]
tolerance = 1.0
"""


class Pictures(Survey):
    """A folder with images/, a checkpoint and a recipe; a call runs a command in it."""

    @property
    def recipe(self) -> Path:
        """The recipe file."""
        return self.folder / "pictures.toml"

    @property
    def run(self) -> Path:
        """The default run folder."""
        return self.folder / "runs" / "pictures"

    @property
    def images(self) -> Path:
        """The folder of images."""
        return self.folder / "images"

    def shard_of(self, view: str = "rgb"):
        """Return id -> (flags, stamp or None) over all shards of a view, and the lists of their cells and mosaics."""
        found = {}
        for path in sorted((self.run / "stamps" / view).glob("*.h5")):
            with open_shard(path) as shard:
                for row, name in enumerate(shard.ids):
                    stamp = shard.read(shard.rows[row : row + 1])[0] if shard.rows[row] >= 0 else None
                    found[name] = int(shard.flags[row]), stamp
        return found


def pixels(seed: int, height: int = 32, width: int = 32, planes: int = 3) -> np.ndarray:
    """Return a blob on noise, uint8 (y, x, plane), or (y, x) for one plane."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((y - height / 2) ** 2 + (x - width / 3) ** 2) / 40)
    cube = 200 * blob[..., None] * np.linspace(1, 0.5, planes) + generator.uniform(0, 50, (height, width, planes))
    return np.squeeze(cube.astype(np.uint8), 2) if planes == 1 else cube.astype(np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return an image file as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def pack(folder: Path, archive: Path, names: Iterable[Path] | None = None) -> Path:
    """Pack a folder's files as tar, tar.gz or zip."""
    files = sorted(folder.rglob("*")) if names is None else names
    files = [file for file in files if file.is_file()]
    if not files:
        raise ValueError("nothing to pack")
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, file.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as packed:
            for file in reversed(files):
                packed.add(file, file.relative_to(folder))
    return archive


@pytest.fixture(scope="session")
def pristine_pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Twelve PNG images of 32 x 32 pixels, a recipe and an untrained network. Read only."""
    survey = Pictures(tmp_path_factory.mktemp("pictures") / "survey")
    survey.images.mkdir(parents=True)
    for number in range(12):
        (survey.images / f"{number:03d}.png").write_bytes(encoded(pixels(number)))
    survey.recipe.write_text(RECIPE)
    made = survey("models", "create", "clash-inception-narrow", "-r", survey.recipe.name, "--output",
                  "untrained.safetensors")
    assert made.status == 0, made.err
    return survey


def copied(survey: Pictures, to: Path) -> Pictures:
    """Copy a survey of images, to change it."""
    shutil.copytree(survey.folder, to)
    return Pictures(to)


@pytest.fixture
def pictures(pristine_pictures: Pictures, tmp_path: Path) -> Pictures:
    """A copy of the survey of images, to change."""
    return copied(pristine_pictures, tmp_path / "survey")


def warnings_of(outcome: Outcome) -> list[str]:
    """Return the warnings that a command printed."""
    return [line.removeprefix("catmorph: warning: ") for line in outcome.lines if "warning: " in line]
