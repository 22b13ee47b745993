"""Labels of many answers: distributions, correlations, prototypes, galleries."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from catmorph.evaluation.examples import Examples, draw_examples
from catmorph.evaluation.vote_figures import draw_labels
from catmorph.evaluation.votes import BINS, correlation, histogram, label_statistics
from catmorph.evaluation.writing import described_labels
from catmorph.labels import LabelledStamps, Split
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.release.tally import Merger
from catmorph.report.colour import Palette
from catmorph.schemes import load_scheme

NAMES = ("smooth", "features", "merger")


def votes(count=200):
    first = np.random.default_rng(0).integers(0, 41, count) / 40
    return np.stack([first, 1 - first, np.full(count, 0.1)], axis=1).astype(np.float32)


def test_correlations_are_those_of_numpy():
    values = np.random.default_rng(1).random((50, 4))
    np.testing.assert_allclose(correlation(values), np.corrcoef(values, rowvar=False), atol=1e-12)
    found = correlation(votes())
    assert found[0, 1] == pytest.approx(-1)
    assert np.isnan(found[2]).all(), "it does not vary"
    assert np.isnan(correlation(votes(0))).all()
    assert np.isnan(correlation(votes(1))).all()


def test_histograms_are_those_of_numpy():
    values = np.random.default_rng(2).random(500)
    assert histogram(values).tolist() == np.histogram(values, BINS, (0, 1))[0].tolist()
    edges = histogram(np.array([0, 0.04, 0.36, 1], np.float32))
    assert np.flatnonzero(edges).tolist() == [0, 1, 9, 24], "an edge belongs to the bin above it, 1 to the last"


def test_statistics_of_the_subsets():
    found = label_statistics({"training": votes(), "validation": votes(30)}, NAMES)
    assert found["histograms"]["subsets"]["validation"]["stamps"] == 30
    assert sum(found["histograms"]["subsets"]["training"]["counts"]["smooth"]) == 200
    assert (found["correlation"]["subset"], found["correlation"]["stamps"]) == ("training", 200)
    assert found["correlation"]["matrix"][0] == [1, -1, None]
    json.dumps(found, allow_nan=False)
    drawn = list(draw_labels(found, NAMES, [("first", [0, 1]), ("second", [2])]))
    assert [one.key for one in drawn] == ["label_histograms", "correlation", "correlation_questions"]
    assert "200 stamps, the training subset" in drawn[1].caption
    alone = draw_labels(label_statistics({"all": votes(3)}, NAMES), NAMES, [("all", [0, 1, 2])])
    assert [one.key for one in alone] == ["label_histograms", "correlation"]


def test_which_labels_are_described():
    scheme = load_scheme("gz2")
    data = LabelledStamps(np.zeros((6, 1, 2, 2), np.float32), np.random.default_rng(3).random((6, 37)).astype("f4"),
                          *np.full((3, 6), "a"))  # fmt: skip
    split = Split(np.arange(3), np.arange(3, 5), np.array([5]))
    subsets = described_labels(data, SimpleNamespace(split=split), scheme)["histograms"]["subsets"]
    assert {name: one["stamps"] for name, one in subsets.items()} == {"training": 3, "validation": 2}
    only_test = Split(np.arange(0), np.arange(0), np.arange(6))
    for chosen in (None, only_test):
        assert list(described_labels(data, SimpleNamespace(split=chosen), scheme)["histograms"]["subsets"]) == ["all"]
    assert described_labels(data, SimpleNamespace(split=None), load_scheme("clash")) is None
    assert described_labels(data, SimpleNamespace(split=None), load_scheme("des-bar")) is None


# Examples


@pytest.fixture
def examples():
    generator = np.random.default_rng(4)
    fractions = generator.random((8, 3))
    fractions[:, 2] = [0, 0.1, 0.3, 0.2, 0.9, 0, 0, 0.29]
    palette = Palette(((0,), (1,), (2,)), (0.0, 1.0))
    return Examples(generator.random((8, 3, 6, 6)), lambda row: palette, fractions, fractions[::-1],
                    [f"${i} of a very long name" for i in range(8)], NAMES, NAMES,
                    Merger("merger", 0.3, proxy=False))  # fmt: skip


def test_a_prototype_of_each_class_and_a_gallery_of_mergers(examples):
    drawn = {one.key: one for one in draw_examples(examples, EvaluationSection())}
    assert list(drawn) == ["prototypes", "mergers"]
    assert all(one.png.startswith(b"\x89PNG") for one in drawn.values())
    assert drawn["mergers"].caption.startswith("2 of the 2 stamps with a vote fraction of at least 0.3, the largest")
    none = Examples(**{**vars(examples), "fractions": np.zeros((8, 3))})
    assert [one.key for one in draw_examples(none, EvaluationSection())] == ["prototypes"]


def test_prototypes_of_chosen_classes(examples, monkeypatch):
    shown = []
    monkeypatch.setattr("catmorph.evaluation.examples._show", lambda axes, _, row, index: shown.append((row, index)))
    section = EvaluationSection(prototypes=["merger"], prototype_count=3)
    drawn = list(draw_examples(Examples(**{**vars(examples), "merger": None}), section))
    assert [one.key for one in drawn] == ["prototypes_merger"]
    # By people 0.9, 0.3, 0.29; the network has them in opposite order.
    assert shown == [(4, 2), (2, 2), (7, 2), (3, 2), (5, 2), (0, 2)]
    assert "The 3 stamps with the largest vote fractions" in drawn[0].caption
