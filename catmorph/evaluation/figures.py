"""Figures of an evaluation, as PNG and PDF; same numbers, same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from catmorph.evaluation.additive import decisions
from catmorph.evaluation.confusions import MOST_CLASSES, confusion_figure, confusion_panels
from catmorph.evaluation.curves import curves, undefined
from catmorph.evaluation.examples import Examples, draw_examples
from catmorph.evaluation.vote_figures import Blocks, draw_labels
from catmorph.recipe import EvaluationSection
from catmorph.report.colours import Points, draw_colours
from catmorph.report.drawing import (
    COLOURS,
    DASHES,
    GREY,
    MARKS,
    Drawing,
    drawing,
    label_panels,
    new_figure,
    new_panels,
)
from catmorph.report.entropy import Entropies, draw_entropies
from catmorph.schemes import Form, load_scheme
from catmorph.schemes.tree import Tree


@dataclass(frozen=True)
class Shown:
    """What the figures are of.

    `metrics` is the document of `catmorph.evaluation.run.evaluate`; probabilities and fractions are (n, class);
    `points` are the stamps with their sources' columns, where the recipe asks for diagrams of them; `examples` what
    galleries show; `blocks` the questions and their answers; `entropies` those of the probabilities.
    """

    metrics: dict[str, Any]
    probabilities: np.ndarray
    fractions: np.ndarray
    names: tuple[str, ...]
    titles: tuple[str, ...]
    kind: Form
    section: EvaluationSection = field(default_factory=EvaluationSection)
    points: Points | None = None
    examples: Examples | None = None
    blocks: Blocks = ()
    entropies: Entropies | None = None

    @property
    def overall(self) -> dict[str, Any]:
        """The numbers of all stamps."""
        return self.metrics["overall"]

    @property
    def sample(self) -> str:
        """The number of stamps and sources, for a title."""
        return f"n = {self.overall['stamps']:,} stamps of {self.overall['sources']:,} sources"


def draw_all(shown: Shown) -> Iterator[Drawing]:
    """Draw every figure that the data allow."""
    exclusive = shown.kind == "softmax"
    if exclusive:
        yield drawing("confusion", "Confusion matrix", _confusion_caption(shown, "confusion"),
                       lambda: confusion_figure(shown.overall["confusion"], shown.titles))
        if shown.overall["confusion_agreed"]["stamps"]:
            yield drawing("confusion_agreed", "Confusion matrix where people agree",
                           _confusion_caption(shown, "confusion_agreed"),
                           lambda: confusion_figure(shown.overall["confusion_agreed"], shown.titles))
        yield from _other_confusions(shown)
        yield drawing("thresholds", "Accuracy, F1 and kept fraction against the probability threshold",
                       "Stamps whose largest probability is below the threshold are left out. Bands: "
                       f"{_level(shown)} intervals by bootstrap of sources. As Fig. 11 of Perez-Carrasco et al. "
                       "(2019).",
                       lambda: _thresholds(shown))
    yield drawing("roc", "Receiver operating characteristic", "One class against the rest; a stamp is of the class "
                   + _decided(shown.kind) + f". {_where_areas(shown)}", lambda: _curves(shown, roc=True))
    yield drawing("precision_recall", "Completeness and purity", "Purity (precision) against completeness (recall) as "
                   "the threshold on the probability of the class is moved, one class against the rest. "
                   + _where_areas(shown, "Average precision"),
                   lambda: _curves(shown, roc=False))
    yield drawing("predicted_human", "Predicted against human probability", "Each stamp once in each panel; grey: "
                   "number of stamps; orange: median and 16% to 84% of the predictions at each tenth of human "
                   "probability. As Fig. 7 of Perez-Carrasco et al. (2019).", lambda: _predicted(shown))
    yield drawing("reliability", "Reliability", "Mean vote fraction against mean predicted probability in bins of "
                   "equal width; on the diagonal probabilities are fractions of votes. Below: number of (stamp, "
                   "class) pairs a bin.", lambda: _reliability(shown))
    yield drawing("reliability_classes", "Reliability of each class", "As before, each class alone; areas of the "
                   "marks grow with the number of stamps.", lambda: _class_reliability(shown))
    if shown.entropies is not None:
        yield draw_entropies(shown.entropies, "stamps")
    yield drawing("groups", "By band, magnitude and size", f"Bars: {_level(shown)} intervals by bootstrap of "
                   "sources; in brackets: number of stamps. Grey line: all stamps. Dotted: the RMSE of always "
                   "answering the mean label, and the ECE that the noise of the votes alone gives a calibrated "
                   "network.", lambda: _groups(shown))
    if shown.metrics.get("labels_described"):
        yield from draw_labels(shown.metrics["labels_described"], shown.titles, shown.blocks)
    if shown.examples is not None:
        yield from draw_examples(shown.examples, shown.section)
    if shown.points is not None:
        yield from draw_colours(shown.points, shown.section)


def _other_confusions(shown: Shown) -> Iterator[Drawing]:
    """Draw the confusion matrices in the schemes that this one folds into, and those of the groups by expression."""
    for name, found in shown.overall.get("folded", {}).items():
        if found["confusion"]["stamps"]:
            titles = tuple(one.title for one in load_scheme(name).classes)
            caption = (f"In the classes of {name}, made of those above; {found['left_out']:,} stamps that people put "
                       "into a class kept apart are left out.")
            yield drawing(f"confusion_{name}", f"Confusion matrix of {name}", caption,
                          partial(confusion_figure, found["confusion"], titles))
    grouping = next((one for one in shown.metrics["groups"] if one["key"] == "by_group"), None)
    if grouping is not None:
        panels = {one["name"]: one["metrics"]["confusion"] for one in grouping["groups"] if one["metrics"]}
        if panels and len(shown.names) <= MOST_CLASSES:
            caption = "As above, for the stamps of each group."
            yield drawing("confusion_groups", "Confusion matrix of each group", caption,
                          lambda: confusion_panels(panels, shown.titles))


MOST_CURVES = 8
"""With more classes each has a panel of its own."""


def _level(shown: Shown) -> str:
    return f"{shown.metrics['settings']['confidence']:.0%}"


def _where_areas(shown: Shown, what: str = "Area") -> str:
    where = "above each panel" if len(shown.names) > MOST_CURVES else "in the legend"
    return f"{what} and number of stamps of the class {where}."


def _decided(kind: Form) -> str:
    if isinstance(kind, Tree):
        return "where most votes lead to it, question by question"
    return "where most votes are for it" if kind == "softmax" else "where at least half of the votes are"


def _line(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}


def _confusion_caption(shown: Shown, key: str) -> str:
    found = shown.overall[key]
    text = (
        "Human class (most votes) on the vertical axis, most probable class on the horizontal one; each cell has the "
        "percentage of its row and the number of stamps. "
    )
    if key == "confusion_agreed":
        return text + (f"Only the {found['stamps']:,} stamps of which one class has a vote fraction of at least "
                       f"{found['agreement']:g}. As Fig. 10 of Perez-Carrasco et al. (2019).")
    return text + "As Fig. 9 of Perez-Carrasco et al. (2019)."


def _thresholds(shown: Shown) -> Figure:
    rows = shown.overall["thresholds"]
    figure = new_figure(5.2, 3.7)
    axes = figure.add_subplot()
    x = [row["threshold"] for row in rows]
    named = (("accuracy", "accuracy of kept stamps"), ("macro_f1", "macro F1 of kept stamps"),
             ("kept", "kept fraction"))
    for index, (key, label) in enumerate(named):
        y = np.array([np.nan if row[key]["value"] is None else row[key]["value"] for row in rows])
        bounds = np.array([row[key]["interval"] or (np.nan, np.nan) for row in rows], np.float64)
        axes.plot(x, y, marker=MARKS[index], markersize=3.5, color=COLOURS[index], label=label)
        axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=COLOURS[index], alpha=0.2, linewidth=0)
    axes.set(xlabel="threshold on the largest probability", ylabel="fraction", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    axes.set_title(shown.sample)
    return figure


def _curves(shown: Shown, *, roc: bool) -> Figure:
    if len(shown.names) > MOST_CURVES:
        return _curve_panels(shown, roc=roc)
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    human, _, _ = decisions(shown.probabilities, shown.fractions, shown.kind)
    for index, (name, title) in enumerate(zip(shown.names, shown.titles, strict=True)):
        if undefined(human[:, index]):
            axes.plot([], [], label=f"{title}: no curve", **_line(index))
            continue
        found = curves(shown.probabilities[:, index], human[:, index])
        numbers = shown.overall["classes"][name]
        if roc:
            label = f"{title} ({numbers['voted']:,}): {_with_interval(numbers['roc_area'])}"
            axes.plot(found.false_positive_rate, found.true_positive_rate, label=label, **_line(index))
        else:
            label = f"{title} ({numbers['voted']:,}): {_with_interval(numbers['average_precision'])}"
            axes.plot(found.recall, found.precision, drawstyle="steps-post", label=label, **_line(index))
    if roc:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=":")
        axes.set(xlabel="false positive rate", ylabel="true positive rate (completeness)")
    else:
        axes.set(xlabel="completeness (recall)", ylabel="purity (precision)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), box_aspect=1)
    title = f"area [{_level(shown)} interval]" if roc else f"average precision [{_level(shown)} interval]"
    axes.legend(title=title, title_fontsize=7.5, alignment="left", loc="upper left", bbox_to_anchor=(1.02, 1.0),
                borderaxespad=0)
    axes.set_title(shown.sample)
    return figure


def _curve_panels(shown: Shown, *, roc: bool) -> Figure:
    """Draw the curve of each class in a panel of its own: many lines in one cannot be told apart."""
    figure, panels = new_panels(len(shown.names), 1.9, unit=True)
    human, _, _ = decisions(shown.probabilities, shown.fractions, shown.kind)
    for index, (axes, name, title) in enumerate(zip(panels, shown.names, shown.titles, strict=True)):
        numbers = shown.overall["classes"][name]
        area = numbers["roc_area" if roc else "average_precision"]["value"]
        if not undefined(human[:, index]):
            found = curves(shown.probabilities[:, index], human[:, index])
            x, y = ((found.false_positive_rate, found.true_positive_rate) if roc else (found.recall, found.precision))
            axes.plot(x, y, color=COLOURS[0], drawstyle="default" if roc else "steps-post")
        if roc:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=":")
        short = title if len(title) <= 26 else f"{title[:24]}..."
        told = "no curve" if area is None else f"{area:.3f} ({numbers['voted']:,})"
        axes.set_title(f"{short}\n{told}", fontsize=7)
    names = (("false positive rate", "true positive rate (completeness)") if roc else
             ("completeness (recall)", "purity (precision)"))
    label_panels(figure, *names, shown.sample)
    return figure


def _with_interval(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return "undefined"
    text = f"{record['value']:.3f}"
    return text if record["interval"] is None else text + " [{:.3f}, {:.3f}]".format(*record["interval"])


def _panel_title(title: str, number: str) -> str:
    return f"{title}: {number}" if len(title) <= 18 else f"{title}\n{number}"


def _predicted(shown: Shown) -> Figure:
    figure, panels = new_panels(len(shown.names), unit=True)
    edges = np.linspace(0, 1, 21)
    counts = [np.histogram2d(_inside(shown.fractions[:, i]), _inside(shown.probabilities[:, i]), [edges, edges])[0]
              for i in range(len(shown.names))]
    norm = LogNorm(1, max(2.0, max(count.max() for count in counts)))
    for index, (axes, count) in enumerate(zip(panels, counts, strict=True)):
        image = axes.pcolormesh(edges, edges, np.ma.masked_equal(count.T, 0), cmap="Greys", norm=norm)
        axes.plot([0, 1], [0, 1], color=COLOURS[0], linewidth=0.8, linestyle="--")
        f, p = shown.fractions[:, index], shown.probabilities[:, index]
        tenth = np.round(np.asarray(f, np.float64) * 10).astype(int)
        for one in np.unique(tenth):
            low, middle, high = np.percentile(p[tenth == one], [16, 50, 84])
            axes.plot([one / 10] * 2, [low, high], color=COLOURS[5], linewidth=1.2)
            axes.plot(one / 10, middle, "o", color=COLOURS[5], markersize=4, markeredgecolor="white",
                      markeredgewidth=0.5)
        numbers = shown.overall["classes"][shown.names[index]]
        axes.set_title(_panel_title(shown.titles[index], f"RMSE {numbers['rmse']['value']:.3f}"), fontsize=8)
    width, height = figure.get_size_inches()
    bar = figure.add_axes((1 + 0.1 / width, 1 - 2.6 / height, 0.1 / width, 2 / height))
    figure.colorbar(image, cax=bar, label="stamps", format=_plain)
    label_panels(figure, "human probability (vote fraction)", "predicted probability", shown.sample)
    return figure


def _plain(value: float, position: int | None = None) -> str:
    # The usual labels of logarithmic axes are mathematical text, which the style turns off: names may hold a $.
    return f"{value:g}"


def _inside(values: np.ndarray) -> np.ndarray:
    # Fractions in float32 may miss an edge by a rounding.
    return np.clip(np.asarray(values, np.float64) + 1e-7, 0, 1)


def _reliability(shown: Shown) -> Figure:
    figure = new_figure(4.2, 5.0)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1], gridspec_kw={"hspace": 0.06})
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    states = [("as it is", shown.overall)]
    if shown.metrics["calibration"]:
        states.append((f"calibrated, T = {shown.metrics['calibration']['temperature']:.3g}",
                       shown.metrics["calibration"]["after"]))
    for index, (label, numbers) in enumerate(states):
        rows = [row for row in numbers["reliability"]["all"] if row["pairs"]]
        x, y = ([row[key] for row in rows] for key in ("predicted", "voted"))
        axes.plot(x, y, marker=MARKS[index], markersize=4.5, color=COLOURS[index],
                  label=f"{label}: ECE {_with_interval(numbers['ece'])}")
        middles = [(row["low"] + row["high"]) / 2 for row in numbers["reliability"]["all"]]
        pairs = np.array([row["pairs"] for row in numbers["reliability"]["all"]], float)
        below.step(middles, np.where(pairs > 0, pairs, np.nan), where="mid", color=COLOURS[index])
    axes.set(ylabel="mean vote fraction", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    axes.set_title(shown.sample)
    below.set(xlabel="mean predicted probability", ylabel="pairs a bin", yscale="log")
    below.yaxis.set_major_formatter(_plain)
    return figure


def _class_reliability(shown: Shown) -> Figure:
    figure, panels = new_panels(len(shown.names), unit=True)
    for name, title, axes in zip(shown.names, shown.titles, panels, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        rows = [row for row in shown.overall["reliability"]["classes"][name] if row["pairs"]]
        x, y = ([row[key] for row in rows] for key in ("predicted", "voted"))
        areas = np.clip(70 * np.sqrt(np.array([row["pairs"] for row in rows]) / shown.overall["stamps"]), 4, None)
        axes.plot(x, y, color=COLOURS[0], linewidth=0.8)
        axes.scatter(x, y, s=areas, color=COLOURS[0], zorder=3)
        error = shown.overall["classes"][name]["ece"]["value"]
        axes.set_title(_panel_title(title, f"ECE {error:.3f}"), fontsize=8)
    label_panels(figure, "mean predicted probability", "mean vote fraction", shown.sample)
    return figure


_GROUP_ROWS = (("rmse", "RMSE"), ("accuracy", "accuracy"), ("ece", "ECE"))


def _groups(shown: Shown) -> Figure:
    groupings = [one for one in shown.metrics["groups"] if one["groups"]]
    widths = [max(3, len(one["groups"])) for one in groupings]
    figure = new_figure(0.9 + 0.45 * sum(widths), 5.6)
    grid = figure.subplots(len(_GROUP_ROWS), len(groupings), squeeze=False, sharex="col", sharey="row",
                           width_ratios=widths, gridspec_kw={"wspace": 0.12, "hspace": 0.08})
    for column, grouping in enumerate(groupings):
        for row, (key, label) in enumerate(_GROUP_ROWS):
            axes = grid[row, column]
            _group_points(axes, [one["metrics"] for one in grouping["groups"]], key)
            axes.axhline(shown.overall[key]["value"], color=GREY, linewidth=0.8, zorder=0)
            if not column:
                axes.set_ylabel(label)
        names = [f"{one['name']} ({one['stamps']:,})" for one in grouping["groups"]]
        grid[-1, column].set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        grid[-1, column].set_xlim(-0.6, len(names) - 0.4)
        grid[0, column].set_title(grouping["title"])
    grid[2, 0].set_ylim(bottom=0)
    figure.suptitle(shown.sample, fontsize=9)
    return figure


def _group_points(axes: Axes, groups: Sequence[dict[str, Any] | None], key: str) -> None:
    for x, one in enumerate(groups):
        if one is None:
            continue
        value, interval = one[key]["value"], one[key]["interval"]
        axes.plot(x, value, "o", color=COLOURS[0], markersize=4.5)
        if interval:
            axes.plot([x, x], interval, color=COLOURS[0], linewidth=1.2)
        base = {"rmse": one["mean_label"]["rmse"], "ece": one["vote_noise"]["ece"]}.get(key)
        if base is not None:
            axes.plot([x - 0.35, x + 0.35], [base, base], color=COLOURS[5], linestyle=":", linewidth=1.2)
