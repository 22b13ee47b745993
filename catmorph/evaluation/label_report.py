"""What a label table holds: class means, votes, agreement, the baseline to beat and the floor nobody can pass."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catmorph.errors import SHOWN, UsageError, listed
from catmorph.evaluation.metrics import authors_rmse, mean_label, rmse, vote_noise
from catmorph.labels.chosen import ROUNDING, mode
from catmorph.labels.tables import SUM_TOLERANCE, LabelTable
from catmorph.release.text import text_table
from catmorph.schemes import Scheme
from catmorph.schemes.tree import Reweight
from catmorph.templates import fill_some, matcher, pattern_problem

UNANIMOUS = 1.0 - ROUNDING


@dataclass(frozen=True)
class Names:
    """What stamp names say: sources counted by (field, id), stamps of each view, and names that say nothing."""

    sources: int | None
    fields: dict[str, int]
    views: dict[str, int]
    unread: tuple[str, ...]


def rename_columns(scheme: Scheme, columns: Mapping[str, str]) -> Scheme:
    """Return `scheme` with the label table's own column names for some classes.

    Raises
    ------
    UsageError
        When a class is unknown, or a column would be that of two classes.
    """
    for name in columns:
        scheme.index(name)
    classes = tuple(one.model_copy(update={"label": columns.get(one.name, one.label)}) for one in scheme.classes)
    twice = [label for label, count in Counter(one.label for one in classes).items() if count > 1]
    if twice:
        raise UsageError(f"column {twice[0]!r} is that of several classes")
    return scheme.model_copy(update={"classes": classes})


def read_names(names: Sequence[str], pattern: str, views: Iterable[str] = ()) -> Names:
    """Read fields, ids and views back out of stamp names by a pattern of {field}, {id} and {view}.

    With `views`, a name must have one of them, so that a field may hold what separates it from the view's. A
    source is a (field, id); where the pattern has no {id}, sources are not counted.

    Raises
    ------
    UsageError
        When the pattern uses another placeholder.
    """
    problem = pattern_problem(pattern, ("field", "id", "view"))
    if problem:
        raise UsageError(problem)
    views = tuple(views) if "{view" in pattern else ()
    patterns = {view: matcher(fill_some(pattern, {"view": view})) for view in views} or {"": matcher(pattern)}
    found, unread = [], []
    for name in names:
        groups = _groups(name, patterns)
        if groups is None:
            unread.append(name)
        else:
            found.append(groups)
    counted = Counter(one["view"] for one in found if one.get("view"))
    order = {view: number for number, view in enumerate(views)}
    return Names(
        sources=len({(one.get("field"), one["id"]) for one in found}) if "{id" in pattern else None,
        fields=dict(sorted(Counter(one["field"] for one in found if "field" in one).items())),
        views=dict(sorted(counted.items(), key=lambda item: (order.get(item[0], -1), item[0]))),
        unread=tuple(unread),
    )


def report(table: LabelTable, scheme: Scheme, names: Names, assumed_votes: float | None = None) -> dict[str, Any]:
    """Return what the table holds as plain numbers.

    RMSE by both definitions, over all stamps and classes, and by stamp (what the authors of Perez-Carrasco et al.
    2019 compute): of always answering the mean label, and of the noise of the votes alone, f (1 - f) / (N - 1)
    with the table's votes, or with `assumed_votes` where it has none. Where the scheme has questions, how many rows
    disobey each, by both rules of `catmorph.schemes.tree.Tree`.
    """
    fractions = table.fractions.astype(np.float64)
    decided, tied, unanimous = _decisions(fractions, scheme)
    result: dict[str, Any] = {
        "stamps": len(table),
        "sources": names.sources,
        "fields": names.fields,
        "views": names.views,
        "names_not_read": len(names.unread),
        "names_not_read_first": list(names.unread[:SHOWN]),
        "classes": {
            one.name: {"mean": float(fractions[:, k].mean()), "majority": int(decided[~tied, k].sum()),
                       "unanimous": int((fractions[:, k] >= UNANIMOUS).sum())}
            for k, one in enumerate(scheme.classes)
        },
        "left_out": [{"reason": one.reason, "rows": one.count, "first": list(one.first)} for one in table.left_out],
        "tree": _tree(fractions, scheme),
        "tied": int(tied.sum()),
        "unanimous_share": float(unanimous.mean()),
    }  # fmt: skip
    baseline = mean_label(fractions, len(fractions))
    result["mean_label_rmse"] = rmse(baseline, fractions)
    result["mean_label_rmse_authors"] = authors_rmse(baseline, fractions)
    return {**result, **_votes(table, fractions, assumed_votes)}


def _decisions(fractions: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what most votes are for (row, class), and which rows are tied and unanimous (row,).

    Of classes that exclude each other one; of questions every yes, and down a tree an answer to each that is asked.
    """
    if scheme.kind == "softmax":
        top = np.sort(fractions, axis=1)
        return mode(fractions, scheme) > 0, np.isclose(top[:, -1], top[:, -2], atol=ROUNDING), top[:, -1] >= UNANIMOUS
    unanimous = np.maximum(fractions, 1 - fractions).min(axis=1) >= UNANIMOUS
    if scheme.tree is not None:
        return scheme.tree.path_taken(fractions), np.zeros(len(fractions), dtype=bool), unanimous
    return mode(fractions, scheme) > 0, np.isclose(fractions, 0.5, atol=ROUNDING).any(axis=1), unanimous


