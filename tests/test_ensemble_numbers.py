"""Combining networks and symmetries: the numbers themselves."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_survey import Survey

from catmorph.errors import CheckpointError, UsageError
from catmorph.inference.combine import average_logits, combine, entropy
from catmorph.inference.predict import Predictor
from catmorph.ledger import Identities
from catmorph.models import build
from catmorph.models.card import card_for
from catmorph.models.checkpoint import load_checkpoint, save_checkpoint
from catmorph.recipe import load_recipe
from catmorph.schemes import LabelClass, Scheme, load_scheme

CLASH = load_scheme("clash")
QUESTIONS = Scheme(name="q", title="q", reference="q", kind="sigmoid",
                   classes=tuple(LabelClass(name=n, code=n, label=n, title=n) for n in "abc"))  # fmt: skip
NUMBERS = st.floats(-50, 50, width=32)


# --- ensembles --------------------------------------------------------------------------------------------


def test_two_sure_networks_that_contradict_each_other():
    sure = [np.array([[40.0, 0, 0, 0, 0]]), np.array([[0, 40.0, 0, 0, 0]])]
    prediction = combine(CLASH, sure, (1.0, 1.0))
    np.testing.assert_allclose(prediction.probabilities, [[0.5, 0.5, 0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(prediction.spread, [[0.5, 0.5, 0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(prediction.mutual_information, [1.0], atol=1e-12)


def test_two_networks_that_know_nothing_agree():
    prediction = combine(CLASH, [np.zeros((1, 5)), np.full((1, 5), 3.0)], (1.0, 1.0))
    np.testing.assert_allclose(entropy(CLASH, prediction.probabilities), [np.log2(5)])
    np.testing.assert_allclose(prediction.mutual_information, [0.0], atol=1e-12)
    assert not prediction.spread.any()


def test_a_single_network_has_no_spread():
    logits = np.array([[1.0, 2, 3, 4, 5]])
    prediction = combine(CLASH, [logits], (2.0,))
    assert prediction.probabilities.tobytes() == CLASH.probabilities(logits / 2.0).tobytes()
    assert (prediction.spread, prediction.mutual_information) == (None, None)


def test_the_spread_is_that_of_the_population():
    logits = [np.log([[p, 1 - p, 0.0 + 1e-300, 1e-300, 1e-300]]) for p in (0.2, 0.4, 0.9)]
    prediction = combine(CLASH, logits, (1.0,) * 3)
    np.testing.assert_allclose(prediction.spread[0, 0], np.sqrt(np.mean((np.array([0.2, 0.4, 0.9]) - 0.5) ** 2)))


@given(arrays(np.float32, st.tuples(st.integers(2, 5), st.integers(1, 4), st.just(5)), elements=NUMBERS))
def test_mutual_information_is_between_nothing_and_the_number_of_members(stack):
    prediction = combine(CLASH, list(stack), (1.0,) * len(stack))
    assert (prediction.mutual_information >= 0).all()
    assert (prediction.mutual_information <= np.log2(len(stack)) + 1e-9).all()
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1.0)
    same = combine(CLASH, [stack[0]] * 3, (1.0,) * 3)
    np.testing.assert_allclose(same.mutual_information, 0.0, atol=1e-12)


def test_questions_are_summed():
    # Two questions on which the networks contradict each other, one on which they agree.
    prediction = combine(QUESTIONS, [np.array([[50.0, -50, 0]]), np.array([[-50.0, 50, 0]])], (1.0, 1.0))
    np.testing.assert_allclose(prediction.mutual_information, [2.0], atol=1e-9)
    np.testing.assert_allclose(prediction.spread, [[0.5, 0.5, 0.0]], atol=1e-12)


def test_what_is_missing_stays_missing():
    prediction = combine(CLASH, [np.full((1, 5), np.nan), np.full((1, 5), np.nan)], (1.0, 1.0))
    assert np.isnan(prediction.probabilities).all()
    assert np.isnan(prediction.spread).all()
    assert np.isnan(prediction.mutual_information).all()


# --- averaging over passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [CLASH, QUESTIONS], ids=["softmax", "sigmoid"])
@given(data=st.data())
def test_the_probabilities_of_averaged_logits_are_the_mean(scheme, data):
    classes = len(scheme.classes)
    stack = data.draw(arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 4), st.just(classes)),
                             elements=NUMBERS))  # fmt: skip
    wanted = scheme.probabilities(stack).mean(axis=0)
    np.testing.assert_allclose(scheme.probabilities(average_logits(scheme, stack)), wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("scheme", [CLASH, QUESTIONS], ids=["softmax", "sigmoid"])
def test_probabilities_that_underflow_keep_finite_logits(scheme):
    stack = np.zeros((8, 1, len(scheme.classes)), np.float32)
    stack[:, :, 0] = 3e3
    averaged = average_logits(scheme, stack)
    assert np.isfinite(averaged).all()
    assert averaged[0, 0] - averaged[0, 1] == pytest.approx(3e3)


def test_a_pass_that_is_not_finite_makes_the_average_missing():
    stack = np.zeros((8, 3, 5), np.float32)
    stack[2, 0, 1], stack[7, 2, 4] = np.nan, -np.inf
    assert np.isnan(average_logits(CLASH, stack)).all(axis=1).tolist() == [True, False, True]


# --- test-time augmentation -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("d4") / "net.safetensors"
    module = build("clash-inception-narrow", seed=2).eval()
    save_checkpoint(path, module, card_for(load_recipe("configs/clash.toml"), "clash-inception-narrow", channels=1))
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def d4(checkpoint):
    return Predictor(checkpoint, device="cpu", precision="float32", batch=16, test_time="d4")


@pytest.fixture(scope="module")
def stamps():
    # Large enough that the network's answers differ.
    return np.random.default_rng(0).normal(size=(17, 1, 80, 80)).astype(np.float32) * 30


@pytest.fixture(scope="module")
def averaged(d4, stamps):
    return d4.logits(stamps)


def test_d4_is_the_mean_over_the_eight_symmetries(checkpoint, stamps, averaged):
    plain = Predictor(checkpoint, device="cpu", precision="float32", batch=16)
    some = stamps[:8]
    mirrored = [some, some[..., ::-1]]
    eight = [np.rot90(one, turns, axes=(2, 3)) for one in mirrored for turns in range(4)]
    assert len({one.tobytes() for one in eight}) == 8
    each = [CLASH.probabilities(plain.logits(np.ascontiguousarray(one))) for one in eight]
    assert np.ptp(each, axis=0).max() > 0.01
    np.testing.assert_allclose(CLASH.probabilities(averaged[:8]), np.mean(each, axis=0), rtol=2e-6)
    assert averaged.dtype == np.float32


def test_d4_does_not_know_how_a_stamp_is_turned(d4, stamps, averaged):
    turned = np.ascontiguousarray(np.rot90(stamps[:4], 1, axes=(2, 3))[..., ::-1])
    np.testing.assert_allclose(d4.logits(turned), averaged[:4], atol=1e-5)


def test_d4_gives_the_same_bits_whatever_the_order_and_the_chunks(d4, stamps, averaged):
    order = np.random.default_rng(1).permutation(len(stamps))
    chunks = np.split(stamps[order], [1, 1, 4, 16])
    results = [one for _, one in d4.stream(enumerate(chunks))]
    assert [len(one) for one in results] == [1, 0, 3, 12, 1]
    assert np.concatenate(results).tobytes() == averaged[order].tobytes()


def test_d4_keeps_what_overflows_to_itself(d4, stamps, averaged):
    spoilt = stamps[:4].copy()
    spoilt[1] = np.inf
    result = d4.logits(spoilt)
    assert np.isnan(result[1]).all()
    assert result[[0, 2, 3]].tobytes() == averaged[[0, 2, 3]].tobytes()


def test_d4_is_part_of_the_fingerprint(checkpoint, d4):
    plain = Predictor(checkpoint, device="cpu", precision="float32", batch=16)
    assert plain.fingerprint != d4.fingerprint
    assert (plain.passes, d4.passes) == (1, 8)
    with pytest.raises(UsageError, match=r"^unknown test-time augmentation 'd8'; valid: none, d4$"):
        Predictor(checkpoint, device="cpu", test_time="d8")


def test_d4_in_a_run_is_forecast_and_told(pristine_survey: Survey, tmp_path, release_bytes):
    survey = pristine_survey.copy(tmp_path / "tiny")
    made = survey("models", "create", "clash-inception-narrow", "-r", "tiny.toml", "-o", "narrow.safetensors")
    assert made.status == 0, made.err
    survey.edit("untrained.safetensors", "narrow.safetensors")
    assert survey("run", "tiny.toml", "-q").status == 0
    plain = release_bytes(survey)
    survey.edit("batch = 16", 'batch = 16\ntest_time = "d4"')
    stage = json.loads(survey("run", "tiny.toml", "--dry-run", "--json").out)[2]
    (last,) = [one for one in json.loads((survey.run / "run.json").read_text())["stages"] if one["stage"] == "classify"]
    assert (stage["make"], stage["passes"]) == (6, 8 * stage["work"])
    assert stage["seconds"] == pytest.approx(8 * stage["work"] / (last["worked"] / last["seconds"]))
    assert stage["why"] == {"classifier changed": 6}
    line = survey("run", "tiny.toml", "--dry-run").out.splitlines()[2]
    assert f"; {stage['work']} (source, view)s, {stage['passes']} stamps with those of test-time augmentation, " in line
    assert survey("run", "tiny.toml", "-q").status == 0
    (last,) = [one for one in json.loads((survey.run / "run.json").read_text())["stages"] if one["stage"] == "classify"]
    assert (last["made"], last["passes"]) == (6, 8 * last["worked"])
    after = release_bytes(survey)
    assert after["Tiny.csv"] != plain["Tiny.csv"]
    assert b"Probabilities of net: test-time augmentation d4." in after["summary.md"]
    assert json.loads(after["provenance.json"])["classifiers"]["net"]["test_time"] == "d4"


# --- what is computed from a file -------------------------------------------------------------------------


def test_derived_values_are_remembered_by_content(tmp_path):
    path, calls = tmp_path / "weights", []

    def compute(one):
        calls.append(one)
        return one.read_text().upper()

    path.write_text("abc")
    os.utime(path, ns=(10**18, 10**18))
    identities = Identities(tmp_path / "cache.json")
    assert [identities.derived(path, "network", compute) for _ in range(2)] == ["ABC", "ABC"]
    identities.save()
    again = Identities(tmp_path / "cache.json")
    assert again.derived(path, "network", compute) == "ABC"
    assert again.changed_unseen() == []
    assert len(calls) == 1
    path.write_text("abd")
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert again.derived(path, "network", compute) == "ABD"
    path.write_text("abe")  # just now: it may change once more within the clock's tick
    assert [again.derived(path, "network", compute) for _ in range(2)] == ["ABE", "ABE"]
    assert len(calls) == 4
    assert again.derived(tmp_path / "none", "network", compute).startswith("unreadable: ")


def test_a_damaged_checkpoint_has_no_digest(tmp_path):
    from catmorph.models.identity import read_network_digest

    (tmp_path / "a.safetensors").write_bytes(b"PK\x03\x04" + b"0" * 100)
    with pytest.raises(CheckpointError, match="is a zip archive"):
        read_network_digest(tmp_path / "a.safetensors")
