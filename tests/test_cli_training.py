"""From votes to a checkpoint on the command line: train, fine-tune, evaluate, classify with it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from catmorph.models.header import load_card

TRAINING = """
[labels]
table = "labels.csv"
votes_column = "votes"

[training]
model = "clash-inception-narrow"
output = "net.safetensors"
title = "tiny"
validation = 0.3
test = 0.3
epochs = 2
batches_per_epoch = 2
batch = 4
seed = 3
"""


@pytest.fixture
def labelled(survey):
    survey.recipe.write_text(survey.recipe.read_text() + TRAINING)
    return survey


def beside(folder: Path, name: str) -> dict[str, bytes]:
    endings = (".safetensors", ".curve.csv", ".curve.png", ".split.csv")
    return {ending: (folder / f"{name}{ending}").read_bytes() for ending in endings}


def test_train_finetune_evaluate_and_classify(labelled, monkeypatch):
    done = labelled("train", "tiny.toml", "--threads", 1)
    assert (done.status, done.out) == (0, f"{labelled.folder / 'net.safetensors'}\n"), done.err
    assert any(line.startswith("stamps: ") and line.endswith("net.split.csv") for line in done.lines)
    first = beside(labelled.folder, "net")
    assert labelled("train", "tiny.toml", "--threads", 1, "--fresh").status == 0
    assert beside(labelled.folder, "net") == first

    done = labelled("finetune", "tiny.toml", "--from", "net.safetensors", "--freeze-before", "inception6",
                    "-o", "tuned.safetensors", "--threads", 1, "--json")  # fmt: skip
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert (report["checkpoint"], report["start"]["title"]) == ("tuned.safetensors", "tiny")
    assert report["start"]["fresh"] == {}
    card = load_card(labelled.folder / "tuned.safetensors")
    assert card.training["settings"]["freeze_before"] == "inception6"
    # The split is by seed: what one trained on, the other is not tested on.
    splits = [pd.read_csv(labelled.folder / f"{name}.split.csv") for name in ("net", "tuned")]
    pd.testing.assert_frame_equal(*splits)

    monkeypatch.setattr("catmorph.evaluation.figures.draw_all", lambda shown: iter(()))
    done = labelled("evaluate", "tuned.safetensors", "-r", "tiny.toml")
    assert done.status == 0, done.err
    assert any(line.endswith(": the test subset of tuned.split.csv") for line in done.lines)
    card = load_card(labelled.folder / "tuned.safetensors")
    assert card.evaluation["rmse"]["value"] == pytest.approx(card.metrics["rmse"], abs=1e-5)

    labelled.edit('checkpoint = "untrained.safetensors"',
                  'checkpoint = ["net.safetensors", "tuned.safetensors"]')  # fmt: skip
    done = labelled("run", "tiny.toml")
    assert done.status == 0, done.err
    assert (labelled.run / "release" / "Tiny.csv").exists()


def test_what_finetune_refuses(labelled):
    done = labelled("finetune", "tiny.toml")
    assert (done.status, done.lines) == (
        2, ["catmorph: error: no checkpoint to start from; give --from, or set training.start"],
    )
    done = labelled("finetune", "tiny.toml", "--from", "labels.csv")
    assert done.status == 2
    assert done.lines[-1].startswith("catmorph: error: labels.csv: ")
    assert not labelled.run.exists(), "nothing was cut"


@pytest.mark.parametrize(("changes", "message"), [
    (["training.freeze_before=inception9"], "clash-inception-narrow has no stage 'inception9'"),
    (["training.class_weights.spheroids=2"], "scheme 'clash' has no class 'spheroids'"),
    (["training.model=clash-inceptoin"], "clash-inception"),
    (["training.output=labels.csv/net.safetensors"], "cannot be written: "),
    (["training.output=labels.csv"], "labels.csv: is there already, and is no checkpoint that may be replaced "),
    (["training.output=tiny.toml"], "tiny.toml: is there already, and is no checkpoint that may be replaced "),
    (["training.output=catalogs"], "catalogs: is there already, and is no checkpoint that may be replaced "),
])  # fmt: skip
def test_what_cannot_end_well_is_told_before_stamps_are_cut(labelled, changes, message):
    options = [word for change in changes for word in ("--set", change)]
    done = labelled("train", "tiny.toml", *options)
    assert done.status in (1, 2)
    assert len(done.lines) == 1
    assert message in done.lines[0]
    assert not labelled.run.exists()


def test_what_a_table_of_labels_lacks_is_told_before_stamps_are_cut(labelled):
    path = labelled.folder / "labels.csv"
    good, commands = path.read_bytes(), (
        ("train", "tiny.toml"), ("finetune", "tiny.toml", "--from", "untrained.safetensors", "-o", "new.safetensors"),
        ("evaluate", "untrained.safetensors", "-r", "tiny.toml"), ("experiment", "repeat", "tiny.toml"),
    )  # fmt: skip
    for content, message in (
        (b"", "is empty, not a label table"),
        (good.splitlines()[0] + b"\n", "holds no labels"),
        (good.replace(b"beta_", b"b\xe9ta_"), "is not text in UTF-8 (byte 0xe9); save it as CSV in UTF-8, or set "),
        (good.replace(b",5\n", b",1e300\n"), "column 'votes' is no number of 0 or more, at most 1e+09 in "),
    ):
        path.write_bytes(content)
        for command in commands:
            done = labelled(*command)
            assert (done.status, len(done.lines)) == (2, 1), done.err
            assert done.lines[0].startswith(f"catmorph: error: {path}: {message}")
    assert not (labelled.run / "stamps").exists()
    assert not (labelled.run / "sources.parquet").exists()


def test_views_that_one_network_cannot_take_are_told_before_stamps_are_cut(labelled):
    views = ("--set", 'views={one=["F814W"], two=["F814W", "F160W"]}', "--set", "labels.stamp={field}_{view}_{id}")
    told = "one network cannot take views with different numbers of bands: one 1, two 2"
    done = labelled("train", "tiny.toml", *views)
    assert (done.status, done.lines) == (2, [f"catmorph: error: {told}"])
    assert not labelled.run.exists()
    assert f"training: {told}" in labelled("check", "-r", "tiny.toml", *views).lines
    done = labelled("evaluate", "untrained.safetensors", "-r", "tiny.toml", *views)
    assert (done.status, len([line for line in done.lines if line.startswith("catmorph: error: ")])) == (2, 1)


def test_outputs_that_would_replace_inputs_are_refused(labelled):
    before = {path.name: path.read_bytes() for path in labelled.folder.glob("*.*") if path.is_file()}
    votes = labelled.folder / "votes.csv"
    votes.write_text("stamp,user,answer\n" + "".join(f"alpha_f814w_1,{user},disk\n" for user in range(5)))
    for command, message in (
        (("labels", "sample", "-r", "tiny.toml", "-o", "labels.csv"), "labels.csv: would be replaced; choose another"),
        (("labels", "sample", "-r", "tiny.toml", "-o", "tiny.toml"), "tiny.toml: would be replaced; choose another"),
        (("labels", "aggregate", "votes.csv", "-r", "tiny.toml", "-o", "tiny.toml"), "tiny.toml: would be replaced"),
        (("models", "create", "clash-inception-narrow", "-r", "tiny.toml", "-o", "labels.csv"),
         "labels.csv: is there already, and is no checkpoint that may be replaced (is of an unknown kind"),
    ):  # fmt: skip
        done = labelled(*command)
        assert (done.status, len(done.lines)) == (2, 1), done.err
        assert message in done.lines[0]
    assert {name: (labelled.folder / name).read_bytes() for name in before} == before
    done = labelled("labels", "aggregate", "votes.csv", "-r", "tiny.toml", "-o", "labels.csv")
    assert done.status == 0, done.err


def test_answers_that_are_no_class_are_found_by_check_and_by_training(labelled):
    for command in (("check", "-r", "tiny.toml"), ("train", "tiny.toml")):
        done = labelled(*command, "--set", 'labels.answers={Spiral = "disc"}')
        assert done.status == 2
        assert done.lines[-1] == ("catmorph: error: labels.answers: answer 'Spiral' is given to 'disc', which is no "
                                  "class of scheme 'clash'; did you mean 'disk'?")
    assert not (labelled.run / "stamps").exists()


def test_an_evaluation_that_cannot_be_written_is_told_before_stamps_are_cut(labelled):
    done = labelled("evaluate", "untrained.safetensors", "-r", "tiny.toml", "--out", "labels.csv")
    assert (done.status, len(done.lines)) == (1, 1)
    assert "labels.csv: cannot be written: " in done.lines[0]
    assert not labelled.run.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", [("train", "tiny.toml"), ("evaluate", "untrained.safetensors", "-r", "tiny.toml"),
                                     ("experiment", "repeat", "tiny.toml", "--workers", 1)])
def test_a_gpu_that_is_not_there_is_told_before_stamps_are_cut(labelled, command):
    done = labelled(*command, "--device", "cuda")
    assert (done.status, done.lines) == (
        2, ["catmorph: error: there is no CUDA device that torch can use; use --device cpu or auto"])
    assert not labelled.run.exists()


@pytest.mark.parametrize("path", ["catalogs", "/dev/full"])
def test_what_is_no_file_is_no_label_table(labelled, path):
    done = labelled("labels", "report", path, "--scheme", "clash")
    assert (done.status, len(done.lines)) == (2, 1)
    assert done.lines[0].startswith(f"catmorph: error: {path}: ")
