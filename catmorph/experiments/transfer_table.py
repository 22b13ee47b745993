"""The table of the five networks of a transfer: how many positives each finds, and how many of its are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from catmorph.errors import CatmorphError
from catmorph.evaluation.curves import Curves, curves, undefined
from catmorph.experiments.transfer import APPLIED, NETWORKS, SOURCE
from catmorph.experiments.transfer_run import Answered
from catmorph.labels import LabelledStamps
from catmorph.labels.cells import text_cell
from catmorph.release.intervals import Interval, exact

RATES = ("TPR", "precision", "accuracy")
"""The columns of Table 2 of Dominguez Sanchez et al. (2019), with those of the numbers of stamps."""


@dataclass(frozen=True)
class Counts:
    """Test stamps by what people say and what the network says, at one threshold."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @classmethod
    def of(cls, probability: np.ndarray, positive: np.ndarray, threshold: float) -> Counts:
        """Count stamps; positive is called what has at least the probability `threshold`."""
        called, positive = np.asarray(probability) >= threshold, np.asarray(positive, dtype=bool)
        return cls(*(int(np.count_nonzero(one)) for one in
                     (called & positive, called & ~positive, ~called & positive, ~called & ~positive)))  # fmt: skip

    @property
    def total(self) -> int:
        """All stamps."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def positives(self) -> int:
        """Stamps that people call positive."""
        return self.true_positive + self.false_negative

    def fraction(self, name: str) -> tuple[int, int]:
        """Return numerator and denominator of one of `RATES`.

        TPR (completeness) is TP / (TP + FN), precision (purity) TP / (TP + FP), accuracy (TP + TN) / N.
        """
        return {
            "TPR": (self.true_positive, self.positives),
            "precision": (self.true_positive, self.true_positive + self.false_positive),
            "accuracy": (self.true_positive + self.true_negative, self.total),
        }[name]

    def rate(self, name: str) -> float | None:
        """Return one of `RATES`; None where its denominator is zero."""
        count, total = self.fraction(name)
        return count / total if total else None

    def interval(self, name: str, confidence: float) -> Interval | None:
        """Return the exact binomial interval (Clopper & Pearson 1934) of one of `RATES`; None as `rate`."""
        return exact(*self.fraction(name), confidence)


@dataclass(frozen=True)
class Tested:
    """One network on its test stamps.

    `rows` are those of `data`, the labelled stamps of the survey it was tested in; `training` counts the stamps of its
    subsets, none where nothing was trained.
    """

    answered: Answered
    network: str
    data: LabelledStamps
    rows: np.ndarray
    probability: np.ndarray
    positive: np.ndarray
    training: dict[str, int]

    @classmethod
    def of(cls, answered: Answered, network: str) -> Tested:
        """Return a network with a result."""
        found, surveys = answered.results[network], answered.surveys
        answers, data = found["answers"], surveys.source if network == SOURCE else surveys.target
        rows = np.array(answers["rows"], dtype=np.int64)
        if rows.max(initial=-1) >= len(data):
            raise CatmorphError(f"the result of network ({network}) is of other stamps than there are",
                                where=answered.question.folder / "results", hint="delete it and run again")
        return cls(
            answered, network, data, rows, np.array(answers["probability"], dtype=np.float64),
            np.array(answers["positive"], dtype=bool), {} if network == APPLIED else found["stamps"],
        )  # fmt: skip

    @property
    def threshold(self) -> float:
        """Probability from which a stamp is called positive."""
        return self.answered.question.target.experiments.threshold

    @property
    def title(self) -> str:
        """The network in words."""
        return self.answered.question.describe(self.network)

    @cached_property
    def counts(self) -> Counts:
        """The four numbers at the threshold."""
        return Counts.of(self.probability, self.positive, self.threshold)

    @cached_property
    def curves(self) -> Curves | None:
        """The ROC curve and its area; None where the test has stamps of one kind only."""
        return None if undefined(self.positive) else curves(self.probability, self.positive)

    @property
    def false_positives(self) -> np.ndarray:
        """Places in `rows` of the false positives, the surest first."""
        wrong = np.flatnonzero(~self.positive & (self.probability >= self.threshold))
        return wrong[np.argsort(-self.probability[wrong], kind="stable")]


def networks_of(answered: Sequence[Answered]) -> list[Tested]:
    """Return the networks with a result, question by question, in the order of the published table."""
    return [Tested.of(one, network) for one in answered for network in NETWORKS if network in one.results]


def as_table(networks: Sequence[Tested]) -> pd.DataFrame:
    """Return one row a network: numbers of stamps, the four counts, the rates with their intervals, the ROC area."""
    return pd.DataFrame([_record(one) for one in networks])


def _record(one: Tested) -> dict[str, Any]:
    counts, question = one.counts, one.answered.question
    confidence = question.target.evaluation.confidence
    row: dict[str, Any] = {
        "recipe": question.target.name, "question": question.title, "experiment": one.network, "network": one.title,
        "N_train": one.training.get("training", 0), "N_validation": one.training.get("validation", 0),
        "N_test": counts.total, "N_pos": counts.positives, "TP": counts.true_positive, "FP": counts.false_positive,
        "FN": counts.false_negative, "TN": counts.true_negative, "P_th": one.threshold,
    }  # fmt: skip
    for name in RATES:
        low, high = counts.interval(name, confidence) or (None, None)
        row |= {name: counts.rate(name), f"{name}_low": low, f"{name}_high": high}
    return row | {"ROC_area": None if one.curves is None else one.curves.roc_area}


def page_rows(networks: Sequence[Tested]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the page's table; a rate without stamps is blank."""
    header = ["question", "experiment", "network", "N_train", "N_test", "N_pos", *RATES, "ROC area"]
    rows: list[list[object]] = []
    for one in networks:
        record = _record(one)
        area = "" if record["ROC_area"] is None else f"{record['ROC_area']:.3f}"
        rows.append([record["question"], f"({one.network})", one.title,
                     *(record[name] for name in ("N_train", "N_test", "N_pos")),
                     *(_cell(record, name) for name in RATES), area])  # fmt: skip
    return header, rows


