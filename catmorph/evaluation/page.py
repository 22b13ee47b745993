"""The page of an evaluation, in Markdown and in HTML, from one list of sections."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from catmorph.evaluation.figures import Drawing, Shown
from catmorph.release.text import markdown_table, markdown_text, plain_text
from catmorph.schemes.tree import Tree

KEPT_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
"""Thresholds of the table; metrics.json has them all."""

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption { font-size: 13px; color: #555; }
.warning { background: #fff3cd; padding: 0.5rem 0.8rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
{% if section.title %}<h2>{{ section.title }}</h2>{% endif %}
{% for text in section.warnings %}<p class="warning">{{ text }}</p>
{% endfor %}{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}{% if section.rows %}<table>
<tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endif %}{% for one in section.figures %}<figure>
<img alt="{{ one.drawing.title }}" src="data:image/png;base64,{{ one.data }}">
<figcaption>{{ one.drawing.caption }}</figcaption>
</figure>
{% endfor %}{% endfor %}</body>
</html>
"""


@dataclass(frozen=True)
class Inlined:
    """A drawing and its PNG as base64 text."""

    drawing: Drawing
    data: str


@dataclass(frozen=True)
class Section:
    """A part of the page: warnings, paragraphs, one table, figures; all texts as they are, not escaped."""

    title: str
    texts: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    drawings: tuple[Drawing, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def figures(self) -> list[Inlined]:
        """The drawings with their bytes as text."""
        return [Inlined(one, base64.b64encode(one.png).decode()) for one in self.drawings]


def markdown_page(shown: Shown, drawings: Sequence[Drawing]) -> str:
    """Return evaluation.md; figures are linked by their place in figures/, names are escaped."""
    lines = [f"# {markdown_text(_title(shown))}", ""]
    for section in _sections(shown, drawings):
        lines += [f"## {markdown_text(section.title)}", ""] if section.title else []
        for text in section.warnings:
            lines += [f"**Note: {markdown_text(_whole(text))}**", ""]
        for text in section.texts:
            lines += [_markdown_paragraph(text), ""]
        if section.rows:
            lines += [*markdown_table(section.header, section.rows), ""]
        for one in section.drawings:
            lines += [f"![{markdown_text(one.title)}](figures/{one.key}.png)", ""]
            lines += [f"*{_markdown_paragraph(one.caption)}*", ""]
    return "\n".join(lines).rstrip() + "\n"


def html_page(shown: Shown, drawings: Sequence[Drawing]) -> str:
    """Return evaluation.html: one file with its figures in it, which needs nothing else; all text is escaped."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_HTML)
    sections = [_printable(section) for section in _sections(shown, drawings)]
    return template.render(title=plain_text(_title(shown)), sections=sections)


def _printable(section: Section) -> Section:
    return Section(section.title, section.texts, section.header,
                   tuple(tuple(map(plain_text, row)) for row in section.rows), section.drawings, section.warnings)


def _markdown_paragraph(text: str) -> str:
    """Escape a paragraph, which may be longer than a name: sentence by sentence."""
    return " ".join(markdown_text(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    # `markdown_text` shortens what is longer than a name may be.
    words, parts = text.split(" "), [""]
    for word in words:
        if len(parts[-1]) + len(word) > 150:
            parts.append("")
        parts[-1] += (" " if parts[-1] else "") + word
    return parts


def _whole(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def _title(shown: Shown) -> str:
    one = shown.metrics["checkpoint"]
    return f"Evaluation of {one['title'] or one['file']}"


def _sections(shown: Shown, drawings: Sequence[Drawing]) -> list[Section]:
    figures = {one.key: one for one in drawings}

    def drawn(*keys: str) -> tuple[Drawing, ...]:
        return tuple(figures[key] for key in keys if key in figures)

    found = [
        _about(shown),
        _main_numbers(shown),
        *([_calibration(shown)] if shown.metrics["calibration"] else []),
        _classes(shown),
    ]
    if shown.kind == "softmax":
        found += [Section("Confusion", drawings=drawn("confusion", "confusion_agreed")),
                  _thresholds(shown, drawn("thresholds"))]
    else:
        found.append(_binary(shown))
    found += [
        Section("Curves", drawings=drawn("roc", "precision_recall")),
        Section("Predicted and human probability", drawings=drawn("predicted_human", "reliability",
                                                                  "reliability_classes")),
    ]
    return found + _group_sections(shown, drawn("groups"))


def _about(shown: Shown) -> Section:
    document, overall = shown.metrics, shown.overall
    labels = document["labels"]
    rows = [
        ("checkpoint", document["checkpoint"]["file"]),
        ("network", document["checkpoint"]["model"]),
        ("identity of the network (sha256)", document["checkpoint"]["network"]),
        ("labels", labels["file"] if labels else "-"),
        ("labels (sha256)", labels["sha256"] if labels else "-"),
        ("views", ", ".join(document["views"])),
        ("stamps evaluated", document["subset"]["note"]),
        ("number of stamps, of sources", f"{overall['stamps']:,}, {overall['sources']:,}"),
        ("intervals", _intervals_text(overall["intervals"])),
    ]
    if overall["ties"]:
        rows.append(("stamps whose most voted class is a tie", f"{overall['ties']:,} (the first class counts)"))
    warnings = {
        "test": (), "all": ("the checkpoint may have been trained on some of these stamps.",),
        "training": ("the checkpoint was trained on these stamps.",),
        "validation": ("the checkpoint was chosen by these stamps.",),
    }[document["subset"]["name"]]
    return Section("", header=("what", "value"), rows=tuple(rows), warnings=warnings)


def _intervals_text(intervals: dict[str, Any]) -> str:
    if intervals["method"] is None:
        return f"none: {intervals['reason']}"
    return (f"{intervals['confidence']:.0%}, {intervals['method']}, {intervals['resamples']} resamples, "
            f"seed {intervals['seed']}")


def _main_numbers(shown: Shown) -> Section:
    overall = shown.overall
    base, noise = overall["mean_label"], overall["vote_noise"]
    rows = [
        ("RMSE, all stamps and classes", _value(overall["rmse"]), _number(base["rmse"]), _number(noise["rmse"])),
        ("RMSE of a stamp, averaged (authors' code)", _value(overall["rmse_authors"]), _number(base["rmse_authors"]),
         _number(noise["rmse_authors"])),
        ("cross-entropy (nats)", _value(overall["cross_entropy"]), _number(base["cross_entropy"]),
         _number(overall["entropy_of_fractions"])),
        ("expected calibration error", _value(overall["ece"]), "-", _number(noise["ece"])),
        ("accuracy of the most probable class" if shown.kind == "softmax" else "accuracy, mean of the questions",
         _value(overall["accuracy"]), "-", "-"),
        ("macro F1", _value(overall["macro_f1"]), "-", "-"),
    ]
    texts = ["Mean label: always answering the mean of these labels. Floor: what the noise of the votes alone "
             "leaves to a network that knows the true probabilities; for the cross-entropy, the entropy of the vote "
             "fractions, which nothing can beat on these votes."]
    if noise.get("reason"):
        texts.append(f"No floor from the votes: {noise['reason']}.")
    return Section("Main numbers", tuple(texts), ("", "value", "mean label", "floor"), tuple(rows))


def _calibration(shown: Shown) -> Section:
    found = shown.metrics["calibration"]
    names = (("cross_entropy", "cross-entropy (nats)"), ("ece", "expected calibration error"),
             ("rmse", "RMSE, all stamps and classes"), ("rmse_authors", "RMSE of a stamp, averaged"))
    rows = [(label, _value(found["before"][key]), _value(found["after"][key]),
             _value(found["validation"]["before"][key]), _value(found["validation"]["after"][key]))
            for key, label in names]
    text = (
        f"Temperature {found['temperature']:g}, fitted to the votes of the {found['validation']['stamps']:,} stamps "
        "of the validation subset by least cross-entropy. All other numbers and figures of this page, except the "
        "reliability diagram, are without it."
    )
    header = ("", "test, before", "test, after", "validation, before", "validation, after")
    return Section("Calibration", (text,), header, tuple(rows))


def _classes(shown: Shown) -> Section:
    header = ["class", "voted", "predicted", "RMSE", "completeness", "purity", "F1", "ROC area", "average precision",
              "ECE"]
    rows = []
    for name, title in zip(shown.names, shown.titles, strict=True):
        one = shown.overall["classes"][name]
        cells = [_value(one[key]) for key in ("rmse",)]
        cells += [_share(one[key]) for key in ("completeness", "purity")]
        cells += [_value(one[key]) for key in ("f1", "roc_area", "average_precision", "ece")]
        rows.append((title, f"{one['voted']:,}", f"{one['predicted']:,}", *cells))
    text = (
        "Completeness: of the stamps that people put into the class, the fraction that the network puts there. Purity: "
        "of the stamps that the network puts into the class, the fraction that people put there. Their intervals are "
        "binomial (Wilson), which take stamps as independent; metrics.json also has those by source."
    )
    return Section("Classes", (text,), tuple(header), tuple(rows))


def _thresholds(shown: Shown, drawings: tuple[Drawing, ...]) -> Section:
    rows = [
        (f"{row['threshold']:.2f}", _or_binomial(row["kept"]), _or_binomial(row["accuracy"]), _value(row["macro_f1"]))
        for row in shown.overall["thresholds"] if row["threshold"] in KEPT_THRESHOLDS
    ]
    text = ("Accuracy and macro F1 of the stamps whose largest probability is at least the threshold. Intervals are "
            "by source; where a proportion is 0 or 1, where resamples tell nothing, binomial (Wilson).")
    header = ("threshold", "kept fraction", "accuracy", "macro F1")
    return Section("Probability thresholds", (text,), header, tuple(rows), drawings)


def _binary(shown: Shown) -> Section:
    keys = ("true_positive", "false_positive", "false_negative", "true_negative")
    rows = []
    for name, title in zip(shown.names, shown.titles, strict=True):
        for which in ("all", "agreed"):
            counts = shown.overall["binary"][name][which]
            rows.append((title, which, *(f"{counts[key]:,}" for key in keys)))
    what = "answer" if isinstance(shown.kind, Tree) else "question"
    header = (what, "stamps", "true positive", "false positive", "false negative", "true negative")
    yes = ("an answer on the way down the tree, by the most votes or the largest probabilities"
           if isinstance(shown.kind, Tree) else "a vote fraction, or a probability, of at least 1/2")
    text = (f"Yes is {yes}. Agreed: the stamps of which the fraction is at "
            f"least {shown.metrics['settings']['agreement']:g} or at most 1 less that.")
    return Section(f"{what.capitalize()}s", (text,), header, tuple(rows))


def _group_sections(shown: Shown, drawings: tuple[Drawing, ...]) -> list[Section]:
    found = [Section("Groups of stamps", drawings=drawings)] if drawings else []
    header = ("", "stamps", "sources", "RMSE", "RMSE (authors)", "cross-entropy", "accuracy", "macro F1", "ECE",
              "mean-label RMSE", "vote-noise RMSE")
    for grouping in shown.metrics["groups"]:
        rows = tuple(_group_row(one) for one in grouping["groups"])
        texts = [f"No groups: {grouping['reason']}."] if grouping["reason"] else []
        if grouping["left_out"] and not grouping["reason"]:
            texts.append(f"{grouping['left_out']:,} stamps are in none of the bins.")
        found.append(Section(f"By {grouping['title']}", tuple(texts), header, rows))
    return found


def _group_row(group: dict[str, Any]) -> tuple[str, ...]:
    one = group["metrics"]
    if one is None:
        return (group["name"], "0", *("-",) * 9)
    cells = [_value(one[key]) for key in ("rmse", "rmse_authors", "cross_entropy", "accuracy", "macro_f1", "ece")]
    return (group["name"], f"{one['stamps']:,}", f"{one['sources']:,}", *cells, _number(one["mean_label"]["rmse"]),
            _number(one["vote_noise"]["rmse"]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _value(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return "-"
    text = f"{record['value']:.4f}"
    return text if record["interval"] is None else text + " [{:.4f}, {:.4f}]".format(*record["interval"])


def _or_binomial(record: dict[str, Any]) -> str:
    return _value({**record, "interval": record["wilson"]} if record["value"] in (0, 1) else record)


def _share(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return "-"
    low, high = record["wilson"]
    return f"{record['value']:.3f} ({record['count']:,}/{record['of']:,}) [{low:.3f}, {high:.3f}]"
