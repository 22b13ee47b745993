"""Trainings that are interrupted, fail or cannot begin."""

from __future__ import annotations

import csv
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import recipe, section, stamps, train

from catmorph.errors import CatmorphError, UsageError
from catmorph.labels.split import read_split
from catmorph.models.header import load_card
from catmorph.training import fit

ENDINGS = ("net.safetensors", "net.curve.csv", "net.curve.png", "net.split.csv")
COURSES = {
    "constant": {"loss": "multinomial", "class_weights": "balanced"},
    "one-cycle": {"loss": "dirichlet"},
    "exponential": {"loss": "mse", "decay": 0.3},
    "plateau": {"loss": "rmse", "plateau_patience": 0, "learning_rate": 0.5, "plateau_factor": 0.5},
}


def products(folder):
    return {name: (folder / name).read_bytes() for name in ENDINGS}


def rows(folder):
    with open(folder / "net.curve.csv") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def interrupt_after(monkeypatch, epoch):
    """Raise KeyboardInterrupt after the learning curve of `epoch` is written."""
    write = fit._Keeper.on_epoch

    def on_epoch(self, found):
        write(self, found)
        if len(found) == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit._Keeper, "on_epoch", on_epoch)


@pytest.mark.parametrize("schedule", COURSES)
def test_every_schedule_and_loss_goes_on_to_the_same_bytes(tmp_path, monkeypatch, schedule):
    options = {"schedule": schedule, "batch": 4} | COURSES[schedule]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(section(whole, **options), log_dir=whole / "log")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(section(parts, **options), log_dir=parts / "log")
    assert len(rows(parts)) == 2
    train(section(parts, **options), log_dir=parts / "log")
    assert products(parts) == products(whole)
    rates = [row["learning_rate"] for row in rows(whole)]
    if schedule == "exponential":
        assert rates == pytest.approx([1e-3 * math.exp(-0.3 * t) for t in range(3)], rel=1e-5)
    if schedule == "constant":
        assert rates == [1e-3] * 3
    if schedule == "plateau":
        losses = [row["validation_loss"] for row in rows(whole)]
        rate, wanted = 0.5, []
        for t in range(3):
            wanted.append(rate)
            rate *= 0.5 if t and losses[t] >= min(losses[:t]) * (1 - 1e-4) else 1.0
        assert rates == pytest.approx(wanted)
        assert rates[-1] < 0.5, "the rate never fell: the test shows nothing"
    assert read_split(result.split_file, stamps()).counts() == result.split.counts()
    assert result.test_logits.shape == (len(result.split.test), 5)


def test_a_watched_accuracy_and_gradient_descent_go_on_to_the_same_bytes(tmp_path, monkeypatch):
    options = {"schedule": "plateau", "monitor": "accuracy", "least_gain": 0.001, "plateau_patience": 0,
               "plateau_factor": 0.5, "plateau_least": 3e-10, "patience": 3, "epochs": 9, "optimiser": "sgd",
               "learning_rate": 8e-10, "zoom": [0.75, 1.3], "rotate": 15}  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(section(whole, **options), log_dir=whole / "log")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(section(parts, **options), log_dir=parts / "log")
    train(section(parts, **options), log_dir=parts / "log")
    assert products(parts) == products(whole)
    # With these rates nothing is learnt: the accuracy of the first epoch stays the best.
    assert (result.epochs, result.best_epoch) == (4, 1)
    assert [row["learning_rate"] for row in rows(whole)] == pytest.approx([8e-10, 8e-10, 4e-10, 3e-10])


