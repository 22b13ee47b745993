"""Averaged weights, mixed stamps, and batch norms and dropout that a network has in training only."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training_resume import interrupt_after, products
from torch import nn
from training_data import recipe, section, stamps, train

from catmorph.errors import CheckpointError, UsageError
from catmorph.models import build, parameters_of
from catmorph.models.checkpoint import load_checkpoint
from catmorph.recipe import load_recipe
from catmorph.training import fit
from catmorph.training.augment import mixed, mixing_share
from catmorph.training.average import RunningAverage
from catmorph.training.normed import add_batch_norms, fold_batch_norms, folded_copy
from catmorph.training.teach import Teachers, load_teachers

ODD = "configs/galaxyzoo-odd-spirals-dominguez.toml"


def test_the_average_of_constant_weights_is_reached_and_the_random_start_forgotten():
    start, later = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(start.weight, 100.0)
    nn.init.constant_(later.weight, 1.0)
    average, wanted = RunningAverage(start, 0.5), 100.0
    for step in range(1, 31):
        share = min(0.5, (1 + step) / (10 + step))
        wanted = share * wanted + (1 - share) * 1.0
        average.follow(later)
        assert average.module.weight.item() == pytest.approx(wanted, rel=1e-5)
    assert start.weight.item() == 100.0
    assert average.module.weight.item() == pytest.approx(1, abs=1e-3)


def test_statistics_of_batch_norms_are_averaged_and_counts_copied():
    theirs = nn.BatchNorm1d(2)
    average = RunningAverage(theirs, 0.75)
    theirs(torch.tensor([[10.0, 0.0], [20.0, 0.0]]))
    average.follow(theirs)
    share = 2 / 11
    expected = (1 - share) * theirs.running_mean
    torch.testing.assert_close(average.module.running_mean, expected)
    assert int(average.module.num_batches_tracked) == 1


def test_a_training_saves_the_average_of_its_steps(tmp_path, monkeypatch):
    seen, follow = [], RunningAverage.follow

    def noting(self, module):
        follow(self, module)
        seen.append((copy.deepcopy(module.state_dict()), copy.deepcopy(self.module.state_dict())))

    monkeypatch.setattr(RunningAverage, "follow", noting)
    result = train(small(tmp_path, batches_per_epoch=1, average=0.9), images(), of=odd_spirals())
    assert len(seen) == 3
    saved = load_checkpoint(result.checkpoint).state
    weights, average = seen[result.best_epoch - 1]
    for name, value in saved.items():
        torch.testing.assert_close(value, average[name], rtol=0, atol=0)
        assert not torch.equal(value, weights[name])


def test_averaged_and_mixed_trainings_go_on_to_the_same_bytes(tmp_path, monkeypatch):
    options = {"average": 0.8, "mix": 0.4, "schedule": "one-cycle"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(section(whole, **options), log_dir=whole / "log")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(section(parts, **options), log_dir=parts / "log")
    train(section(parts, **options), log_dir=parts / "log")
    assert products(parts) == products(whole)


def test_mixing_keeps_the_sum_of_labels_and_the_pairs():
    stamps_, labels = torch.arange(4.0)[:, None], torch.eye(4)
    assert mixed(stamps_, 0.75)[:, 0].tolist() == [0.75, 0.75, 1.75, 2.75]
    assert mixed(labels, 0.75).sum(dim=1).tolist() == [1.0] * 4
    assert mixed(labels, 0.75)[0].tolist() == [0.75, 0, 0, 0.25]
    shares = np.array([mixing_share(0.2, torch.Generator().manual_seed(seed)) for seed in range(400)])
    assert shares.min() >= 0
    assert shares.max() <= 1
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.06)
    assert shares.var() == pytest.approx(1 / 5.6, rel=0.15)


def with_batch_norms(name, channels):
    module = build(name, classes=1, channels=channels, seed=1)
    add_batch_norms(module, "head")
    module.train()
    for _ in range(3):
        module(3 + 2 * torch.randn(4, channels, 69, 69, generator=torch.Generator().manual_seed(2)))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.uniform_(layer.bias, -1.0, 1.0)
    return module.eval()


@pytest.mark.parametrize("name", ["dominguez-narrow", "dominguez-narrow-d4"])
def test_folded_batch_norms_give_the_same_answers_by_the_published_layers(name):
    module = with_batch_norms(name, 3)
    inputs = torch.randn(2, 3, 69, 69)
    with torch.no_grad():
        wanted = module(inputs)
        copied = folded_copy(module)
        torch.testing.assert_close(copied(inputs), wanted, rtol=1e-4, atol=1e-5)
        assert "norm" in str(list(module.state_dict()))
        fold_batch_norms(module)
        torch.testing.assert_close(module(inputs), wanted, rtol=1e-4, atol=1e-5)
    plain = build(name, classes=1, channels=3, seed=0).state_dict()
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in plain.items()
    }
    assert copied is not module
    assert folded_copy(module) is module


def images(count=40):
    data = stamps(count, classes=2, channels=3)
    return replace(data, inputs=data.inputs[:, :, 5:74, 5:74].copy(), fractions=data.fractions[:, :1].copy())


def small(folder, **options):
    return section(folder, **({"model": "dominguez-narrow"} | options))


def odd_spirals():
    return load_recipe(ODD)


def test_a_training_with_batch_norms_ends_with_the_published_network(tmp_path, monkeypatch):
    options = {"batch_norm": True, "average": 0.5, "learning_rate": 3e-3, "dropout": 0.5}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(small(whole, **options), images(), of=odd_spirals(), log_dir=whole / "log")
    checkpoint = load_checkpoint(result.checkpoint)
    assert sum(value.numel() for value in checkpoint.state.values()) == parameters_of("dominguez-narrow", classes=1)[0]
    best = load_checkpoint(whole / "log" / "best.safetensors")
    for name, value in checkpoint.state.items():
        torch.testing.assert_close(best.state[name], value)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(small(parts, **options), images(), of=odd_spirals(), log_dir=parts / "log")
    train(small(parts, **options), images(), of=odd_spirals(), log_dir=parts / "log")
    assert products(parts) == products(whole)


def test_dropout_is_scaled(tmp_path):
    curves = {}
    for factor in (1.0, 0.5):
        folder = tmp_path / str(factor)
        train(small(folder, dropout=factor, epochs=1), images(), of=odd_spirals())
        curves[factor] = products(folder)["net.curve.csv"]
    assert curves[0.5] != curves[1.0]
    module = build("dominguez-cnn")
    fit._adapt(module, section(tmp_path, dropout=0.5))
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.125, 0.25]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"model": "resnet-narrow", "batch_norm": True}, "training.batch_norm: the network has batch norms of its own"),
        ({"batch_norm": True, "start": "x.safetensors"}, "training.batch_norm: fresh batch norms would undo"),
        ({"mix": 0.2, "loss": "multinomial"}, "training.mix: training.loss 'multinomial' counts votes"),
        ({"teachers": ["a/net.safetensors"], "output": "a/../a/net.safetensors"}, "training.teachers: the new"),
    ],
)
def test_what_does_not_go_together_is_refused_before_stamps_are_cut(tmp_path, options, wanted):
    with pytest.raises(UsageError) as caught:
        fit.refuse_misfits(odd_spirals(), section(tmp_path, **({"model": "dominguez-narrow"} | options)))
    assert str(caught.value).startswith(wanted)


def test_votes_are_not_mixed(tmp_path):
    with pytest.raises(UsageError, match=r"^training\.mix: "):
        train(section(tmp_path, mix=0.2, loss="dirichlet"), of=recipe())


def test_a_teacher_sees_the_perturbed_stamps_and_its_answer_is_mixed_into_the_label(tmp_path):
    paths = [train(small(tmp_path / str(seed), seed=seed, epochs=1), images(), of=odd_spirals()).checkpoint
             for seed in (1, 2)]
    teachers = load_teachers(paths, 0.75, odd_spirals())
    networks = teachers.networks()
    stamps_ = torch.as_tensor(images(6).inputs)
    answers = [network(stamps_).sigmoid() for network in networks]
    assert not torch.allclose(answers[0], answers[1])
    people = torch.tensor([0.0, 1.0] * 3)[:, None]
    labels = teachers.labels(networks, stamps_, people)
    torch.testing.assert_close(labels, 0.25 * people + 0.75 * (answers[0] + answers[1]) / 2)
    assert not labels.requires_grad

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        given = Teachers.labels

        def noting(self, networks, stamps, fractions):
            seen.append((stamps.clone(), fractions.clone()))
            return given(self, networks, stamps, fractions)

        patch.setattr(Teachers, "labels", noting)
        settings = small(tmp_path / "taught", teachers=[str(path) for path in paths], epochs=1)
        taught = train(settings, images(), of=odd_spirals())
    assert len(seen) == 2
    assert set(seen[0][1].flatten().tolist()) <= set(images().fractions.flatten().tolist())
    whole = torch.as_tensor(images().inputs)
    assert all(not torch.equal(one, other) for one in seen[0][0] for other in whole)
    assert [one["sha256"] for one in taught.card.training["teachers"]] == [load_checkpoint(p).digest for p in paths]
    alone = train(small(tmp_path / "alone", epochs=1), images(), of=odd_spirals())
    assert taught.curve.read_bytes() != alone.curve.read_bytes()
    assert "teachers" not in alone.card.training


def test_a_taught_training_goes_on_to_the_same_bytes_and_not_from_another_teachers_state(tmp_path, monkeypatch):
    first, second = (str(train(small(tmp_path / str(seed), seed=seed, epochs=1), images(), of=odd_spirals()).checkpoint)
                     for seed in (1, 2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(small(whole, teachers=[first]), images(), of=odd_spirals(), log_dir=whole / "log")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(small(parts, teachers=[first]), images(), of=odd_spirals(), log_dir=parts / "log")
    [state] = (parts / "log").glob("resume-*.ckpt")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(small(parts, teachers=[second]), images(), of=odd_spirals(), log_dir=parts / "log")
    assert len(list((parts / "log").glob("resume-*.ckpt"))) == 2
    assert state.exists()
    train(small(parts, teachers=[first]), images(), of=odd_spirals(), log_dir=parts / "log")
    assert products(parts) == products(whole)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("stamp.side='200 pixels'", "cannot teach: stamp.side is 240 pixels in the checkpoint, 200 pixels "),
        ("scheme=des-disk", "cannot teach: classes are odd_spiral in the checkpoint"),
        ("views={rgb=['red']}", "cannot teach: it takes 3 bands"),
    ],
)
def test_a_teacher_of_other_stamps_or_classes_is_refused(tmp_path, change, wanted):
    path = train(small(tmp_path, epochs=1), images(), of=odd_spirals()).checkpoint
    with pytest.raises(CheckpointError) as caught:
        load_teachers([path], 0.5, load_recipe(ODD, [change]))
    assert wanted in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_paths_of_teachers_are_relative_to_the_recipe(tmp_path):
    (tmp_path / "r.toml").write_text('extend = "galaxyzoo-odd-spirals"\n[training]\nteachers = ["a/one.safetensors"]\n')
    assert load_recipe(tmp_path / "r.toml").training.teachers == (str(tmp_path / "a" / "one.safetensors"),)
