"""What the page of an evaluation says: its sections, as they are, not escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from catmorph.evaluation.figures import Drawing, Shown
from catmorph.schemes import load_scheme
from catmorph.schemes.tree import Tree

REPORT_HEADER = ("class", "precision", "recall", "F1", "support")
KEPT_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
"""Thresholds of the table; metrics.json has them all."""

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


def page_sections(shown: Shown, drawings: Sequence[Drawing]) -> list[Section]:
    """Return the sections of the page, in order, with the drawings that belong to each."""
    figures = {one.key: one for one in drawings}

    def drawn(*keys: str) -> tuple[Drawing, ...]:
        return tuple(figures[key] for key in keys if key in figures)

    found = [
        _about(shown),
        _main_numbers(shown),
        *([_calibration(shown)] if shown.metrics["calibration"] else []),
        *([_report(shown)] if "report" in shown.overall else []),
        _classes(shown),
    ]
    if shown.kind == "softmax":
        found += [Section("Confusion", drawings=drawn("confusion", "confusion_agreed")),
                  *_folds(shown, drawn),
                  _thresholds(shown, drawn("thresholds"))]
    else:
        found.append(_binary(shown))
    found += [
        Section("Curves", drawings=drawn("roc", "precision_recall")),
        Section("Predicted and human probability", drawings=drawn("predicted_human", "reliability",
                                                                  "reliability_classes", "entropy")),
    ]
    examples = drawn("prototypes", *(f"prototypes_{name}" for name in shown.section.prototypes), "mergers")
    parts = (("Labels", drawn("label_histograms", "correlation", "correlation_questions")), ("Examples", examples))
    found += [Section(title, drawings=drawings) for title, drawings in parts if drawings]
    found += _group_sections(shown, drawn("groups"), drawn("confusion_groups"))
    colours = drawn("colour-magnitude", "pairs")
    return [*found, Section("Colours", drawings=colours)] if colours else found


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
        ("accuracy of the most probable class" if shown.kind == "softmax" else "accuracy, mean of the answers",
         _value(overall["accuracy"]), "-", "-"),
        ("macro F1", _value(overall["macro_f1"]), "-", "-"),
    ]
    if "argmax_accuracy" in overall:
        share = _share(overall["argmax_accuracy"])
        rows.append((f"arg-max accuracy, all {len(shown.names)} answers together", share, "-", "-"))
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


def _report(shown: Shown) -> Section:
    text = (
        "Precision (purity): of the stamps that the network puts into the class, the fraction that people put there. "
        "Recall (completeness): of those that people put there, the fraction that the network does. Support: stamps "
        "that people put there. The averages count an undefined value as 0. Intervals are binomial (Clopper & Pearson "
        "1934), which take stamps as independent."
    )
    rows = _report_rows(shown.overall["report"], dict(zip(shown.names, shown.titles, strict=True)))
    return Section("Classification report", (text,), REPORT_HEADER, rows)


def _report_rows(found: dict[str, Any], titles: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = [
        (titles.get(name, name), _share(one["precision"]), _share(one["recall"]), _plain(one["f1"]["value"]),
         f"{one['support']:,}")
        for name, one in found["classes"].items()
    ]
    for average, label in (("macro", "macro average"), ("weighted", "average weighted by support")):
        one = found["averages"][average]
        rows.append((label, *(_plain(one[key]) for key in ("precision", "recall", "f1")), f"{one['support']:,}"))
    return (*rows, ("accuracy", "", _share(found["accuracy"]), "", f"{found['stamps']:,}"))


def _binary(shown: Shown) -> Section:
    keys = ("true_positive", "false_positive", "false_negative", "true_negative")
    rows = []
    for name, title in zip(shown.names, shown.titles, strict=True):
        for which in ("all", "agreed"):
            one = shown.overall["binary"][name][which]
            counts = (f"{one[key]:,}" for key in keys)
            rows.append((title, which, *counts, *(_share(one[key]) for key in ("tpr", "precision", "accuracy"))))
    what = "answer" if isinstance(shown.kind, Tree) else "question"
    header = (what, "stamps", "true positive", "false positive", "false negative", "true negative", "TPR",
              "precision", "accuracy")
    yes = ("an answer on the way down the tree, by the most votes or the largest probabilities"
           if isinstance(shown.kind, Tree) else
           f"a vote fraction of at least 1/2, or a probability of at least {shown.overall['threshold']:g}")
    least = shown.metrics["settings"]["agreement"]
    text = (f"Yes is {yes}. Agreed: the stamps of which the fraction is at least {least:g} or at most {1 - least:g}. "
            "TPR: true positive rate, or completeness. Intervals are binomial (Clopper & Pearson 1934).")
    texts = [text]
    if "argmax_accuracy" in shown.overall:
        texts.append("Arg-max accuracy, the fraction of the stamps to which people and the network give their largest "
                     f"value for the same of all {len(shown.names)} answers: "
                     f"{_share(shown.overall['argmax_accuracy'])}.")
    return Section(f"{what.capitalize()}s", tuple(texts), header, tuple(rows))


def _folds(shown: Shown, drawn: Callable[..., tuple[Drawing, ...]]) -> list[Section]:
    """Return what is told in the schemes that this one folds into."""
    found = []
    for name, one in shown.overall.get("folded", {}).items():
        titles = {entry.name: entry.title for entry in load_scheme(name).classes}
        text = (f"The classes of {name} are made of those above: their probabilities and vote fractions add up. "
                f"{one['left_out']:,} stamps that people put into a class kept apart are left out.")
        found.append(Section(f"In the classes of {name}", (text,), REPORT_HEADER, _report_rows(one["report"], titles),
                             drawn(f"confusion_{name}")))
    return found


def _group_reports(grouping: dict[str, Any], titles: dict[str, str], drawings: tuple[Drawing, ...]) -> Section:
    """Return the classification report of each group, below each other."""
    rows: list[tuple[str, ...]] = []
    for one in grouping["groups"]:
        if one["metrics"] and "report" in one["metrics"]:
            rows += [(one["name"], *row) for row in _report_rows(one["metrics"]["report"], titles)]
    return Section("Classification report of each group", header=("group", *REPORT_HEADER), rows=tuple(rows),
                   drawings=drawings)


def _group_sections(
    shown: Shown, drawings: tuple[Drawing, ...], matrices: tuple[Drawing, ...]
) -> list[Section]:
    found = [Section("Groups of stamps", drawings=drawings)] if drawings else []
    header = ("", "stamps", "sources", "RMSE", "RMSE (authors)", "cross-entropy", "accuracy", "macro F1", "ECE",
              "mean-label RMSE", "vote-noise RMSE")
    for grouping in shown.metrics["groups"]:
        rows = tuple(_group_row(one) for one in grouping["groups"])
        texts = [f"No groups: {grouping['reason']}."] if grouping["reason"] else []
        if grouping["left_out"] and not grouping["reason"]:
            texts.append(f"{grouping['left_out']:,} stamps are in none of them.")
        if grouping["key"] == "by_group":
            texts += [f"{name}: {text}" for name, text in shown.section.groups.items()]
            texts.append(f"{grouping['overlapping']:,} stamps are in several groups.")
            rows = (*rows, _group_row({"name": "all stamps", "metrics": shown.overall}))
        found.append(Section(f"By {grouping['title']}", tuple(texts), header, rows))
        if grouping["key"] == "by_group" and "report" in shown.overall:
            found.append(_group_reports(grouping, dict(zip(shown.names, shown.titles, strict=True)), matrices))
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
    low, high = record["wilson"] if "wilson" in record else record["exact"]
    return f"{record['value']:.3f} ({record['count']:,}/{record['of']:,}) [{low:.3f}, {high:.3f}]"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