def _cell(record: dict[str, Any], name: str) -> str:
    if record[name] is None:
        return ""
    return f"{record[name]:.3f} ({record[f'{name}_low']:.3f} to {record[f'{name}_high']:.3f})"


def answers_csv(networks: Sequence[Tested]) -> bytes:
    """Return every test stamp of every network with its probability, as CSV; its name cannot be run as a formula."""
    lines = ["recipe,experiment,stamp,probability,positive"]
    for one in networks:
        name = text_cell(one.answered.question.target.name)
        for stamp, probability, positive in zip(one.data.called[one.rows], one.probability, one.positive, strict=True):
            lines.append(f"{name},{one.network},{text_cell(stamp)},{probability:.7g},{int(positive)}")
    return ("\n".join(lines) + "\n").encode()


def notes(answered: Sequence[Answered]) -> Iterator[str]:
    """Yield what has to be known of the test stamps, a sentence each."""
    for one in answered:
        question, surveys = one.question, one.surveys
        if surveys.shared:
            yield (f"{question.target.name}: {surveys.shared:,} stamps of {question.source.name} are left out, because "
                   f"their objects are among those of {question.target.name}.")  # fmt: skip
        elif not surveys.placed:
            yield (f"{question.target.name}: without positions in both surveys, objects of {question.source.name} that "
                   f"are also in {question.target.name} could not be left out.")  # fmt: skip
        yield from _same_stamps(one)


def _same_stamps(answered: Answered) -> Iterator[str]:
    """Tell how the source network does on the very test stamps of the networks of the target survey."""
    others = [network for network in NETWORKS if network not in (SOURCE, APPLIED) and network in answered.results]
    if APPLIED not in answered.results or not others:
        return
    rows = answered.results[others[0]]["answers"]["rows"]
    whole = Tested.of(answered, APPLIED)
    same = np.isin(whole.rows, rows)
    counts = Counts.of(whole.probability[same], whole.positive[same], whole.threshold)
    told = ", ".join(f"{name} {rate:.3f}" for name in RATES if (rate := counts.rate(name)) is not None)
    yield (f"{answered.question.target.name}: on the {counts.total:,} test stamps of ({others[0]}) alone, network (a) "
           f"has {told}.")  # fmt: skip
