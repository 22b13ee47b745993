"""The sample of README.md: from a clone to a catalog, with the checkpoint that is shipped."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from catmorph.cli import cli
from catmorph.models.header import load_card
from catmorph.schemes import load_scheme

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample_data"
CHECKPOINT = SAMPLE / "checkpoints" / "clash-inception-simulated.safetensors"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("sample")
    arguments = ["run", str(ROOT / "configs" / "samples" / "clash.toml"), "-w", str(folder), "-q"]
    done = CliRunner().invoke(cli, arguments, prog_name="catmorph")
    assert done.exit_code == 0, done.output
    return pd.read_csv(folder / "release" / "Deep-CLASH.csv")


def test_every_kind_of_row_is_there(catalog):
    assert set(catalog["Cluster"]) == {"a611", "ms2137"}
    assert catalog.shape == (47, 4 + 16 * 5)
    # Eight bands of ms2137 were not observed: blank cells, as in the paper's table.
    blank = catalog.set_index("Cluster").loc["ms2137", "F225w_PSP":"F225w_PUN"]
    assert blank.isna().all(axis=None)


def test_the_shipped_checkpoint_answers_what_was_simulated(catalog):
    scheme = load_scheme("clash")
    truth = pd.read_parquet(SAMPLE / "clash" / "truth.parquet").dropna(subset="p_spheroid")
    rows = catalog.set_index(["Cluster", "ID"])
    found, true = [], []
    for row in truth.itertuples():
        if (row.field, row.id) in rows.index:
            cells = rows.loc[(row.field, row.id), [f"{row.band.capitalize()}_P{one.code}" for one in scheme.classes]]
            found.append(cells.to_numpy(dtype=float))
            true.append([getattr(row, f"p_{name}") for name in scheme.class_names])
    found, true = np.array(found), np.array(true)
    seen = ~np.isnan(found).any(axis=1)
    assert seen.sum() > 500
    # Cells have two decimals; always answering the mean label gives 0.28.
    assert np.sqrt(np.mean((found - true)[seen] ** 2)) < 0.13
    assert (found[seen].argmax(axis=1) == true[seen].argmax(axis=1)).mean() > 0.85


def test_the_card_says_what_the_checkpoint_is_for():
    card = load_card(CHECKPOINT)
    assert "not for science" in card.purpose
    assert card.metrics["rmse"] < 0.15
    assert np.sum(card.metrics["confusion"]) == card.metrics["stamps"] == 3824


def test_the_sample_stays_small():
    assert CHECKPOINT.stat().st_size <= 12e6
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 20e6
