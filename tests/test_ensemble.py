"""Ensembles, the temperature of the card, and what of a checkpoint makes logits stale."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io.votable.ucd import parse_ucd
from scipy.stats import entropy as shannon
from tiny_survey import Survey

import catmorph
from catmorph.api import classify
from catmorph.errors import CheckpointError, ProblemsError, RecipeError, UsageError
from catmorph.inference.members import members
from catmorph.models.card import Card
from catmorph.models.checkpoint import load_checkpoint, rewrite_card, save_checkpoint
from catmorph.models.create import PURPOSE
from catmorph.models.header import load_card
from catmorph.models.identity import read_network_digest
from catmorph.recipe import Recipe, load_recipe
from catmorph.release.assemble import release_layout
from catmorph.release.layout import build_layout
from catmorph.stamps import build

CLASSES = ("spheroid", "disk", "irregular", "point_source", "unclassifiable")
ONE, TWO = 'checkpoint = "a.safetensors"', 'checkpoint = ["a.safetensors", "b.safetensors"]'
# Two fields of one cell each, three bands: a network makes six logits files.
FILES = 6


@pytest.fixture(scope="module")
def several(pristine_survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """The tiny survey with three narrow untrained networks a, b and c, after a run with a and b. Read only."""
    survey = pristine_survey.copy(tmp_path_factory.mktemp("several") / "tiny")
    for seed, name in enumerate("abc"):
        made = survey("models", "create", "clash-inception-narrow", "-r", "tiny.toml", "-o", f"{name}.safetensors",
                      "--seed", seed)
        assert made.status == 0, made.err
        # Untrained networks hardly tell one class from another: let the classes differ.
        opened = load_checkpoint(survey.folder / f"{name}.safetensors")
        sharpen(opened, np.random.default_rng(seed).normal(0, 1.5, 5), survey.folder / f"{name}.safetensors")
    survey.edit('checkpoint = "untrained.safetensors"', TWO)
    survey.edit('name = "Tiny"', 'name = "Tiny"\nformats = ["csv", "parquet"]')
    done = survey("run", "tiny.toml")
    assert done.status == 0, done.err
    assert f"{2 * FILES} made, 0 up to date" in done.err
    return survey


def sharpen(opened, bias, path: Path, scale: float = 20.0) -> None:
    """Write a checkpoint again with the weights of its head larger and `bias` (class) in it."""
    from catmorph.models.checkpoint import build_from

    module = build_from(opened)
    head = list(module.state_dict())[-2:]
    state = module.state_dict()
    state[head[0]].mul_(scale)
    state[head[1]].copy_(torch.as_tensor(np.asarray(bias, dtype=np.float32)))
    save_checkpoint(path, module, opened.card)


@pytest.fixture
def pair(several: Survey, tmp_path: Path) -> Survey:
    """A copy of it to change."""
    return several.copy(tmp_path / "tiny")


def counts(survey: Survey, *options: str) -> tuple[int, int]:
    """Run, and return how many logits files were made and kept."""
    done = survey("run", "tiny.toml", "-q", *options)
    assert done.status == 0, done.err
    stages = json.loads((survey.run / "run.json").read_text())["stages"]
    (stage,) = [one for one in stages if one["stage"] == "classify"]
    return stage["made"], stage["kept"]


def recard(path: Path, **fields: object) -> None:
    """Replace fields of the card of a checkpoint, as `catmorph evaluate` does."""
    rewrite_card(path, Card.model_validate({**load_card(path).model_dump(), **fields}))


def released(survey: Survey) -> pd.DataFrame:
    return pd.read_parquet(survey.run / "release" / "Tiny.parquet")


def stored(survey: Survey, *folder: str) -> pd.DataFrame:
    """Return the stored logits below logits/net/, by id; the field is part of it."""
    parts = []
    for path in sorted((survey.run / "logits" / "net").joinpath(*folder).glob("*.parquet")):
        part = pq.read_table(path).to_pandas()
        part["id"] = path.name.split("-")[0] + " " + part["id"]
        parts.append(part)
    return pd.concat(parts).set_index("id")


# --- ensembles --------------------------------------------------------------------------------------------


def test_mean_spread_and_mutual_information_are_those_of_the_stored_logits(several):
    table = released(several)
    table.index = table["field"] + " " + table["id"]
    checked = 0
    for view in ("F435W", "F814W", "F160W"):
        each = []
        for folder in ((view,), (view, "b")):
            powers = np.exp(stored(several, *folder).loc[table.index, list(CLASSES)].to_numpy(np.float64))
            each.append(powers / powers.sum(axis=1, keepdims=True))
        mean = (each[0] + each[1]) / 2
        here = np.isfinite(mean).all(axis=1)
        checked += here.sum()
        names = [f"{view}_{name}" for name in CLASSES]
        np.testing.assert_allclose(table[names], mean, rtol=1e-6)
        # Of two numbers the standard deviation is half of their distance.
        spread = table[[f"{name}_spread" for name in names]]
        np.testing.assert_allclose(spread, np.abs(each[0] - each[1]) / 2, atol=1e-7)
        entropies = [shannon(one[here], base=2, axis=1) for one in (mean, *each)]
        np.testing.assert_allclose(table[f"{view}_entropy"][here], entropies[0], rtol=1e-5)
        gain = entropies[0] - (entropies[1] + entropies[2]) / 2
        assert gain.min() > 0.001
        np.testing.assert_allclose(table[f"{view}_mutual_information"][here], gain, rtol=1e-4, atol=1e-6)
        assert table.loc[~here, f"{view}_mutual_information"].isna().all()
        assert list(table[f"{view}_class"][here]) == [CLASSES[best] for best in mean[here].argmax(axis=1)]
    assert checked > 15


def test_csv_keeps_its_columns_and_the_others_say_what_the_new_ones_are(several):
    header = (several.run / "release" / "Tiny.csv").read_text().splitlines()[0]
    assert header.split(",")[4:] == [f"{view}_{name}" for view in ("F435W", "F814W", "F160W") for name in CLASSES]
    for column in release_layout(catmorph.open_run(several.recipe, several.run)).columns:
        parse_ucd(column.ucd or "meta", check_controlled_vocabulary=True)
    text = (several.run / "release" / "columns.md").read_text()
    assert "standard deviation of F160W\\_disk among the networks" in text
    assert "mean of 2 networks" in text
    summary = json.loads((several.run / "release" / "summary.json").read_text())
    assert summary["classifiers"] == {"net": {
        "scheme": "clash", "networks": 2, "temperatures": [1.0, 1.0], "test_time": "none",
        "remarks": [PURPOSE]}}
    page = (several.run / "release" / "summary.md").read_text()
    assert "Probabilities of net: mean of 2 networks." in page
    assert f"Network of net: {PURPOSE}" in page
    table = released(several)
    most = table[[f"F160W_{name}" for name in CLASSES]].idxmax(axis=1, skipna=True)[table["F160W_class"].notna()]
    (view,) = [one for one in summary["views"] if one["view"] == "F160W"]
    assert {name: one["most_probable"] for name, one in view["classes"].items()} == {
        name: int((most == f"F160W_{name}").sum()) for name in CLASSES
    }


def test_a_member_more_or_less_is_the_only_work(pair, release_bytes):
    assert counts(pair) == (0, 2 * FILES)
    pair.edit(TWO, 'checkpoint = ["a.safetensors", "b.safetensors", "c.safetensors"]')
    assert counts(pair) == (FILES, 2 * FILES)
    pair.edit('"a.safetensors", "b.safetensors", "c.safetensors"', '"a.safetensors", "c.safetensors"')
    assert counts(pair) == (0, 2 * FILES)
    kept = release_bytes(pair)
    out = pair("clean", "-r", "tiny.toml", "-v")
    assert len([line for line in out.out.splitlines() if line.startswith("logits/net/")]) == FILES
    assert all("/b/" in line for line in out.out.splitlines())
    shutil.rmtree(pair.run)
    assert counts(pair) == (2 * FILES, 0)
    assert kept == release_bytes(pair)


def test_direct_cuts_once_for_all_members(pair, release_bytes, monkeypatch):
    before, cut = release_bytes(pair), []
    real = build.cut_stamps
    monkeypatch.setattr(build, "cut_stamps", lambda task: cut.append(task.shard) or real(task))
    shutil.rmtree(pair.run)
    assert counts(pair, "--direct") == (2 * FILES, 0)
    assert len(cut) == len(set(cut)) == FILES
    assert release_bytes(pair) == before
    # Members that need different chunks: each is cut once, and no other.
    lost = [*pair.run.glob("logits/net/F814W/*.parquet"), *pair.run.glob("logits/net/*/b/alpha-*.parquet")]
    for path in lost:
        path.unlink()
    cut.clear()
    assert counts(pair, "--direct") == (len(lost), 2 * FILES - len(lost)) == (5, 7)
    assert len(cut) == len(set(cut)) == 4
    assert release_bytes(pair) == before


def test_direct_a_mosaic_that_fails_once_fails_for_all_members(pair, release_bytes, monkeypatch):
    before = release_bytes(pair)
    shutil.rmtree(pair.run / "stamps")
    (lost,) = pair.run.glob("logits/net/F160W/b/alpha-*.parquet")
    lost.unlink()
    real, mosaic = build.cut_stamps, pair.folder / "mosaics" / "alpha_f160w.fits"

    def while_it_changes(task):
        times = mosaic.stat().st_atime_ns, mosaic.stat().st_mtime_ns
        os.utime(mosaic, ns=(0, 0))
        try:
            return real(task)
        finally:
            os.utime(mosaic, ns=times)

    with monkeypatch.context() as patched:
        patched.setattr(build, "cut_stamps", while_it_changes)
        done = pair("run", "tiny.toml", "--direct")
    # The logits of the first member were valid; they are of stamps that this run could not read.
    assert done.status == 3
    assert any(line.startswith("classify: ") and line.endswith("; 2 made, 10 up to date") for line in done.lines)
    assert "alpha_f160w.fits (field alpha): has changed while the run went on" in done.err
    assert counts(pair, "--direct") == (2, 2 * FILES - 2)
    assert release_bytes(pair) == before


def test_from_one_network_to_two_and_back(pair, release_bytes):
    shutil.rmtree(pair.run / "logits" / "net")
    pair.edit(TWO, ONE)
    assert counts(pair) == (FILES, 0)
    alone = release_bytes(pair)
    assert not [name for name in released(pair).columns if "spread" in name or "mutual" in name]
    pair.edit(ONE, TWO)
    assert counts(pair) == (FILES, FILES)
    pair.edit(TWO, 'checkpoint = ["a.safetensors"]')  # a list of one is that one
    assert counts(pair) == (0, FILES)
    assert release_bytes(pair) == alone


def test_a_replaced_member_is_the_only_work(pair, release_bytes):
    shutil.copy(pair.folder / "c.safetensors", pair.folder / "b.safetensors")
    stages = json.loads(pair("status", "-r", "tiny.toml", "--json").out)["stages"]
    assert {row["view"]: (row["done"], row["stale"]) for row in stages if row["stage"] == "classify"} == {
        f"{view} ({name})": ((2, 0) if name == "a" else (0, 2)) for view in ("F435W", "F814W", "F160W") for name in "ab"
    }
    refused = pair("export", "-r", "tiny.toml")
    assert (refused.status, "out of date (classifier changed), as 6 of 6 logits files are" in refused.err) == (1, True)
    assert counts(pair) == (FILES, FILES)
    kept = release_bytes(pair)
    shutil.rmtree(pair.run)
    assert counts(pair) == (2 * FILES, 0)
    assert kept == release_bytes(pair)


def test_lost_and_damaged_files_of_a_member_are_made_again(pair, release_bytes):
    before = release_bytes(pair)
    first, second, *_ = sorted((pair.run / "logits" / "net").rglob("b/*.parquet"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-10])
    refused = pair("summarize", "-r", "tiny.toml")
    assert refused.status == 1
    assert str(first.parent.name) == "b"
    assert counts(pair) == (2, 2 * FILES - 2)
    assert before == release_bytes(pair)


def test_a_member_without_finite_output_blocks_and_is_told(pair):
    path = pair.folder / "b.safetensors"
    sharpen(load_checkpoint(path), [0, np.nan, 0, 0, 0], path)
    done = pair("run", "tiny.toml")
    assert done.status == 3  # NOT_FINITE is a fault
    stamps = int(stored(pair, "F160W")["disk"].notna().sum() + stored(pair, "F814W")["disk"].notna().sum()
                 + stored(pair, "F435W")["disk"].notna().sum())  # fmt: skip
    assert (f"catmorph: warning: {path}: its output is not finite for {stamps} (source, view)s; the ensemble 'net' has "
            "no probabilities for them") in done.lines
    assert len(released(pair)) == 0
    omitted = pq.read_table(pair.run / "omitted.parquet").to_pandas()
    assert omitted["flags"].str.count("NOT_FINITE").sum() == stamps


def test_every_problem_of_every_member_is_listed_at_once(pair):
    (pair.folder / "a.safetensors").write_bytes(b"\x80\x02junkjunkjunk")
    pair.edit(TWO, 'checkpoint = ["a.safetensors", "b.safetensors", "none.safetensors"]')
    pair.edit('method = "asinh"', 'method = "minmax"')
    for command in (("check", "-r", "tiny.toml", "-q"), ("run", "tiny.toml", "-q")):
        done = pair(*command)
        assert done.status == 2
        text = done.err
        assert "a.safetensors: is a Python pickle" in text
        assert "b.safetensors: does not fit the recipe: normalise.method is asinh" in text
        assert "none.safetensors: no such checkpoint" in text
        assert len(done.lines) == 3


def test_the_same_network_twice_is_refused(pair):
    shutil.copy(pair.folder / "a.safetensors", pair.folder / "b.safetensors")
    recard(pair.folder / "b.safetensors", title="another title")
    done = pair("check", "-r", "tiny.toml", "-q")
    assert done.lines == [
        f"catmorph: error: {pair.folder}/b.safetensors: holds the same network as {pair.folder}/a.safetensors; "
        "name it once in classifiers.net.checkpoint"
    ]
    pair.edit(TWO, 'checkpoint = ["a.safetensors", "./a.safetensors"]')
    twice = pair("check", "-r", "tiny.toml", "-q")
    assert twice.status == 2
    assert f"classifiers.net.checkpoint: '{pair.folder}/a.safetensors' is named more than once" in twice.err


@pytest.mark.parametrize(("value", "message"), [
    ("[]", "must be a file name or a list of file names"), ("3", "must be a file name or a list of file names"),
    ('["a", 3]', "must be a file name or a list of file names"),
])  # fmt: skip
def test_checkpoints_that_are_no_names(several, value, message):
    with pytest.raises(ProblemsError, match=f"classifiers.net.checkpoint: {message}"):
        load_recipe(several.recipe, [f"classifiers.net.checkpoint={value}"])


def test_members_of_the_same_file_name_have_folders_of_their_own(several):
    recipe = load_recipe(several.recipe, ['classifiers.net.checkpoint=["1/n.st", "2/n.st", "3/n.st", "4/n-2.st"]'])
    assert [member.name for member in members(recipe, "net")] == ["n", "n-2", "n-3", "n-2-2"]
    assert [member.folder for member in members(recipe, "net")] == ["", "n", "n-2", "n-2-2"]


def test_galleries_show_the_mean(several, tmp_path):
    from catmorph.report.gallery import _best, _keys

    done = several("gallery", "-r", "tiny.toml", "--band", "F160W", "-o", tmp_path / "sheet.png")
    assert done.status == 0, done.err
    run = catmorph.open_run(several.recipe, several.run)
    shown, _ = _best(run, _keys(run.recipe, ["F160W"]), "magnitude", 5)
    table = released(several).set_index(["field", "id"])
    for one in shown:
        row = table.loc[one.chunk.field, one.id]
        assert one.labels == (f"{row['F160W_class']} {max(row[f'F160W_{name}'] for name in CLASSES):.2f}",)


def test_the_python_interface_averages_as_the_release_does(several, tmp_path):
    run = catmorph.open_run(several.recipe, several.run)
    paths = [several.folder / "a.safetensors", several.folder / "b.safetensors"]
    with catmorph.open_stamps(run, "F160W") as stamps:
        mean = classify(stamps[:], paths, precision="float32")
    table = released(several).set_index(["field", "id"])
    wanted = table.loc[list(zip(stamps.fields, stamps.ids, strict=True)), [f"F160W_{name}" for name in CLASSES]]
    np.testing.assert_allclose(mean, wanted.to_numpy(), atol=1e-5)
    with pytest.raises(UsageError, match=r"^no checkpoint is given$"):
        classify(np.zeros((1, 1, 80, 80)), [])
    other = shutil.copy(paths[1], tmp_path / "other.safetensors")
    recard(other, classes=CLASSES[::-1])
    message = r"other.safetensors: answers in scheme 'clash' with classes unclass.*; the first checkpoint in 'clash'"
    with pytest.raises(CheckpointError, match=message):
        classify(np.zeros((1, 1, 80, 80)), [paths[0], other])


def test_spreads_need_names_of_their_own(several):
    recipe = load_recipe(several.recipe, ["release.spread={view}_{class}"])
    with pytest.raises(RecipeError, match=r"column names twice, such as .* {probability} in release.spread$"):
        build_layout(recipe, None)
    pattern = "release.spread=s_{classifier}_{code|lower}_{view}"
    named = release_layout(catmorph.open_run(several.recipe, several.run, [pattern]))
    assert "s_net_sp_F160W" in named.schema.names


# --- identity ---------------------------------------------------------------------------------------------


def test_a_rewritten_card_leaves_logits_valid(pair, release_bytes):
    before = release_bytes(pair)
    for name in "ab":
        recard(pair.folder / f"{name}.safetensors", title="evaluated", evaluation={"rmse": 0.1}, metrics={"loss": 1.0},
               temperature=1.7, purpose="tests", licence="none")
    assert counts(pair) == (0, 2 * FILES)
    after = release_bytes(pair)
    # The summary says what a card says that its network is for.
    assert {name for name in before if before[name] != after[name]} == {"provenance.json", "summary.json", "summary.md"}
    assert "Network of net: tests" in after["summary.md"].decode()
    old, new = (json.loads(one["provenance.json"])["classifiers"]["net"]["members"] for one in (before, after))
    for was, now in zip(old, new, strict=True):
        assert {key for key in was if was[key] != now[key]} == {"checkpoint_sha256"}


def test_other_weights_or_decisive_fields_are_another_network(pair, tmp_path):
    path = pair.folder / "a.safetensors"
    opened = load_checkpoint(path)
    assert opened.network == read_network_digest(path)
    digests = {opened.network}
    for field, value in (("normalise", {**opened.card.normalise.model_dump(), "softening": 2.0}),
                         ("classes", (*CLASSES[:4], "other")), ("scheme", "other"),
                         ("stamp", {**opened.card.stamp.model_dump(), "side": "3 radii"})):  # fmt: skip
        other = shutil.copy(path, tmp_path / "other.safetensors")
        recard(other, **{field: value})
        digests.add(read_network_digest(other))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    (tmp_path / "bit.safetensors").write_bytes(data)
    digests.add(read_network_digest(tmp_path / "bit.safetensors"))
    assert len(digests) == 6
    recard(path, title="other", views=("g",), training={"trained": True}, catmorph="99")
    assert read_network_digest(path) == opened.network == load_checkpoint(path).network


def test_the_digest_is_computed_once_for_the_same_bytes(several, tmp_path, monkeypatch):
    from catmorph.inference import members as module

    asked = []
    monkeypatch.setattr(module, "read_network_digest", lambda path: asked.append(path) or read_network_digest(path))
    for _ in range(2):
        run = catmorph.open_run(several.recipe, several.run)
        for member in members(run.recipe, "net"):
            assert module.network_of(run, member) == read_network_digest(member.checkpoint)
    assert asked == []  # the run that made the logits has kept them


def test_status_needs_no_torch(several):
    code = """import sys; sys.argv = ['catmorph', 'status', '-r', 'tiny.toml']
