"""The simulated samples of the published systems: from a clone to a catalog, with the checkpoints that are shipped."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from catmorph.cli import cli
from catmorph.models.header import load_card
from catmorph.report.sheet import draw_sheet
from catmorph.schemes import load_scheme

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample_data"


def catmorph(*arguments, status=0):
    done = CliRunner().invoke(cli, [str(one) for one in arguments], prog_name="catmorph")
    assert done.exit_code == status, done.output
    return done.output


def run_sample(name, folder):
    catmorph("run", ROOT / "configs" / "samples" / f"{name}.toml", "-w", folder, "-q")
    return folder


def root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


# --- gz2: 37 vote fractions of a tree ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gz2(tmp_path_factory):
    return run_sample("gz2", tmp_path_factory.mktemp("gz2"))


@pytest.fixture(scope="module")
def fractions(gz2):
    return pd.read_csv(gz2 / "release" / "gz2-fractions.csv", index_col="GalaxyID")


def test_gz2_catalog_has_the_columns_of_the_challenge_and_obeys_the_tree(fractions):
    scheme = load_scheme("gz2-tree")
    assert list(fractions) == [one.label for one in scheme.classes]
    assert list(fractions.index) == list(range(100001, 100065))
    found, tree = fractions.to_numpy(), scheme.form
    assert (len(tree.questions), tree.parents.count(-1)) == (11, 2)
    for answers, parent in zip(tree.questions, tree.parents, strict=True):
        wanted = 1.0 if parent < 0 else found[:, parent]
        np.testing.assert_allclose(found[:, list(answers)].sum(axis=1), wanted, atol=1e-5)


def test_gz2_answers_are_nearer_to_the_truth_than_the_mean_label(fractions):
    truth = pd.read_parquet(SAMPLE / "gz2" / "truth.parquet").set_index("id")
    true = truth.loc[fractions.index, [f"p_{name}" for name in load_scheme("gz2-tree").class_names]].to_numpy()
    found = fractions.to_numpy()
    assert root_mean_square(found - true) < 0.55 * root_mean_square(true.mean(axis=0) - true)
    # Smooth, features or artifact: always answering the most frequent of them is right for less than 0.6.
    shapes = true[:, :3].argmax(axis=1)
    assert np.bincount(shapes).max() < 0.6 * len(shapes)
    assert (found[:, :3].argmax(axis=1) == shapes).mean() > 0.85


def test_gz2_summary_has_the_merger_fraction_with_its_intervals(gz2, fractions):
    summary = json.loads((gz2 / "release" / "summary.json").read_text())
    merger = summary["views"][0]["merger"]
    assert (summary["merger"]["class"], summary["merger"]["threshold"]) == ("merger", 0.3)
    assert merger["count"] == (fractions["Class8.6"] >= 0.3).sum()
    for low, high in (merger["wilson"], merger["exact"], merger["corrected"]["interval"]):
        assert 0 <= low < high < 0.3
    assert merger["wilson"][0] < merger["fraction"] < merger["wilson"][1]


def test_gz2_gallery_shows_the_colours_of_the_images(gz2, tmp_path):
    picture = tmp_path / "gallery.png"
    catmorph("gallery", "-r", ROOT / "configs" / "samples" / "gz2.toml", "-w", gz2, "-o", picture, "-q")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # Black sky: what is bright and coloured is mostly the yellow light of old stars, not blue.
    red, _, blue = pixels[(pixels.max(axis=2) > 100) & (np.ptp(pixels, axis=2) > 30)].mean(axis=0)
    assert red > blue + 30


# --- des: a network for each of three questions --------------------------------------------------------------


@pytest.fixture(scope="module")
def des(tmp_path_factory):
    return run_sample("des", tmp_path_factory.mktemp("des"))


@pytest.fixture(scope="module")
def questions(des):
    return pd.read_csv(des / "release" / "des-morphology.csv", index_col="ID")


def test_des_catalog_has_three_questions_and_accounts_for_the_bad_images(des, questions):
    assert list(questions) == ["RA", "DEC", "R90", "P_disk", "P_edge_on", "P_bar"]
    truth = pd.read_parquet(SAMPLE / "des" / "truth.parquet").query("survey == 'des'").set_index("id")
    assert truth["fault"].value_counts().to_dict() == {"": 46, "truncated": 1, "missing": 1}
    assert set(questions.index) == set(truth.index[truth["fault"] == ""])
    omitted = pd.read_parquet(des / "omitted.parquet")
    assert set(omitted["id"].astype(int)) == set(truth.index[truth["fault"] != ""])


@pytest.mark.parametrize(
    ("question", "column", "stamps"), [("disk", "disk", 43), ("edge-on", "edge_on", 32), ("bar", "bar", 25)]
)
def test_des_answers_agree_with_people(questions, question, column, stamps):
    labels = pd.read_csv(SAMPLE / "des" / "labels" / f"des-{question}.csv", index_col="ID")
    sure = (labels["votes"] >= 5) & ((labels[column] > 0.7) | (labels[column] < 0.3))
    robust = labels[sure & labels.index.isin(questions.index)]
    found, human = questions.loc[robust.index, f"P_{column}"], robust[column] > 0.5
    assert (len(robust), min(human.sum(), (~human).sum()) >= 8) == (stamps, True)
    # Of those that people say yes to and of the others: one answer for all would be right for one of the two alone.
    assert (found[human] > 0.5).mean() > 0.8
    assert (found[~human] < 0.5).mean() > 0.8
    assert found[human].mean() > found[~human].mean() + 0.5


def test_des_gallery_has_the_answer_of_each_network(des, questions, tmp_path, monkeypatch):
    drawn = []

    def draw(path, grid, headings, **more):
        drawn.extend(cell for row in grid for cell in row)
        draw_sheet(path, grid, headings, **more)

    monkeypatch.setattr("catmorph.report.gallery.draw_sheet", draw)
    picture = tmp_path / "gallery.png"
    recipe = ROOT / "configs" / "samples" / "des.toml"
    catmorph("gallery", "-r", recipe, "-w", des, "-o", picture, "--per-page", 20, "-q")
    with Image.open(picture) as image:
        assert image.size == (10 * 126 + 6, 22 + 2 * (120 + 4 * 11 + 4 + 6))
    for cell in drawn:
        lines = dict(line.split() for line in cell.label.split("\n"))
        found = questions.loc[int(cell.name.removeprefix("des "))]
        assert {f"P_{name}": float(chance) for name, chance in lines.items()} == pytest.approx(
            found[["P_disk", "P_edge_on", "P_bar"]].to_dict(), abs=0.00501
        )
    assert len(drawn) == 20


@pytest.mark.parametrize("name", ["gz2-narrow", "des-disk", "des-edge-on", "des-bar"])
def test_the_cards_say_what_the_checkpoints_are_for(name):
    path = SAMPLE / "checkpoints" / f"{name}-simulated.safetensors"
    card = load_card(path)
    assert "not for science" in card.purpose
    assert card.metrics["rmse"] < 0.75 * card.metrics["mean_label_rmse"]
    assert path.stat().st_size < 300_000


# --- the published recipes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("gz2", "configs/images_test_rev1.zip: no such images"),
        ("gz2-training", "configs/images_training_rev1.zip: no such images"),
        ("des", "configs/cutouts/des: no such images"),
        ("des-bar", "configs/des.csv: no such catalog file"),
        ("des-bar", "configs/des-bar.csv: no such file; it is labels.table of des-bar"),
        ("des-bar-sdss", "configs/sdss.csv: no such catalog file"),
        ("des-bar-sdss", "can be had: sdss.csv: positions and petroR90_r, https://skyserver.sdss.org; cut-outs: http"),
    ],
)
def test_check_says_which_files_a_published_recipe_misses(name, missing):
    assert missing in " ".join(catmorph("check", "-r", ROOT / "configs" / f"{name}.toml", status=2).split())
