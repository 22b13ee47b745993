"""The summary as Markdown and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catmorph.release.text import markdown_table, markdown_text, plain_text, text_table
from catmorph.schemes import load_scheme

_COUNTED = {
    "softmax": "Classes are counted where most probable; kept: a probability of {threshold:g} or more.",
    "sigmoid": "Yes/no questions are counted from a probability of 0.5 on; kept: any of {threshold:g} or more.",
    "tree": "Of a tree the most probable answer to each question that is asked is counted; kept: any answer of a "
            "probability of {threshold:g} or more.",
}
"""Kind of a scheme -> how its classes are counted."""


def summary_table(values: dict[str, Any]) -> str:
    """Return the account and the tables by view and by field as text for the terminal."""
    lines = [*_account_lines(values), ""]
    lines += text_table(
        _header("view", values), [_row(_name(view), view, values) for view in values["views"]]
    )
    lines += ["", "all views together, by field:"]
    fields = [_row(one["field"], one["stamps"], values) for one in values["fields"]]
    lines += text_table(_header("field", values), fields)
    if values["grouped"]["groups"]:
        groups = [_row(one["group"], one["stamps"], values) for one in values["grouped"]["groups"]]
        lines += ["", "all views together, by group:", *text_table(_header("group", values), groups)]
        lines.append(_shared(values))
    lines += ["", *map(plain_text, _notes(values))]
    return "\n".join(lines)


def summary_markdown(values: dict[str, Any]) -> str:
    """Return summary.md; names of fields and views are escaped."""
    lines = [f"# Summary of {markdown_text(values['name'])}", "", markdown_text(values["title"]), ""]
    lines += ["## Rows", "", *_account_tables(values), ""]
    if values["failures"]:
        lines += ["## Files that could not be used", "", *_failure_table(values), ""]
    lines += ["## Stamps", "", *_stamp_table(values), ""]
    lines += ["## Classes by view", "", *map(markdown_text, _notes(values)), ""]
    lines += [*_class_table("view", [(_name(view), view) for view in values["views"]], values), ""]
    if values["merger"]:
        lines += [*_fraction_section(values), ""]
    for one in values["fields"]:
        rows = [(_name(view), view) for view in one["views"]]
        lines += [f"## Field {markdown_text(one['field'])}", ""]
        lines += [f"{one['sources']} sources, {one['released']} released.", ""]
        lines += [*_class_table("view", rows, values), ""]
    if values["grouped"]["groups"]:
        lines += ["## Groups", "", markdown_text(_shared(values)), ""]
    for one in values["grouped"]["groups"]:
        rows = [(_name(view), view) for view in one["views"]]
        lines += [f"## Group {markdown_text(one['group'])}", "", f"Where {markdown_text(one['expression'])}: "
                  f"{one['sources']} sources, {one['released']} released.", ""]
        lines += [*_class_table("view", rows, values), ""]
    pictures = [name for name in values["figures"] if name.endswith(".png")]
    if pictures:
        lines += ["## Figures", ""]
    for name in pictures:
        lines += [f"![{markdown_text(name)}](figures/{name})", ""]
    return "\n".join(lines)


def _shared(values: dict[str, Any]) -> str:
    found = values["grouped"]
    return f"{found['none']} sources are in none of the groups, {found['overlapping']} in several."


def _failure_table(values: dict[str, Any]) -> list[str]:
    columns = ("view", "field", "file", "reason", "sources")
    return markdown_table(list(columns), [[one[name] for name in columns] for one in values["failures"]])


def _account_lines(values: dict[str, Any]) -> list[str]:
    account, faults = values["account"], values["faults"]
    lines = [
        f"{account['read']} rows read = {account['rejected']} rejected + {account['omitted']} omitted "
        f"+ {account['released']} released",
        f"{faults['rows']} rows with a fault ({faults['fraction']:.2%}; tolerated {faults['tolerance']:.2%})"
        + (f": {_fault_kinds(faults)}" if faults["rows"] else ""),
    ]
    lines += [
        f"  rejected ({one['kind']}): {one['rows']}: {one['reason']}" for one in account["rejected_by_reason"]
    ]
    lines += [f"  omitted: {rows}: {reason}" for reason, rows in account["omitted_by_reason"].items()]
    return [plain_text(line) for line in lines]


def _fault_kinds(faults: dict[str, Any]) -> str:
    """Return which faults there are: of rows that were rejected, and of sources, which may have several."""
    rejected, flags = faults["rejected_by_kind"], faults["stamps_by_flag"]
    kinds = [f"{rows} rejected ({kind})" for kind, rows in rejected.items()]
    if flags:
        flagged = ", ".join(f"{name} in {stamps} stamps" for name, stamps in flags.items())
        kinds.append(f"{faults['rows'] - sum(rejected.values())} sources with {flagged}")
    return "; ".join(kinds)


def _account_tables(values: dict[str, Any]) -> list[str]:
    account = values["account"]
    rows = [[name, account[name]] for name in ("read", "rejected", "omitted", "released")]
    reasons = [
        [f"rejected: {one['kind']}", one["reason"], one["rows"]] for one in account["rejected_by_reason"]
    ]
    reasons += [["omitted", reason, count] for reason, count in account["omitted_by_reason"].items()]
    lines = [markdown_text(line) for line in _account_lines(values)[:2]]
    lines = [lines[0] + ".", "", lines[1] + ".", "", *markdown_table(["rows", "count"], rows)]
    return [*lines, "", *markdown_table(["what", "reason", "rows"], reasons)] if reasons else lines


def _stamp_table(values: dict[str, Any]) -> list[str]:
    header = ["view", "sources", "classified", "blocked", "why blocked", "warnings"]
    rows = [
        [
            _name(view),
            view["sources"],
            view["classified"],
            view["blocked"],
            _flags(view["blocked_by_flag"]),
            _flags(view["warnings_by_flag"]),
        ]
        for view in values["views"]
    ]
    return markdown_table(header, rows)


def _class_table(first: str, rows: Sequence[tuple[str, dict[str, Any]]], values: dict[str, Any]) -> list[str]:
    header = [first, "classified", "kept"]
    header += [f"{name}: most probable / from threshold / sum" for name in values["classes"]]
    merger = values["merger"]
    if merger:
        header += [f"{merger['label']} fraction", "Wilson interval", "exact interval"]
    cells = [
        [name, view["counted"], _share(view["kept_fraction"]), *_class_cells(view, values["classes"])]
        for name, view in rows
    ]
    if merger:
        for row, (_, view) in zip(cells, rows, strict=True):
            one = view.get("merger")
            row += [_counted_share(one), _interval(one["wilson"]), _interval(one["exact"])] if one else ["", "", ""]
    return markdown_table(header, cells)


def _class_cells(view: dict[str, Any], classes: Sequence[str]) -> list[str]:
    """Return the counts of `classes`, blank for those of another classifier's scheme."""
    counts = [view["classes"].get(name) for name in classes]
    return [f"{one['most_probable']} / {one['above_threshold']} / {one['sum']:.2f}" if one else "" for one in counts]


