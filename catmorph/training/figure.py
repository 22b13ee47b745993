"""The learning curve as a picture; same rows, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catmorph.files import atomic

_BLUE, _ORANGE = "#1f6fb4", "#d9730d"


def draw_curve(path: Path, rows: Sequence[dict[str, float]], best_epoch: int, loss: str) -> None:
    """Write a PNG of loss, RMSE and accuracy against epoch; the epoch whose weights were kept is marked.

    Parameters
    ----------
    rows : sequence of dict
        The learning curve: epoch, loss and accuracy of training and validation, and validation_rmse.
    loss : str
        Name of the loss, for the axis.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(11, 3.4), dpi=120, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        left, middle, right = figure.subplots(1, 3)
        _draw(left, rows, {"training_loss": ("training", _BLUE), "validation_loss": ("validation", _ORANGE)},
              best_epoch, f"loss ({loss})")
        _draw(middle, rows, {"validation_rmse": ("validation", _ORANGE)}, best_epoch, "RMSE of the vote fractions")
        _draw(right, rows, {f"{one}_accuracy": (one, colour) for one, colour in
                            (("training", _BLUE), ("validation", _ORANGE))}, best_epoch, "accuracy")
        with atomic(path) as temporary:
            canvas.print_png(temporary, metadata={"Software": None})


def _draw(axes: Axes, rows: Sequence[dict[str, float]], columns: dict[str, tuple[str, str]], best: int,
          label: str) -> None:
    epochs = [row["epoch"] for row in rows]
    for name, (legend, colour) in columns.items():
        axes.plot(epochs, [row[name] for row in rows], color=colour, label=legend, marker="o", markersize=2.5,
                  linewidth=1.2)
    axes.axvline(best, color="0.55", linewidth=0.8, linestyle="--", label=f"best epoch ({best})")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize=8)
