"""The experiment of two surveys: its numbers, its five networks, and what cannot work."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from catmorph.check import check_run
from catmorph.cli import cli
from catmorph.errors import CatmorphError, RecipeError, UsageError
from catmorph.experiments.measures import positives
from catmorph.experiments.run import Settings
from catmorph.experiments.transfer import NETWORKS, question
from catmorph.experiments.transfer_figures import draw_false_positives, draw_roc
from catmorph.experiments.transfer_run import answer, apart, question_tasks, refuse_failures, refuse_impossible
from catmorph.experiments.transfer_summary import write_transfer
from catmorph.experiments.transfer_table import Counts, networks_of
from catmorph.files import read_sealed
from catmorph.labels import LabelledStamps
from catmorph.models.checkpoint import load_checkpoint, rewrite_card
from catmorph.models.create import create_untrained
from catmorph.models.header import load_card
from catmorph.recipe import load_recipe
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

CPU = Settings(device="cpu")
RECIPE = """
name = "{name}"
title = "Bars of {name}"
scheme = "{scheme}"

[bands]
names = ["r"]

[catalog]
files = "none.csv"
id = "ID"
ra = "RA"
dec = "DEC"
field.value = "a"

[mosaics]
pattern = "none_{{field}}_{{band}}.fits"

[stamp]
side = "10 arcsec"
pixels = 32

[normalise]
method = "none"

[labels]
table = "{name}.csv"
stamp_files = "{name}/*.fits"

[training]
model = "resnet-narrow"
output = "{name}.safetensors"
validation = 4
test = 12
epochs = 2
batches_per_epoch = 2
batch = 8
learning_rate = 1e-3
loss = "binary"

