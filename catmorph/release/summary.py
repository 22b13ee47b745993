"""Counting a release: classes and mergers by view and field, and the account of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatmorphError, CheckpointError
from catmorph.files import write_bytes, write_json
from catmorph.inference.members import all_temperatures, members, remarks
from catmorph.models.header import load_card
from catmorph.quality import FLAGS
from catmorph.recipe import Recipe
from catmorph.release.account import omission
from catmorph.release.card_tests import CardTest, card_test
from catmorph.release.counts import Counts, counted, no_counts
from catmorph.release.kept import Basis, keep_counts, kept_counts
from catmorph.release.layout import Key
from catmorph.release.reading import made_of_results
from catmorph.release.results import Temperatures
from catmorph.release.summary_text import summary_markdown, summary_table
from catmorph.release.tally import Rules, Tally, fraction
from catmorph.workspace import RunFolder, read_columns

FAULTY_KINDS = ("bad_cell", "duplicate")
"""Kinds of rejected rows that are faults of the catalog (a cut is not)."""

Tests = Mapping[str, CardTest]
"""Classifier -> the test of its network."""

_MOST_REASONS = 50
_MOST_FAILURES = 100


@dataclass(frozen=True)
class Summary:
    """What `summarize` found.

    Attributes
    ----------
    values : dict
        The content of summary.json.
    changed : sequence of str
        What has changed since the catalog beside it was written; nothing where the two agree.
    """

    values: dict[str, Any]
    changed: Sequence[str] = ()

    @property
    def exceeds_tolerance(self) -> bool:
        """Whether more rows have a fault than the recipe tolerates (exit status 3)."""
        return self.values["faults"]["exceeds_tolerance"]

    @property
    def fault_fraction(self) -> float:
        """Rows with a fault, as a fraction of the rows read."""
        return self.values["faults"]["fraction"]

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return self.values

    def text(self) -> str:
        """Return the account and the tables by view and field as text for the terminal."""
        return summary_table(self.values)

    def markdown(self) -> str:
        """Return the content of summary.md."""
        return summary_markdown(self.values)


def summarize(
    run: RunFolder, figures: Sequence[str] = (), *, workers: int = 1, shown: bool = False, compared: bool = False
) -> Summary:
    """Count the release of `run`; write release/summary.json and release/summary.md.

    Parameters
    ----------
    figures : sequence of str
        Names of files in release/figures/ that the summary shall show.
    workers : int
        Processes that may read and count.
    shown : bool
        Show a progress bar.
    compared : bool
        The logits are known to be those of the ledger. What an earlier command has counted of the same ones is taken,
        and kept for the next; see `catmorph.release.kept`.

    Returns
    -------
    Summary

    Raises
    ------
    CatmorphError
        When logits are missing or a row is lost.
    """
    used = all_temperatures(run.recipe)
    label = "summarize" if shown else ""
    counts = _counts_kept(run, used, workers, label) if compared else _count(run, used, workers, label)
    summary = Summary({**_values(run, counts, used), "figures": list(figures)})
    write_json(run.release_folder() / "summary.json", summary.values)
    write_bytes(run.release_folder() / "summary.md", summary.markdown().encode())
    return summary


def _counts_kept(run: RunFolder, used: Temperatures, workers: int, label: str) -> Counts:
    """Return the counts that were made of the same before; where there are none, count, and keep them."""
    basis, counts = Basis.of(run, used), no_counts(run.recipe)
    kept = kept_counts(run, basis)
    if kept is None or not counts.fits(kept):
        counts = _count(run, used, workers, label)
        keep_counts(run, basis, counts.plain())
        return counts
    counts.restore(kept)
    return counts


def _count(run: RunFolder, used: Temperatures, workers: int, label: str) -> Counts:
    counts = no_counts(run.recipe)
    count = partial(counted, deepcopy(counts))
    for part in made_of_results(run, count, joined=True, used=used, workers=workers, label=label):
        counts += part
    return counts


def _values(run: RunFolder, counts: Counts, used: Temperatures) -> dict[str, Any]:
    kinds, reasons = _rejections(run)
    recipe = run.recipe
    tests = {name: card_test(recipe, name, counts.rules[name].merger, used[name]) for name in recipe.classifiers}
    return {
        "name": recipe.release.name,
        "title": recipe.title,
        "scheme": ", ".join(dict.fromkeys(one.scheme.name for one in counts.rules.values())),
        "classes": list(dict.fromkeys(name for one in counts.rules.values() for name in one.scheme.class_names)),
        "threshold": recipe.summary.threshold,
        "confidence": recipe.summary.confidence,
        "merger": _merger(counts.rules, tests),
        "classifiers": {name: _classifier(recipe, name, used[name]) for name in recipe.classifiers},
        "account": _account(run, counts, kinds, reasons),
        "faults": _faults(run, counts, kinds),
        "failures": _failures(run),
        "views": _views(counts.rules, counts.views, tests),
        "fields": [_field(counts, name, tests) for name in sorted(counts.fields)],
        "grouped": counts.groups.as_dict(lambda tallies: _stamps(counts.rules, tallies, tests)),
    }


def _classifier(recipe: Recipe, name: str, used: Sequence[float]) -> dict[str, Any]:
    """Return how the logits of a classifier's networks became probabilities."""
    return {
        "scheme": recipe.classifier_scheme(name),
        "networks": len(recipe.classifiers[name].checkpoints),
        "temperatures": list(used),
        "test_time": recipe.classifiers[name].test_time,
        "remarks": _remarks(recipe, name),
    }


