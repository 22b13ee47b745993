"""Losses against independent formulas, and class weights."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import binom, dirichlet_multinomial, multinomial
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from catmorph.errors import UsageError
from catmorph.recipe import TrainingSection
from catmorph.schemes import LabelClass, Scheme, load_scheme
from catmorph.training.losses import LOSSES, class_weights, loss_for

CLASH = load_scheme("clash")
QUESTIONS = Scheme(
    name="questions", title="", reference="", kind="sigmoid",
    classes=tuple(LabelClass(name=name, code=name, label=name, title=name) for name in "abc"),
)  # fmt: skip
RANDOM = np.random.default_rng(4)
VOTES = RANDOM.integers(1, 12, 20)
COUNTS = np.stack([RANDOM.multinomial(n, p) for n, p in zip(VOTES, RANDOM.dirichlet(np.ones(5), 20), strict=True)])
LOGITS = RANDOM.normal(0, 2, (20, 5))
YES = RANDOM.binomial(VOTES[:, None], RANDOM.uniform(size=(20, 3)))
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
SIGMOID = 1 / (1 + np.exp(-LOGITS[:, :3]))


def section(**options):
    return TrainingSection(output="x.safetensors", **options)


def loss(name, logits=LOGITS, counts=COUNTS, votes=VOTES, scheme=CLASH, weights=None):
    fractions = torch.as_tensor(counts / votes[:, None]).float()
    return loss_for(section(loss=name), scheme, weights)(
        torch.as_tensor(logits).float(), fractions, torch.as_tensor(votes, dtype=torch.float64)
    )


def test_a_recipe_takes_the_losses_that_there_are():
    assert get_args(TrainingSection.model_fields["loss"].annotation) == tuple(LOSSES)


def test_cross_entropy():
    whole = np.repeat(np.arange(20), VOTES)
    answers = np.concatenate([np.repeat(np.arange(5), row) for row in COUNTS])
    found = log_loss(answers, SOFTMAX[whole], labels=range(5), sample_weight=1 / VOTES[whole]) * VOTES.size / 20
    assert float(loss("cross-entropy")) == pytest.approx(found, rel=1e-5)
    wanted = torch.nn.functional.cross_entropy(
        torch.as_tensor(LOGITS), torch.as_tensor(COUNTS / VOTES[:, None]), weight=torch.arange(1.0, 6).double()
    )
    assert float(loss("cross-entropy", weights=np.arange(1.0, 6))) == pytest.approx(float(wanted), rel=1e-5)


def test_square_errors():
    errors = np.square(SOFTMAX - COUNTS / VOTES[:, None])
    assert float(loss("mse")) == pytest.approx(errors.mean(), rel=1e-5)
    assert float(loss("rmse")) == pytest.approx(np.sqrt(errors.mean()), rel=1e-5)
    weights = np.arange(5.0)
    assert float(loss("mse", weights=weights)) == pytest.approx((errors * weights).mean(), rel=1e-5)


def test_binary_is_each_class_alone():
    found = [log_loss([1, 0], [[1 - p, p]] * 2, sample_weight=[f, 1 - f])
             for p, f in zip(SOFTMAX.ravel(), (COUNTS / VOTES[:, None]).ravel(), strict=True)]  # fmt: skip
    assert float(loss("binary")) == pytest.approx(np.mean(found), rel=1e-5)
    independent = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.as_tensor(LOGITS[:, :3]), torch.as_tensor(YES / VOTES[:, None])
    )
    for name in ("binary", "cross-entropy"):
        found = loss(name, LOGITS[:, :3], YES, scheme=QUESTIONS)
        assert float(found) == pytest.approx(float(independent), rel=1e-5)


def test_binary_where_the_network_is_sure():
    logits = torch.tensor([[60.0, 0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    found = loss_for(section(loss="binary"), CLASH)(logits, torch.tensor([[0.0, 1, 0, 0, 0]]), None)
    found.backward()
    # -ln(1 - p) of the first class is 60 - ln 4, -ln p of the second 60.
    assert float(found.detach()) == pytest.approx((120 - np.log(4)) / 5, rel=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_multinomial_votes():
    found = [-multinomial.logpmf(k, n, p) for k, n, p in zip(COUNTS, VOTES, SOFTMAX, strict=True)]
    assert float(loss("multinomial")) == pytest.approx(np.mean(found), rel=1e-5)
    kernel = torch.distributions.Multinomial(7, torch.as_tensor(SOFTMAX[0]), validate_args=False)
    one = loss("multinomial", LOGITS[:1], np.array([[3, 1, 1, 2, 0]]), np.array([7]))
    assert float(one) == pytest.approx(-float(kernel.log_prob(torch.tensor([3.0, 1, 1, 2, 0]))), rel=1e-5)


def test_votes_on_independent_questions_are_binomial():
    found = [-binom.logpmf(k, n, p).sum() for k, n, p in zip(YES, VOTES, SIGMOID, strict=True)]
    assert float(loss("multinomial", LOGITS[:, :3], YES, scheme=QUESTIONS)) == pytest.approx(np.mean(found), rel=1e-5)


def test_dirichlet_multinomial_votes():
    found = [-dirichlet_multinomial.logpmf(k, a, n) for k, a, n in zip(COUNTS, np.exp(LOGITS), VOTES, strict=True)]
    assert float(loss("dirichlet")) == pytest.approx(np.mean(found), rel=1e-5)
    weights = np.arange(1.0, 6)
    stamps = (COUNTS / VOTES[:, None]) @ weights
    assert float(loss("dirichlet", weights=weights)) == pytest.approx(np.mean(stamps * found), rel=1e-5)


def test_a_sure_dirichlet_is_a_multinomial():
    assert float(loss("dirichlet", LOGITS + 30)) == pytest.approx(float(loss("multinomial")), rel=1e-4)


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "binary", "multinomial", "dirichlet"])
@pytest.mark.parametrize("size", [0.0, 30.0, 300.0])
def test_gradients_are_finite_and_those_of_finite_differences(name, size):
    logits = torch.tensor([[0.0, 0.2, -0.5, 1.0, 0.3]]) + size * torch.tensor([[0.0, 1, 0, -1, 0]])
    logits.requires_grad_()
    made = loss_for(section(loss=name), CLASH)
    fractions, votes = torch.tensor([[0.2, 0.4, 0.0, 0.2, 0.2]]), torch.tensor([5.0], dtype=torch.float64)
    made(logits, fractions, votes).backward()
    assert torch.isfinite(logits.grad).all()
    if size == 0:
        step = 1e-2
        for c in range(5):
            ends = [float(made(logits.detach() + sign * step * torch.eye(5)[c], fractions, votes)) for sign in (1, -1)]
            assert float(logits.grad[0, c]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-4)


def test_a_loss_that_does_not_suit_the_scheme_is_refused():
    with pytest.raises(UsageError, match=r"^training.loss 'dirichlet' needs classes that exclude each other; those of "
                                         r"scheme 'questions' do not; use 'multinomial' or 'binary'$"):
        loss_for(section(loss="dirichlet"), QUESTIONS)


@pytest.mark.parametrize("name", [name for name, one in LOSSES.items() if one.needs_votes])
def test_a_likelihood_needs_votes(name):
    with pytest.raises(UsageError, match=rf"^training.loss '{name}' needs the number of votes; set labels.votes_colu"):
        loss_for(section(loss=name), CLASH)(torch.zeros(1, 5), torch.eye(5)[:1], None)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 4])
    found = class_weights("balanced", np.eye(5)[labels], CLASH)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(5), y=labels))
    with pytest.raises(UsageError, match=r"training.class_weights: no stamp of the training subset has a vote for "
                                         r"irregular, unclassifiable; "):
        class_weights("balanced", np.eye(5)[[0, 1, 3]], CLASH)


def test_balanced_answers_of_a_question_are_those_of_scikit_learn():
    """Nine bars among 86 galaxies weigh as much as the 77 others (Q3 of Dominguez Sanchez et al. 2019)."""
    yes = np.repeat([1, 0], [9, 77])
    bar = load_scheme("des-bar")
    found = class_weights("balanced", yes[:, None].astype(float), bar)
    assert found[:, 0] == pytest.approx(compute_class_weight("balanced", classes=np.array([0, 1]), y=yes))
    assert found[:, 0] == pytest.approx([86 / 2 / 77, 86 / 2 / 9])
    logits = np.random.default_rng(2).normal(size=86)
    each = compute_sample_weight("balanced", yes)
    votes = torch.full((86,), 10.0)
    given = torch.tensor(logits[:, None]), torch.tensor(yes[:, None], dtype=torch.float64)
    wanted = {
        "binary": each * np.logaddexp(0, np.where(yes, -logits, logits)),
        "mse": each * (1 / (1 + np.exp(-logits)) - yes) ** 2,
        "multinomial": each * 10 * np.logaddexp(0, np.where(yes, -logits, logits)),  # one way to be unanimous
    }
    for name, values in wanted.items():
        loss = loss_for(section(loss=name), bar, found)(*given, votes)
        assert float(loss) == pytest.approx(values.mean(), rel=1e-5), name
    with pytest.raises(UsageError, match=r"no stamp of the training subset has a vote for bar"):
        class_weights("balanced", np.zeros((5, 1)), bar)
    with pytest.raises(UsageError, match=r"every stamp of the training subset has all votes for bar"):
        class_weights("balanced", np.ones((5, 1)), bar)


def test_weights_by_name():
    assert class_weights("none", np.eye(5), CLASH) is None
    assert class_weights({"disk": 3.0}, np.eye(5), CLASH).tolist() == [1, 3, 1, 1, 1]
    with pytest.raises(UsageError, match=r"^training.class_weights: scheme 'clash' has no class 'disc'; "
                                         r"did you mean 'disk'\?$"):
        class_weights({"disc": 3.0}, np.eye(5), CLASH)