@pytest.mark.parametrize("when", [2, 3])
def test_patience_is_not_forgotten(tmp_path, monkeypatch, when):
    # With this rate the first epoch stays the best: patience ends after the third.
    options = {"epochs": 9, "patience": 2, "learning_rate": 0.5, "loss": "rmse", "batches_per_epoch": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(section(whole, **options), log_dir=whole / "log")
    assert (result.epochs, result.best_epoch) == (3, 1)
    with monkeypatch.context() as patch:
        interrupt_after(patch, when)
        with pytest.raises(KeyboardInterrupt):
            train(section(parts, **options), log_dir=parts / "log")
    train(section(parts, **options), log_dir=parts / "log")
    assert products(parts) == products(whole)


def test_fresh_starts_anew(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(section(tmp_path), log_dir=tmp_path / "log")
    state = next((tmp_path / "log").glob("resume-*.ckpt"))
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CatmorphError, match=r"is no state of a training, or damaged: .*; train anew with --fresh$"):
        train(section(tmp_path), log_dir=tmp_path / "log")
    assert train(section(tmp_path), log_dir=tmp_path / "log", fresh=True).epochs == 3


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_the_state_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(section(tmp_path), log_dir=tmp_path / "log")
    state = next((tmp_path / "log").glob("resume-*.ckpt"))
    torch.save({"callbacks": {"_Record": Evil()}}, state)
    with pytest.raises(CatmorphError, match="is no state of a training, or damaged"):
        train(section(tmp_path), log_dir=tmp_path / "log")
    assert not Path("evil").exists()


def test_a_full_disk_keeps_what_is_there_and_going_on_works(tmp_path, monkeypatch):
    folder = tmp_path / "full"
    keep = fit._Keeper.on_epoch

    def on_epoch(self, found):
        keep(self, found)
        if len(found) == 2:
            # What is written from now on may have 100 kB: the weights take 1.3 MB.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(fit._Keeper, "on_epoch", on_epoch)
        try:
            with pytest.raises(CatmorphError, match=r"cannot be written: File too large; free space"):
                train(section(folder), log_dir=folder / "log")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_card(folder / "log" / "best.safetensors").training["best_epoch"] in (1, 2)
    assert not list(folder.rglob(".partial-*"))
    train(section(folder), log_dir=folder / "log")
    whole = tmp_path / "whole"
    train(section(whole), log_dir=whole / "log")
    assert products(folder) == products(whole)


def test_a_loss_that_is_not_finite_names_epoch_step_and_stamps(tmp_path, monkeypatch):
    data = stamps()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(section(tmp_path), data, log_dir=tmp_path / "log")
    before = (tmp_path / "log" / "best.safetensors").read_bytes()
    table = tmp_path / "labels.csv"
    table.write_text("ID,votes\n" + "".join(f"{name},7\n" for name in data.called[::-1]))
    labels = recipe().labels.model_copy(update={"table": str(table)})
    state = next((tmp_path / "log").glob("resume-*.ckpt"))
    found = torch.load(state, weights_only=True)
    found["state_dict"]["module.dense1.weight"][0, 0] = math.inf
    torch.save(found, state)
    with pytest.raises(CatmorphError) as caught:
        train(section(tmp_path), data, of=recipe().model_copy(update={"labels": labels}), log_dir=tmp_path / "log")
    message = str(caught.value)
    assert message.startswith(f"{table}: the training loss is nan in epoch 2, step 1 of 2; stamps of the batch: a_f16")
    named = message.split("batch: ")[1].split(" ...")[0].split(", ")
    assert len(named) == 5
    # The table names the stamps from the last to the first.
    assert named == [f"{one.split()[0]} (row {40 - int(one.split()[0].rpartition('_')[2])})" for one in named]
    assert message.endswith(
        f"the best weights so far are in {tmp_path / 'log' / 'best.safetensors'}; lower training.learning_rate, "
        "or look at these stamps"
    )
    assert (tmp_path / "log" / "best.safetensors").read_bytes() == before


def test_what_cannot_begin_says_why(tmp_path):
    data = stamps()
    one = replace(data, fractions=np.tile(data.fractions[:1], (40, 1)))
    votes = np.where(np.arange(40) < 7, 0.0, 7.0)
    for settings, given, wanted in [
        ({}, one, "all 24 stamps of the training subset have one class, 'spheroid'; label stamps of other classes too"),
        ({}, data.take(np.arange(2)), "the validation subset would be empty: 2 labelled stamps of 2 sources; label "
         "more stamps or change training.validation, training.test and training.test_fields"),
        ({"loss": "dirichlet"}, replace(data, votes=None),
         "training.loss 'dirichlet' needs the number of votes; set labels.votes_column"),
        ({"loss": "multinomial"}, replace(data, votes=votes),
         "labels.votes_column: 7 of 40 stamps have no votes: a_f160w_0, a_f160w_1, a_f160w_2, a_f160w_3, a_f160w_4 ...;"
         " leave them out of the label table, or choose another loss"),
        ({"devices": 2}, data, "training.devices is 2, and torch finds 0 GPUs here; set training.devices = 1"),
    ]:
        with pytest.raises(UsageError) as caught:
            train(section(tmp_path, **settings), given)
        assert str(caught.value) == wanted
    assert not list(tmp_path.iterdir())


def test_bfloat16_trains_otherwise_and_the_card_says_so(tmp_path):
    results = {}
    for precision in ("float32", "bfloat16"):
        options = {"epochs": 1, "batches_per_epoch": 1, "learning_rate": 1e-9, "precision": precision}
        result = train(section(tmp_path / precision, **options))
        assert result.card.training["settings"]["precision"] == precision
        results[precision] = rows(tmp_path / precision)[0]["validation_loss"]
    assert results["bfloat16"] != results["float32"]
    assert results["bfloat16"] == pytest.approx(results["float32"], rel=0.02)


def test_a_smaller_size_trains_on_fewer_stamps(tmp_path):
    result = train(section(tmp_path, size=10, epochs=1, batch=16))
    assert result.split.counts() == {"training": 10, "validation": 8, "test": 8}
    assert result.notes == ("a batch of 16 holds each of 10 stamps more than once",)


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "tests")
    from training_data import section, train
    folder = Path(sys.argv[1])
    train(section(folder, epochs=12, schedule="plateau"), log_dir=folder / "log")
"""


@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED)]
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    for wait in (0.0, 0.1, 0.4):
        seen = len(rows(folder)) if (folder / "net.curve.csv").exists() else 0
        process = subprocess.Popen([*command, folder])
        while not (folder / "net.curve.csv").exists() or len(rows(folder)) <= seen:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "net.safetensors").exists()
    subprocess.run([*command, folder], check=True)
    subprocess.run([*command, whole], check=True)
    assert products(folder) == products(whole)
