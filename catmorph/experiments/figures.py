"""The figure of each experiment, as PNG and PDF; same results, same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from catmorph.experiments.tables import Results
from catmorph.files import atomic

DPI = 150
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "errorbar.capsize": 2.5,
    "lines.markersize": 5, "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip


def draw(results: Results, path: Path) -> list[Path]:
    """Draw the figure of an experiment as `path` with the endings .png and .pdf, and return the two files."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for key, value in STYLE.items():
            mpl.rcParams[key] = value  # type: ignore[index]
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        results.grid.experiment.figure(results, figure)
        return save(figure, path)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF, without dates and versions."""
    files = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    with atomic(files[0]) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, dpi=DPI, format="png", metadata={"Software": None})
    with atomic(files[1]) as temporary:
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(figure).print_figure(temporary, format="pdf", metadata=nothing)
    return files
