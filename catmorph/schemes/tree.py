"""Decision trees of questions: how the answers of a network and of people hang together.

A question is asked where its parent answer was given, or always. Answers are numbered as the classes of the scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy  # its special functions are loaded where first used: half a second, which most commands do without

Reweight = Literal["cumulative", "parent"]


@dataclass(frozen=True)
class Tree:
    """A decision tree and the rule that makes probabilities of its answers.

    With s_a the sigmoid of the logit of answer a, its probability within its question q is
    c_a = s_a / (sum_{b in q} s_b + epsilon). With ``cumulative`` it is multiplied by those of all the answers that
    lead to q, so that each question sums to its parent answer, as in the label tables of the Galaxy Zoo challenge
    (Dieleman et al. 2015); with ``parent`` by c of the parent answer alone.

    Attributes
    ----------
    questions : tuple of tuple of int
        The answers of each question. Each answer belongs to one question; a parent's question comes first.
    parents : tuple of int
        The answer that leads to each question, -1 where it is always asked.
    reweight : {"cumulative", "parent"}
    epsilon : float
        What keeps a question without any probability from a division by zero; 0 leaves such a question to the
        ratio of its answers, which is computed in logarithms.
    """

    questions: tuple[tuple[int, ...], ...]
    parents: tuple[int, ...]
    reweight: Reweight = "cumulative"
    epsilon: float = 0.0

    @cached_property
    def size(self) -> int:
        """The number of answers."""
        return sum(map(len, self.questions))

    @cached_property
    def question_of(self) -> np.ndarray:
        """The question of each answer, int array (answer,)."""
        found = np.zeros(self.size, dtype=np.int64)
        for number, answers in enumerate(self.questions):
            found[list(answers)] = number
        return found

    @cached_property
    def members(self) -> np.ndarray:
        """The answers of each question, int array (question, answer of it), filled up with -1."""
        found = np.full((len(self.questions), max(map(len, self.questions))), -1, dtype=np.int64)
        for number, answers in enumerate(self.questions):
            found[number, : len(answers)] = answers
        return found

    @cached_property
    def place_of(self) -> np.ndarray:
        """The place of each answer in its question, its column of `members`, int array (answer,)."""
        return np.argmax(self.members[self.question_of] == np.arange(self.size)[:, None], axis=1)

    @cached_property
    def paths(self) -> np.ndarray:
        """Each answer and those that multiply it, int array (answer, step), filled up with -1."""
        rows = [self._path(answer) for answer in range(self.size)]
        found = np.full((self.size, max(map(len, rows))), -1, dtype=np.int64)
        for answer, row in enumerate(rows):
            found[answer, : len(row)] = row
        return found

    def _path(self, answer: int) -> list[int]:
        row = [answer]
        while (parent := self.parents[self.question_of[row[-1]]]) >= 0:
            row.append(parent)
            if self.reweight == "parent":
                break
        return row

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (..., answer) into probabilities of the same shape, float64; a question with NaN is NaN."""
        return self.chained(np.exp(self.log_conditional(logits)))

    def log_conditional(self, logits: np.ndarray) -> np.ndarray:
        """Return ln c (..., answer) of each answer within its question, float64."""
        score = scipy.special.log_expit(np.asarray(logits, dtype=np.float64))
        rest = np.log(self.epsilon) if self.epsilon else -np.inf
        # Epsilon is one more answer. Sums of logarithms would lose the ratio of answers that are all next to 0.
        padded = np.where(self.members >= 0, score[..., self.members], -np.inf)
        padded = np.concatenate([padded, np.full((*padded.shape[:-1], 1), rest)], axis=-1)
        return scipy.special.log_softmax(padded, axis=-1)[..., self.question_of, self.place_of]

    def averaged(self, logits: np.ndarray) -> np.ndarray:
        """Return logits (n, answer) of the mean of the probabilities that `logits` (pass, n, answer) give.

        With ``cumulative`` they give that mean itself, but for `epsilon`. With ``parent`` no logits do: they give each
        answer's share of its question, averaged with the weight that the question has in each pass.
        """
        logs = self.log_conditional(logits)
        chained = sum(np.where(step >= 0, logs[..., step], 0.0) for step in self.paths.T)
        mean = scipy.special.logsumexp(chained, axis=0)
        padded = np.where(self.members >= 0, mean[..., self.members], -np.inf)[..., self.question_of, :]
        itself = self.members[self.question_of] == np.arange(self.size)[:, None]
        # The log-odds of a share is its logarithm less that of the others together.
        return mean - scipy.special.logsumexp(np.where(itself, -np.inf, padded), axis=-1)

    def chained(self, conditional: np.ndarray) -> np.ndarray:
        """Multiply each answer's probability within its question (..., answer) by those of the answers before it."""
        product = np.ones(np.shape(conditional))
        for step in self.paths.T:
            product = product * np.where(step >= 0, conditional[..., step], 1.0)
        return product

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each question's answers, (..., answer) -> (..., question), float64."""
        values = np.asarray(values, dtype=np.float64)
        return np.where(self.members >= 0, values[..., self.members], 0.0).sum(axis=-1)

    def expected_sums(self, values: np.ndarray) -> np.ndarray:
        """Return what each question should sum to by the rule, (..., answer) -> (..., question), float64.

        1 for questions that are always asked; else the parent answer's value (``cumulative``), or its share of its
        own question (``parent``; 0 where that question has nothing).
        """
        values = np.asarray(values, dtype=np.float64)
        parents = np.array(self.parents)
        weights = values if self.reweight == "cumulative" else self.shares(values)
        return np.where(parents >= 0, weights[..., parents], 1.0)

    def shares(self, values: np.ndarray) -> np.ndarray:
        """Return each answer's share of its question, (..., answer), float64; 0 where the question has nothing."""
        values = np.asarray(values, dtype=np.float64)
        total = self.sums(values)[..., self.question_of]
        return np.divide(values, total, out=np.where(np.isnan(total), np.nan, np.zeros(values.shape)), where=total > 0)

    def path_taken(self, values: np.ndarray) -> np.ndarray:
        """Return the answers on the way down the tree, bool (..., answer).

        At each question that is asked, always or because its parent answer was given, the answer of the largest value
        is given, the first of equal ones. NaN rows give no answer.
        """
        values = np.asarray(values, dtype=np.float64)
        chosen = np.zeros(values.shape, dtype=bool)
        known = ~np.isnan(values).any(axis=-1)
        for answers, parent in zip(self.questions, self.parents, strict=True):
            asked = known if parent < 0 else chosen[..., parent]
            best = np.where(known, values[..., list(answers)].argmax(axis=-1, keepdims=False), -1)
            for place, answer in enumerate(answers):
                chosen[..., answer] = asked & (best == place)
        return chosen

    def entropies(self, values: np.ndarray) -> np.ndarray:
        """Return the entropy of the answers in nats, (..., answer) -> (...,), float64.

        The sum over questions of the probability that it is asked times the entropy of its answers,
        sum_q [sum_{a in q} -p_a ln p_a + P_q ln P_q] with P_q the sum of its answers.
        """
        values = np.asarray(values, dtype=np.float64)
        entr = scipy.special.entr
        return np.maximum(entr(values).sum(axis=-1) - entr(self.sums(values)).sum(axis=-1), 0.0)

    def cross_entropies(self, values: np.ndarray, fractions: np.ndarray, smallest: float) -> np.ndarray:
        """Return the cross-entropy -sum_a f_a ln(share of a in its question), in nats, (..., answer) -> (...,).

        Each question counts as much as its fractions sum to, which is the fraction of its parent answer. Shares
        below `smallest` count as that.
        """
        logs = np.log(np.maximum(self.shares(values), smallest))
        return -(np.asarray(fractions, dtype=np.float64) * logs).sum(axis=-1)

    def longest(self, names: Sequence[str], separator: str = "|") -> int:
        """Return the number of characters of the longest way down the tree, answers joined by `separator`."""

        def below(question: int) -> int:
            return max(len(names[answer]) + len(separator) + sum(map(below, self._asked_after(answer)))
                       for answer in self.questions[question])

        return sum(map(below, self._asked_after(-1))) - len(separator)

    def _asked_after(self, answer: int) -> list[int]:
        return [number for number, parent in enumerate(self.parents) if parent == answer]
