"""`catmorph evaluate`: files, subsets, calibration, the card, and what is refused."""

import base64
import json
import os
import re
import signal
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch

from catmorph.errors import CatalogError, CatmorphError, CheckpointError, UsageError
from catmorph.evaluation import evaluate, figures, metrics_of
from catmorph.evaluation.page import markdown_page
from catmorph.evaluation.run import choose_subset
from catmorph.files import digest
from catmorph.inference.predict import Predictor
from catmorph.labels import LabelledStamps, Split
from catmorph.labels.split import split_path, write_split
from catmorph.models import build
from catmorph.models.card import card_for
from catmorph.models.checkpoint import load_checkpoint, rewrite_card, save_checkpoint
from catmorph.models.header import load_card
from catmorph.recipe import Recipe
from catmorph.schemes import load_scheme

SCHEME = load_scheme("clash")
FIGURES = ("confusion", "confusion_agreed", "thresholds", "roc", "precision_recall", "predicted_human", "reliability",
           "reliability_classes", "entropy", "groups")  # fmt: skip


@pytest.fixture(scope="module")
def recipe():
    catalog = {"files": "*.cat", "field": {"pattern": "{field}.cat"}, "id": "ID", "ra": "RA", "dec": "DEC", "size": "R"}
    return Recipe(
        name="small", scheme="clash", catalog=catalog, bands={"names": ["F160W", "F814W"]},
        mosaics={"pattern": "{field}_{band}.fits"}, evaluation={"resamples": 100},
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """30 sources in two bands: noise, whose votes have nothing to do with it."""
    generator = np.random.default_rng(0)
    fractions = np.repeat(generator.multinomial(6, [0.4, 0.3, 0.15, 0.1, 0.05], 30) / 6, 2, axis=0)
    ids = np.repeat([str(i) for i in range(30)], 2)
    views = np.tile(["F160W", "F814W"], 30)
    names = np.array([f"=cmd|{a}_{b}" for a, b in zip(ids, views, strict=True)])
    return LabelledStamps(
        generator.random((60, 1, 80, 80), np.float32), fractions.astype(np.float32), np.full(60, "a,\"b\""), ids, views,
        votes=np.full(60, 6.0), names=names, magnitude=np.repeat(np.arange(30.0), 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def split(data):
    source = np.arange(60) // 2
    return Split(*(np.flatnonzero(rows) for rows in (source < 10, (source >= 10) & (source < 20), source >= 20)))


def write_network(path, recipe, **described):
    """A network that answers about the mean label, too surely."""
    module = build("clash-inception-narrow", classes=5, channels=1, seed=3)
    head = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.weight *= 30
        head.bias.copy_(1.8 * torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])))
    save_checkpoint(path, module, card_for(recipe, "clash-inception-narrow", channels=1, **described))
    return path


@pytest.fixture
def network(tmp_path, recipe):
    return write_network(tmp_path / "net.safetensors", recipe)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, recipe, data, split):
    """An evaluation with calibration; the network's title is an attack on the page."""
    path = write_network(tmp_path_factory.mktemp("calibrated") / "net.safetensors", recipe,
                         title="<script>alert(1)</script> | net", metrics={"rmse": 0.25})  # fmt: skip
    before = load_checkpoint(path)
    write_split(split_path(path), data, split)
    return path, before, evaluate(path, data, recipe, calibrate=True, device="cpu")