def _header(first: str, values: dict[str, Any]) -> list[str]:
    header = [first, "sources" if first == "view" else "stamps", "classified", "kept", *values["classes"]]
    return [*header, values["merger"]["label"]] if values["merger"] else header


def _row(name: str, view: dict[str, Any], values: dict[str, Any]) -> list[object]:
    row: list[object] = [name, view["sources"], view["classified"], _share(view["kept_fraction"])]
    row += [view["classes"][one]["most_probable"] if one in view["classes"] else "" for one in values["classes"]]
    if values["merger"]:
        one = view.get("merger")
        interval = f" {_interval(one['wilson'])}" if one and one.get("wilson") else ""
        row.append(_share(one["fraction"]) + interval if one else "")
    return row


def _notes(values: dict[str, Any]) -> list[str]:
    kinds = dict.fromkeys(load_scheme(one["scheme"]).kind for one in values["classifiers"].values())
    notes = [_COUNTED[kind].format(threshold=values["threshold"]) for kind in kinds]
    if len(values["classifiers"]) > 1:
        notes.append("Where views are taken together a stamp counts once for each classifier that looks at it.")
    merger = values["merger"]
    if merger:
        notes.append(
            f"{merger['label']}: probability of {merger['class']} of {merger['threshold']:g} or more, with "
            f"{values['confidence']:.0%} binomial intervals."
        )
        notes += _test_notes(values)
    for name, one in values["classifiers"].items():
        notes += filter(None, [_network_note(name, one)])
        notes += [f"Network of {name}: {remark}" for remark in one["remarks"]]
    return notes


