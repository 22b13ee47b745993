"""Figures of an evaluation, as PNG and PDF; same numbers, same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from catmorph.evaluation.additive import decisions
from catmorph.evaluation.curves import curves, undefined
from catmorph.schemes import Form
from catmorph.schemes.tree import Tree

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Told apart by the colour-blind (Okabe & Ito 2008, "Color Universal Design"), without the yellow."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_MARKS = "osD^vPX"
_GREY = "#777777"
_TICKS = (0, 0.5, 1)
_DPI = 160
_STYLE: dict[Any, Any] = {
    "font.size": 8.5, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 7.5, "axes.linewidth": 0.7,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "lines.linewidth": 1.3, "pdf.fonttype": 42, "text.parse_math": False,
    "legend.frameon": False, "svg.hashsalt": "catmorph", "xtick.direction": "in", "ytick.direction": "in",
    "xtick.top": True, "ytick.right": True,
}


@dataclass(frozen=True)
class Drawing:
    """A figure: the stem of its files, what it shows, and its bytes."""

    key: str
    title: str
    caption: str
    png: bytes
    pdf: bytes


@dataclass(frozen=True)
class Shown:
    """What the figures are of.

    `metrics` is the document of `catmorph.evaluation.run.evaluate`; probabilities and fractions are (n, class).
    """

    metrics: dict[str, Any]
    probabilities: np.ndarray
    fractions: np.ndarray
    names: tuple[str, ...]
    titles: tuple[str, ...]
    kind: Form

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
        yield _drawing("confusion", "Confusion matrix", _confusion_caption(shown, "confusion"),
                       lambda: _confusion(shown, "confusion"))
        if shown.overall["confusion_agreed"]["stamps"]:
            yield _drawing("confusion_agreed", "Confusion matrix where people agree",
                           _confusion_caption(shown, "confusion_agreed"), lambda: _confusion(shown, "confusion_agreed"))
        yield _drawing("thresholds", "Accuracy, F1 and kept fraction against the probability threshold",
                       "Stamps whose largest probability is below the threshold are left out. Bands: "
                       f"{_level(shown)} intervals by bootstrap of sources. As Fig. 11 of Perez-Carrasco et al. "
                       "(2019).",
                       lambda: _thresholds(shown))
    yield _drawing("roc", "Receiver operating characteristic", "One class against the rest; a stamp is of the class "
                   + _decided(shown.kind) + ". Areas in the legend.", lambda: _curves(shown, roc=True))
    yield _drawing("precision_recall", "Completeness and purity", "Purity (precision) against completeness (recall) as "
                   "the threshold on the probability of the class is moved, one class against the rest. The number "
                   "of stamps of each class and the average precision in the legend.",
                   lambda: _curves(shown, roc=False))
    yield _drawing("predicted_human", "Predicted against human probability", "Each stamp once in each panel; grey: "
                   "number of stamps; orange: median and 16% to 84% of the predictions at each tenth of human "
                   "probability. As Fig. 7 of Perez-Carrasco et al. (2019).", lambda: _predicted(shown))
    yield _drawing("reliability", "Reliability", "Mean vote fraction against mean predicted probability in bins of "
                   "equal width; on the diagonal probabilities are fractions of votes. Below: number of (stamp, "
                   "class) pairs a bin.", lambda: _reliability(shown))
    yield _drawing("reliability_classes", "Reliability of each class", "As before, each class alone; areas of the "
                   "marks grow with the number of stamps.", lambda: _class_reliability(shown))
    yield _drawing("groups", "By band, magnitude and size", f"Bars: {_level(shown)} intervals by bootstrap of "
                   "sources; in brackets: number of stamps. Grey line: all stamps. Dotted: the RMSE of always "
                   "answering the mean label, and the ECE that the noise of the votes alone gives a calibrated "
                   "network.", lambda: _groups(shown))


def _level(shown: Shown) -> str:
    return f"{shown.metrics['settings']['confidence']:.0%}"


def _decided(kind: Form) -> str:
    if isinstance(kind, Tree):
        return "where most votes lead to it, question by question"
    return "where most votes are for it" if kind == "softmax" else "where at least half of the votes are"


def _drawing(key: str, title: str, caption: str, draw: Callable[[], Figure]) -> Drawing:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = draw()
        png, pdf = io.BytesIO(), io.BytesIO()
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        tight: dict[str, Any] = {"bbox_inches": figure.get_tightbbox(canvas.get_renderer()).padded(0.08)}
        # Without these entries a file says nothing of versions and times.
        canvas.print_figure(png, format="png", dpi=_DPI, metadata={"Software": None}, **tight)
        FigureCanvasPdf(figure).print_figure(
            pdf, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None}, **tight
        )
    return Drawing(key, title, caption, png.getvalue(), pdf.getvalue())


def _figure(width: float, height: float) -> Figure:
    """Return a figure with margins for labels; what reaches beyond them is not cut when it is printed."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.1 / width, bottom=0.6 / height, top=1 - 0.55 / height)
    return figure