def _tree(fractions: np.ndarray, scheme: Scheme) -> dict[str, Any] | None:
    """Return how many rows of (row, class) miss the sum of each question by more than the tolerance, by both rules."""
    if scheme.tree is None:
        return None
    questions: list[dict[str, Any]] = [{"question": one.name, "asked_after": one.parent} for one in scheme.questions]
    rows: dict[str, int] = {}
    rules: tuple[Reweight, Reweight] = ("cumulative", "parent")
    for rule in rules:
        tree = replace(scheme.tree, reweight=rule)
        off = np.abs(tree.sums(fractions) - tree.expected_sums(fractions))
        rows[rule] = int((off > SUM_TOLERANCE).any(axis=1).sum())
        for record, values in zip(questions, off.T, strict=True):
            record[rule] = {"disobey": int((values > SUM_TOLERANCE).sum()), "largest": float(values.max(initial=0))}
    return {"tolerance": SUM_TOLERANCE, "disobey": rows, "questions": questions}


def _votes(table: LabelTable, fractions: np.ndarray, assumed: float | None) -> dict[str, Any]:
    result: dict[str, Any] = {"votes": None, "votes_assumed": None}
    if table.votes is not None:
        votes = np.asarray(table.votes, dtype=np.float64)
        result["votes"] = {"total": float(votes.sum()), "least": float(votes.min()),
                           "median": float(np.median(votes)), "most": float(votes.max())}  # fmt: skip
    elif assumed is not None:
        votes, result["votes_assumed"] = np.full(len(fractions), float(assumed)), assumed
    else:
        return {**result, "vote_noise_rmse": None, "vote_noise_rmse_authors": None}
    floors = [None if np.isnan(floor) else floor for floor in vote_noise(fractions, votes)]
    return {**result, "vote_noise_rmse": floors[0], "vote_noise_rmse_authors": floors[1]}


def report_lines(found: Mapping[str, Any], scheme: Scheme) -> list[str]:
    """Return the report as lines for the terminal."""
    sources = "" if found["sources"] is None else f" of {found['sources']:,} sources"
    lines = [f"{found['stamps']:,} stamps{sources}, {len(found['fields'])} fields, {len(found['views'])} views"]
    if found["names_not_read"]:
        lines.append(f"{found['names_not_read']} names do not follow the pattern: "
                     f"{listed(found['names_not_read_first'], found['names_not_read'])}")
    lines += ["", *text_table(("class", "mean", "majority", "unanimous"), [
        (one.title, f"{values['mean']:.4f}", values["majority"], values["unanimous"])
        for one, values in zip(scheme.classes, found["classes"].values(), strict=True)
    ])]  # fmt: skip
    lines += [f"{one['rows']} rows left out, {one['reason']}: {', '.join(one['first'])}"
              + (" ..." if one["rows"] > len(one["first"]) else "") for one in found["left_out"]]
    lines += _tree_lines(found["tree"])
    lines += [f"{found['tied']} tied, {100 * found['unanimous_share']:.1f}% unanimous", ""]
    if found["views"]:
        lines += [*text_table(("view", "stamps"), list(found["views"].items())), ""]
    lines += text_table(("RMSE", "global", "authors'"), [
        ("always the mean label", *_pair(found, "mean_label_rmse")),
        ("noise of the votes", *_pair(found, "vote_noise_rmse")),
    ])  # fmt: skip
    return [*lines, _votes_line(found)]


def _tree_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    rows = [(one["question"], one["asked_after"] or "always", *(text for rule in ("cumulative", "parent") for text in
             (one[rule]["disobey"], f"{one[rule]['largest']:.4f}"))) for one in found["questions"]]  # fmt: skip
    header = ("question", "asked after", "cumulative", "at most", "parent rule", "at most")
    counts = found["disobey"]
    return ["rows whose answers to a question do not sum to the parent answer's fraction (cumulative), or to its share "
            "of its own question",
            f"(parent rule), within {found['tolerance']:g}, and the largest miss: {counts['cumulative']} rows disobey "
            f"the first somewhere, {counts['parent']} the second", *text_table(header, rows), ""]


def _pair(found: Mapping[str, Any], key: str) -> tuple[str, str]:
    first, second = (found[name] for name in (key, f"{key}_authors"))
    return ("-" if first is None else f"{first:.4f}"), ("-" if second is None else f"{second:.4f}")


def _votes_line(found: Mapping[str, Any]) -> str:
    if found["votes"]:
        return "votes: {total:,.0f}, {least:g} to {most:g} a stamp, median {median:g}".format(**found["votes"])
    if found["votes_assumed"]:
        return f"votes: not in the table, {found['votes_assumed']:g} a stamp assumed"
    return "votes: not in the table; --votes N gives the noise of N votes a stamp"


def _groups(name: str, patterns: Mapping[str, re.Pattern[str]]) -> dict[str, str] | None:
    for view, pattern in patterns.items():
        match = pattern.match(name)
        if match:
            return {**match.groupdict(), **({"view": view} if view else {})}
    return None