def _fraction_section(values: dict[str, Any]) -> list[str]:
    """Return the estimates of the merger fraction, in Markdown."""
    merger = values["merger"]
    header = ["view", "counted", "Wilson interval", "sum of probabilities", "corrected by the test"]
    rows = [
        [_name(view), _counted_share(one), _interval(one["wilson"]), _estimate(one["probability_sum"]),
         _estimate(one["corrected"])]
        for view in values["views"] for one in [view.get("merger")] if one
    ]
    texts = [
        f"Counted: stamps with a probability of at least {merger['threshold']:g}. Sum of probabilities: their mean, "
        "as if each probability were how often such a stamp is of the class.",
        "Corrected: (counted + specificity - 1) / (sensitivity + specificity - 1), by Rogan & Gladen 1978, as if the "
        "network's mistakes were as frequent here as in its test.",
    ]
    lines = [f"## Fraction of {markdown_text(merger['label'])}", "", *map(markdown_text, texts), ""]
    return [*lines, *markdown_table(header, rows)]


def _test_notes(values: dict[str, Any]) -> list[str]:
    label, notes = values["merger"]["label"], []
    for name, test in values["merger"]["tests"].items():
        if "sensitivity" not in test:
            notes.append(f"{label}, {name}: not corrected for the classifier: {test['reason']}.")
            continue
        shown = [f"{what} {_estimate(test[what], 3)}" for what in ("sensitivity", "specificity")]
        subset = "" if test["subset"] == "test" else f", which is no independent test: subset {test['subset']}"
        reason = f"; not corrected: {test['reason']}" if test["reason"] else ""
        notes.append(f"{label}, {name}: in its test{subset}: {', '.join(shown)}{reason}.")
    return notes


def _estimate(record: dict[str, Any], decimals: int = 4) -> str:
    if record["value"] is None:
        return "-"
    text = f"{record['value']:.{decimals}f}"
    bounds = record["interval"]
    return text if bounds is None else f"{text} [{bounds[0]:.{decimals}f}, {bounds[1]:.{decimals}f}]"


def _network_note(name: str, classifier: dict[str, Any]) -> str:
    """Say what makes the probabilities of a classifier other than the softmax of one network's answer."""
    used = classifier["temperatures"]
    parts = [f"mean of {classifier['networks']} networks"] if classifier["networks"] > 1 else []
    if set(used) != {1.0}:
        shown = used if len(set(used)) > 1 else used[:1]
        parts.append(f"temperature {', '.join(f'{one:.4g}' for one in shown)}")
    if classifier["test_time"] != "none":
        parts.append(f"test-time augmentation {classifier['test_time']}")
    return f"Probabilities of {name}: {'; '.join(parts)}." if parts else ""


def _name(view: dict[str, Any]) -> str:
    return view["label"]


def _flags(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _counted_share(one: dict[str, Any]) -> str:
    return f"{one['count']} of {one['of']} = {_share(one['fraction'])}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"