def _line(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)]}


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


def _confusion(shown: Shown, key: str) -> Figure:
    found = shown.overall[key]
    counts = np.array(found["counts"])
    size = len(counts)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    side = max(3.4, 0.72 * size)
    figure = _figure(side + 1.6, side + 1.0)
    axes = figure.add_subplot()
    image = axes.imshow(np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1)
    small = 8.5 if size <= 8 else 5
    for row, column in np.ndindex(counts.shape):
        if totals[row, 0]:
            text = f"{share[row, column]:.0%}\n{counts[row, column]:,}"
            colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
        elif column == 0:
            axes.text(-0.4, row, "no stamp", ha="left", va="center", fontsize=small, color=_GREY, style="italic")
    labels = [_wrapped(title) for title in shown.titles]
    axes.set_xticks(range(size), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), labels)
    axes.tick_params(length=0)
    axes.set_xlabel("most probable class (network)")
    axes.set_ylabel("most voted class (people)")
    where = "" if key == "confusion" else f", vote fraction ≥ {found['agreement']:g}"
    axes.set_title(f"n = {found['stamps']:,} stamps{where}")
    figure.colorbar(image, ax=axes, label="fraction of the row", fraction=0.045, pad=0.03)
    return figure


def _wrapped(title: str) -> str:
    return title.replace(" ", "\n", 1) if len(title) > 14 else title


def _thresholds(shown: Shown) -> Figure:
    rows = shown.overall["thresholds"]
    figure = _figure(5.2, 3.7)
    axes = figure.add_subplot()
    x = [row["threshold"] for row in rows]
    named = (("accuracy", "accuracy of kept stamps"), ("macro_f1", "macro F1 of kept stamps"),
             ("kept", "kept fraction"))
    for index, (key, label) in enumerate(named):
        y = np.array([np.nan if row[key]["value"] is None else row[key]["value"] for row in rows])
        bounds = np.array([row[key]["interval"] or (np.nan, np.nan) for row in rows], np.float64)
        axes.plot(x, y, marker=_MARKS[index], markersize=3.5, color=COLOURS[index], label=label)
        axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=COLOURS[index], alpha=0.2, linewidth=0)
    axes.set(xlabel="threshold on the largest probability", ylabel="fraction", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    axes.set_title(shown.sample)
    return figure


def _curves(shown: Shown, *, roc: bool) -> Figure:
    figure = _figure(6.4 if len(shown.names) <= 8 else 8.5, 4.2)
    axes = figure.add_subplot()
    human, _, _ = decisions(shown.probabilities, shown.fractions, shown.kind)
    for index, (name, title) in enumerate(zip(shown.names, shown.titles, strict=True)):
        if undefined(human[:, index]):
            axes.plot([], [], label=f"{title}: no curve", **_line(index))
            continue
        found = curves(shown.probabilities[:, index], human[:, index])
        numbers = shown.overall["classes"][name]
        if roc:
            label = f"{title}: {_with_interval(numbers['roc_area'])}"
            axes.plot(found.false_positive_rate, found.true_positive_rate, label=label, **_line(index))
        else:
            label = f"{title} ({numbers['voted']:,}): {_with_interval(numbers['average_precision'])}"
            axes.plot(found.recall, found.precision, drawstyle="steps-post", label=label, **_line(index))
    if roc:
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.7, linestyle=":")
        axes.set(xlabel="false positive rate", ylabel="true positive rate (completeness)")
    else:
        axes.set(xlabel="completeness (recall)", ylabel="purity (precision)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), box_aspect=1)
    title = f"area [{_level(shown)} interval]" if roc else f"average precision [{_level(shown)} interval]"
    axes.legend(title=title, title_fontsize=7.5, alignment="left", loc="upper left", bbox_to_anchor=(1.02, 1.0),
                ncols=1 if len(shown.names) <= 16 else 2, borderaxespad=0)
    axes.set_title(shown.sample)
    return figure


def _with_interval(record: dict[str, Any]) -> str:
    if record["value"] is None:
        return "undefined"
    text = f"{record['value']:.3f}"
    return text if record["interval"] is None else text + " [{:.3f}, {:.3f}]".format(*record["interval"])


def _panels(count: int, side: float = 2.4) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3 if count <= 6 else 5)
    rows = -(-count // columns)
    figure = _figure(side * columns + 0.7, side * (1.22 * rows - 0.22) + 1.15)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True,
                           gridspec_kw={"wspace": 0.08, "hspace": 0.22})
    for unused in grid.flat[count:]:
        unused.set_axis_off()
    for above in grid.flat[max(0, count - columns) : count]:
        above.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def _label_panels(figure: Figure, x: str, y: str, title: str) -> None:
    width, height = figure.get_size_inches()
    figure.supxlabel(x, fontsize=9, y=0.12 / height)
    figure.supylabel(y, fontsize=9, x=0.05 / width)
    figure.suptitle(title, fontsize=9, y=1 - 0.05 / height)


