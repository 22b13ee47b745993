"""The figures of a transfer: ROC curves of the five networks, and what they wrongly call positive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catmorph.experiments.drawing import BLUE, CYCLE, GREEN, GREY, ORANGE
from catmorph.experiments.figures import DPI, STYLE, save
from catmorph.experiments.transfer import ALL_LAYERS, APPLIED, DENSE, SCRATCH, SOURCE
from catmorph.experiments.transfer_table import Tested
from catmorph.files import atomic
from catmorph.release.text import plain_text
from catmorph.report.colour import palette_for, picture

LINES = {
    SOURCE: ("black", "-", "o"), APPLIED: (ORANGE, "--", "s"), ALL_LAYERS: (BLUE, "-", "D"),
    DENSE: (GREEN, "-.", "^"), SCRATCH: (CYCLE[3], ":", "v"),
}  # fmt: skip
STAMP_INCHES, TITLE_INCHES, CAPTION_INCHES = 1.0, 0.28, 0.18


def draw_roc(networks: Sequence[Tested], path: Path) -> list[Path]:
    """Draw the ROC curves, a panel a question, as `path` with the endings .png and .pdf (Fig. 2 of the paper)."""
    questions = _by_question(networks)
    with mpl.rc_context():
        _style()
        figure = Figure(figsize=(0.6 + 4.2 * len(questions), 4.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(questions), sharey=True))
        for axes, part in zip(panels, questions, strict=True):
            _roc_panel(axes, part)
        panels[0].set_ylabel("true positive rate (completeness)")
        return save(figure, path)


def _by_question(networks: Sequence[Tested]) -> list[list[Tested]]:
    return [list(part) for _, part in groupby(networks, key=lambda one: id(one.answered))]


def _roc_panel(axes: Axes, networks: Sequence[Tested]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (1, 3)))
    for one in networks:
        colour, line, marker = LINES[one.network]
        if one.curves is None:
            axes.plot([], [], " ", label=f"({one.network}) test stamps of one kind only")
            continue
        label = f"({one.network}) {_short(one.title)}: {one.curves.roc_area:.3f}"
        axes.plot(one.curves.false_positive_rate, one.curves.true_positive_rate, color=colour, linestyle=line,
                  label=label)  # fmt: skip
        counts = one.counts
        axes.plot(counts.false_positive / (counts.total - counts.positives), counts.true_positive / counts.positives,
                  color=colour, marker=marker, clip_on=False, zorder=3)  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_box_aspect(1)
    axes.set_xlabel("false positive rate")
    axes.set_title(_short(networks[0].answered.question.title, 40), fontsize=10)
    axes.legend(fontsize=6.5, loc="lower right", alignment="left", title_fontsize=6.5, frameon=True, edgecolor="none",
                title=f"area under the curve; marks: P = {networks[0].threshold:g}")  # fmt: skip


def draw_false_positives(networks: Sequence[Tested], path: Path) -> Path:
    """Draw the surest false positives of each network with their probability, as PNG `path` (Fig. 3 of the paper)."""
    columns = networks[0].answered.question.target.experiments.false_positives
    row = STAMP_INCHES + CAPTION_INCHES + TITLE_INCHES
    with mpl.rc_context():
        _style()
        figure = Figure(figsize=(columns * (STAMP_INCHES + 0.06) + 0.06, row * len(networks) + 0.1), dpi=DPI)
        for number, one in enumerate(networks):
            _row_of_stamps(figure, one, number * row + 0.05, columns)
        with atomic(path) as temporary:
            FigureCanvasAgg(figure).print_figure(temporary, dpi=DPI, format="png", metadata={"Software": None})
    return path


def _row_of_stamps(figure: Figure, one: Tested, top: float, columns: int) -> None:
    """Draw a title and up to `columns` stamps, `top` inches below the upper edge."""
    width, height = figure.get_size_inches()
    wrong, counts = one.false_positives, one.counts
    negatives = counts.total - counts.positives
    title = (f"{_short(one.answered.question.title, 30)}: ({one.network}) {_short(one.title)}, "
             f"{len(wrong)} false positives of {negatives} negatives")  # fmt: skip
    figure.text(0.06 / width, 1 - (top + 0.17) / height, title, fontsize=8, weight="bold")
    for place, index in enumerate(wrong[:columns]):
        left, bottom = 0.06 + place * (STAMP_INCHES + 0.06), height - top - TITLE_INCHES - STAMP_INCHES
        axes = figure.add_axes((left / width, bottom / height, STAMP_INCHES / width, STAMP_INCHES / height))
        axes.imshow(_image(one, int(one.rows[index])), origin="lower", interpolation="nearest")
        axes.axis("off")
        figure.text((left + STAMP_INCHES / 2) / width, (bottom - 0.14) / height, f"P = {one.probability[index]:.2f}",
                    fontsize=7, ha="center")  # fmt: skip
    if not len(wrong):
        figure.text(0.1 / width, 1 - (top + TITLE_INCHES + 0.4) / height, "none", fontsize=8, color=GREY)


def _image(one: Tested, row: int) -> np.ndarray:
    """Return what the network sees of a stamp as an image (y, x, 3), its top row last."""
    recipe = one.answered.question.source if one.network == SOURCE else one.answered.question.target
    palette = palette_for(recipe, str(one.data.views[row]), one.data.top_of(row), inputs=True)
    return picture(np.asarray(one.data.inputs[row]), palette)


def _style() -> None:
    mpl.rcdefaults()
    for key, value in STYLE.items():
        mpl.rcParams[key] = value  # type: ignore[index]


def _short(text: str, longest: int = 56) -> str:
    clean = plain_text(text)
    return clean if len(clean) <= longest else clean[: longest - 2] + ".."