[experiments]
folder = "results"
threshold = 0.4
{own}
"""


# --- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "positive", "tp", "fp", "printed"),
    # Table 2 of Dominguez Sanchez et al. (2019), from the one pair of counts that rounds to what it prints: Q3 (d)
    # calls all 86 positive, Q3 (c) finds 9 of 9 with 9 wrong, Q1 (0), Q1 (b), Q2 (b).
    [(86, 9, 9, 77, (1.0, 0.10, 0.10)), (86, 9, 9, 9, (1.0, 0.50, 0.90)), (3370, 674, 627, 62, (0.93, 0.91, 0.97)),
     (238, 78, 74, 7, (0.95, 0.91, 0.95)), (738, 187, 180, 29, (0.96, 0.86, 0.95))],
)  # fmt: skip
def test_the_rates_of_the_published_counts(n, positive, tp, fp, printed):
    counts = Counts(tp, fp, positive - tp, n - positive - fp)
    rates = [counts.rate(name) for name in ("TPR", "precision", "accuracy")]
    assert rates == pytest.approx(printed, abs=0.0061)
    assert (counts.total, counts.positives) == (n, positive)


def test_exact_intervals_of_the_rates():
    """Perseus, all 335: TN/FP/FN/TP 233/14/14/74; the bounds of none and of all have a closed form."""
    counts = Counts(74, 14, 14, 233)
    assert [round(counts.rate(name), 2) for name in ("TPR", "precision", "accuracy")] == [0.84, 0.84, 0.92]
    assert Counts(9, 9, 0, 68).interval("TPR", 0.95) == (pytest.approx(0.025 ** (1 / 9)), 1.0)
    assert Counts(0, 5, 0, 5).interval("TPR", 0.95) is None
    assert Counts(0, 5, 5, 0).interval("precision", 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 5)))


def test_rates_without_stamps_are_none():
    assert Counts.of(np.zeros(4), np.zeros(4), 0.5) == Counts(0, 0, 0, 4)
    assert [Counts(0, 0, 0, 4).rate(name) for name in ("TPR", "precision", "accuracy")] == [None, None, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_counts_are_those_of_a_few_lines(stamps, threshold):
    probability, positive = np.array([p for p, _ in stamps]), np.array([yes for _, yes in stamps])
    counts = Counts.of(probability, positive, threshold)
    assert counts.true_positive == sum(p >= threshold and yes for p, yes in stamps)
    assert counts.false_positive == sum(p >= threshold and not yes for p, yes in stamps)
    assert (counts.total, counts.positives) == (len(stamps), positive.sum())
    for name in ("TPR", "precision", "accuracy"):
        rate = counts.rate(name)
        if rate is not None:
            low, high = counts.interval(name, 0.9)
            assert low <= rate <= high


def test_who_is_positive():
    bar = load_scheme("des-bar")
    assert positives(np.array([[0.5], [0.49], [1.0]]), bar, 0).tolist() == [True, False, True]
    clash = load_scheme("clash")
    shares = np.array([[0.3, 0.4, 0.3, 0, 0], [0.6, 0.4, 0, 0, 0]])
    assert positives(shares, clash, 1).tolist() == [True, False]  # the most voted class, whatever its share


# --- two surveys ----------------------------------------------------------------------------------------------


def stamps_of(count=40, seed=1, contrast=0.6, place=0.0):
    """Stamps of which every other has a bright bar; 0.01 degrees apart from `place` on."""
    random = np.random.default_rng(seed)
    yes = np.arange(count) % 2
    inputs = random.normal(0, 0.1, (count, 1, 32, 32)).astype(np.float32)
    inputs[yes == 1, :, 14:18] += contrast
    return LabelledStamps(
        inputs, yes[:, None].astype(np.float32), fields=np.full(count, "a"), ids=np.arange(count).astype(str),
        views=np.full(count, "r"), names=np.array([f"a_r_{n}" for n in range(count)]),
        ra=place + 0.01 * np.arange(count), dec=np.zeros(count),
    )  # fmt: skip


def write_recipe(folder, name, own="", scheme="des-bar", **changes):
    text = RECIPE.format(name=name, own=own, scheme=scheme)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    (folder / f"{name}.csv").touch()
    return path


def write_survey(folder, name, data):
    """Write the stamps as FITS files and their labels as a table."""
    (folder / name).mkdir()
    for called, pixels in zip(data.called, data.inputs, strict=True):
        fits.PrimaryHDU(pixels[0]).writeto(folder / name / f"{called}.fits")
    rows = [f"{called},{share:.2f}" for called, share in zip(data.called, data.fractions[:, 0], strict=True)]
    (folder / f"{name}.csv").write_text("ID,bar\n" + "\n".join(rows) + "\n")


OWN = 'source = "sdss.toml"\nsource_size = 20\ntarget_size = 16'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    write_recipe(folder, "sdss")
    write_recipe(folder, "des", OWN)
    return folder


@pytest.fixture(scope="module")
def surveys():
    return apart(stamps_of(), stamps_of(36, seed=2, contrast=0.4, place=50.0), 0.5)


@pytest.fixture(scope="module")
def asked(folder):
    return question(load_recipe(folder / "des.toml"))


@pytest.fixture(scope="module")
def done(asked, surveys):
    refuse_impossible(asked, surveys)
    (answered,) = answer([asked], [surveys], CPU, lambda text: None)
    return answered, write_transfer([answered], asked.folder)


def test_what_the_five_networks_are_trained_on(asked):
    start = asked.folder / "net.safetensors"
    sections = {network: asked.section(network, start) for network in NETWORKS}
    assert [sections[one].size for one in "0bcd"] == [20, 16, 16, 16]
    assert [sections[one].start for one in "0bcd"] == [None, str(start), str(start), None]
    assert [sections[one].freeze_before for one in "0bcd"] == [None, None, "fc", None]
    assert asked.describe("c") == "fine-tuned on des, from fc on"
    assert asked.describe("0") == "network of sdss on sdss"


def test_the_time_left_is_told_by_a_training(done, asked):
    """(a) trains nothing: done first, it would promise that the others take as little."""
    written = {name: (asked.folder / "results" / f"{name}-00.json").stat().st_mtime_ns for name in "abc"}
    assert written["a"] > max(written["b"], written["c"])


def test_the_table_has_the_published_columns(done, asked):
    _, report = done
    table = pd.read_csv(asked.folder / "table.csv", keep_default_na=False)
    assert list(table.columns) == [
        "recipe", "question", "experiment", "network", "N_train", "N_validation", "N_test", "N_pos", "TP", "FP", "FN",
        "TN", "P_th", "TPR", "TPR_low", "TPR_high", "precision", "precision_low", "precision_high", "accuracy",
        "accuracy_low", "accuracy_high", "ROC_area"]  # fmt: skip
    assert table["experiment"].tolist() == list("0abcd")
    assert table["N_train"].tolist() == [20, 0, 16, 16, 16]
    assert table["N_test"].tolist()[1] == 36  # the source network, on every labelled stamp of the target
    assert len(set(table["N_test"].tolist()[2:])) == 1
    assert (table["TP"] + table["FN"] == table["N_pos"]).all()
    assert report["networks"] == {"total": 5, "done": 5, "failed": 0}
    for name in ("table.md", "roc.png", "roc.pdf", "false-positives.png", "summary.json"):
        assert (asked.folder / name).stat().st_size > 100
    text = (asked.folder / "summary.md").read_text()
    assert "| bar | (c) | fine-tuned on des, from fc on | 16 |" in text
    assert any("test stamps of (b) alone, network (a) has TPR" in line for line in report["notes"])


def test_the_counts_are_those_of_the_answers(done, asked):
    answers = pd.read_csv(asked.folder / "answers.csv")
    table = pd.read_csv(asked.folder / "table.csv").set_index("experiment")
    for network, part in answers.groupby("experiment"):
        called = part["probability"] >= 0.4
        assert (called & (part["positive"] == 1)).sum() == table.loc[network, "TP"]
        assert (called & (part["positive"] == 0)).sum() == table.loc[network, "FP"]
        assert len(part) == table.loc[network, "N_test"]


def test_no_test_stamp_is_in_training_and_the_target_tests_are_the_same(done, asked):
    answered, _ = done
    rows = {network: answered.results[network]["answers"]["rows"] for network in NETWORKS}
    assert rows["b"] == rows["c"] == rows["d"]
    assert rows["a"] == list(range(36))
    split = pd.read_csv(asked.folder / "trainings" / "0-00" / "net.split.csv", dtype=str)
    trained = set(split[split["subset"].isin(["training", "validation"])]["id"])
    tested_on = {answered.surveys.source.ids[row] for row in rows["0"]}
    assert not trained & tested_on


def test_dense_only_leaves_the_convolutions_as_they_were(asked, surveys, done, tmp_path):
    kept = question(load_recipe(asked.folder.parents[2] / "des.toml", [f"experiments.folder={tmp_path}"]))
    shutil.copytree(asked.folder, kept.folder)
    (again,) = answer([kept], [surveys], Settings(device="cpu", keep=True), lambda text: None)
    assert not again.failures
    states = {network: load_checkpoint(kept.folder / "trainings" / f"{network}-00" / "net.safetensors").state
              for network in "0bc"}  # fmt: skip
    same = {network: {name for name, value in states["0"].items() if value.equal(states[network][name])}
            for network in "bc"}  # fmt: skip
    assert set(states["0"]) - same["c"] == {"fc.weight", "fc.bias"}
    assert not {name for name in same["b"] if name.endswith("conv1.weight")}


def test_what_is_done_is_kept_and_what_was_edited_is_made_again(done, asked, surveys):
    results = asked.folder / "results"
    times = {path.name: path.stat().st_mtime_ns for path in results.iterdir()}
    before = {name: (asked.folder / name).read_bytes() for name in ("table.csv", "answers.csv", "roc.png", "roc.pdf",
                                                                    "false-positives.png", "summary.md")}  # fmt: skip
    edited = results / "c-00.json"
    edited.write_text(edited.read_text().replace('"probability": [', '"probability": [0.99, '))
    assert read_sealed(edited) is None
    (again,) = answer([asked], [surveys], CPU, lambda text: None)
    write_transfer([again], asked.folder)
    assert {name: (asked.folder / name).read_bytes() for name in before} == before
    changed = {path.name for path in results.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"c-00.json"}


def test_another_source_network_makes_the_others_again(done, asked, surveys, tmp_path):
    """Where its checkpoint is damaged the source network is trained again, to the same bits: the rest stays."""
    kept = question(load_recipe(asked.folder.parents[2] / "des.toml", [f"experiments.folder={tmp_path}"]))
    shutil.copytree(asked.folder, kept.folder)
    assert all(task.done() for task in question_tasks(kept, surveys, CPU).values())
    checkpoint = kept.folder / "trainings" / "0-00" / "net.safetensors"
    rewrite_card(checkpoint, load_card(checkpoint).model_copy(update={"title": "evaluated"}))
    assert all(task.done() for task in question_tasks(kept, surveys, CPU).values())
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    assert {network for network, task in question_tasks(kept, surveys, CPU).items() if task.done()} == {"d"}
    (again,) = answer([kept], [surveys], CPU, lambda text: None)
    # The seconds too: these are the results of before.
    assert [again.results[one] for one in "abd"] == [done[0].results[one] for one in "abd"]
    other = stamps_of(36, seed=5, contrast=0.4, place=50.0)
    tasks = question_tasks(kept, apart(stamps_of(), other, 0.5), CPU)
    assert {network for network, task in tasks.items() if task.done()} == {"0"}


def test_other_teachers_make_the_taught_networks_again(done, asked, surveys, tmp_path):
    first, second, moved = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "moved"))
    for seed, path in enumerate((first, second)):
        create_untrained("resnet-narrow", asked.target, path, seed=seed)
    shutil.copy(first, moved)

    def keys(survey, path):
        section = getattr(asked, f"{survey}_section").model_copy(update={"teachers": (str(path),)})
        tasks = question_tasks(replace(asked, **{f"{survey}_section": section}), surveys, CPU)
        assert not any(task.done() for network, task in tasks.items() if network in own[survey])
        return {network: tasks[network].fingerprint for network in own[survey]}

    own = {"source": "0", "target": "bcd"}
    for survey in own:
        before = keys(survey, first)
        assert keys(survey, moved) == before
        changed = keys(survey, second)
        assert all(changed[network] != before[network] for network in own[survey])


def test_without_positives_in_the_test_cells_are_blank(done, asked, tmp_path):
    answered, _ = done
    results = json.loads(json.dumps(answered.results))
    for one in results.values():
        one["answers"]["positive"] = [0] * len(one["answers"]["positive"])
    blank = type(answered)(answered.question, answered.surveys, results, {})
    report = write_transfer([blank], tmp_path)
    assert [row["TPR"] for row in report["rows"]] == [None] * 5
    assert [row["ROC_area"] for row in report["rows"]] == [None] * 5
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["TPR"].isna().all()
    assert table["accuracy"].notna().all()
    assert "|  | 0." in (tmp_path / "table.md").read_text()
    assert len(networks_of([blank])[0].false_positives) == report["rows"][0]["FP"]


@pytest.mark.parametrize("questions", [1, 2, 3])
def test_no_label_of_the_roc_figure_is_cut_off(done, tmp_path, questions):
    """Each question has a panel of its own; nothing is drawn up to the edge."""
    copies = [replace(done[0]) for _ in range(questions)]
    picture, _ = draw_roc(networks_of(copies), tmp_path / "roc")
    image = imread(picture)[..., :3]
    for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert (edge == 1).all()
    assert (image < 1).any()


def test_stamps_of_several_bands_are_shown_in_colour(done, tmp_path):
    """The last band of a view is red, as in every other picture of stamps."""
    answered, _ = done
    path = write_recipe(tmp_path, "des", 'source = "sdss.toml"', bands=(
        'names = ["r"]', 'names = ["g", "r", "i"]\n[views]\nall = ["g", "r", "i"]'))  # fmt: skip
    target = answered.surveys.target
    inputs = np.random.default_rng(1).normal(0, 1, (len(target), 3, 32, 32))
    inputs[:, 2, 8:24, 8:24] += 300
    columns = target.columns() | {"inputs": inputs.astype(np.float32), "views": np.full(len(target), "all")}
    asked = replace(answered.question, target=load_recipe(path))
    shown = replace(answered, question=asked, surveys=replace(answered.surveys, target=type(target)(**columns)))
    row = [one for one in networks_of([shown]) if one.network == "a"]
    row = [replace(one, probability=np.ones(len(one.rows)), positive=np.zeros(len(one.rows), bool)) for one in row]
    image = imread(draw_false_positives(row, tmp_path / "fp.png"))
    red = (image[..., 0] > 0.5) & (image[..., 1] < 0.4) & (image[..., 2] < 0.4)
    # Eight stamps of an inch at 150 dots, a quarter of each.
    assert 8 * 0.2 < red.sum() / 150**2 < 8 * 0.3


def test_a_source_network_that_fails_is_told_and_the_others_wait(folder, surveys, tmp_path):
    write_recipe(tmp_path, "sdss", rate=("1e-3", "1e30"))
    write_recipe(tmp_path, "des", OWN)
    asked = question(load_recipe(tmp_path / "des.toml"))
    (answered,) = answer([asked], [surveys], CPU, lambda text: None)
    assert set(answered.failures) == {"0", "a", "b", "c"}
    assert set(answered.results) == {"d"}
    report = write_transfer([answered], asked.folder)
    assert report["networks"] == {"total": 5, "done": 1, "failed": 4}
    assert "## Failed trainings" in (asked.folder / "summary.md").read_text()
    with pytest.raises(CatmorphError, match=r"4 of 5 networks failed, the first of them \(0\): .*run again"):
        refuse_failures([answered])


# --- what is in both surveys ----------------------------------------------------------------------------------


def test_objects_of_the_target_survey_are_left_out_of_the_source():
    source, target = stamps_of(40), stamps_of(6, place=0.1)  # the target's lie on the source's 10 to 15
    both = apart(source, target, 0.5)
    assert (len(both.source), both.shared, both.placed) == (34, 6, True)
    assert set(source.ids) - set(both.source.ids) == set(map(str, range(10, 16)))
    assert apart(source, target, 0).shared == 0
    nowhere = LabelledStamps(**{name: value for name, value in target.columns().items() if name not in ("ra", "dec")})
    assert (apart(source, nowhere, 0.5).shared, apart(source, nowhere, 0.5).placed) == (0, False)
    with pytest.raises(UsageError, match=r"^every labelled stamp of the source survey is within 0.5 arcsec of one"):
        apart(source, stamps_of(40), 0.5)


def test_too_few_stamps_are_told_with_the_survey(asked, surveys):
    few = apart(surveys.source, surveys.target.take(np.arange(14)), 0.5)
    with pytest.raises(UsageError, match=r"^des: .* training.size is experiments.target_size here$"):
        refuse_impossible(asked, few)


# --- what cannot work -----------------------------------------------------------------------------------------


def refused(folder, match, error=UsageError, source=None, **changes):
    write_recipe(folder, "sdss", **(source or {}))
    own = changes.pop("own", OWN)
    scheme = changes.pop("scheme", "des-bar")
    with pytest.raises(error, match=match):
        question(load_recipe(write_recipe(folder, "des", own, scheme, **changes)))


def test_recipes_that_do_not_suit_each_other_are_refused(tmp_path):
    refused(tmp_path, r"^des: transfer-table needs a second survey; set experiments.source", own="")
    refused(tmp_path, r"sdsss.toml: no such recipe", RecipeError, own='source = "sdsss.toml"')
    refused(tmp_path, r"^the two recipes have different classes \(scheme\): bar \(sdss\) and disk \(des\)",
            scheme="des-disk")  # fmt: skip
    refused(tmp_path, r"different networks \(training.model\): resnet-narrow \(sdss\) and dominguez-cnn",
            model=('"resnet-narrow"', '"dominguez-cnn"'))  # fmt: skip
    refused(tmp_path, r"different stamp sizes \(stamp.pixels\): 32 \(sdss\) and 64 \(des\)",
            pixels=("pixels = 32", "pixels = 64"))  # fmt: skip
    refused(tmp_path, r"different bands of a stamp: 1 \(sdss\) and 2 \(des\)",
            bands=('names = ["r"]', 'names = ["r", "i"]\n[views]\nboth = ["r", "i"]'))  # fmt: skip
    refused(tmp_path, r"^scheme 'des-bar' has no class 'bars'; did you mean 'bar'", own=OWN + '\npositive = "bars"')
    refused(tmp_path, r"^experiments.dense_stage: resnet-narrow has no stage 'layer9' to freeze before",
            own=OWN + '\ndense_stage = "layer9"')  # fmt: skip
    refused(tmp_path, r"^des: both recipes are called 'des'", source={"called": ('name = "sdss"', 'name = "des"')})


def test_files_that_are_missing_in_either_survey_are_told_before_anything_is_cut(tmp_path):
    write_survey(tmp_path, "des", stamps_of(4))
    start = ("epochs = 2", 'epochs = 2\nstart = "none.safetensors"')
    more = ('loss = "binary"', 'loss = "binary"\nteachers = ["gone.safetensors"]')
    write_recipe(tmp_path, "sdss", 'start = "of-grids.safetensors"', start=start, more=more)
    # The target's networks start from the source's.
    write_recipe(tmp_path, "des", OWN + '\nstart = "of-grids.safetensors"', start=start)
    (tmp_path / "sdss.csv").unlink()
    done = call(tmp_path, "transfer-table", "des.toml")
    missing = {"sdss.csv": "labels.table", "sdss/*.fits": "labels.stamp_files", "none.safetensors": "training.start",
               "gone.safetensors": "training.teachers"}  # fmt: skip
    wanted = [f"{tmp_path}/{name}: no such file; it is {key} of sdss" for name, key in missing.items()]
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [f"catmorph: error: sdss: {line}" for line in wanted]
    found = check_run(RunFolder(tmp_path / "runs" / "des", load_recipe(tmp_path / "des.toml")))
    theirs = [line for line in found.problems if "sdss" in line]
    assert theirs == [f"experiments.source sdss: {line}" for line in wanted]
    assert [line for line in found.notes if "no such file" in line] == [
        f"{tmp_path}/of-grids.safetensors: no such file; it is experiments.start of des, for experiments"]


def test_check_looks_at_the_source_recipe(tmp_path):
    write_survey(tmp_path, "des", stamps_of(4))
    run = RunFolder(tmp_path / "runs" / "des", load_recipe(write_recipe(tmp_path, "des", OWN)))
    assert f"{tmp_path}/sdss.toml: no such recipe; `catmorph init PRESET` writes one" in check_run(run).problems
    write_survey(tmp_path, "sdss", stamps_of(4))
    path = write_recipe(tmp_path, "sdss", pixels=("pixels = 32", "pixels = 48"))
    found = [line for line in check_run(run).problems if "sdss" in line]
    assert found == ["the two recipes have different stamp sizes (stamp.pixels): 48 (sdss) and 32 (des); one network "
                     "must answer the same question in both"]  # fmt: skip
    path.write_text(path.read_text().replace("pixels = 48", "pixels = 32").replace('stamp_files = "sdss/*.fits"', ""))
    found = [line for line in check_run(run).problems if "sdss" in line]
    assert found[0] == (
        f"experiments.source sdss: {tmp_path}/none.csv: no such catalog file; check catalog.files in the recipe")
    assert [": no mosaic of any band matches for any field" in line for line in found[1:]] == [True]
    assert not run.path.exists()


def test_a_recipe_without_training_is_refused(tmp_path):
    write_recipe(tmp_path, "des", OWN)
    path = write_recipe(tmp_path, "sdss")
    text = path.read_text()
    path.write_text(text[: text.index("[training]")])
    with pytest.raises(UsageError, match=r"^sdss: the recipe has no \[training\] section; transfer-table trains"):
        question(load_recipe(tmp_path / "des.toml"))


def test_only_the_dense_layers_is_from_the_first_of_them_on(tmp_path):
    changes = {"model": ('"resnet-narrow"', '"dominguez-cnn"'), "pixels": ("pixels = 32", "pixels = 69")}
    write_recipe(tmp_path, "sdss", **changes)
    asked = question(load_recipe(write_recipe(tmp_path, "des", OWN, **changes)))
    assert asked.dense == "dense"
    quick = question(load_recipe(tmp_path / "des.toml"), quick=True)
    assert (quick.target_section.model, quick.source_section.model) == ("dominguez-narrow", "dominguez-narrow")


def test_a_softmax_scheme_has_a_positive_class(tmp_path):
    write_recipe(tmp_path, "sdss", scheme="clash", loss=('"binary"', '"cross-entropy"'))
    for own, wanted in ((OWN, 4), (OWN + '\npositive = "disk"', 1)):
        path = write_recipe(tmp_path, "des", own, "clash", loss=('"binary"', '"cross-entropy"'))
        assert question(load_recipe(path)).positive == wanted


# --- the command ----------------------------------------------------------------------------------------------


def call(folder, *arguments):
    before = os.getcwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(cli, ["experiment", *map(str, arguments)], prog_name="catmorph")
    finally:
        os.chdir(before)


def test_two_questions_make_one_table(tmp_path):
    write_survey(tmp_path, "sdss", stamps_of(30))
    write_recipe(tmp_path, "sdss", test=("test = 12", "test = 6"))
    names = ("des", "hsc")
    for number, name in enumerate(names):
        write_survey(tmp_path, name, stamps_of(24, seed=number + 2))
        write_recipe(tmp_path, name, 'source = "sdss.toml"', test=("test = 12", "test = 6"))
    listed = call(tmp_path, "transfer-table", "des.toml", "hsc.toml", "--dry-run", "--json")
    assert [one["done"] for one in json.loads(listed.stdout)["networks"]] == [False] * 10
    assert not (tmp_path / "results").exists()
    arguments = ("transfer-table", "des.toml", "hsc.toml", "--workers", 1, "--device", "cpu", "--quick", "--set",
                 "experiments.quick.epochs=1", "--set", "experiments.quick.batches_per_epoch=1")  # fmt: skip
    made = call(tmp_path, *arguments)
    assert made.exit_code == 0, made.stderr
    joint = tmp_path / "results" / "des+hsc" / "transfer-table-quick"
    assert made.stdout.splitlines()[-1] == str(joint / "summary.md")
    assert made.stdout.splitlines()[0].split() == ["experiment", "N_train", "N_test", "N_pos", "TPR", "precision",
                                                   "accuracy"]  # fmt: skip
    assert len(pd.read_csv(joint / "table.csv")) == 10
    assert len(pd.read_csv(tmp_path / "results" / "hsc" / "transfer-table-quick" / "table.csv")) == 5
    assert "without positions in both surveys, objects of sdss that are" in (joint / "summary.md").read_text()
    listed = call(tmp_path, "transfer-table", "des.toml", "hsc.toml", *arguments[3:], "--dry-run", "--json")
    assert [one["done"] for one in json.loads(listed.stdout)["networks"]] == [True] * 10


def test_misuse_is_status_2(tmp_path):
    write_recipe(tmp_path, "sdss")
    write_recipe(tmp_path, "des", OWN)
    for arguments, wanted in (
        (("repeat", "des.toml", "sdss.toml"), "repeat takes one recipe, and 2 are given; only transfer-table takes"),
        (("transfer-table", "des.toml", "--from", "x"), "transfer-table trains the network it starts from"),
        (("transfer-table", "des.toml", "des.toml"), "recipes of one name would share their results: des, des"),
        (("transfer-table", "des.toml", "sdss.toml", "-w", "x"), "--workdir is the run folder of one recipe"),
        (("transfer-table", "sdss.toml"), "sdss: transfer-table needs a second survey"),
        (("transfer-tables", "sdss.toml"), "unknown experiment 'transfer-tables'; did you mean 'transfer-table'?"),
    ):
        found = call(tmp_path, *arguments)
        assert found.exit_code == 2, arguments
        assert found.stderr.startswith(f"catmorph: error: {wanted}"), found.stderr
        assert len(found.stderr.splitlines()) == 1