def test_everything_is_written(calibrated):
    path, _, result = calibrated
    folder = path.parent / "net.evaluation"
    wanted = {folder / name for name in ("metrics.json", "evaluation.md", "evaluation.html", "predictions.csv")}
    wanted |= {folder / "figures" / f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")}
    assert set(result.files) == wanted == {one for one in folder.rglob("*") if one.is_file()}
    assert result.files[-1] == folder / "metrics.json"
    assert json.loads(result.files[-1].read_text()) == json.loads(json.dumps(result.metrics))
    assert result.warnings == ()


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_the_numbers_are_those_of_the_predictions(calibrated, data, split):
    path, _, result = calibrated
    table = pd.read_csv(result.files[-1].parent / "predictions.csv")
    assert len(table) == result.metrics["overall"]["stamps"] == 20
    assert result.metrics["overall"]["sources"] == 10
    human, network, after = (table[[f"{what}_{name}" for name in SCHEME.class_names]].to_numpy()
                             for what in ("human", "probability", "calibrated"))  # fmt: skip
    np.testing.assert_allclose(human, data.fractions[split.test], atol=1e-6)
    logits = Predictor(load_checkpoint(path), device="cpu", precision="float32").logits(data.inputs[split.test])
    np.testing.assert_allclose(network, SCHEME.probabilities(logits), atol=1e-6)
    np.testing.assert_allclose(after, SCHEME.probabilities(logits / result.card.temperature), atol=1e-6)
    assert result.metrics["overall"]["rmse"]["value"] == pytest.approx(rms(human - network), abs=1e-5)
    calibration = result.metrics["calibration"]
    for probabilities, when in ((network, "before"), (after, "after")):
        loss = -np.mean(np.sum(human * np.log(probabilities), axis=1))
        assert calibration[when]["cross_entropy"]["value"] == pytest.approx(loss, abs=2e-5)
        assert calibration[when]["rmse"]["value"] == pytest.approx(rms(human - probabilities), abs=1e-5)
    fitted = calibration["validation"]
    assert fitted["stamps"] == 20
    assert fitted["after"]["cross_entropy"]["value"] <= fitted["before"]["cross_entropy"]["value"]


def test_cells_are_no_formulas(calibrated):
    lines = (calibrated[2].files[-1].parent / "predictions.csv").read_text().splitlines()
    assert lines[0].startswith("stamp,field,id,view,subset,votes,human_spheroid,")
    assert lines[1].startswith("'=cmd|20_F160W,\"a,\"\"b\"\"\",20,F160W,test,6,")


def test_groups_are_the_bands_and_bins(calibrated):
    bands, magnitudes, sizes = calibrated[2].metrics["groups"]
    assert [(one["name"], one["stamps"]) for one in bands["groups"]] == [("F160W", 10), ("F814W", 10)]
    assert [one["stamps"] for one in magnitudes["groups"]] == [4, 6, 4, 6]
    assert magnitudes["groups"][0]["metrics"]["intervals"]["reason"] == "2 sources are fewer than 10"
    assert sizes["reason"] == "no stamp has a radius (arcsec)"


def test_independent_questions_have_figures_and_pages(calibrated, recipe):
    scheme = load_scheme("des-bar")
    p = np.random.default_rng(1).random((40, 1))
    numbers = metrics_of(p, np.round(p * 7) / 7, scheme.class_names, kind="sigmoid", section=recipe.evaluation)
    group = {"name": "r", "stamps": 40, "metrics": numbers, "reason": ""}
    bands = {"key": "by_band", "title": "band", "left_out": 0, "reason": "", "groups": [group]}
    document = {**calibrated[2].metrics, "calibration": None, "overall": numbers, "groups": [bands]}
    shown = figures.Shown(document, p, np.round(p * 7) / 7, scheme.class_names, ("bar",), "sigmoid")
    drawn = list(figures.draw_all(shown))
    assert [one.key for one in drawn] == [name for name in FIGURES[3:] if name != "entropy"]
    assert all(one.png.startswith(b"\x89PNG") and one.pdf.startswith(b"%PDF") for one in drawn)
    counts = numbers["binary"]["bar"]["all"]
    row = [counts[f"{right}_{sign}"] for right, sign in (("true", "positive"), ("false", "positive"),
                                                         ("false", "negative"), ("true", "negative"))]  # fmt: skip
    assert sum(row) == 40
    assert "| bar | all | " + " | ".join(map(str, row)) + " |" in markdown_page(shown, drawn)


def test_the_card_gets_the_key_numbers_and_the_weights_stay(calibrated):
    path, before, result = calibrated
    after = load_checkpoint(path)
    assert after.card == result.card
    assert all((after.state[name] == before.state[name]).all() for name in before.state)
    assert after.card.temperature == result.metrics["calibration"]["temperature"]
    assert after.card.model_copy(update={"evaluation": {}, "temperature": None}) == before.card
    kept = after.card.evaluation
    assert kept["rmse"] == result.metrics["overall"]["rmse"]
    assert (kept["subset"], kept["stamps"], kept["sources"]) == ("test", 20, 10)
    assert kept["calibrated"]["ece"] == result.metrics["calibration"]["after"]["ece"]
    assert kept["calibrated"]["validation_stamps"] == 20


def test_the_pages_show_names_as_they_are(calibrated):
    folder = calibrated[2].files[-1].parent
    html, markdown = ((folder / f"evaluation.{suffix}").read_text() for suffix in ("html", "md"))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | net" in html
    assert "<script" not in markdown
    assert markdown.startswith("# Evaluation of &lt;script&gt;alert(1)&lt;/script&gt; \\| net\n")
    inlined = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)]
    assert inlined == [(folder / "figures" / f"{name}.png").read_bytes() for name in FIGURES]
    assert "http" not in html, "the page needs nothing else"
    assert re.findall(r"\]\(figures/(\w+)\.png\)", markdown) == list(FIGURES)
    rmse = calibrated[2].metrics["overall"]["rmse"]
    cell = f"{rmse['value']:.4f} [{rmse['interval'][0]:.4f}, {rmse['interval'][1]:.4f}]"
    assert f"<td>{cell}</td>" in html
    assert cell.replace("[", "\\[").replace("]", "\\]") in markdown


