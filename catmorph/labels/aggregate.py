"""From votes to labels: fractions P_T = N_T / N_tot, the mode of the votes, agreement, and who disagreed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from catmorph.errors import UsageError, listed
from catmorph.labels.ballots import LeftOut, Vote, Votes
from catmorph.labels.cells import number_cell, text_cell, write_table
from catmorph.schemes import Scheme

Ties = Literal["first", "refuse"]
TIE = "the most votes are tied"


def agreement(counts: np.ndarray) -> np.ndarray:
    """Return how far the voters agree, a(p) = 1 - H(p) / log(n), shape (stamp,).

    H is the entropy of the vote fractions p over the n classes: 1 where all voters agree, 0 where all classes got
    the same number of votes (Dieleman et al. 2015, MNRAS 450, 1441).

    Parameters
    ----------
    counts : ndarray of int, shape (stamp, class)
        Votes; each row has at least one.
    """
    fractions = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(fractions, out=np.zeros_like(fractions), where=fractions > 0)
    entropy = -(fractions * logs).sum(axis=1)
    return np.clip(1.0 - entropy / np.log(counts.shape[1]), 0.0, 1.0)


@dataclass(frozen=True)
class Labels:
    """Counted votes.

    Attributes
    ----------
    names : list of str (n)
        The labelled stamps, sorted.
    counts : int array (n, class)
        Their votes, in the order of the scheme.
    mode : int array (n,)
        Index of the class with most votes, of several the first of the scheme.
    tied : bool array (n,)
        Whether there are several.
    refused : list of (name, counts (class,), reason)
        The stamps without a label.
    votes : list of Vote
        Those behind the labels.
    rows : int
        Rows of the file of votes: votes behind labels and rows left out, together.
    left_out : list of LeftOut
    """

    names: list[str]
    counts: np.ndarray
    mode: np.ndarray
    tied: np.ndarray
    refused: list[tuple[str, np.ndarray, str]]
    votes: list[Vote]
    rows: int
    left_out: list[LeftOut]

    @property
    def disagreeing(self) -> np.ndarray:
        """Number of votes of each stamp that are not for its mode, shape (n,)."""
        return self.counts.sum(axis=1) - self.counts.max(axis=1, initial=0)

    def reasons(self) -> dict[str, list[LeftOut]]:
        """Return the rows left out by reason, the most frequent reason first."""
        grouped: dict[str, list[LeftOut]] = {}
        for one in self.left_out:
            grouped.setdefault(one.reason, []).append(one)
        return dict(sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0])))


def count_votes(votes: Votes, scheme: Scheme, *, minimum_votes: int, ties: Ties = "first") -> Labels:
    """Count the votes of each stamp.

    Stamps with fewer than `minimum_votes`, and tied ones where `ties` is ``refuse``, get no label; their votes are
    among the rows left out. The result does not depend on the order of the rows.

    Raises
    ------
    UsageError
        When the scheme asks several questions at once: a vote is for one of classes that exclude each other.
    """
    if scheme.kind != "softmax":
        raise UsageError(f"the classes of scheme {scheme.name!r} do not exclude each other: one vote cannot choose",
                         hint="aggregate each question by itself, with a scheme of its answers")
    names = sorted({vote.stamp for vote in votes.used})
    numbers = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(scheme.classes)), dtype=np.int64)
    np.add.at(counts, ([numbers[vote.stamp] for vote in votes.used], [vote.label for vote in votes.used]), 1)
    tied = (counts == counts.max(axis=1, keepdims=True, initial=0)).sum(axis=1) > 1
    few = counts.sum(axis=1) < minimum_votes
    kept = ~few & ~(tied & (ties == "refuse"))
    reasons = [f"fewer than {minimum_votes} votes" if short else TIE for short in few]
    refused = {names[i]: (names[i], counts[i], reasons[i]) for i in np.flatnonzero(~kept)}
    left_out = [
        LeftOut(vote.row, f"its stamp is refused: {refused[vote.stamp][2]}", vote.stamp, vote.user,
                scheme.class_names[vote.label])
        for vote in votes.used if vote.stamp in refused
    ]  # fmt: skip
    return Labels(
        names=[names[i] for i in np.flatnonzero(kept)],
        counts=counts[kept],
        mode=counts[kept].argmax(axis=1),
        tied=tied[kept],
        refused=list(refused.values()),
        votes=[vote for vote in votes.used if vote.stamp not in refused],
        rows=votes.rows,
        left_out=sorted([*votes.left_out, *left_out], key=lambda one: one.row),
    )


def output_files(path: Path) -> dict[str, Path]:
    """Return the files of a label table by what they hold: beside ``labels.csv`` lies ``labels.votes.csv``."""
    beside = {what: path.with_name(f"{path.stem}.{what}.csv") for what in ("votes", "refused", "left-out")}
    return {"labels": path, **beside}


def write_labels(path: Path, labels: Labels, scheme: Scheme, *, mode: bool = False) -> dict[str, Path]:
    """Write the label table and, before it, its companions; return the files by what they hold.

    ``labels``: ID, a column for each class (its `label` in the scheme), votes, disagree (votes for other classes
    than the majority's), agreement a(p), majority, tied. ``votes``: every vote behind a label. ``refused``: stamps
    without a label. ``left-out``: every row that does not count.

    Parameters
    ----------
    mode : bool
        Give 1 to the class of most votes and 0 to the others, instead of fractions.
    """
    files = output_files(path)
    _write_votes(files["votes"], labels, scheme)
    write_table(files["refused"], ["ID", "votes", "reason", *scheme.class_names], (
        [text_cell(name), str(counts.sum()), text_cell(reason), *map(str, counts)]
        for name, counts, reason in labels.refused
    ))  # fmt: skip
    write_table(files["left-out"], ["row", "reason", "stamp", "user", "answer"], (
        [str(one.row), *map(text_cell, (one.reason, one.stamp, one.user, one.answer))] for one in labels.left_out
    ))  # fmt: skip
    _write_table(path, labels, scheme, mode)
    return files


def _write_votes(path: Path, labels: Labels, scheme: Scheme) -> None:
    majority = dict(zip(labels.names, labels.mode, strict=True))
    write_table(path, ["stamp", "user", "class", "agrees", "row"], (
        [text_cell(vote.stamp), text_cell(vote.user), text_cell(scheme.class_names[vote.label]),
         str(vote.label == majority[vote.stamp]), str(vote.row)]
        for vote in sorted(labels.votes, key=lambda vote: (vote.stamp, vote.row))
    ))  # fmt: skip


def _write_table(path: Path, labels: Labels, scheme: Scheme, mode: bool) -> None:
    totals = labels.counts.sum(axis=1)
    shares = np.eye(len(scheme.classes))[labels.mode] if mode else labels.counts / totals[:, None]
    agreements = agreement(labels.counts)
    rows = zip(labels.names, shares, totals, labels.disagreeing, agreements, labels.mode, labels.tied, strict=True)
    header = ["ID", *(one.label for one in scheme.classes), "votes", "disagree", "agreement", "majority", "tied"]
    write_table(path, header, (
        [text_cell(name), *(number_cell(round(float(share), 9)) for share in row), str(total), str(others),
         number_cell(round(float(agrees), 6)), text_cell(scheme.class_names[best]), str(bool(tie))]
        for name, row, total, others, agrees, best, tie in rows
    ))  # fmt: skip


def account(labels: Labels) -> list[str]:
    """Return what became of the rows, a line each: rows = votes used + rows left out by reason."""
    lines = [f"{labels.rows} rows read = {len(labels.votes)} votes used + {len(labels.left_out)} left out"]
    for reason, rows in labels.reasons().items():
        answers = Counter(one.answer for one in rows if one.answer)
        few = ", ".join(f"{text[:40]!r} {count}" for text, count in answers.most_common(3))
        numbers = listed(one.row for one in rows)
        lines.append(f"{len(rows)} left out, {reason}: row {numbers}" + (f" ({few})" if few else ""))
    if labels.refused:
        names = [name for name, _, _ in labels.refused]
        lines.append(f"{len(names)} stamps refused: {listed(names)}")
    return lines