def _panel_title(title: str, number: str) -> str:
    return f"{title}: {number}" if len(title) <= 18 else f"{title}\n{number}"


def _predicted(shown: Shown) -> Figure:
    figure, panels = _panels(len(shown.names))
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
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), box_aspect=1, xticks=_TICKS, yticks=_TICKS)
    width, height = figure.get_size_inches()
    bar = figure.add_axes((1 + 0.1 / width, 1 - 2.6 / height, 0.1 / width, 2 / height))
    figure.colorbar(image, cax=bar, label="stamps", format=_plain)
    _label_panels(figure, "human probability (vote fraction)", "predicted probability", shown.sample)
    return figure


def _plain(value: float, position: int | None = None) -> str:
    # The usual labels of logarithmic axes are mathematical text, which the style turns off: names may hold a $.
    return f"{value:g}"


def _inside(values: np.ndarray) -> np.ndarray:
    # Fractions in float32 may miss an edge by a rounding.
    return np.clip(np.asarray(values, np.float64) + 1e-7, 0, 1)


def _reliability(shown: Shown) -> Figure:
    figure = _figure(4.2, 5.0)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1], gridspec_kw={"hspace": 0.06})
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--")
    states = [("as it is", shown.overall)]
    if shown.metrics["calibration"]:
        states.append((f"calibrated, T = {shown.metrics['calibration']['temperature']:.3g}",
                       shown.metrics["calibration"]["after"]))
    for index, (label, numbers) in enumerate(states):
        rows = [row for row in numbers["reliability"]["all"] if row["pairs"]]
        x, y = ([row[key] for row in rows] for key in ("predicted", "voted"))
        axes.plot(x, y, marker=_MARKS[index], markersize=4.5, color=COLOURS[index],
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
    figure, panels = _panels(len(shown.names))
    for name, title, axes in zip(shown.names, shown.titles, panels, strict=True):
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--")
        rows = [row for row in shown.overall["reliability"]["classes"][name] if row["pairs"]]
        x, y = ([row[key] for row in rows] for key in ("predicted", "voted"))
        areas = np.clip(70 * np.sqrt(np.array([row["pairs"] for row in rows]) / shown.overall["stamps"]), 4, None)
        axes.plot(x, y, color=COLOURS[0], linewidth=0.8)
        axes.scatter(x, y, s=areas, color=COLOURS[0], zorder=3)
        error = shown.overall["classes"][name]["ece"]["value"]
        axes.set_title(_panel_title(title, f"ECE {error:.3f}"), fontsize=8)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), box_aspect=1, xticks=_TICKS, yticks=_TICKS)
    _label_panels(figure, "mean predicted probability", "mean vote fraction", shown.sample)
    return figure


_GROUP_ROWS = (("rmse", "RMSE"), ("accuracy", "accuracy"), ("ece", "ECE"))


def _groups(shown: Shown) -> Figure:
    groupings = [one for one in shown.metrics["groups"] if one["groups"]]
    widths = [max(3, len(one["groups"])) for one in groupings]
    figure = _figure(0.9 + 0.45 * sum(widths), 5.6)
    grid = figure.subplots(len(_GROUP_ROWS), len(groupings), squeeze=False, sharex="col", sharey="row",
                           width_ratios=widths, gridspec_kw={"wspace": 0.12, "hspace": 0.08})
    for column, grouping in enumerate(groupings):
        for row, (key, label) in enumerate(_GROUP_ROWS):
            axes = grid[row, column]
            _group_points(axes, [one["metrics"] for one in grouping["groups"]], key)
            axes.axhline(shown.overall[key]["value"], color=_GREY, linewidth=0.8, zorder=0)
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
