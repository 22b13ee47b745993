"""Each number of an evaluation against scikit-learn, a plain formula or a simulation."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn import metrics as sk

from catmorph.errors import UsageError
from catmorph.evaluation import additive, metrics, metrics_of
from catmorph.evaluation.calibration import fit_temperature
from catmorph.evaluation.classification import classification_report
from catmorph.evaluation.curves import WeightedAreas, curves
from catmorph.evaluation.groups import binned
from catmorph.evaluation.reliability import ece_of_votes, reliability
from catmorph.labels import read_labels
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.release.intervals import wilson
from catmorph.schemes import load_scheme

NAMES = ("a", "b", "c", "d")
FAST = EvaluationSection(resamples=200)


def stamps(count=400, classes=4, seed=0, sharpness=2.0):
    """Probabilities, vote fractions and votes of a network that is right but not sure enough."""
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet([0.4] * classes, count)
    votes = generator.integers(5, 10, count)
    fractions = np.stack([generator.multinomial(n, p) / n for n, p in zip(votes, truth, strict=True)])
    blurred = (truth + 0.02) ** (1 / sharpness) * generator.uniform(0.7, 1.4, truth.shape)
    return blurred / blurred.sum(axis=1, keepdims=True), fractions, votes


@pytest.fixture(scope="module")
def found():
    p, f, votes = stamps()
    return p, f, metrics_of(p, f, NAMES, votes, section=FAST)


def value(record):
    return record["value"]


def test_counts_are_those_of_scikit_learn(found):
    p, f, result = found
    human, model = f.argmax(axis=1), p.argmax(axis=1)
    assert result["confusion"]["counts"] == sk.confusion_matrix(human, model).tolist()
    shares = sk.confusion_matrix(human, model, normalize="true")
    np.testing.assert_allclose(result["confusion"]["row_fractions"], shares, atol=1e-6)
    assert result["confusion"]["axes"] == "rows: most voted class, columns: most probable class"
    assert value(result["accuracy"]) == pytest.approx(sk.accuracy_score(human, model), abs=1e-6)
    assert value(result["macro_f1"]) == pytest.approx(sk.f1_score(human, model, average="macro"), abs=1e-6)
    purity, completeness, f1, support = sk.precision_recall_fscore_support(human, model)
    for i, one in enumerate(result["classes"].values()):
        assert [value(one[key]) for key in ("purity", "completeness", "f1")] == pytest.approx(
            [purity[i], completeness[i], f1[i]], abs=1e-6)  # fmt: skip
        assert one["voted"] == one["completeness"]["of"] == support[i]
        assert one["purity"]["of"] == one["predicted"] == np.count_nonzero(model == i)
        assert one["completeness"]["wilson"] == pytest.approx(
            wilson(one["completeness"]["count"], one["completeness"]["of"]), abs=1e-6)  # fmt: skip


def test_errors_are_those_of_plain_formulas(found):
    p, f, result = found
    assert value(result["rmse"]) == pytest.approx(sk.root_mean_squared_error(f.ravel(), p.ravel()), abs=1e-6)
    each = [sk.root_mean_squared_error(a, b) for a, b in zip(f, p, strict=True)]
    assert value(result["rmse_authors"]) == pytest.approx(np.mean(each), abs=1e-6)
    # Cross-entropy with fractions is log loss with each class as a sample of that weight.
    labels = np.tile(np.arange(4), len(f))
    loss = sk.log_loss(labels, np.repeat(p, 4, axis=0), sample_weight=f.ravel())
    assert value(result["cross_entropy"]) == pytest.approx(loss, abs=1e-6)
    by_class = sk.root_mean_squared_error(f, p, multioutput="raw_values")
    assert [value(one["rmse"]) for one in result["classes"].values()] == pytest.approx(by_class, abs=1e-6)


def test_areas_are_those_of_scikit_learn(found):
    p, f, result = found
    for i, one in enumerate(result["classes"].values()):
        positive = f.argmax(axis=1) == i
        assert value(one["roc_area"]) == pytest.approx(sk.roc_auc_score(positive, p[:, i]), abs=1e-6)
        assert value(one["average_precision"]) == pytest.approx(sk.average_precision_score(positive, p[:, i]), abs=1e-6)
        drawn = curves(p[:, i], positive)
        assert sk.auc(drawn.false_positive_rate, drawn.true_positive_rate) == pytest.approx(drawn.roc_area)


def test_areas_of_resamples_with_ties_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 12, 80) / 11
    positive = generator.random(80) < scores
    weights = generator.integers(0, 4, (20, 80)).astype(float)
    weights[0] = positive  # nothing negative: undefined
    roc, average = WeightedAreas(scores, positive).areas(weights)
    assert np.isnan(roc[0])
    assert np.isnan(average[0])
    for i in range(1, 20):
        wanted = [tool(positive, scores, sample_weight=weights[i])
                  for tool in (sk.roc_auc_score, sk.average_precision_score)]  # fmt: skip
        assert [roc[i], average[i]] == pytest.approx(wanted)


def test_thresholds_are_what_scikit_learn_says_of_the_kept_stamps(found):
    p, f, result = found
    assert [row["threshold"] for row in result["thresholds"]] == list(additive.THRESHOLDS)
    for row in result["thresholds"]:
        kept = p.max(axis=1) >= row["threshold"]
        assert (row["kept"]["count"], row["kept"]["of"]) == (kept.sum(), len(p))
        if not kept.any():
            assert value(row["accuracy"]) is None
            assert row["accuracy"]["reason"] == "no stamp is kept"
            continue
        human, model = f[kept].argmax(axis=1), p[kept].argmax(axis=1)
        assert value(row["accuracy"]) == pytest.approx(sk.accuracy_score(human, model), abs=1e-6)
        # Without labels, scikit-learn averages over the classes that occur: so do we.
        assert value(row["macro_f1"]) == pytest.approx(sk.f1_score(human, model, average="macro"), abs=1e-6)


def test_agreed_stamps_alone(found):
    p, f, result = found
    rows = f.max(axis=1) >= 0.75
    wanted = sk.confusion_matrix(f[rows].argmax(axis=1), p[rows].argmax(axis=1), labels=range(4))
    assert result["confusion_agreed"]["counts"] == wanted.tolist()
    assert result["confusion_agreed"]["stamps"] == rows.sum()
    single = np.array([[0.75, 0.25]], np.float32)
    assert metrics.agreed(single, 0.75).tolist() == [True]
    assert metrics.agreed(np.array([[0.7, 0.2]]), 0.75, "sigmoid").tolist() == [[False, True]]


def test_the_calibration_error_is_that_of_its_definition(found):
    p, f, result = found
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (p >= low) & ((p < low + 1 / 15) | ((low > 0.93) & (p <= 1)))
        total += abs(p[inside].mean() - f[inside].mean()) * inside.sum() if inside.any() else 0.0
    assert value(result["ece"]) == pytest.approx(total / p.size, abs=1e-6)
    assert sum(row["pairs"] for row in result["reliability"]["all"]) == p.size
    for i, one in enumerate(result["classes"].values()):
        assert value(one["ece"]) == pytest.approx(reliability(p[:, i], f[:, i], 15).ece, abs=1e-6)
    assert reliability(f, f, 15).ece == pytest.approx(0, abs=1e-12)
    assert reliability(np.full(8, 0.9), np.full(8, 0.5), 10).ece == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_floor_of_the_calibration_error_is_what_repeated_votes_show(kind):
    generator = np.random.default_rng(3)
    votes = generator.integers(3, 9, 300)
    if kind == "softmax":
        p = generator.dirichlet([0.5] * 4, 300)
        draws = [np.stack([generator.multinomial(n, q) / n for n, q in zip(votes, p, strict=True)]) for _ in range(60)]
    else:
        p = generator.random((300, 4))
        draws = [generator.binomial(votes[:, None], p) / votes[:, None] for _ in range(60)]
    shown = np.mean([reliability(p, f, 15).ece for f in draws])
    assert ece_of_votes(p, votes, 15, kind) == pytest.approx(shown, rel=0.05)
    assert ece_of_votes(p, np.zeros(300), 15, kind) is None


# True and false negatives and positives of cluster members by colour region, as published.
REGIONS = {"red sequence": (69, 9, 12, 59), "green valley": (88, 1, 0, 1), "blue cloud": (76, 4, 2, 14)}


def binary(tn, fp, fn, tp):
    return np.repeat([0, 0, 1, 1], [tn, fp, fn, tp]), np.repeat([0, 1, 0, 1], [tn, fp, fn, tp])


@pytest.mark.parametrize(("region", "accuracy"), list(zip(REGIONS, (0.86, 0.99, 0.94), strict=True)))
def test_published_counts_of_a_region_give_its_accuracy(region, accuracy):
    report = classification_report(*binary(*REGIONS[region]), ("background", "cluster"))
    assert round(value(report["accuracy"]), 2) == accuracy


def test_published_counts_give_the_published_scores():
    total = [sum(counts) for counts in zip(*REGIONS.values(), strict=True)]
    assert total == [233, 14, 14, 74]
    human, model = binary(*total)
    result = metrics_of(np.eye(2)[model], np.eye(2)[human], ("background", "cluster"), section=FAST)["report"]
    alone = metrics_of(np.eye(2)[model][:, 1:], np.eye(2)[human][:, 1:], ("cluster",), section=FAST, kind="sigmoid")
    assert list(alone["report"]["classes"].values()) == list(result["classes"].values())
    for name, score, support in (("background", 0.94, 247), ("cluster", 0.84, 88)):
        one = result["classes"][name]
        assert [round(value(one[key]), 2) for key in ("precision", "recall", "f1")] == [score] * 3
        assert one["support"] == support
    assert round(value(result["accuracy"]), 2) == 0.92
    assert (result["accuracy"]["count"], result["accuracy"]["of"]) == (307, 335)
    interval = binomtest(74, 88).proportion_ci(method="exact")
    assert result["classes"]["cluster"]["recall"]["exact"] == pytest.approx((interval.low, interval.high), abs=1e-6)
    wanted = sk.classification_report(human, model, output_dict=True)
    for name in ("macro", "weighted"):
        given = wanted[f"{name} avg"]
        assert [result["averages"][name][key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [given[key] for key in ("precision", "recall", "f1-score", "support")], abs=1e-6)  # fmt: skip


def test_a_class_that_is_never_predicted():
    report = classification_report(np.array([0, 0, 1]), np.array([0, 0, 0]), ("a", "b", "c"))
    second, third = report["classes"]["b"], report["classes"]["c"]
    assert second["precision"] == {"value": None, "reason": "no stamp is predicted to be of it", "count": 0, "of": 0,
                                   "exact": None}  # fmt: skip
    assert (value(second["recall"]), value(second["f1"]), second["support"]) == (0, 0, 1)
    assert third["f1"] == {"value": None, "reason": "no stamp is of it, as voted or predicted"}
    # As scikit-learn: over the classes that occur, undefined as 0.
    assert report["averages"]["macro"]["precision"] == pytest.approx(1 / 3)
    nothing = classification_report(np.empty(0, int), np.empty(0, int), ("a", "b"))
    assert nothing["accuracy"]["reason"] == "no stamps"
    assert nothing["averages"]["macro"]["f1"] is None


# Intervals


def intervals(result):
    classes = [one[key]["interval"] for one in result["classes"].values() for key in ("rmse", "f1", "roc_area", "ece")]
    return np.array([result[key]["interval"] for key in ("rmse", "cross_entropy", "accuracy", "ece")] + classes)


def test_whole_sources_are_drawn():
    p, f, _ = stamps(150)
    alone = metrics_of(p, f, NAMES, section=FAST)
    # Each source seen through four bands with the same answer: four times the stamps, and no more is known.
    fourfold = [np.repeat(part, 4, axis=0) for part in (p, f)]
    names = np.repeat([f"galaxy {i:03}" for i in range(150)], 4)
    together = metrics_of(*fourfold, NAMES, sources=names, section=FAST)
    assert (together["stamps"], together["sources"]) == (600, 150)
    np.testing.assert_allclose(intervals(together), intervals(alone), atol=2e-6)
    apart = metrics_of(*fourfold, NAMES, section=FAST)
    width = np.diff(intervals(apart)) / np.diff(intervals(alone))
    assert np.median(width) == pytest.approx(0.5, abs=0.1)


def test_the_interval_of_a_proportion_is_about_the_binomial_one(found):
    accuracy = found[2]["accuracy"]
    np.testing.assert_allclose(accuracy["interval"], accuracy["wilson"], atol=0.012)


def test_intervals_cover():
    # 40 samples of one population: a 95% interval of the RMSE misses its value in 1 to 7 of them (p > 0.85).
    # The data are the same every time.
    p, f, _ = stamps(40 * 80, seed=5)
    truth = metrics.rmse(p, f)
    section = EvaluationSection(resamples=100)
    parts = [metrics_of(a, b, NAMES, section=section)["rmse"]["interval"]
             for a, b in zip(np.split(p, 40), np.split(f, 40), strict=True)]  # fmt: skip
    assert 0 < sum(not low <= truth <= high for low, high in parts) <= 7


def test_intervals_do_not_depend_on_blocks(found, monkeypatch):
    p, f, votes = stamps()
    monkeypatch.setattr(additive, "_DRAWS_AT_ONCE", 1)
    monkeypatch.setattr(additive, "_STAMPS_AT_ONCE", 7)
    assert metrics_of(p, f, NAMES, votes, section=FAST) == found[2]


# What is not there


def test_absent_classes_and_few_sources_are_null_with_a_reason():
    p = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    f = np.array([[1, 0, 0], [0.2, 0.8, 0], [0, 1, 0]])
    result = metrics_of(p, f, ("a", "b", "c"))
    absent = result["classes"]["c"]
    none = "no stamp is of this class by the votes"
    assert absent["completeness"] == {"value": None, "interval": None, "reason": none, "count": 0, "of": 0,
                                      "wilson": None}  # fmt: skip
    assert absent["roc_area"] == {"value": None, "interval": None, "reason": none}
    assert absent["purity"]["reason"] == "no stamp is predicted to be of this class"
    assert result["confusion"]["row_fractions"][2] is None
    assert result["macro_f1"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["intervals"] == {"method": None, "reason": "3 sources are fewer than 10"}
    assert result["rmse"]["interval"] is None
    assert result["vote_noise"]["reason"] == "the number of votes is not known"
    json.dumps(result, allow_nan=False)
    one_class = metrics_of(p, np.eye(3)[[0, 0, 0]], ("a", "b", "c"), np.ones(3))
    assert one_class["classes"]["a"]["roc_area"]["reason"] == "every stamp is of this class by the votes"
    assert one_class["vote_noise"]["reason"] == "no stamp has two votes that differ"
    unsure = metrics_of(p, np.full((3, 3), 1 / 3), ("a", "b", "c"))
    assert unsure["ties"] == 3
    assert unsure["confusion_agreed"]["reason"] == "no stamps"


def test_a_class_that_most_resamples_miss_has_no_interval():
    p, f, _ = stamps(40, 2)
    f = np.eye(2)[np.r_[np.zeros(39, int), 1]]
    one = metrics_of(p, f, ("a", "b"), section=FAST)["classes"]["b"]
    assert one["roc_area"]["value"] is not None
    assert one["roc_area"]["interval"] is None


@pytest.mark.parametrize(
    ("p", "f", "wanted"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), r"probabilities \(2, 2\), fractions \(2, 3\) and 2 names do not fit"),
        (np.ones((0, 2)), np.ones((0, 2)), "no stamps"),
        (np.array([[0.5, np.nan]]), np.ones((1, 2)), "probabilities of 1 of 1 stamps are no numbers from 0 to 1"),
        (np.ones((2, 2)), np.array([[0, 1], [2, 0]]), "fractions of 1 of 2 stamps are no numbers from 0 to 1"),
    ],
)
def test_arrays_that_are_not_what_they_should_be(p, f, wanted):
    with pytest.raises(ValueError, match=wanted):
        metrics_of(p, f, ("a", "b"))


# Independent questions


def test_independent_questions():
    generator = np.random.default_rng(2)
    p = generator.random((200, 3))
    f = generator.binomial(7, p) / 7
    result = metrics_of(p, f, NAMES[:3], np.full(200, 7), kind="sigmoid", section=FAST)
    for i, name in enumerate(NAMES[:3]):
        human, model = f[:, i] >= 0.5, p[:, i] >= 0.5
        (tn, fp), (fn, tp) = sk.confusion_matrix(human, model)
        counts = {"true_positive": tp, "false_positive": fp, "false_negative": fn, "true_negative": tn}
        told = result["binary"][name]["all"]
        assert {key: told[key] for key in counts} == counts
        scores = [tool(human, model) for tool in (sk.recall_score, sk.precision_score, sk.accuracy_score)]
        assert [value(told[key]) for key in ("tpr", "precision", "accuracy")] == pytest.approx(scores, abs=1e-6)
        one = result["classes"][name]
        assert value(one["class_accuracy"]) == pytest.approx(sk.accuracy_score(human, model), abs=1e-6)
        assert value(one["f1"]) == pytest.approx(sk.f1_score(human, model), abs=1e-6)
        assert value(one["roc_area"]) == pytest.approx(sk.roc_auc_score(human, p[:, i]), abs=1e-6)
    entropy = [-f[:, i] * np.log(p[:, i]) - (1 - f[:, i]) * np.log1p(-p[:, i]) for i in range(3)]
    assert value(result["cross_entropy"]) == pytest.approx(np.mean(entropy), abs=1e-5)
    assert "confusion" not in result
    same = f.argmax(axis=1) == p.argmax(axis=1)
    assert result["argmax_accuracy"]["count"] == same.sum()
    assert value(result["argmax_accuracy"]) == pytest.approx(same.mean(), abs=1e-6)


def test_yes_is_said_from_the_threshold():
    p, f = np.array([[0.3], [0.7], [0.8], [0.2]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    for threshold, wanted in ((0.5, (1, 1, 1, 1)), (0.7, (1, 1, 1, 1)), (0.75, (0, 1, 2, 1)), (0.3, (2, 1, 0, 1))):
        result = metrics_of(p, f, ("bar",), kind="sigmoid", section=EvaluationSection(threshold=threshold))
        told = result["binary"]["bar"]["all"]
        assert tuple(told[key] for key in counts) == wanted
        assert (told["stamps"], told["positives"], result["threshold"]) == (4, 2, threshold)
        assert result["classes"]["bar"]["completeness"]["count"] == wanted[0]
    assert result["report"]["classes"]["yes"]["recall"]["value"] == 1
    assert "argmax_accuracy" not in result


# Real labels


@pytest.mark.parametrize(
    ("name", "baseline"),
    [("CLASH_labels.csv", (0.2958, 0.2772)), ("CANDELS_labels.csv", (0.2352, 0.2125))],
)
def test_the_mean_label_of_the_public_tables(real_data, name, baseline):
    scheme = load_scheme("clash")
    table = read_labels(real_data / "clash" / name, scheme)
    galaxies = [name.rsplit("_", 2)[0] + name.rsplit("_", 1)[1] for name in table.names]
    p = metrics.mean_label(table.fractions, len(table))
    result = metrics_of(p, table.fractions, scheme.class_names, sources=np.array(galaxies), section=FAST)
    assert (result["mean_label"]["rmse"], result["mean_label"]["rmse_authors"]) == pytest.approx(baseline, abs=5e-5)
    assert value(result["rmse"]) == result["mean_label"]["rmse"]
    low, high = result["rmse"]["interval"]
    assert low < baseline[0] < high
    # A constant answer is calibrated, and ranks nothing.
    assert value(result["ece"]) == pytest.approx(0, abs=1e-6)
    assert {value(one["roc_area"]) for one in result["classes"].values()} == {0.5}
    if name.startswith("CLASH"):
        assert result["sources"] == 912


# Temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_temperature_is_found(kind, temperature):
    logits = np.random.default_rng(4).normal(0, 2, (200, 3))
    scheme = load_scheme("clash").model_copy(update={"kind": kind})
    found = fit_temperature(logits * temperature, scheme.probabilities(logits), kind)
    assert found == pytest.approx(temperature, rel=1e-4)


def test_the_temperature_has_the_least_cross_entropy():
    p, f, _ = stamps(300, sharpness=3.0)
    logits = 3 * np.log(p)
    best = fit_temperature(logits, f)

    def loss(temperature):
        return -np.mean(np.sum(f * log_softmax(logits / temperature, axis=1), axis=1))

    grid = np.geomspace(0.1, 10, 2001)
    assert best == pytest.approx(grid[np.argmin([loss(one) for one in grid])], rel=0.003)


def test_logits_that_no_temperature_calibrates():
    logits = np.random.default_rng(4).normal(0, 2, (200, 3))
    with pytest.raises(UsageError, match=r"^net\.safetensors: no temperature from 0\.05 to 20 calibrates this"):
        fit_temperature(-logits, load_scheme("clash").probabilities(logits), where="net.safetensors")


# Groups


def test_bins_of_a_value():
    values = np.array([np.nan, 1, 2, 3, 4, 5, 6, 7, 8, np.inf])
    quarters = binned("by_magnitude", "magnitude", values, (), 10)
    assert [group.rows.tolist() for group in quarters.groups] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert quarters.left_out == 2
    edges = binned("by_magnitude", "magnitude", values, (2, 4, 6), 10)
    assert [(group.name, group.rows.tolist()) for group in edges.groups] == [("2 to 4", [2, 3]), ("4 to 6", [4, 5, 6])]
    assert edges.left_out == 5
    assert binned("x", "magnitude", None, (), 4).reason == "no stamp has a magnitude"
    assert binned("x", "magnitude", np.full(4, np.nan), (1, 2), 4).reason == "no stamp has a magnitude"
    assert binned("x", "magnitude", np.full(4, 20.0), (), 4).reason == "every stamp has the same magnitude"


@pytest.mark.parametrize("edges", [(1.0,), (2.0, 1.0), (1.0, 1.0)])
def test_edges_must_increase(edges):
    with pytest.raises(ValueError, match="two or more increasing numbers"):
        EvaluationSection(magnitude_edges=edges)


def test_labels_that_are_modes_do_not_tell_the_noise_of_their_votes():
    """A floor of 0 would be one that any network is far from."""
    fractions, votes = np.eye(3)[[0, 1, 2, 0]], np.full(4, 5.0)
    p = np.full((4, 3), 1 / 3)
    assert "vote_noise_rmse" not in metrics.summary(p, fractions, ("a", "b", "c"), votes)
    assert metrics_of(p, fractions, ("a", "b", "c"), votes)["vote_noise"] == {
        "rmse": None, "rmse_authors": None, "ece": None, "reason": "no stamp has two votes that differ"}
    fractions[0] = 0.8, 0.2, 0
    assert metrics.summary(p, fractions, ("a", "b", "c"), votes)["vote_noise_rmse"] == pytest.approx(
        np.sqrt(2 * 0.8 * 0.2 / 4 / 12), abs=1e-6)
