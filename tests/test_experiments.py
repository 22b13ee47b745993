"""Grids of trainings: what they are made of, and that they end with the same tables however they are done."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from experiment_data import recipe_in, stamps, start_in

from catmorph.errors import CatmorphError, ProblemsError, UsageError
from catmorph.experiments import prepared
from catmorph.experiments.kinds import NAMES
from catmorph.experiments.plan import EXPERIMENTS, plan, training_seed
from catmorph.experiments.run import (
    Settings,
    common_stamps,
    grid_folder,
    grid_tasks,
    refuse_failures,
    refuse_impossible,
    results_of,
    run_grid,
    time_left,
)
from catmorph.experiments.summary import csv_bytes, write_all
from catmorph.experiments.trainings import section_key, training_fingerprint
from catmorph.files import read_sealed, write_sealed
from catmorph.models.checkpoint import load_checkpoint, rewrite_card
from catmorph.models.create import create_untrained
from catmorph.models.header import load_card
from catmorph.recipe import ExperimentSection, load_recipe

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "experiments.md"
CPU = Settings(device="cpu")
PRODUCTS = ("trainings.csv", "table.csv", "table.md", "differences.csv", "summary.md", "learning-curve.png",
            "learning-curve.pdf")  # fmt: skip


def perform(grid, data, settings=CPU, say=lambda text: None):
    """Do a grid as the command does, and return its folder, account and report."""
    folder = grid_folder(grid)
    given = dict.fromkeys(grid.sides, data)
    account = run_grid(grid, given, folder, settings, say)
    report = write_all(grid, results_of(grid_tasks(grid, given, folder, settings)), account, folder)
    return folder, account, report


def products(folder):
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


@pytest.fixture(scope="module")
def data():
    return stamps()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_in(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def done(data, start, tmp_path_factory):
    """A learning curve: two sizes, fine-tuned and from scratch, two splits."""
    grid = plan("learning-curve", recipe_in(tmp_path_factory.mktemp("done")), start=start)
    return grid, *perform(grid, data)


# --- what a grid is made of -----------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    return load_recipe("configs/clash.toml", [f"training.output={tmp_path / 'net.safetensors'}"])


@pytest.mark.parametrize(
    ("name", "full", "quick"),
    [("learning-curve", 160, 48), ("freezing", 140, 12), ("filter-importance", 170, 51), ("crop-size", 50, 9),
     ("learning-rate", 40, 12), ("repeat", 20, 3)],
)  # fmt: skip
def test_the_trainings_of_each_grid(recipe, start, name, full, quick):
    whole, small = plan(name, recipe, start=start), plan(name, recipe, start=start, quick=True)
    assert (len(whole.points), len(small.points)) == (full, quick)
    for grid in (whole, small):
        assert len({point.name for point in grid.points}) == len(grid.points)
    assert grid_folder(whole) != grid_folder(small)
    assert small.section.epochs == 16 < whole.section.epochs
    assert small.section.batches_per_epoch == 12 < whole.section.batches_per_epoch


def test_every_point_of_the_paper(recipe, start):
    assert {tuple(one.values()) for one in plan("learning-curve", recipe, start=start).settings} == {
        (size, kind) for size in (50, 100, 200, 300, 400, 600, 800, 1000) for kind in ("fine-tuned", "from scratch")
    }
    freezing = [one["frozen before"] for one in plan("freezing", recipe, start=start).settings]
    assert freezing == ["nothing", *(f"inception{number}" for number in range(1, 7))]
    rates = [one["learning rate"] for one in plan("learning-rate", recipe).settings]
    assert rates == [1e-5, 5e-5, 1e-4, 1e-3]


def test_trainings_of_one_number_share_their_seed_and_nothing_else_decides_it(recipe, start):
    grid = plan("learning-curve", recipe, start=start)
    seeds = {}
    for point in grid.points:
        seeds.setdefault(point.repeat, set()).add(grid.section_of(point).seed)
    assert [len(seeds[repeat]) for repeat in range(10)] == [1] * 10
    assert len(set.union(*seeds.values())) == 10
    assert seeds[3] == {training_seed(0, 3)}
    assert training_seed(0, 3) != training_seed(1, 3)


def test_sizes_and_starts_reach_the_training(recipe, start):
    grid = plan("learning-curve", recipe, start=start)
    sections = {tuple(point.setting.values()): grid.section_of(point) for point in grid.points}
    assert sections[300, "fine-tuned"].size == sections[300, "from scratch"].size == 300
    assert sections[300, "fine-tuned"].start == str(start)
    assert sections[300, "from scratch"].start is None
    assert {one.model for one in sections.values()} == {"clash-inception-narrow"}  # what the checkpoint holds


def test_without_a_checkpoint_a_quick_grid_takes_the_narrow_network_and_nothing_is_fine_tuned(recipe):
    whole, quick = plan("learning-curve", recipe), plan("learning-curve", recipe, quick=True)
    assert (whole.section.model, quick.section.model) == ("clash-inception", "clash-inception-narrow")
    assert {one["start"] for one in quick.settings} == {"from scratch"}


def test_what_cannot_be_planned_is_refused(recipe, start, tmp_path):
    with pytest.raises(UsageError, match=r"^unknown experiment 'learning-curves'; did you mean 'learning-curve'\?$"):
        plan("learning-curves", recipe)
    with pytest.raises(UsageError, match=r"^freezing needs a checkpoint to start from; give --from or set exper"):
        plan("freezing", recipe)
    with pytest.raises(UsageError, match=r"has no stage 'inception9' to freeze before; did you mean 'inception\d'\?$"):
        plan("freezing", recipe_in(tmp_path, "experiments.stages=inception9"), start=start)
    with pytest.raises(UsageError, match=r"^filter-importance needs several views: the labelled stamps are all "):
        plan("filter-importance", recipe, views=["F160W"])
    with pytest.raises(UsageError, match=r"^crop-size cuts stamps anew, and labels.stamp_files gives stamps"):
        plan("crop-size", recipe_in(tmp_path, "labels.stamp_files=*.fits"))
    with pytest.raises(UsageError, match=r"^the recipe has no \[training\] section"):
        plan("repeat", load_recipe("configs/clash.toml"))


def test_more_stamps_than_there_are_is_told_before_anything_is_trained(data, tmp_path):
    grid = plan("learning-curve", recipe_in(tmp_path, "experiments.sizes=[8, 500]"))
    with pytest.raises(UsageError, match=r"^training.size is 500, the training subset has \d+ stamps; lower"):
        refuse_impossible(grid, {None: data})


def test_crops_are_compared_on_the_stamps_that_all_have(data):
    rows = np.arange(len(data))
    common = common_stamps({"2 radii": data.take(rows[3:]), "4 radii": data.take(rows[::-1][5:])})
    keys = [list(zip(one.ids, one.views, strict=True)) for one in common.values()]
    assert keys[0] == keys[1]
    assert len(keys[0]) == len(data) - 8
    for side in common:
        row = keys[0].index((data.ids[20], data.views[20]))
        assert np.array_equal(common[side].inputs[row], data.inputs[20])


# --- prepared stamps ----------------------------------------------------------------------------------------


def test_prepared_stamps_are_mapped_and_come_back_whole(data, tmp_path):
    path = prepared.prepare(data, tmp_path)
    found = prepared.opened(path)
    assert isinstance(found.inputs.base, np.memmap)
    for name, array in data.columns().items():
        assert np.array_equal(getattr(found, name), array), name
    found.inputs[:] = 0  # a worker's own copy
    assert np.array_equal(prepared.opened(path).inputs, data.inputs)


def test_prepared_stamps_are_known_by_every_value(data):
    key = prepared.fingerprint(data)
    assert key == prepared.fingerprint(stamps())
    for name, array in data.columns().items():
        changed = array.copy()
        changed[0] = changed[0] + 1 if changed.dtype.kind == "f" else "other"
        assert prepared.fingerprint(type(data)(**(data.columns() | {name: changed}))) != key, name


def test_damaged_prepared_stamps_are_written_again(data, tmp_path):
    path = prepared.prepare(data, tmp_path)
    whole = (path / "inputs.npy").read_bytes()
    before = (path / "inputs.npy").stat().st_mtime_ns
    assert prepared.prepare(data, tmp_path) == path
    assert (path / "inputs.npy").stat().st_mtime_ns == before
    (path / "inputs.npy").write_bytes(whole[:-4] + b"\1\2\3\4")
    prepared.prepare(data, tmp_path)
    assert (path / "inputs.npy").read_bytes() == whole
    (path / "inputs.npy").write_bytes(b"nothing")
    with pytest.raises(CatmorphError, match=r"the prepared stamps cannot be read: .*; run again$"):
        prepared.opened(path)


# --- doing it -----------------------------------------------------------------------------------------------


def test_a_grid_is_done_and_told(done):
    _, folder, account, report = done
    assert (account.total, account.kept, account.made, account.failures) == (8, 0, 8, {})
    assert report["trainings"] == {"done": 8, "failed": 0, "total": 8}
    assert set(PRODUCTS) <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("trainings/*"))
    assert [point["measures"]["rmse"]["n"] for point in report["points"]] == [2, 2, 2, 2]
    assert any("stops gaining at" in line for line in report["conclusions"])


def test_fine_tuned_and_from_scratch_have_the_same_test_stamps(done):
    _, folder, *_ = done
    for number in ("00", "01"):
        found = [read_sealed(folder / "results" / f"{size}-{start}-{number}.json")
                 for size in (8, 16) for start in ("fine-tuned", "from_scratch")]  # fmt: skip
        assert len({one["metrics"]["mean_label_rmse"] for one in found}) == 1
        assert [one["stamps"]["training"] for one in found] == [8, 8, 16, 16]
        assert len({one["metrics"]["rmse"] for one in found}) == 4


def test_the_test_rmse_of_the_views_makes_up_that_of_all(done):
    _, folder, *_ = done
    for path in (folder / "results").iterdir():
        found = read_sealed(path)
        counts, errors = zip(*((one["stamps"], one["rmse"]) for one in found["views"].values()), strict=True)
        whole = np.sqrt(np.average(np.square(errors), weights=counts))
        assert whole == pytest.approx(found["metrics"]["rmse"], abs=3e-6)


def test_what_is_done_is_kept_and_what_is_damaged_or_gone_is_done_again(done, data, tmp_path):
    grid, folder, *_ = done
    before = products(folder)
    results = sorted((folder / "results").iterdir())
    untouched = {path: path.stat().st_mtime_ns for path in results[3:]}
    results[0].unlink()
    results[1].write_bytes(results[1].read_bytes().replace(b'"rmse": 0', b'"rmse": 1'))
    results[2].write_bytes(b"{")
    for name in PRODUCTS:
        (folder / name).unlink()
    _, account, _ = perform(grid, data)
    assert (account.kept, account.made) == (5, 3)
    assert products(folder) == before
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def edited(*keys, to=None, without=False):
    """Return an edit of a result: its entry at `keys` is `to`, or gone."""

    def edit(value):
        for key in keys[:-1]:
            value = value[key]
        if without:
            del value[keys[-1]]
        else:
            value[keys[-1]] = to

    return edit


@pytest.mark.parametrize("edit", [
    edited("metrics", without=True), edited("metrics", to=[]), edited("metrics", to={}),
    edited("metrics", "rmse", to="<b>"), edited("metrics", "rmse", to=10**400), edited("metrics", "rmse", to=1e308),
    edited("metrics", "accuracy", to=None), edited("metrics", "confusion", to=[[1]]),
    edited("metrics", "confusion", to=[[0.5] * 5] * 5), edited("setting", to={"size": "<script>"}),
    edited("setting", "size", to=16), edited("repeat", to=True), edited("repeat", to=1), edited("seed", without=True),
    edited("epochs", to="3"), edited("seconds", to="long"), edited("stamps", to=[]), edited("validation", to=None),
    edited("views", to={"F160W": {"rmse": 0.1}}), edited("subsets", to={"test": 5}), edited("parameters", to="many"),
    edited("zeroed", to=[1]), edited("curve", to=[{"epoch": 1}]), edited("answers", to={"rows": [1]}),
])  # fmt: skip
def test_a_result_that_was_edited_and_sealed_again_counts_only_if_it_can_be_one(done, data, tmp_path, edit):
    grid, folder, *_ = done
    (task,) = [one for one in grid_tasks(grid, dict.fromkeys(grid.sides, data), folder, CPU)
               if one.point.name == "8-fine-tuned-00"]  # fmt: skip
    assert task.done() is not None
    task = replace(task, result=tmp_path / "result.json")
    value = read_sealed(folder / "results" / "8-fine-tuned-00.json")
    write_sealed(task.result, value)
    assert task.done() == value
    edit(value)
    write_sealed(task.result, value)
    assert task.done() is None


@pytest.mark.parametrize("content", [
    b"", b"null", b"[]", b"[" * 200_000, b'{"value":' * 3000 + b"1" + b"}" * 3000,
    b'{"seal": "x", "value": {"a": "\\ud800"}}', b'{"seal": "x", "value": {"a": ' + b"9" * 9000 + b"}}",
])  # fmt: skip
def test_a_file_that_is_no_sealed_json_is_none(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert read_sealed(tmp_path / "a.json") is None


def test_a_folder_in_the_place_of_a_result_is_told(tmp_path):
    (tmp_path / "a.json").mkdir()
    told = r"a\.json: is no file but a folder, a pipe or the like; move it away, run again"
    with pytest.raises(CatmorphError, match=told):
        read_sealed(tmp_path / "a.json")


def test_names_in_tables_are_no_formulas():
    table = pd.DataFrame({"rmse, =1+1": [0.5, -0.25], "network": ["=cmd|' /C calc'!A0", "plain"]})
    assert csv_bytes(table).decode().splitlines() == [
        '"rmse, =1+1",network', "0.5,'=cmd|' /C calc'!A0", "-0.25,plain",
    ]


def partly(done, grid, count):
    """Give `grid` the first results of the grid that is done: they are known by what made them, not by their place."""
    results = grid_folder(grid) / "results"
    results.mkdir(parents=True)
    for path in sorted((done[1] / "results").iterdir())[:count]:
        shutil.copy(path, results)


def test_an_interrupted_grid_goes_on_to_the_same_tables(done, data, start, tmp_path):
    grid = plan("learning-curve", recipe_in(tmp_path), start=start)
    partly(done, grid, 5)

    def interrupt(text):
        if "about" in text:  # after the first training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(grid, data, say=interrupt)
    assert len(list((grid_folder(grid) / "results").iterdir())) == 6
    other, account, _ = perform(grid, data)
    assert (account.kept, account.made) == (6, 2)
    assert products(other) == products(done[1])


def test_worker_processes_make_the_same_tables(done, data, start, tmp_path):
    grid = plan("learning-curve", recipe_in(tmp_path), start=start)
    partly(done, grid, 6)
    other, account, _ = perform(grid, data, Settings(workers=2, device="cpu"))
    assert (account.kept, account.made) == (6, 2)
    assert products(other) == products(done[1])


def test_other_settings_data_or_a_changed_start_are_other_trainings(done, data, tmp_path):
    grid, folder, *_ = done
    fresh = lambda grid, data: [task.done() is not None for task in grid_tasks(grid, {None: data}, folder, CPU)]  # noqa: E731
    assert fresh(grid, data) == [True] * 8
    assert fresh(grid, stamps(seed=4)) == [False] * 8
    slower = type(grid)(grid.experiment, grid.recipe, grid.section.model_copy(update={"learning_rate": 2e-3}),
                        grid.quick, grid.points)  # fmt: skip
    assert fresh(slower, data) == [False] * 8
    moved = tmp_path / "moved.safetensors"
    shutil.copy(grid.start, moved)
    fine_tuned = [point.setting["start"] == "fine-tuned" for point in grid.points]
    assert fresh(plan("learning-curve", grid.recipe, start=moved), data) == [True] * 8
    other = start_in(tmp_path)
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    assert fresh(plan("learning-curve", grid.recipe, start=other), data) == [not one for one in fine_tuned]


def test_a_training_that_fails_is_told_and_the_others_are_done(data, tmp_path):
    rates = "experiments.learning_rates=[1e-3, 1e30]"
    grid = plan("learning-rate", recipe_in(tmp_path, rates, "experiments.splits=1"))
    folder, account, report = perform(grid, data)
    assert list(account.failures) == ["1e30-00"]
    assert report["trainings"] == {"done": 1, "failed": 1, "total": 2}
    assert "## Failed trainings" in (folder / "summary.md").read_text()
    with pytest.raises(CatmorphError, match=r"1 of 2 trainings failed, the first of them 1e30-00: .*again") as error:
        refuse_failures(account, folder)
    assert error.value.exit_status == 1
    again = perform(grid, data)[1]
    assert (again.kept, again.made, list(again.failures)) == (1, 0, ["1e30-00"])


def test_filters_left_out_are_tested_all_the_same(data, tmp_path):
    grid = plan("filter-importance", recipe_in(tmp_path, "experiments.splits=1"),
                views=data.view_names)  # fmt: skip
    folder, _, report = perform(grid, data, Settings(device="cpu", keep=True))
    assert [point["setting"]["without"] for point in report["points"]] == ["no filter", "F160W", "F475W"]
    found = [read_sealed(folder / "results" / f"{name}-00.json") for name in ("no_filter", "F160W", "F475W")]
    assert [set(one["views"]) for one in found] == [{"F160W", "F475W"}] * 3
    counts = [one["stamps"] for one in found]
    assert {one["test"] for one in counts} == {12}
    assert counts[1]["training"] == counts[2]["training"] == counts[0]["training"] // 2
    kept = folder / "trainings" / "F160W-00"
    assert (kept / "net.safetensors").exists()
    assert not (kept / "state").exists()
    assert report["conclusions"][0].startswith("The filter that matters most to all test stamps is F")


COLOUR = 'views.colour=["F475W", "F814W", "F160W"]'


def test_bands_of_one_stamp_are_set_to_zero_in_the_test(tmp_path):
    data = stamps(views=("colour",), channels=3, sources=40)
    grid = plan("leave-band-out", recipe_in(tmp_path, COLOUR, "experiments.repeats=1"))
    assert len(grid.points) == 1
    folder, _, report = perform(grid, data, Settings(device="cpu", keep=True))
    assert [point["setting"]["without"] for point in report["points"]] == ["no band", "F475W", "F814W", "F160W"]
    found = read_sealed(folder / "results" / "no_band-00.json")
    assert len({found["metrics"]["rmse"], *(one["metrics"]["rmse"] for one in found["zeroed"])}) == 4
    assert [sum(one["changes"]["all"]) for one in found["zeroed"]] == [12, 12, 12]
    # The same network as a checkpoint that is there: the same numbers, from the stamps its split file names.
    given = folder / "trainings" / "no_band-00" / "net.safetensors"
    again = plan("leave-band-out", recipe_in(tmp_path / "given", COLOUR), given=given)
    other, account, report = perform(again, data)
    assert (other.name, account.made) == ("leave-band-out-net", 1)
    tested = read_sealed(other / "results" / "no_band-00.json")
    assert tested["zeroed"] == found["zeroed"]
    assert tested["metrics"]["rmse"] == pytest.approx(found["metrics"]["rmse"], abs=2e-6)
    assert report["conclusions"][1] == "The stamps are the test subset of net.split.csv."
    assert given.exists()
    assert perform(again, data)[1].kept == 1


def test_what_no_checkpoint_or_view_can_tell_is_refused(data, start, tmp_path):
    with pytest.raises(UsageError, match=r"^leave-band-out sets the bands of a stamp to zero, and the views of the"):
        plan("leave-band-out", recipe_in(tmp_path))
    with pytest.raises(UsageError, match=r"^repeat is made of trainings, and cannot test .*; --checkpoint is for l"):
        plan("repeat", recipe_in(tmp_path), given=start)
    colour = plan("leave-band-out", recipe_in(tmp_path, COLOUR), given=start)
    three = stamps(views=("colour",), channels=3)
    with pytest.raises(CatmorphError, match=r"does not fit the recipe: channels of view colour"):
        refuse_impossible(colour, {None: three})


def small(data):
    """The stamps at 32 pixels, which the narrow residual network takes."""
    columns = data.columns()
    return type(data)(**(columns | {"inputs": np.ascontiguousarray(data.inputs[:, :, :32, :32])}))


NETWORKS = ("stamp.pixels=32", "training.model=resnet-narrow", "experiments.splits=1",
            "experiments.networks.slow.model=resnet-narrow", "experiments.networks.slow.learning_rate=1e-5",
            "experiments.networks.slow.epochs=2", 'experiments.models=["resnet-narrow", "slow"]')  # fmt: skip


def test_networks_are_compared_on_the_same_split(data, tmp_path):
    grid = plan("compare", recipe_in(tmp_path, *NETWORKS))
    assert [point.setting for point in grid.points] == [{"network": "resnet-narrow"}, {"network": "slow"}]
    sections = [grid.section_of(point) for point in grid.points]
    assert [(one.model, one.learning_rate, one.epochs) for one in sections] == [
        ("resnet-narrow", 1e-3, 1), ("resnet-narrow", 1e-5, 2)]  # fmt: skip
    folder, account, report = perform(grid, small(data))
    assert not account.failures
    found = [read_sealed(folder / "results" / f"{name}-00.json") for name in ("resnet-narrow", "slow")]
    assert [len(one["curve"]) for one in found] == [1, 2]
    for one in found:
        assert one["subsets"]["test"]["mse"] == pytest.approx(one["metrics"]["rmse"] ** 2, abs=2e-6)
        assert one["subsets"]["test"]["accuracy"] == one["metrics"]["accuracy"]
        assert one["subsets"]["validation"]["mse"] == pytest.approx(one["validation"]["rmse"] ** 2, rel=1e-4)
    assert found[0]["metrics"]["mean_label_rmse"] == found[1]["metrics"]["mean_label_rmse"]
    assert found[0]["parameters"] == found[1]["parameters"] > 100_000
    assert [row["network"] for row in report["networks"]] == ["resnet-narrow", "slow"]
    again = plan("compare", recipe_in(tmp_path, *NETWORKS, "experiments.networks.slow.learning_rate=2e-5"))
    tasks = grid_tasks(again, {None: small(data)}, folder, CPU)
    assert [task.done() is not None for task in tasks] == [True, False]


@pytest.mark.parametrize(
    ("overrides", "match"),
    [(["experiments.models=[]"], r"^compare needs two networks or more, not 0; set experiments.models, or a table"),
     (["experiments.models=[\"resnet-narow\", \"resnet18\"]"], r"unknown network 'resnet-narow'; did you mean "),
     (["experiments.networks.a.model=none", "experiments.networks.b.epochs=3"], r"networks.a: unknown model 'none'"),
     (["experiments.networks.resnet-narrow.epochs=0", "experiments.networks.resnet18.epochs=3"],
      r"^experiments.networks.resnet-narrow.epochs: Input should be greater than or equal to 1; give it as"),
     (["experiments.networks.resnet-narrow.scheme=des-bar", "experiments.networks.resnet18.epochs=3"],
      r"^experiments.networks: scheme 'des-bar' has other classes than 'clash', the recipe's: bar ... and spheroid, "),
     (["experiments.models=[\"clash-inception\", \"resnet-narrow\"]"], r"32 pixels, clash-inception takes 80"),
     (["experiments.networks.resnet-narrow.start=none.safetensors", "experiments.networks.resnet18.epochs=3"],
      r"none.safetensors: no such checkpoint")],
)  # fmt: skip
def test_networks_that_cannot_be_compared_are_refused(tmp_path, overrides, match):
    with pytest.raises(UsageError, match=match):
        plan("compare", recipe_in(tmp_path, "stamp.pixels=32", *overrides))


@pytest.mark.parametrize(
    ("override", "match"),
    [("experiments.networks.a.seed=3", r"a.seed: all networks share it, as \[training\] says"),
     ("experiments.networks.a.fold=1", r"a.fold: all networks share it, as \[training\] says"),
     ("experiments.networks.a.learning_rates=3", r"a.learning_rates: unknown key, did you mean 'learning_rate'"),
     ('experiments.networks.a/b.epochs=3', r"network name 'a/b' must be letters"),
     ('experiments.crop_sizes=[3, "random"]', r"random needs two other sides, to draw between them"),
     ('experiments.crop_sizes=[3, 4, "any"]', r"experiments.crop_sizes"),
     ("experiments.crop_sizes=[-3]", r"greater than 0")],
)  # fmt: skip
def test_recipes_of_experiments_that_are_wrong_are_refused(tmp_path, override, match):
    with pytest.raises(ProblemsError, match=match):
        recipe_in(tmp_path, override)


def test_a_quick_comparison_is_of_narrow_networks_and_short(tmp_path):
    tables = [f"experiments.networks.{name}.epochs=99" for name in ("clash-inception", "resnet-narrow")]
    tables += ["experiments.networks.clash-inception.learning_rate=0.5", "training.epochs=99"]
    grid = plan("compare", recipe_in(tmp_path, *tables), quick=True)
    sections = [grid.section_of(point) for point in grid.points[::2]]
    assert [one.model for one in sections] == ["clash-inception-narrow", "resnet-narrow"]
    assert {(one.epochs, one.learning_rate) for one in sections} == {(16, 1e-3)}


def test_random_crops_are_drawn_between_the_smallest_and_the_largest(tmp_path):
    grid = plan("crop-size", recipe_in(tmp_path, 'experiments.crop_sizes=[50, "random", 25, 100]',
                                       "stamp.side='50 pixels'", "experiments.splits=1"))  # fmt: skip
    assert [point.setting["side"] for point in grid.points] == [25, 50, 100, "random"]
    assert [grid.recipe_of(point).stamp.side for point in grid.points] == [
        "25 pixels", "50 pixels", "100 pixels", "100 pixels"]  # fmt: skip
    assert [grid.section_of(point).zoom for point in grid.points] == [(1, 1), (1, 1), (1, 1), (0.25, 1)]
    assert grid.sides == ("25 pixels", "50 pixels", "100 pixels")


def test_random_crops_are_trained_and_told(data, tmp_path):
    sides = 'experiments.crop_sizes=[2, 4, "random"]'
    grid = plan("crop-size", recipe_in(tmp_path, *NETWORKS, sides))
    cut = {side: small(data) for side in grid.sides}
    folder = grid_folder(grid)
    account = run_grid(grid, cut, folder, CPU)
    report = write_all(grid, results_of(grid_tasks(grid, cut, folder, CPU)), account, folder)
    assert [point["setting"]["side"] for point in report["points"]] == [2, 4, "random"]
    assert report["points"][2]["minus"] == {"side": 4}
    errors = [point["measures"]["rmse"]["mean"] for point in report["points"]]
    assert errors[0] == errors[1] != errors[2]  # the same stamps, perturbed in another way


def test_crops_start_from_a_checkpoint(data, start, tmp_path):
    """`--from`: with steps of next to nothing the weights at every side are those of the checkpoint."""
    sides = "experiments.crop_sizes=[2, 4]"
    recipe = recipe_in(tmp_path, sides, "experiments.splits=1", "training.learning_rate=1e-12")
    grid = plan("crop-size", recipe, start=start)
    cut, keep = dict.fromkeys(grid.sides, data), Settings(device="cpu", keep=True)
    folder = grid_folder(grid)
    tasks = grid_tasks(grid, cut, folder, keep)
    assert run_grid(grid, cut, folder, keep).failures == {}
    layer = "inception3.reduce3.conv.weight"
    wanted = load_checkpoint(start).state[layer]
    assert [task.point.side for task in tasks] == list(grid.sides)
    for task in tasks:
        np.testing.assert_allclose(load_checkpoint(task.checkpoint).state[layer], wanted, atol=1e-6)
    other = grid_tasks(plan("crop-size", recipe), cut, folder, keep)
    assert {task.fingerprint for task in tasks}.isdisjoint(task.fingerprint for task in other)


def test_a_result_is_of_the_code_that_trains_not_of_a_release(data, tmp_path, monkeypatch):
    grid = plan("repeat", recipe_in(tmp_path))
    cut = {None: small(data)}

    def fingerprints():
        return [task.fingerprint for task in grid_tasks(grid, cut, tmp_path, CPU)]

    before = fingerprints()
    monkeypatch.setattr("catmorph.experiments.trainings.own_version", lambda: "9.9")
    assert fingerprints() == before
    monkeypatch.setattr("catmorph.training.CODE_VERSION", 99)
    assert set(fingerprints()).isdisjoint(before)

def taught(folder, *teachers):
    """Return the fingerprints of trainings with teachers: of a grid, and of a network of a comparison."""
    names = [str(one) for one in teachers]
    grid = plan("repeat", recipe_in(folder, f"training.teachers={names}"))
    network = f"{{model='clash-inception-narrow', teachers={names}}}"
    compared = plan("compare", recipe_in(folder, f"experiments.networks.a={network}",
                                         "experiments.networks.b={model='clash-inception-narrow'}"))  # fmt: skip
    return [training_fingerprint(one, one.points[0], "stamps", None) for one in (grid, compared)]


def test_teachers_count_by_what_they_are_not_by_where_they_lie(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    first, other = start_in(tmp_path), tmp_path / "other.safetensors"
    create_untrained("clash-inception-narrow", recipe_in(tmp_path), other, seed=10)
    before = taught(tmp_path, first)
    moved = tmp_path / "elsewhere" / "moved.safetensors"
    shutil.copy(first, moved)
    assert taught(tmp_path, moved) == before
    rewrite_card(first, load_card(first).model_copy(update={"title": "evaluated"}))
    assert taught(tmp_path, first) == before
    shutil.copy(other, first)
    for teachers in ((first,), (), (moved, other), (other, moved)):
        assert not set(taught(tmp_path, *teachers)) & set(before), teachers


def test_settings_of_trainings_without_teachers_are_fingerprinted_as_ever(tmp_path):
    section = recipe_in(tmp_path).training
    own = {"output", "title", "licence", "purpose", "start", "backbone"}
    assert section_key(section) == section.model_dump(mode="json", exclude=own)



def test_the_time_left():
    assert time_left(47, 51.0, 1) == "47 trainings, about 40 min at 51 s a training"
    assert time_left(100, 60.0, 2) == "100 trainings, about 50 min at 60 s a training, 2 at a time"
    assert time_left(3, 1.2, 1) == "3 trainings, about 4 s at 1 s a training"
    assert time_left(300, 60.0, 1) == "300 trainings, about 5 h at 60 s a training"


@pytest.mark.parametrize("name", EXPERIMENTS.names())
def test_every_experiment_has_all_parts(name):
    found = EXPERIMENTS.get(name)
    assert found.name == name
    assert name in ExperimentSection.model_fields[found.repeats].description
    assert re.search(rf"^\| `{name}` \| .* \| `{found.repeats}`", DOCUMENT.read_text(), flags=re.M)


def test_every_experiment_is_named_in_the_help():
    from catmorph.cli.experiment import experiment

    assert list(NAMES) == EXPERIMENTS.names()
    assert f"NAME is {', '.join(NAMES)} or transfer-table; " in experiment.help
    (option,) = (one for one in experiment.params if "--checkpoint" in one.opts)
    able = [name for name in NAMES if EXPERIMENTS.get(name).tests]
    assert option.help.startswith(f"{', '.join(able)}: ")


def test_planning_does_without_matplotlib():
    code = "import sys; from catmorph.experiments.plan import EXPERIMENTS as found; assert found.names()\n" \
           "sys.exit('matplotlib' in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