def test_the_same_evaluation_gives_the_same_bytes(calibrated, data, recipe, tmp_path, monkeypatch):
    # Drawing takes most of the time: three figures stand for all, and the pages with all of them are left out.
    monkeypatch.setattr(figures, "draw_all", lambda shown, draw=figures.draw_all: islice(draw(shown), 3))
    path, _, result = calibrated
    before = path.read_bytes()
    again = evaluate(path, data, recipe, calibrate=True, out=tmp_path, device="cpu")
    first = result.files[-1].parent
    compared = [one for one in again.files if not one.name.startswith("evaluation.")]
    assert len(compared) == 8
    assert all((first / one.relative_to(tmp_path)).read_bytes() == one.read_bytes() for one in compared)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_evaluation_of_before_whole(network, data, recipe, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(figures, "draw_all", lambda shown: iter(()))
    folder = tmp_path / "out"
    options = {"out": folder, "device": "cpu", "subset": "all"}
    evaluate(network, data, recipe, **options)
    before = {path: path.read_bytes() for path in [network, *folder.iterdir()]}
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Room for predictions.csv and the pages, not for metrics.json.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[folder / "metrics.json"]) - 1, limit[1]))
    try:
        with pytest.raises(CatmorphError, match=r"metrics\.json: cannot be written: File too large; free space"):
            evaluate(network, data.take(np.arange(58)), recipe, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path: path.read_bytes() for path in [network, *folder.iterdir()]} == before


def test_subsets(network, data, split):
    write_split(split_path(network), data, split)
    assert choose_subset(network, data, None).name == "test"
    for name, warned in (("test", 0), ("validation", 1), ("training", 1)):
        found = choose_subset(network, data, name)
        assert found.rows.tolist() == getattr(split, name).tolist()
        assert len(found.warnings) == warned
    every = choose_subset(network, data, "all")
    assert len(every.rows) == 60
    assert every.warnings[0].startswith("40 of the 60 stamps are of the training and validation subsets")
    assert choose_subset(network, data.take(split.test), "all").warnings == ()
    with pytest.raises(UsageError, match="no labelled stamp of this run is in the test subset"):
        choose_subset(network, data.take(split.training), "test")


@pytest.mark.parametrize("damage", [
    lambda text: "", lambda text: text[:120], lambda text: text.replace("validation", "valid"),
    lambda text: text + text.splitlines()[1] + "\n",
])  # fmt: skip
def test_a_damaged_split_file_is_no_reason_to_evaluate_all(network, data, split, damage):
    path = split_path(network)
    write_split(path, data, split)
    path.write_text(damage(path.read_text()))
    for wanted in (None, "test"):
        with pytest.raises(CatalogError, match=r"net\.split\.csv: "):
            choose_subset(network, data, wanted)
    assert choose_subset(network, data, "all").warnings[0].startswith("all labelled stamps are evaluated, and the ")


def test_a_split_file_of_other_stamps(network, data, split):
    other = LabelledStamps(data.inputs, data.fractions, np.full(60, "elsewhere"), data.ids, data.views)
    write_split(split_path(network), other, split)
    found = choose_subset(network, data, None)
    assert found.name == "all"
    assert found.note.startswith("all labelled stamps; net.split.csv does not fit these labels (names none of")
    with pytest.raises(CatalogError, match="names none of the labelled stamps"):
        choose_subset(network, data, "test")


@pytest.mark.parametrize(
    ("subset", "with_split", "wanted"),
    [
        (None, False, "tells its effect on the test subset; all labelled stamps; there is no net.split.csv"),
        ("all", True, "tells its effect on the test subset; the subset is all"),
        ("validation", True, "the subset is validation"),
        ("test", False, "the test subset is not known: there is no net.split.csv beside the checkpoint"),
    ],
)
def test_what_cannot_be_calibrated(network, data, split, recipe, subset, with_split, wanted):
    if with_split:
        write_split(split_path(network), data, split)
    with pytest.raises(UsageError, match=wanted):
        evaluate(network, data, recipe, subset=subset, calibrate=True)
    assert not network.with_suffix(".evaluation").exists()


