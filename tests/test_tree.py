"""Decision trees of answers: probabilities, losses, what a release says of them."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from scipy.stats import multinomial

from catmorph.errors import UsageError
from catmorph.evaluation.calibration import fit_temperature
from catmorph.evaluation.metrics import cross_entropies
from catmorph.evaluation.numbers import metrics_of
from catmorph.inference.combine import average_logits, combine, entropy
from catmorph.recipe import EvaluationSection, TrainingSection
from catmorph.release.results import answer_names
from catmorph.schemes import LabelClass, Question, Scheme, load_scheme
from catmorph.training.losses import loss_for, probabilities

TREES = ("gz2-tree", "gz2-tree-parent")
GZ2 = load_scheme("gz2-tree")
TREE = GZ2.tree
ANY = st.floats(allow_nan=False, allow_infinity=False)
MODERATE = st.floats(-300, 300)
RANDOM = np.random.default_rng(3)


def logits_of(elements, width=64):
    return arrays(np.dtype(f"f{width // 8}"), st.tuples(st.integers(1, 3), st.just(37)), elements=elements)


def by_hand(logits, rule):
    """The two rules as their papers say them, answer by answer, from plain sigmoids."""
    s = expit(np.asarray(logits, np.float64))
    share, p = np.zeros(37), np.zeros(37)
    for answers, parent in zip(TREE.questions, TREE.parents, strict=True):
        for a in answers:
            share[a] = s[a] / (sum(s[b] for b in answers) + (1e-12 if rule == "parent" else 0))
            above = 1.0 if parent < 0 else (p if rule == "cumulative" else share)[parent]
            p[a] = share[a] * above
    return p


@pytest.mark.parametrize("name", TREES)
def test_probabilities_are_those_of_the_plain_formulas(name):
    scheme, logits = load_scheme(name), RANDOM.normal(0, 3, (20, 37))
    wanted = np.array([by_hand(row, scheme.reweight) for row in logits])
    np.testing.assert_allclose(scheme.probabilities(logits), wanted, rtol=1e-12)


@given(logits_of(ANY))
def test_any_logits_obey_the_tree(logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = GZ2.probabilities(logits)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(TREE.sums(p), TREE.expected_sums(p), atol=1e-12)
    assert TREE.path_taken(p).sum(axis=1).min() >= 2


@given(logits_of(ANY))
def test_any_logits_obey_the_single_step_rule(logits):
    tree = load_scheme("gz2-tree-parent").tree
    p, share = tree.probabilities(logits), np.exp(tree.log_conditional(logits))
    assert ((p >= 0) & (p <= 1)).all()
    parents = np.array(tree.parents)
    # Epsilon takes from a question whatever it holds, all of it where every sigmoid is far below 1e-12.
    above = np.where(parents >= 0, share[:, parents], 1.0)
    np.testing.assert_allclose(tree.sums(p), above * tree.sums(share), atol=1e-12)
    assert (tree.sums(share) <= 1 + 1e-12).all()
    likely = expit(logits).max(axis=1) > 1e-3
    assert (tree.sums(share)[likely].max(axis=1, initial=0) > 0.99).sum() == likely.sum()


@pytest.mark.parametrize("name", TREES)
@given(logits=logits_of(st.floats(width=32, allow_nan=False, allow_infinity=False), 32))
def test_torch_gives_the_same_with_finite_gradients(name, logits):
    scheme = load_scheme(name)
    tensor = torch.tensor(logits, requires_grad=True)
    found = probabilities(tensor, scheme.form)
    np.testing.assert_allclose(found.detach().numpy(), scheme.probabilities(logits), atol=2e-6)
    (found * torch.arange(37)).sum().backward()
    assert torch.isfinite(tensor.grad).all()


def test_gradients_are_those_of_finite_differences():
    for name in TREES:
        form, logits = load_scheme(name).form, torch.tensor(RANDOM.normal(0, 1, (2, 37)), requires_grad=True)

        def moved(values, form=form):
            from catmorph.training import losses

            return losses._chained(losses._log_shares(values, form).exp(), form)

        assert torch.autograd.gradcheck(moved, (logits,), atol=1e-6)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("loss", ["mse", "rmse", "cross-entropy", "binary", "multinomial"])
def test_every_loss_has_finite_gradients_where_the_network_is_sure(name, loss):
    scheme = load_scheme(name)
    logits = torch.tensor(RANDOM.choice([-400.0, -30.0, 0.0, 30.0, 400.0], (50, 37)), requires_grad=True)
    fractions = torch.tensor(scheme.probabilities(RANDOM.normal(0, 3, (50, 37)))).float()
    section = TrainingSection(output="x.safetensors", loss=loss)
    value = loss_for(section, scheme)(logits, fractions, torch.full((50,), 9))
    value.backward()
    assert torch.isfinite(value.detach())
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


def loss_value(scheme, name, logits, fractions, votes=None):
    loss = loss_for(TrainingSection(output="x.safetensors", loss=name), scheme)
    votes = None if votes is None else torch.tensor(votes)
    return float(loss(torch.tensor(logits), torch.tensor(fractions), votes))


def test_losses_are_sums_over_the_questions():
    logits, fractions = RANDOM.normal(0, 2, (8, 37)), GZ2.probabilities(RANDOM.normal(0, 2, (8, 37)))
    p = GZ2.probabilities(logits)
    share = TREE.shares(p)
    wanted = 0.0
    for answers, parent in zip(TREE.questions, TREE.parents, strict=True):
        answers = list(answers)
        asked = np.ones(8) if parent < 0 else fractions[:, parent]
        within = fractions[:, answers] / fractions[:, answers].sum(axis=1, keepdims=True)
        wanted = wanted - asked * (within * np.log(share[:, answers])).sum(axis=1)
    assert loss_value(GZ2, "cross-entropy", logits, fractions) == pytest.approx(wanted.mean(), rel=1e-5)
    np.testing.assert_allclose(cross_entropies(p, fractions, GZ2.form), wanted, rtol=1e-10)
    assert loss_value(GZ2, "mse", logits, fractions) == pytest.approx(np.square(p - fractions).mean(), rel=1e-5)
    binary = -(fractions * np.log(p) + (1 - fractions) * np.log1p(-p)).mean()
    assert loss_value(GZ2, "binary", logits, fractions) == pytest.approx(binary, rel=1e-5)


def test_votes_of_a_tree_are_multinomial_in_each_question():
    # 12 people: all answer questions 1 and 6, the others those who were led to them.
    counts, share = np.zeros(37), GZ2.probabilities(np.zeros(37))
    wanted = 0.0
    for answers, parent in zip(TREE.questions, TREE.parents, strict=True):
        people = 12 if parent < 0 else int(counts[parent])
        drawn = RANDOM.multinomial(people, np.full(len(answers), 1 / len(answers)))
        counts[list(answers)] = drawn
        wanted -= multinomial.logpmf(drawn, people, np.full(len(answers), 1 / len(answers)))
    assert share[0] == pytest.approx(1 / 3)
    found = loss_value(GZ2, "multinomial", np.zeros((1, 37)), counts[None] / 12, [12.0])
    assert found == pytest.approx(wanted, rel=1e-9)


def test_a_dirichlet_loss_is_refused():
    with pytest.raises(UsageError, match=r"'dirichlet' needs classes that exclude each other; those of scheme 'gz2-tr"):
        loss_for(TrainingSection(output="x.safetensors", loss="dirichlet"), GZ2)


def test_the_answer_is_the_way_down():
    p = np.zeros((3, 37))
    for name, value in {"smooth": 0.3, "features": 0.7, "edge_on_yes": 0.1, "edge_on_no": 0.6, "bar_no": 0.6,
                        "spiral_yes": 0.6, "bulge_obvious": 0.6, "odd_no": 1.0, "winding_loose": 0.6, "arms_2": 0.6,
                        "round_cigar": 0.3, "ring": 0.4}.items():  # fmt: skip
        p[0, GZ2.index(name)] = value
    p[1, GZ2.index("artifact")], p[1, GZ2.index("odd_no")] = 1.0, 1.0
    p[2] = np.nan
    assert answer_names(GZ2, p).to_pylist() == [
        "features|edge_on_no|bar_no|spiral_yes|bulge_obvious|odd_no|winding_loose|arms_2", "artifact|odd_no", None
    ]
    # The longest of the ways down, by trying all of them that a random table takes.
    ways = answer_names(GZ2, RANDOM.uniform(size=(20000, 37))).to_pylist()
    assert max(map(len, ways)) == GZ2.longest_answer


def test_entropy_counts_a_question_as_often_as_it_is_asked():
    p = np.zeros((2, 37))
    p[0, :2], p[0, GZ2.index("odd_no")] = 0.5, 1.0
    p[0, GZ2.index("round_completely")] = p[0, GZ2.index("round_cigar")] = 0.25
    p[0, GZ2.index("edge_on_yes")] = p[0, GZ2.index("edge_bulge_none")] = 0.5
    p[1, 0] = p[1, GZ2.index("round_between")] = p[1, GZ2.index("odd_no")] = 1.0
    # One bit for the first question, one for the roundness that every second one is asked for.
    np.testing.assert_allclose(entropy(GZ2, p), [1.5, 0.0], atol=1e-12)
    assert np.isnan(entropy(GZ2, np.full((1, 37), np.nan))).all()


@given(arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 3), st.just(37)), elements=MODERATE))
def test_an_ensemble_is_a_tree_too(stack):
    prediction = combine(GZ2, list(stack), (1.0,) * len(stack))
    np.testing.assert_allclose(TREE.sums(prediction.probabilities), TREE.expected_sums(prediction.probabilities),
                               atol=1e-12)  # fmt: skip
    assert (prediction.mutual_information >= 0).all()
    # Each of the eleven questions tells at most which member answered.
    assert (prediction.mutual_information <= 11 * np.log2(len(stack)) + 1e-9).all()


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(37)), elements=MODERATE))
def test_averaged_logits_give_the_mean_probabilities(stack):
    averaged = average_logits(GZ2, stack)
    assert np.isfinite(averaged).all()
    np.testing.assert_allclose(GZ2.probabilities(averaged), GZ2.probabilities(stack).mean(axis=0), atol=1e-12)


def test_averaged_logits_of_one_pass_give_its_probabilities_by_the_single_step_rule():
    scheme, logits = load_scheme("gz2-tree-parent"), RANDOM.normal(0, 3, (1, 10, 37))
    found = scheme.probabilities(average_logits(scheme, logits))
    np.testing.assert_allclose(found, scheme.probabilities(logits[0]), atol=1e-9)


def test_a_temperature_is_found_again():
    logits = RANDOM.normal(0, 2, (200, 37))
    assert fit_temperature(logits, GZ2.probabilities(logits / 1.7), GZ2.form) == pytest.approx(1.7, rel=1e-3)


def test_metrics_of_a_tree_decide_on_the_way_down():
    logits, noise = RANDOM.normal(0, 2, (60, 37)), RANDOM.normal(0, 0.3, (60, 37))
    p, f = GZ2.probabilities(logits), GZ2.probabilities(logits + noise)
    found = metrics_of(p, f, GZ2.class_names, np.full(60, 40), kind=GZ2.form, section=EvaluationSection(resamples=100))
    human, model = TREE.path_taken(f), TREE.path_taken(p)
    assert found["accuracy"]["value"] == pytest.approx((human == model).mean(), abs=1e-6)
    assert found["classes"]["smooth"]["voted"] == human[:, 0].sum()
    assert found["cross_entropy"]["value"] == pytest.approx(cross_entropies(p, f, GZ2.form).mean(), abs=1e-6)
    assert found["binary"]["ring"]["all"]["true_positive"] == (human & model)[:, GZ2.index("ring")].sum()
    assert "confusion" not in found


def test_the_real_rows_obey_the_cumulative_rule_alone(real_data):
    with open(real_data / "galaxyzoo" / "kaggle_label_rows.csv", newline="") as file:
        rows = np.array([row[1:38] for row in list(csv.reader(file))[1:]], dtype=float)
    assert rows.shape == (9, 37)
    assert np.abs(TREE.sums(rows) - TREE.expected_sums(rows)).max() < 2e-6
    single = load_scheme("gz2-tree-parent").tree
    wrong = (np.abs(single.sums(rows) - single.expected_sums(rows)) > 0.01).any(axis=0)
    deeper = {"bar", "spiral", "bulge", "edge_on_bulge", "winding", "arms"}
    assert {one.name for one, bad in zip(GZ2.questions, wrong, strict=True) if bad} == deeper


def classes(*names):
    return tuple(LabelClass(name=name, code=name, label=name, title=name) for name in names)


@pytest.mark.parametrize(("keys", "message"), [
    ({"questions": ()}, "a tree needs questions"),
    ({"questions": (Question(name="q", classes=("a", "b")),)}, "'c' is not"),
    ({"questions": (Question(name="q", classes=("a", "b")),
                    Question(name="r", classes=("b", "c", "d")))}, "'b' is not"),
    ({"questions": (Question(name="q", classes=("a", "b"), parent="c"),
                    Question(name="r", classes=("c", "d")))}, "question 'q' comes after 'c', which is no answer"),
    ({"kind": "sigmoid", "reweight": "parent"}, "reweight and epsilon are those of a tree"),
    ({"merger": "e"}, "its merger class 'e' is none of its classes"),
    ({"classes": classes("a", "b", "b", "d")}, "two classes have the name 'b'"),
])  # fmt: skip
def test_a_wrong_scheme_says_what_is_wrong(keys, message):
    given = {"name": "x", "title": "x", "reference": "x", "kind": "tree", "classes": classes("a", "b", "c", "d"),
             "questions": (Question(name="q", classes=("a", "b")), Question(name="r", classes=("c", "d"), parent="a"))}
    Scheme(**given)
    with pytest.raises(ValueError, match=message):
        Scheme(**{**given, **keys})
