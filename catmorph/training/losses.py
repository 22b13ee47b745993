"""Losses of vote fractions and of votes.

In all formulas i counts the n stamps of a batch and c the classes, f is the vote fraction, p the network's
probability, N the number of votes behind a stamp, k = N f its votes for each class, and w the weight of a class
(1 by default).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from catmorph.errors import UsageError, suggest
from catmorph.recipe import TrainingSection
from catmorph.schemes import Form, Scheme
from catmorph.schemes.tree import Tree

BatchLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits (n, class), fractions (n, class), votes (n,) or None) -> the batch's loss, one number."""

LEAST_CONCENTRATION, LARGEST_CONCENTRATION = 1e-3, 1e6
"""Beyond these the likelihood of any number of human votes does not change, but rounding would show."""


@dataclass(frozen=True)
class Loss:
    """What a name of ``training.loss`` stands for.

    `function` takes logits, fractions, votes (with `needs_votes`), weights and the scheme's form. `exclusive` says that
    it is only for classes that exclude each other.
    """

    function: Callable[..., Tensor]
    needs_votes: bool = False
    exclusive: bool = False


def loss_for(section: TrainingSection, scheme: Scheme, weights: np.ndarray | None = None) -> BatchLoss:
    """Return the loss that ``section.loss`` names for the classes of `scheme`.

    Parameters
    ----------
    weights : ndarray of shape (class,) or (2, class), optional
        Weights of the classes, or of the answers no and yes to each, see `class_weights`.

    Raises
    ------
    UsageError
        When the loss does not suit the scheme.
    """
    if LOSSES[section.loss].exclusive and scheme.kind != "softmax":
        raise UsageError(
            f"training.loss {section.loss!r} needs classes that exclude each other; those of scheme {scheme.name!r} "
            "do not",
            hint="use 'multinomial' or 'binary'",
        )
    made = torch.ones(len(scheme.classes)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    # With several GPUs it is pickled.
    return partial(_loss, section.loss, scheme.form, made)


def _loss(name: str, form: Form, weights: Tensor, logits: Tensor, fractions: Tensor, votes: Tensor | None) -> Tensor:
    loss, weights = LOSSES[name], weights.to(logits.device)
    if not loss.needs_votes:
        return loss.function(logits, fractions, weights, form)
    if votes is None:
        raise UsageError(f"training.loss {name!r} needs the number of votes", hint="set labels.votes_column")
    return loss.function(logits, fractions, votes, weights, form)


def cross_entropy(logits: Tensor, fractions: Tensor, weights: Tensor, form: Form = "softmax") -> Tensor:
    """Return the cross-entropy of the vote fractions, in nats.

    For classes that exclude each other (`form` ``softmax``) -1/n sum_ic w_c f_ic ln p_ic, the loss of
    Perez-Carrasco et al. (2019); for independent questions (``sigmoid``) the same as `binary`. For a tree the same
    formula with the probability of each answer within its question for p: the sum of the questions' cross-entropies,
    each times the fraction of its parent answer, which is what its own fractions sum to.
    """
    if form == "sigmoid":
        return binary(logits, fractions, weights, form)
    return -(weights * fractions * _log_shares(logits.float(), form)).sum(dim=1).mean()


def binary(logits: Tensor, fractions: Tensor, weights: Tensor, form: Form = "softmax") -> Tensor:
    """Return the cross-entropy of each class alone, averaged over classes and stamps, in nats.

    -1/(n C) sum_ic w_c [f_ic ln p_ic + (1 - f_ic) ln(1 - p_ic)] with C classes, where p is the probability that
    the scheme releases: softmax or sigmoid of the logits, or that of a tree. With weights of the answers, that of
    yes stands before the first term and that of no before the second.
    """
    yes, no = _log_probabilities(logits.float(), form)
    of_no, of_yes = _answers(weights)
    return -(of_yes * fractions * yes + of_no * (1 - fractions) * no).mean()


def square_error(logits: Tensor, fractions: Tensor, weights: Tensor, form: Form = "softmax") -> Tensor:
    """Return the mean square error 1/(n C) sum_ic w_c (p_ic - f_ic)^2; its root is the loss ``rmse``.

    With weights of the answers w_c is their mean by the votes, f w_yes + (1 - f) w_no.
    """
    return (_by_votes(weights, fractions) * (probabilities(logits, form) - fractions).square()).mean()


def root_square_error(logits: Tensor, fractions: Tensor, weights: Tensor, form: Form = "softmax") -> Tensor:
    """Return the root of `square_error`."""
    return square_error(logits, fractions, weights, form).sqrt()


def multinomial(
    logits: Tensor, fractions: Tensor, votes: Tensor, weights: Tensor, form: Form = "softmax"
) -> Tensor:
    """Return the negative log-likelihood of the votes under the network's probabilities, averaged over stamps.

    For classes that exclude each other the multinomial distribution:
    ln P = ln G(N + 1) - sum_c ln G(k_c + 1) + sum_c w_c k_c ln p_c, with G the gamma function, so that votes need
    not be whole numbers. For independent questions, each with N answers, the sum of their binomial terms:
    sum_c w_c [ln G(N + 1) - ln G(k_c + 1) - ln G(N - k_c + 1) + k_c ln p_c + (N - k_c) ln(1 - p_c)].
    For a tree the sum of the questions' multinomial terms, each with as many answers as its fractions sum to, and
    with the probability of each answer within its question for p (as Walmsley et al. 2020, Sect. 3.1, for one of them).
    """
    total = votes.double()[:, None]
    counts = total * fractions.double()
    if form == "sigmoid":
        yes, no = _log_probabilities(logits.double(), form)
        rest = total - counts
        ways = torch.lgamma(total + 1) - torch.lgamma(counts + 1) - torch.lgamma(rest + 1)
        of_no, of_yes = _answers(weights)
        return -(_by_votes(weights, fractions) * ways + of_yes * counts * yes + of_no * rest * no).sum(dim=1).mean()
    answered = question_sums(counts, form) if isinstance(form, Tree) else total
    ways = torch.lgamma(answered + 1).sum(dim=1) - torch.lgamma(counts + 1).sum(dim=1)
    return -(ways + (weights * counts * _log_shares(logits.double(), form)).sum(dim=1)).mean()


def dirichlet_multinomial(
    logits: Tensor, fractions: Tensor, votes: Tensor, weights: Tensor, form: Form = "softmax"
) -> Tensor:
    """Return the negative log-likelihood of the votes when each stamp's probabilities are themselves uncertain.

    The concentrations are a_c = exp(logit_c), so that their mean a_c / A, with A = sum_c a_c, is the softmax that
    the scheme releases, and A says how sure the network is of it (Walmsley et al. 2020, Sect. 3.1, use such a
    likelihood for one question of Galaxy Zoo):
    ln P = ln G(A) + ln G(N + 1) - ln G(N + A) + sum_c [ln G(k_c + a_c) - ln G(a_c) - ln G(k_c + 1)].
    A is kept between 0.001 and 1e6. Each stamp weighs sum_c w_c f_c.
    """
    logits, fractions, total = logits.double(), fractions.double(), votes.double()
    size = torch.logsumexp(logits, dim=1, keepdim=True)
    size = size.clamp(math.log(LEAST_CONCENTRATION), math.log(LARGEST_CONCENTRATION))
    # Smaller ones are 0 to float64, where ln G is infinite.
    alpha = (functional.log_softmax(logits, dim=1) + size).clamp(min=-600).exp()
    counts, concentration = total[:, None] * fractions, size[:, 0].exp()
    terms = torch.lgamma(counts + alpha) - torch.lgamma(alpha) - torch.lgamma(counts + 1)
    whole = torch.lgamma(concentration) + torch.lgamma(total + 1) - torch.lgamma(total + concentration)
    return -((weights * fractions).sum(dim=1) * (whole + terms.sum(dim=1))).mean()


def _answers(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of no and of yes, each of shape (class,)."""
    return (weights, weights) if weights.ndim == 1 else (weights[0], weights[1])


def _by_votes(weights: Tensor, fractions: Tensor) -> Tensor:
    of_no, of_yes = _answers(weights)
    return weights if weights.ndim == 1 else fractions * of_yes + (1 - fractions) * of_no


def probabilities(logits: Tensor, form: Form) -> Tensor:
    """Return the probabilities that a scheme of `form` releases, shape (n, class), float32; see `Scheme`."""
    if isinstance(form, Tree):
        return _chained(_log_shares(logits.float(), form).exp(), form)
    return logits.float().sigmoid() if form == "sigmoid" else logits.float().softmax(dim=1)


def question_sums(values: Tensor, tree: Tree) -> Tensor:
    """Return the sum of the answers of each question, (n, answer) -> (n, question)."""
    members = torch.as_tensor(tree.members, device=values.device)
    return values[:, members].masked_fill(members < 0, 0.0).sum(dim=2)


def class_weights(
    wanted: str | Mapping[str, float], fractions: np.ndarray, scheme: Scheme
) -> np.ndarray | None:
    """Return the weight of each class, shape (class,), or None for ``none``.

    ``balanced`` gives w_c = 1 / (C mean_i f_ic) for C classes, over the stamps of the training subset; for labels
    without doubt it is what scikit-learn's ``compute_class_weight`` gives. Of independent questions the answers of
    each are balanced instead, shape (2, class): no weighs 1 / (2 mean_i (1 - f_ic)), yes 1 / (2 mean_i f_ic), as
    Dominguez Sanchez et al. (2019) do for Q2 and Q3. A table gives weights by class name; classes that it leaves out
    weigh 1.

    Parameters
    ----------
    fractions : ndarray of shape (n, class)
        Vote fractions of the training subset.

    Raises
    ------
    UsageError
        For an unknown class name, or ``balanced`` with a class that nobody voted for.
    """
    if wanted == "none":
        return None
    if isinstance(wanted, str):
        mean = np.asarray(fractions, dtype=np.float64).mean(axis=0)
        empty = [name for name, value in zip(scheme.class_names, mean, strict=True) if not value > 0]
        if empty:
            raise UsageError(f"no stamp of the training subset has a vote for {', '.join(empty)}",
                             where="training.class_weights", hint="give a table of weights, or label more stamps")
        if scheme.kind != "sigmoid":
            return 1.0 / (len(mean) * mean)
        sure = [name for name, value in zip(scheme.class_names, mean, strict=True) if not value < 1]
        if sure:
            raise UsageError(f"every stamp of the training subset has all votes for {', '.join(sure)}",
                             where="training.class_weights", hint="give a table of weights, or label more stamps")
        return 0.5 / np.stack([1.0 - mean, mean])
    for name in wanted:
        if name not in scheme.class_names:
            raise UsageError(f"scheme {scheme.name!r} has no class {name!r}", where="training.class_weights",
                             hint=suggest(name, scheme.class_names))
    return np.array([wanted.get(name, 1.0) for name in scheme.class_names])


def _log_shares(logits: Tensor, form: Form) -> Tensor:
    """Return ln p where one answer of several is given: the classes of a softmax, or of each question of a tree."""
    return _tree_logs(logits, form)[0] if isinstance(form, Tree) else functional.log_softmax(logits, dim=1)


def _log_probabilities(logits: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Return ln p and ln(1 - p), without cancellation where p is next to 1."""
    if isinstance(form, Tree):
        return _chained_logs(*_tree_logs(logits, form), form)
    if form == "sigmoid":
        return functional.logsigmoid(logits), functional.logsigmoid(-logits)
    yes = functional.log_softmax(logits, dim=1)
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = yes[:, None, :].masked_fill(itself, -math.inf)
    return yes, torch.logsumexp(others, dim=2)


def _tree_logs(logits: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
    """Return ln c and ln(1 - c) of each answer within its question, each of shape (n, answer)."""
    members, question, place = (
        torch.as_tensor(one, device=logits.device) for one in (tree.members, tree.question_of, tree.place_of)
    )
    padded = functional.logsigmoid(logits)[:, members].masked_fill(members < 0, -math.inf)
    rest = math.log(tree.epsilon) if tree.epsilon else -math.inf
    # As in Tree.log_conditional.
    padded = functional.log_softmax(functional.pad(padded, (0, 1), value=rest), dim=2)[:, question]
    itself = torch.arange(padded.shape[2], device=logits.device) == place[:, None]
    chosen = padded[:, torch.arange(tree.size, device=logits.device), place]
    return chosen, torch.logsumexp(padded.masked_fill(itself, -math.inf), dim=2)


def _chained(shares: Tensor, tree: Tree) -> Tensor:
    """Multiply each answer's probability within its question by those of the answers before it, (n, answer)."""
    product = shares
    for step in torch.as_tensor(tree.paths.T[1:], device=shares.device):
        product = product * shares[:, step].masked_fill(step < 0, 1.0)
    return product


def _chained_logs(yes: Tensor, no: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
    """Return ln p and ln(1 - p) of the products: 1 - ab = (1 - a) + a (1 - b)."""
    every, none = yes, no
    for step in torch.as_tensor(tree.paths.T[1:], device=yes.device):
        # A step that is not there multiplies by 1; the smallest number instead of ln 0 keeps gradients finite.
        smallest = torch.finfo(yes.dtype).min
        none = torch.logaddexp(none, every + no[:, step].masked_fill(step < 0, smallest))
        every = every + yes[:, step].masked_fill(step < 0, 0.0)
    return every, none


LOSSES = {
    "cross-entropy": Loss(cross_entropy),
    "rmse": Loss(root_square_error),
    "mse": Loss(square_error),
    "binary": Loss(binary),
    "multinomial": Loss(multinomial, needs_votes=True),
    "dirichlet": Loss(dirichlet_multinomial, needs_votes=True, exclusive=True),
}
"""The losses by name; `TrainingSection.loss` takes the same names."""