def test_the_test_of_mergers_stays_where_the_network_has_seen_the_stamps(network, data, split, recipe):
    """Merger fractions are corrected by it."""
    write_split(split_path(network), data, split)
    recipe = recipe.model_copy(update={"summary": recipe.summary.model_copy(update={"merger_class": "irregular"})})
    tested = evaluate(network, data, recipe, device="cpu").card.evaluation
    assert (tested["subset"], tested["merger"]["subset"]) == ("test", "test")
    for subset in ("all", "training"):
        card = evaluate(network, data, recipe, subset=subset, device="cpu").card
        assert card.evaluation["subset"] == subset
        assert card.evaluation["merger"] == tested["merger"]


def test_no_validation_subset_is_refused(network, data, split, recipe):
    write_split(split_path(network), data, Split(split.training, np.empty(0, np.int64), split.test))
    with pytest.raises(UsageError, match=r"net\.split\.csv: there is no validation subset to calibrate on"):
        evaluate(network, data, recipe, calibrate=True)


def test_output_that_is_not_finite_names_the_stamps(network, data, recipe):
    inputs = data.inputs.copy()
    inputs[[3, 40]] = np.nan
    bad = LabelledStamps(**{**data.columns(), "inputs": inputs})
    wanted = r"not finite for 2 of 60 stamps: =cmd\|1_F814W, =cmd\|20_F160W; the weights"
    with pytest.raises(CatmorphError, match=wanted):
        evaluate(network, bad, recipe, device="cpu")


def test_a_checkpoint_for_other_stamps_is_refused(network, data, recipe):
    other = recipe.model_copy(update={"normalise": recipe.normalise.model_copy(update={"method": "asinh"})})
    with pytest.raises(CheckpointError, match=r"normalise\.method is minmax in the checkpoint, asinh in the recipe"):
        evaluate(network, data, other)


# The command


@pytest.fixture
def labelled(survey, monkeypatch):
    """A tiny survey with votes; the figures, seconds to draw, are left to the tests above."""
    monkeypatch.setattr("catmorph.evaluation.figures.draw_all", lambda shown: iter(()))
    survey.edit('checkpoint = "untrained.safetensors"', 'checkpoint = "net.safetensors"')
    made = survey("models", "create", "clash-inception-narrow", "-r", "tiny.toml", "--output", "net.safetensors")
    assert made.status == 0, made.err
    return survey


def test_the_command(labelled):
    path = labelled.folder / "net.safetensors"
    kept = {"temperature": 1.5, "evaluation": {"calibrated": {"temperature": 1.5}}}
    rewrite_card(path, load_card(path).model_copy(update=kept))
    done = labelled("evaluate", "net.safetensors", "labels.csv", "-r", "tiny.toml")
    assert done.status == 0, done.err
    folder = labelled.folder / "net.evaluation"
    assert done.out.splitlines() == [os.path.join("net.evaluation", name) for name in (
        "predictions.csv", "evaluation.md", "evaluation.html", "metrics.json")]  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["calibration"] is None
    assert metrics["labels"] == {"file": "labels.csv", "sha256": digest(labelled.folder / "labels.csv")}
    assert metrics["overall"]["intervals"]["method"] is None, "nine sources"
    assert f"RMSE: {metrics['overall']['rmse']['value']:.4f}" in done.lines
    assert "catmorph: warning: all labelled stamps are evaluated, and the checkpoint may have been trained on them: " \
           "there is no net.split.csv beside the checkpoint" in done.lines  # fmt: skip
    page = (folder / "evaluation.html").read_text()
    assert '<p class="warning">the checkpoint may have been trained on some of these stamps.</p>' in page
    card = load_card(path)
    # A calibration of before belongs to the temperature, which stays.
    assert (card.temperature, card.evaluation["calibrated"]) == (1.5, {"temperature": 1.5})
    assert card.evaluation["rmse"] == metrics["overall"]["rmse"]
    assert card.evaluation["labels"] == metrics["labels"]


def test_the_command_as_json_that_leaves_the_card(labelled):
    before = digest(labelled.folder / "net.safetensors")
    done = labelled("evaluate", "net.safetensors", "-r", "tiny.toml", "--set", "labels.table=labels.csv", "--json",
                    "-q", "--no-card", "--out", "here")  # fmt: skip
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == json.loads((labelled.folder / "here" / "metrics.json").read_text())
    assert digest(labelled.folder / "net.safetensors") == before


def test_what_the_command_refuses(labelled):
    done = labelled("evaluate", "labels.csv", "-r", "tiny.toml")
    assert done.status == 2
    assert done.lines[0].startswith("catmorph: error: labels.csv: ")
    assert not labelled.run.exists(), "nothing was cut"
    done = labelled("evaluate", "net.safetensors", "labels.csv", "-r", "tiny.toml", "--calibrate")
    assert done.status == 2
    assert done.lines[-1].startswith("catmorph: error: net.safetensors: --calibrate fits on the validation subset")
    assert not (labelled.folder / "net.evaluation").exists()
