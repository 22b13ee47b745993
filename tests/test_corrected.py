"""Merger fractions as sums of probabilities and corrected for the classifier, against simulated truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from release_run import clash, galaxies, given, write_run

from catmorph.models import build
from catmorph.models.card import card_for
from catmorph.models.checkpoint import rewrite_card, save_checkpoint
from catmorph.release.corrected import Trial, corrected, from_counts, probability_sum
from catmorph.release.intervals import wilson
from catmorph.release.summary import summarize
from catmorph.release.tally import Merger, Rules, Tally
from catmorph.schemes import load_scheme


def a_test(generator, sensitivity, specificity, mergers, others):
    """What a test of a network with these rates might find."""
    found, passed = generator.binomial(mergers, sensitivity), generator.binomial(others, specificity)
    return Trial(found, others - passed, mergers - found, passed)


@pytest.mark.parametrize(
    ("fraction", "sensitivity", "specificity", "survey", "mergers", "others"),
    [(0.03, 0.8, 0.97, 2000, 100, 900), (0.6, 0.7, 0.85, 500, 100, 300), (0.0, 0.8, 0.95, 1000, 50, 450)],
)
def test_intervals_of_the_corrected_fraction_cover(fraction, sensitivity, specificity, survey, mergers, others):
    # 95% intervals of 100 surveys, the same every time: 88 or fewer hits have a chance of 0.4%.
    generator = np.random.default_rng(1)
    seen = fraction * sensitivity + (1 - fraction) * (1 - specificity)
    hits = raw_hits = 0
    for _ in range(100):
        count = generator.binomial(survey, seen)
        low, high = corrected(count, survey, a_test(generator, sensitivity, specificity, mergers, others))["interval"]
        hits += low <= fraction <= high
        low, high = wilson(count, survey)
        raw_hits += low <= fraction <= high
    assert hits > 88
    assert raw_hits < 40, "the raw fraction is off"


def test_the_correction_undoes_the_mistakes():
    # 1,000 galaxies, 100 mergers: 90 found, and 180 of the 900 others.
    found = corrected(270, 1000, Trial(9000, 18000, 1000, 72000))
    assert found["value"] == pytest.approx(0.1)
    assert found["interval"][0] < 0.1 < found["interval"][1] < 0.15, "the raw fraction, 0.27, is far off"
    perfect = corrected(30, 1000, Trial(100000, 0, 0, 100000))
    assert perfect["value"] == pytest.approx(0.03)
    np.testing.assert_allclose(perfect["interval"], wilson(30, 1000), atol=0.002)


def test_the_interval_knows_how_small_the_test_was():
    trials = [Trial(8 * n, 2 * n, 2 * n, 98 * n) for n in (1, 10, 1000)]
    widths = [np.diff(corrected(100, 1000, trial)["interval"]).item() for trial in trials]
    assert widths[0] > 1.5 * widths[1] > 1.5 * widths[2]


@pytest.mark.parametrize(
    ("count", "of", "test", "reason"),
    [
        (0, 0, Trial(8, 2, 2, 8), "no stamp is counted"),
        (1, 9, Trial(0, 2, 0, 8), "the test has no stamp of the class"),
        (1, 9, Trial(8, 0, 2, 0), "the test has no stamp of another class"),
        (1, 9, Trial(5, 5, 5, 5), "the test shows no more than chance (sensitivity + specificity is not above 1)"),
        (1, 9, Trial(0, 9, 9, 0), "the test shows no more than chance (sensitivity + specificity is not above 1)"),
    ],
)
def test_what_cannot_be_corrected(count, of, test, reason):
    assert corrected(count, of, test) == {"value": None, "interval": None, "reason": reason}


def test_estimates_stay_between_0_and_1():
    # Fewer are found than the test has false positives: clipped, and the interval holds it.
    none = corrected(0, 500, Trial(90, 100, 10, 900))
    assert none["value"] == none["interval"][0] == 0
    every = corrected(500, 500, Trial(80, 10, 20, 990))
    assert every["value"] == every["interval"][1] == 1
    hardly = corrected(2, 10, Trial(2, 1, 1, 1))
    assert hardly["interval"] == [0, 1], "a test of five stamps tells nothing"


def test_the_sum_of_probabilities_covers():
    generator = np.random.default_rng(2)
    hits = truth = 0
    for _ in range(300):
        chances = generator.beta(0.3, 2.7, 300)
        truth += (generator.random(300) < chances).mean() / 300
        low, high = probability_sum(chances.sum(), 300)["interval"]
        hits += low <= (generator.random(300) < generator.beta(0.3, 2.7, 300)).mean() <= high
        assert low <= chances.mean() <= high
    assert truth == pytest.approx(0.1, abs=0.005)
    # The fraction of another sample of the population: two samples' noise, within one's interval.
    assert 0.75 < hits / 300 < 0.99
    assert probability_sum(0.0, 0) == {"value": None, "interval": None}
    assert probability_sum(30.0, 1000)["interval"] == pytest.approx(wilson(30, 1000))
    assert probability_sum(10.0, 10)["interval"] == pytest.approx(wilson(10, 10))


@pytest.mark.parametrize("counts", [{}, {"true_positive": 1}, dict.fromkeys(
    ("true_positive", "false_positive", "false_negative", "true_negative"), -1)])  # fmt: skip
def test_counts_of_a_card_that_are_none(counts):
    assert from_counts(counts) is None


# The summary


def test_the_published_count_gives_the_published_fraction():
    # Images of the Galaxy Zoo 2 test set with a merger vote fraction of 0.30 or more, as published.
    rules = Rules(load_scheme("gz2"), 0.5, 0.95, Merger("merger", 0.30, proxy=False))
    one = Tally(37, counted=79975, mergers=2110).as_dict(rules)["merger"]
    assert (one["label"], round(one["fraction"], 3)) == ("merger", 0.026)


COUNTS = {"true_positive": 40, "false_positive": 30, "false_negative": 10, "true_negative": 270}


def survey(folder, card_evaluation, *overrides, answers=None):
    """A run with a checkpoint whose card says `card_evaluation`; a fifth of the stamps count as irregular."""
    path = folder / "net.safetensors"
    recipe = clash('bands.names=["F160W"]', f'classifiers.inception.checkpoint="{path}"', *overrides)
    module = build("clash-inception-narrow", classes=5, channels=1, seed=3)
    save_checkpoint(path, module, card_for(recipe, "clash-inception-narrow", channels=1))
    from catmorph.models.header import load_card

    rewrite_card(path, load_card(path).model_copy(update={"evaluation": card_evaluation}))
    chances = np.tile([[0.1, 0.7, 0.2, 0, 0]] * 4 + [[0.1, 0.2, 0.7, 0, 0]], (40, 1))
    return write_run(folder, recipe, [galaxies(200)], given([0] * 200, chances if answers is None else answers))


def in_card(**changes):
    tests = [{"temperature": 1.0, **COUNTS}]
    return {"merger": {"class": "irregular", "threshold": 0.3, "subset": "test", "tests": tests, **changes}}


def test_the_summary_has_all_three_estimates(tmp_path):
    summary = summarize(survey(tmp_path, in_card()))
    one = summary.values["views"][0]["merger"]
    assert (one["count"], one["of"], one["fraction"]) == (40, 200, 0.2)
    assert one["probability_sum"]["value"] == pytest.approx(0.3, abs=1e-6)
    assert one["corrected"]["value"] == pytest.approx((0.2 + 0.9 - 1) / (0.8 + 0.9 - 1))
    assert one["corrected"] == corrected(40, 200, Trial(40, 30, 10, 270))
    assert summary.values["fields"][0]["views"][0]["merger"] == one
    told = summary.values["merger"]["tests"]["inception"]
    assert (told["sensitivity"]["value"], told["specificity"]["value"], told["subset"]) == (0.8, 0.9, "test")
    assert "irregular (merger proxy), inception: in its test: sensitivity 0.800 [0.663, 0.900], specificity 0.900 " \
           "[0.860, 0.932]." in summary.text()  # fmt: skip
    assert "## Fraction of irregular (merger proxy)" in summary.markdown()
    low, high = one["corrected"]["interval"]
    assert f"| 0.1429 \\[{low:.4f}, {high:.4f}\\] |" in summary.markdown()
    json.dumps(summary.values, allow_nan=False)


@pytest.mark.parametrize(
    ("evaluation", "overrides", "reason"),
    [
        ({}, (), "net.safetensors has no counts of the class in a test; run `catmorph evaluate`"),
        ({"merger": "?"}, (), "has no counts of the class in a test"),
        (in_card(threshold=0.5), (), "has a test of irregular from 0.5 on; run"),
        (in_card(), ("summary.merger_threshold=0.4",), "has a test of irregular from 0.3 on; run"),
        (in_card(tests=[]), (), "has no test at temperature 1; run"),
        (in_card(tests=["?", {"temperature": 1.0}]), (), "has no test at temperature 1; run"),
        (in_card(), ("classifiers.inception.temperature=1.5",), "has no test at temperature 1.5; run"),
        (in_card(), ('classifiers.inception.test_time="d4"',), "a card's test is without test-time augmentation"),
    ],
)  # fmt: skip
def test_without_a_fitting_test_nothing_is_corrected(tmp_path, evaluation, overrides, reason):
    summary = summarize(survey(tmp_path, evaluation, *overrides))
    one = summary.values["views"][0]["merger"]
    assert (one["corrected"]["value"], one["corrected"]["interval"]) == (None, None)
    assert reason in one["corrected"]["reason"]
    assert f"inception: not corrected for the classifier: {one['corrected']['reason']}." in summary.text()
    assert one["fraction"] is not None
    assert one["probability_sum"]["value"] is not None


def test_a_test_that_is_none_and_no_stamps_are_said(tmp_path):
    run = survey(tmp_path, in_card(subset="all", tests=[{"temperature": 1.0, **dict.fromkeys(COUNTS, 0)}]))
    text = summarize(run).text()
    assert "in its test, which is no independent test: subset all: sensitivity -, specificity -; not corrected: " \
           "the test has no stamp of the class." in text  # fmt: skip