def _remarks(recipe: Recipe, name: str) -> list[str]:
    """Return what the cards of a classifier's networks say that a reader of its probabilities should know."""
    said: list[str] = []
    for member in members(recipe, name):
        try:
            said += remarks(recipe, member, load_card(member.checkpoint))
        except CheckpointError:
            said.append(f"the card of {member.checkpoint.name} cannot be read")
    return list(dict.fromkeys(said))


def _merger(rules: Mapping[str, Rules], tests: Tests) -> dict[str, Any] | None:
    """Return what counts as a merger for the first classifier whose scheme has such a class, and all their tests."""
    named = {name: rule for name, rule in rules.items() if rule.merger}
    if not named:
        return None
    rule = next(iter(named.values()))
    one = rule.merger
    assert one is not None
    return {
        "class": one.class_name, "label": one.label, "proxy": one.proxy, "threshold": one.threshold,
        "tests": {name: tests[name].as_dict(rule.confidence) for name in named if name in tests},
    }


def _account(
    run: RunFolder, counts: Counts, kinds: Counter[str], reasons: Counter[tuple[str, str]]
) -> dict[str, Any]:
    read, rejected = run.ingest_counts()["read"], kinds.total()
    omitted = counts.sources - counts.released
    if read != rejected + counts.sources:
        raise CatmorphError(
            f"rows are lost: {read} read, {rejected} rejected + {counts.sources} sources found",
            where=run.path,
            hint="run `catmorph ingest` again",
        )
    return {
        "read": read,
        "rejected": rejected,
        "rejected_by_kind": dict(sorted(kinds.items())),
        "rejected_by_reason": _most_common(reasons),
        "omitted": omitted,
        "omitted_by_reason": {omission(run.recipe.release.require): omitted} if omitted else {},
        "released": counts.released,
    }


def _most_common(reasons: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        {"kind": kind, "reason": reason, "rows": rows} for (kind, reason), rows in ordered[:_MOST_REASONS]
    ]
    rest = ordered[_MOST_REASONS:]
    if rest:
        text = f"{len(rest)} other reasons, see rejected.parquet"
        shown.append({"kind": "", "reason": text, "rows": sum(rows for _, rows in rest)})
    return shown


def _faults(run: RunFolder, counts: Counts, kinds: Counter[str]) -> dict[str, Any]:
    rejected = {kind: kinds[kind] for kind in FAULTY_KINDS if kinds[kind]}
    rows = counts.faulty + sum(rejected.values())
    share = fraction(rows, run.ingest_counts()["read"]) or 0.0
    tolerance = run.recipe.run.tolerance
    return {
        "rows": rows, "fraction": share, "tolerance": tolerance, "exceeds_tolerance": share > tolerance,
        "rejected_by_kind": rejected, "stamps_by_flag": _faulty_stamps(counts.views),
    }


def _faulty_stamps(tallies: Mapping[Key, Tally]) -> dict[str, int]:
    """Count the stamps that have each of the flags that are faults; one that several classifiers saw counts once."""
    views: dict[str, Counter[str]] = {}
    for key, tally in tallies.items():
        views[key.view] = views.get(key.view, Counter()) | tally.flags
    stamps = sum(views.values(), Counter())
    names = (info.flag.name or "" for info in FLAGS if info.fault)
    return {name: stamps[name] for name in names if stamps[name]}


