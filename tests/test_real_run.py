"""The whole command line on a real HST field, with an untrained network."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from catmorph.cli import cli
from catmorph.models import build
from catmorph.models.card import card_for
from catmorph.models.checkpoint import save_checkpoint
from catmorph.recipe import load_recipe


@pytest.fixture(scope="module")
def xdf(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("xdf")
    recipe_file = "tests/recipes/xdf.toml"
    checkpoint = folder / "untrained.safetensors"
    recipe = load_recipe(recipe_file)
    save_checkpoint(
        checkpoint,
        build("clash-inception", classes=5, channels=1, seed=0),
        card_for(recipe, "clash-inception", channels=1, views=tuple(recipe.all_views)),
    )
    options = [
        *("-w", str(folder / "run")),
        *("--set", f"catalog.files={real_data}/xdf/xdf_catalog.fits"),
        *("--set", f"mosaics.pattern={real_data}/xdf/xdf_{{band|lower}}_sci.fits"),
        *("--set", f"classifiers.inception.checkpoint={checkpoint}"),
    ]
    result = CliRunner().invoke(cli, ["run", recipe_file, *options, "--workers", "2"], standalone_mode=False)
    assert result.exception is None, result.output
    return folder / "run", options, result


def test_every_source_is_released_in_every_band(xdf):
    folder, _, result = xdf
    assert result.return_value == 0
    table = pd.read_csv(folder / "release" / "Deep-CLASH.csv")
    assert len(table) == 203
    assert table.notna().all().all()
    assert list(table.columns[:4]) == ["Cluster", "ID", "R.A.", "DECL."]
    probabilities = table.iloc[:, 4:]
    assert probabilities.shape[1] == 9 * 5
    assert probabilities.to_numpy().reshape(203, 9, 5).sum(axis=2) == pytest.approx(1.0, abs=0.03)


def test_nothing_is_lost(xdf):
    folder, _, _ = xdf
    files = list((folder / "logits").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file, columns=["id", "flags"]).to_pylist()]
    assert len(rows) == 203 * 9
    assert len({row["id"] for row in rows}) == 203
    assert pq.read_table(folder / "rejected.parquet").num_rows == 0


def test_gallery_is_a_picture(xdf):
    folder, options, _ = xdf
    result = CliRunner().invoke(
        cli, ["gallery", "-r", "tests/recipes/xdf.toml", *options, "--per-page", "3"], standalone_mode=False
    )
    assert result.exception is None, result.output
    with Image.open(folder / "gallery.png") as picture:
        assert picture.width > picture.height > 100
