"""Means, paired differences, the size at which it stops gaining, and figures, from results made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from experiment_data import recipe_in, start_in

from catmorph.evaluation.metrics import summary
from catmorph.experiments.bands import band_changes, paired_change
from catmorph.experiments.confusion import mean_confusion
from catmorph.experiments.kinds import NAMES
from catmorph.experiments.measures import EVERYTHING, changes
from catmorph.experiments.plan import Experiment, plan
from catmorph.experiments.run import Account
from catmorph.experiments.summary import write_all
from catmorph.experiments.tables import Results, Spread, spread, stops_gaining

CLASSES = ("spheroid", "disk", "irregular", "point_source", "unclassifiable")


CURVE = [{"epoch": epoch, "training_loss": 1.0, "validation_loss": 1.0, "validation_rmse": 0.2 - 0.01 * epoch,
          "training_accuracy": 0.5 + 0.04 * epoch, "validation_accuracy": 0.5 + 0.03 * epoch}
         for epoch in range(1, 10)]  # fmt: skip


def result(point, rmse, seed=0, zeroed=()):
    """What a training of `point` keeps, with this test RMSE."""
    random = np.random.default_rng(seed)
    counts = [random.multinomial(30, 0.05 + 0.75 * row).tolist() for row in np.eye(5)]
    by_class = {name: rmse + 0.01 * number for number, name in enumerate(CLASSES)}
    return json.loads(json.dumps({
        "setting": point.setting, "repeat": point.repeat, "seed": 1, "epochs": 9, "best_epoch": 5,
        "metrics": {"rmse": rmse, "rmse_authors": 0.9 * rmse, "accuracy": 0.8, "rmse_by_class": by_class,
                    "confusion": counts, "confusion_axes": "rows ...", "stamps": 150,
                    "mean_label_rmse": 0.13, "vote_noise_rmse": 0.098},
        "views": {view: {"stamps": 9, "rmse": rmse + random.normal(0, 0.01), "rmse_authors": 0.1}
                  for view in ("F475W", "F160W")},
        "note": "all labelled stamps", "parameters": 1234, "seconds": 7.5, "curve": CURVE,
        "subsets": {name: {"mse": rmse**2, "accuracy": 0.7} for name in ("training", "validation", "test")},
        "zeroed": [{"band": band, "changes": changes, "metrics": {"rmse": rmse + 0.1, "accuracy": 0.5}}
                   for band, changes in zeroed],
        "validation": {"loss": 1.0, "rmse": rmse - 0.003 * (point.repeat == 1)},
    }, sort_keys=True))  # fmt: skip


def test_a_spread_by_hand():
    found = spread([1.0, 2.0, 4.0, np.nan], 0.95)
    assert (found.n, found.mean, found.std) == (3, pytest.approx(7 / 3), pytest.approx(1.5275252))
    # t(0.975, 2) = 4.302653
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx([4.302653 * 1.5275252 / 3**0.5] * 2)
    alone = spread([3.0], 0.95)
    assert (alone.n, alone.mean) == (1, 3.0)
    assert np.isnan([alone.std, alone.low, alone.high]).all()


def test_it_stops_gaining_within_one_standard_error_of_the_best():
    def at(*means):
        return [Spread(4, mean, 0.02, 0, 0) for mean in means]  # standard error 0.01

    assert stops_gaining([50, 100, 300, 600], at(0.20, 0.14, 0.108, 0.10)) == 300
    assert stops_gaining([50, 100, 300, 600], at(0.20, 0.14, 0.112, 0.10)) == 600
    assert stops_gaining([600, 300, 50, 100], at(0.10, 0.10, 0.20, 0.109)) == 100
    assert stops_gaining([50, 100], [Spread(1, 0.2, np.nan, np.nan, np.nan)] * 2) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def grids(folder):
    start = start_in(folder)
    recipe = recipe_in(folder, 'bands.names=["F475W", "F160W"]', 'experiments.crop_sizes=[2, 4, "random"]',
                       'experiments.models=["clash-inception-narrow", "clash-inception"]')  # fmt: skip
    colour = recipe_in(folder, 'views.colour=["F475W", "F160W"]')
    return {name: plan(name, colour if name == "leave-band-out" else recipe, start=start) for name in NAMES}


def test_differences_are_paired_by_split(grids):
    grid = grids["learning-curve"]
    errors = {(8, "fine-tuned"): (0.10, 0.20), (8, "from scratch"): (0.13, 0.25),
              (16, "fine-tuned"): (0.09, 0.19), (16, "from scratch"): (0.12,)}  # fmt: skip
    found = [result(point, errors[key][point.repeat]) for point in grid.points
             if point.repeat < len(errors[key := tuple(point.setting.values())])]  # fmt: skip
    results = Results(grid, found)
    first = results.difference({"size": 8, "start": "fine-tuned"}, "rmse")
    assert (first.n, first.mean, first.std) == (2, pytest.approx(-0.04), pytest.approx(0.02 / 2**0.5))
    second = results.difference({"size": 16, "start": "fine-tuned"}, "rmse")
    assert (second.n, second.mean) == (1, pytest.approx(-0.03))  # the other split has no training from scratch
    assert results.difference({"size": 8, "start": "from scratch"}, "rmse") is None


def test_the_confusion_is_read_in_the_order_of_the_scheme(grids):
    (setting,) = grids["repeat"].settings
    found = result(grids["repeat"].points[0], 0.1)
    counts = np.diag([3, 2, 1, 0, 5])
    counts[0, 1] = 1
    found["metrics"]["confusion"] = counts.tolist()
    row = Results(grids["repeat"], [found]).of(setting).iloc[0]
    assert (row["called spheroid, spheroid"], row["called disk, spheroid"], row["called disk, disk"]) == (0.75, 0.25, 1)
    assert np.isnan(row["called point_source, point_source"])  # no stamp is one
    assert "stamps" not in row.index


@pytest.fixture(scope="module")
def written(grids, folder):
    """Every experiment with made-up results, written twice."""
    reports = {}
    for name, grid in grids.items():
        zeroed = [("F475W", CHANGES), ("F160W", WORSE)] if name == "leave-band-out" else ()
        found = [result(point, 0.11 + 0.001 * number + 0.01 * point.repeat, number, zeroed)
                 for number, point in enumerate(grid.points)]  # fmt: skip
        for copy in ("one", "two"):
            to = folder / copy / name
            to.mkdir(parents=True)
            reports[name] = write_all(grid, found, Account(len(found), 0, len(found), {}), to)
    return reports


@pytest.mark.parametrize("name", NAMES)
def test_the_same_results_give_the_same_bytes(written, folder, name):
    files = sorted(path.name for path in (folder / "one" / name).iterdir())
    assert {f"{name}.png", f"{name}.pdf", "summary.md", "table.csv", "table.md", "trainings.csv"} <= set(files)
    for file in files:
        if file != "summary.json":  # names its folder
            assert (folder / "one" / name / file).read_bytes() == (folder / "two" / name / file).read_bytes(), file
    assert (folder / "one" / name / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert b"CreationDate" not in (folder / "one" / name / f"{name}.pdf").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_json_and_says_what_the_table_says(written, grids, folder, name):
    json.dumps(written[name], allow_nan=False)
    table = pd.read_csv(folder / "one" / name / "table.csv")
    means = table[table["measure"] == "rmse"]["mean"].tolist()
    assert means == pytest.approx([point["measures"]["rmse"]["mean"] for point in written[name]["points"]], rel=1e-5)
    assert len(means) == len(grids[name].settings) + 2 * (name == "leave-band-out")  # a point for each band


def test_conclusions(written):
    told = {name: " ".join(report["conclusions"]) for name, report in written.items()}
    assert "The fine-tuned network has the lower mean RMSE at every size (2)." in told["learning-curve"]
    assert "Lowest mean RMSE: nothing (mean 0.1155," in told["freezing"]
    assert "The filter that matters most to all test stamps is F160W" in told["filter-importance"]
    assert "The training of the lowest validation RMSE is number 0" in told["repeat"]
    assert told["leave-band-out"] == (
        "The band that matters most is F160W: when it is zero, 54.0% instead of 80.0% of the stamps are called as "
        "people do, -26.0 percentage points (-26.0 to -26.0)."
    )


def test_what_differs_is_what_the_experiment_says(grids, tmp_path):
    grid = grids["repeat"]
    other = Experiment(
        "other", "Another", grid.axes, "repeats", points=lambda shape: iter(()), reference=lambda grid, setting: None,
        figure=lambda results, figure: None, conclusions=lambda results: ["It is so."],
        tables=lambda results: {"own": pd.DataFrame({"one": [1]})}, lines=lambda results: ["Own line."],
        settings=lambda grid: ["Own settings."],
    )  # fmt: skip
    report = write_all(replace(grid, experiment=other), [result(grid.points[0], 0.1)], Account(2, 0, 1, {}), tmp_path)
    assert report["conclusions"] == ["It is so."]
    assert {path.name for path in tmp_path.iterdir()} == {
        "other.png", "other.pdf", "own.csv", "trainings.csv", "table.csv", "table.md", "summary.md", "summary.json"}
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert {"Own line.", "- Own settings."} <= set(lines)


# --- the confusion matrix of repeats ------------------------------------------------------------------------


def test_the_mean_confusion_matrix_by_hand(grids):
    """Rows are people and sum to 1; mean and standard deviation over the trainings, a row without stamps is blank."""
    found = [result(point, 0.1) for point in grids["repeat"].points]
    found[0]["metrics"]["confusion"] = np.diag([8, 4, 2, 0, 1]).tolist()
    other = np.diag([6, 4, 2, 0, 1])
    other[0, 1:4] = 1, 0, 1
    found[1]["metrics"]["confusion"] = other.tolist()
    results = Results(grids["repeat"], found)
    matrix = mean_confusion(results, results.settings[0])
    assert matrix.mean[0] == pytest.approx([0.875, 0.0625, 0, 0.0625, 0])
    assert matrix.std[0] == pytest.approx([0.25 / 2**0.5, 0.125 / 2**0.5, 0, 0.125 / 2**0.5, 0])
    assert np.isnan(matrix.mean[3]).all()
    assert matrix.stamps.tolist() == [8, 4, 2, 0, 1]
    header, rows = matrix.rows()
    assert header == ["people \\ network", *CLASSES, "stamps"]
    assert rows[0] == ["spheroid", "87.5 ± 17.7", "6.2 ± 8.8", "0.0 ± 0.0", "6.2 ± 8.8", "0.0 ± 0.0", "8"]
    assert rows[3] == ["point_source", "", "", "", "", "", "0"]


def test_the_summary_of_repeats_shows_the_matrix(written, folder):
    text = (folder / "one" / "repeat" / "summary.md").read_text()
    assert "Confusion matrix in per cent, mean ± standard deviation of 2 trainings; rows are what people" in text
    table = pd.read_csv(folder / "one" / "repeat" / "confusion.csv")
    assert table.groupby("human")["mean"].sum().tolist() == pytest.approx([1.0] * 5)
    assert list(table.columns) == ["human", "predicted", "n", "mean", "std", "stamps"]


# --- several networks ---------------------------------------------------------------------------------------


def test_the_table_of_networks(written, folder):
    table = pd.read_csv(folder / "one" / "compare" / "networks.csv")
    assert table["network"].tolist() == ["clash-inception-narrow", "clash-inception"]
    assert table["n"].tolist() == [2, 2]
    first = table.iloc[0]
    assert first["test_mse"] == pytest.approx((0.11**2 + 0.121**2) / 2, rel=1e-4)
    assert first["rmse_std"] == pytest.approx(0.011 / 2**0.5, rel=1e-4)
    assert (first["parameters"], first["training_accuracy"], first["mean_label_rmse"]) == (1234, 0.7, 0.13)
    text = (folder / "one" / "compare" / "summary.md").read_text()
    assert "| clash-inception-narrow | 1,234 | 2 | 0.01337 ± 0.00180 |" in text
    assert "Always answering the mean label of the test stamps has the RMSE 0.1300." in text


# --- bands set to zero --------------------------------------------------------------------------------------

CHANGES = {EVERYTHING: [39, 1, 1, 9], **{name: [6, 1, 0, 3] for name in CLASSES}}
WORSE = {EVERYTHING: [26, 14, 1, 9], **{name: [0, 0, 0, 0] for name in CLASSES}}


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Newcombe (1998), Table II, method 10: 36, 12, 2, 0; Fagerland et al. (2014), Table 2, the same method.
    [([36, 2, 12, 0], 0.0569, 0.3404), ([1, 7, 1, 12], -0.507, -0.026)],
)
def test_the_interval_of_a_paired_change(counts, low, high):
    assert paired_change(counts, 0.95) == pytest.approx((low, high), abs=6e-4)
    turned = [counts[0], counts[2], counts[1], counts[3]]
    assert paired_change(turned, 0.95) == pytest.approx((-high, -low), abs=6e-4)


def test_the_interval_of_no_change_and_of_no_stamps():
    low, high = paired_change([30, 0, 0, 0], 0.95)
    assert low == pytest.approx(-high)
    assert 0 < high < 0.16
    assert np.isnan(paired_change([0, 0, 0, 0], 0.95)).all()


def test_changes_count_the_stamps_that_are_called_as_people_do():
    human, before, after = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]), np.array([0, 1, 0, 1, 0])
    assert changes(human, before, after, ("no", "yes")) == {EVERYTHING: [2, 1, 1, 1], "no": [1, 1, 1, 0],
                                                            "yes": [1, 0, 0, 1]}  # fmt: skip


def test_one_network_has_the_interval_of_its_stamps_several_that_of_the_trainings(grids):
    grid = grids["leave-band-out"]
    one = band_changes(Results(grid, [result(grid.points[0], 0.1, zeroed=[("F160W", WORSE)])]))
    assert (one[0].before, one[0].after, one[0].change) == pytest.approx((0.8, 0.54, -0.26))
    assert (one[0].low, one[0].high) == pytest.approx(paired_change(WORSE[EVERYTHING], 0.95))
    assert (one[1].stamps, np.isnan(one[1].change)) == (0, True)  # a class without stamps
    better = {**WORSE, EVERYTHING: [30, 10, 1, 9]}
    found = [result(point, 0.1, zeroed=[("F160W", counts)])
             for point, counts in zip(grid.points, (WORSE, better), strict=True)]  # fmt: skip
    both = band_changes(Results(grid, found))
    wanted = spread([-0.26, -0.18], 0.95)
    assert (both[0].change, both[0].low, both[0].high) == pytest.approx((wanted.mean, wanted.low, wanted.high))


def test_the_page_of_bands_has_blanks_where_a_class_has_no_stamps(written, folder):
    rows = (folder / "one" / "leave-band-out" / "summary.md").read_text().splitlines()
    assert rows[rows.index("|---|---|---|---|---|---|---|") + 1].startswith("| no band | 80.0 | 70.0 |")
    assert any(row.startswith("| F160W | 54.0: -26.0 (") and row.endswith("|  |  |  |  |  |") for row in rows)


def test_a_single_question_has_two_answers(folder):
    recipe = recipe_in(folder, "scheme=des-bar")
    grid = plan("repeat", recipe)
    found = result(grid.points[0], 0.1)
    scores, fractions = np.array([[0.9], [0.5], [0.4], [0.7]]), np.array([[1.0], [0.0], [0.0], [0.8]])
    found["metrics"] = summary(scores, fractions, ("bar",))
    assert found["metrics"]["confusion"] == [[1, 1], [0, 2]]
    assert found["metrics"]["accuracy"] == 0.75
    matrix = mean_confusion(results := Results(grid, [found]), results.settings[0])
    assert matrix.names == ("not bar", "bar")
    assert matrix.rows()[1] == [["not bar", "50.0", "50.0", "2"], ["bar", "0.0", "100.0", "2"]]


def test_a_quick_grid_says_so(grids, folder):
    grid = plan("repeat", grids["repeat"].recipe, quick=True)
    write_all(grid, [result(grid.points[0], 0.1)], Account(3, 0, 1, {}), folder)
    text = (folder / "summary.md").read_text()
    assert "This is the quick grid" in text
    assert "1 of 3 trainings" in text


def test_without_results_the_page_names_what_failed(grids, folder):
    account = Account(2, 0, 0, {"all-00": "<b>loss</b> was never finite", "all-01": "no | memory"})
    report = write_all(grids["repeat"], [], account, folder / "none")
    text = (folder / "none" / "summary.md").read_text()
    assert "0 of 2 trainings, 2 failed" in text
    assert "&lt;b&gt;loss" in text
    assert r"no \| memory" in text
    assert report["points"] == []