from catmorph.cli import main
try:
    main()
finally:
    assert 'torch' not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], cwd=several.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "F160W (b)" in done.stdout


# --- the temperature of the card --------------------------------------------------------------------------


def test_each_member_is_divided_by_the_temperature_of_its_card(pair):
    recard(pair.folder / "a.safetensors", temperature=2.5)
    recard(pair.folder / "b.safetensors", temperature=0.5)
    plain = released(pair)
    pair.edit("batch = 16", 'batch = 16\ntemperature = "card"')
    assert counts(pair) == (0, 2 * FILES)
    table = released(pair)
    each = []
    for folder, temperature in ((("F814W",), 2.5), (("F814W", "b"), 0.5)):
        logits = stored(pair, *folder).loc[table["field"] + " " + table["id"], list(CLASSES)].to_numpy(np.float64)
        powers = np.exp(logits / temperature)
        each.append(powers / powers.sum(axis=1, keepdims=True))
    mine = table[[f"F814W_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(mine, (each[0] + each[1]) / 2, rtol=1e-6)
    assert np.nanmax(np.abs(mine - plain[[f"F814W_{name}" for name in CLASSES]].to_numpy())) > 0.05
    provenance = json.loads((pair.run / "release" / "provenance.json").read_text())
    assert [one["temperature"] for one in provenance["classifiers"]["net"]["members"]] == [2.5, 0.5]
    assert provenance["recipe"]["classifiers"]["net"]["temperature"] == "card"
    summary = json.loads((pair.run / "release" / "summary.json").read_text())
    assert summary["classifiers"]["net"]["temperatures"] == [2.5, 0.5]
    assert "mean of 2 networks; temperature 2.5, 0.5." in (pair.run / "release" / "summary.md").read_text()
    # Calibrated anew: the release changes, and no network runs.
    before = (pair.run / "release" / "Tiny.csv").read_bytes()
    recard(pair.folder / "b.safetensors", temperature=1.5)
    assert counts(pair) == (0, 2 * FILES)
    assert (pair.run / "release" / "Tiny.csv").read_bytes() != before


def test_a_number_and_the_same_number_in_the_card_give_the_same_catalog(pair):
    pair.edit(TWO, ONE)
    recard(pair.folder / "a.safetensors", temperature=1.7)
    files = []
    for temperature in ("1.7", '"card"'):
        assert counts(pair, "--set", f"classifiers.net.temperature={temperature}") == (0, FILES)
        files.append([(pair.run / "release" / f"Tiny.{kind}").read_bytes() for kind in ("csv", "parquet")])
    assert files[0] == files[1]


def test_a_card_without_temperature_is_refused_for_every_member(pair):
    pair.edit("batch = 16", 'batch = 16\ntemperature = "card"')
    wanted = [
        f"catmorph: error: {pair.folder}/{name}.safetensors: its card has no temperature, and classifiers.net."
        "temperature is 'card'; fit one with `catmorph evaluate --calibrate`, or give a number"
        for name in "ab"
    ]
    assert pair("check", "-r", "tiny.toml", "-q").lines == wanted
    assert pair("run", "tiny.toml", "-q").lines == wanted
    assert pair("export", "-r", "tiny.toml", "-q").lines == wanted
    with pytest.raises(CheckpointError, match="its card has no temperature"):
        classify(np.zeros((1, 1, 80, 80)), pair.folder / "a.safetensors", temperature="card")


@pytest.mark.parametrize("value", ["0", "-1", "inf", "true", '"cards"', "[1.0]"])
def test_temperatures_that_are_none(several, value):
    with pytest.raises(ProblemsError, match=r"classifiers.net.temperature: must be a number above 0, or 'card'"):
        load_recipe(several.recipe, [f"classifiers.net.temperature={value}"])


def test_the_recipe_is_written_as_it_was_meant(pair):
    assert counts(pair, "--set", "classifiers.net.temperature=2") == (0, 2 * FILES)
    again = load_recipe(pair.run / "recipe.toml")
    assert again == load_recipe(pair.recipe, ["classifiers.net.temperature=2"])
    assert isinstance(again, Recipe)
    assert repr(again.classifiers["net"].temperature) == "2.0"