def _failures(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of failures.parquet: what could not be read or used, and why; many images by their reasons."""
    path = run.failures_path()
    if not path.exists():
        return []
    try:
        rows = read_columns(path, ["view", "field", "file", "reason", "sources"]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"cannot be read: {error}", where=path, hint="run `catmorph cutouts`") from error
    return rows if len(rows) <= _MOST_FAILURES else _grouped_failures(rows)


def _grouped_failures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each view, field and reason, with the first file and how many others, the commonest first."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["view"], row["field"], row["reason"]), []).append(row)
    found = [
        {"view": view, "field": name, "file": f"{members[0]['file']} and {len(members) - 1} others", "reason": reason,
         "sources": sum(row["sources"] for row in members)}
        if len(members) > 1 else members[0]
        for (view, name, reason), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]  # fmt: skip
    rest = found[_MOST_FAILURES:]
    if rest:
        others = {"view": "", "field": "", "file": f"{len(rest)} other rows", "reason": "see failures.parquet"}
        found = [*found[:_MOST_FAILURES], {**others, "sources": sum(row["sources"] for row in rest)}]
    return found


def _views(rules: Mapping[str, Rules], tallies: dict[Key, Tally], tests: Tests) -> list[dict[str, Any]]:
    several = len({key.classifier for key in tallies}) > 1
    found = []
    for key, tally in tallies.items():
        label, rule = f"{key.view} ({key.classifier})" if several else key.view, rules[key.classifier]
        one = {"classifier": key.classifier, "view": key.view, "label": label, **tally.as_dict(rule)}
        if rule.merger:
            total = one["classes"][rule.merger.class_name]["sum"]
            one["merger"] |= tests[key.classifier].estimates(one["merger"], total, rule.confidence)
        found.append(one)
    return found


def _field(counts: Counts, name: str, tests: Tests) -> dict[str, Any]:
    return {
        "field": name,
        "sources": counts.field_sources[name],
        "released": counts.field_released[name],
        **_stamps(counts.rules, counts.fields[name], tests),
    }


def _stamps(rules: Mapping[str, Rules], tallies: dict[Key, Tally], tests: Tests) -> dict[str, Any]:
    return {"stamps": _together(rules, tallies), "views": _views(rules, tallies, tests)}


def _together(rules: Mapping[str, Rules], tallies: Mapping[Key, Tally]) -> dict[str, Any]:
    """Return the sums over all views; where classifiers have schemes of their own, with the classes of each."""
    totals: dict[str, Tally] = {}
    chosen: dict[str, Rules] = {}
    for key, tally in tallies.items():
        rule = rules[key.classifier]
        name = rule.scheme.name
        chosen[name], totals[name] = rule, totals.get(name, Tally(len(rule.scheme.classes)))
        totals[name] += tally
    # The stamps of a galaxy in several views are not independent: no interval on their sum.
    parts = [totals[name].as_dict(rule, interval=False) for name, rule in chosen.items()]
    return _joined(parts)


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the sums of several schemes: counts of stamps add up, classes and mergers are those of all."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {name: sum(one[name] for one in parts)
                              for name in ("sources", "classified", "counted", "blocked", "kept")}
    for name in ("blocked_by_flag", "warnings_by_flag"):
        joined[name] = dict(sum((Counter(one[name]) for one in parts), Counter()))
    joined["kept_fraction"] = fraction(joined["kept"], joined["counted"])
    # A class that two schemes have is counted by the first.
    joined["classes"] = {name: one for part in reversed(parts) for name, one in part["classes"].items()}
    mergers = [one["merger"] for one in parts if "merger" in one]
    return joined | ({"merger": mergers[0]} if mergers else {})


def _rejections(run: RunFolder) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    kinds: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    for batch in _rejected_batches(run):
        pairs = list(zip(batch["kind"].to_pylist(), batch["reason"].to_pylist(), strict=True))
        reasons.update((kind or "", reason or "") for kind, reason in pairs)
        kinds.update(kind or "" for kind, _ in pairs)
    return kinds, reasons


def _rejected_batches(run: RunFolder) -> Iterator[pa.RecordBatch]:
    path = run.rejected_path()
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(columns=["kind", "reason"])
    except (pa.ArrowException, OSError) as error:
        raise CatmorphError(f"cannot be read: {error}", where=path, hint="run `catmorph ingest`") from error
