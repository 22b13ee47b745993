"""Draw what the other benchmarks have measured: each stage beside its limit and other tools.

    python benchmarks/figure.py --out docs/images/performance.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
OURS, OTHER, LIMIT = "tab:blue", "tab:gray", "tab:orange"


def read(name: str) -> dict[str, Any]:
    """Return a result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def bars(axes: Axes, title: str, rows: list[tuple[str, float, str]]) -> None:
    """Draw (label, stamps a second, colour) as horizontal bars, their values at their ends."""
    labels, values, colours = zip(*reversed(rows), strict=True)
    drawn = axes.barh(labels, values, color=colours)
    axes.bar_label(drawn, [f" {value:,.0f}" for value in values], fontsize=8)
    axes.margins(x=0.2)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def cutouts(axes: Axes, name: str) -> None:
    """Draw whole commands that cut."""
    result = read(name)
    rates = result["stamps_a_second"]
    rows = [(key, rates[key], OURS) for key in rates if key.startswith("catmorph")]
    names = {"cutana": "Cutana", "fitsio sections": "fitsio sections: reading"}
    rows += [(name, rates[key], OTHER) for key, name in names.items() if key in rates]
    rows += [("h5py alone: writing", rates["h5py alone"], LIMIT)]
    bars(axes, f"cutouts, {result['sources']:,} sources: stamps/s, start included", rows)


def classify(axes: Axes) -> None:
    """Draw whole commands that classify, and the limit that the matrix rate sets."""
    result = read("classify")
    rates = result["stamps_a_second"]
    rows = [(key, rates[key], OURS) for key in rates if key.startswith("catmorph")]
    precision, rate = result["precision"]["openvino"], result["matrix_rate_gflops"]["openvino"]
    rows += [("plain loop", rates["plain loop"], OTHER),
             (f"direct products at the {precision} matrix rate", rate / 1.12, LIMIT)]
    bars(axes, f"classify, clash-inception, {result['sources']:,} stamps: stamps/s, start included", rows)


def release(axes: Axes) -> None:
    """Draw galaxies a second of the release."""
    result = read("release")
    names = {"export, csv": OURS, "export, parquet": OURS, "summarize": OURS,
             "summarize, without an export": OURS, "pandas": OTHER}
    rows = [(key if key == "pandas" else f"catmorph {key}", result["galaxies"] / result["measured"][key]["seconds"],
             colour) for key, colour in names.items() if key in result["measured"]]  # fmt: skip
    bars(axes, f"release, {result['galaxies']:,} galaxies in {result['bands']} bands: galaxies/s", rows)


def scaling(axes: Axes, key: str, title: str, *, scale: str) -> None:
    """Draw what each stage takes at several numbers of sources, on an axis with that scale."""
    measured = read("scaling")["measured"]
    counts = [int(count) for count in measured]
    for place, stage in enumerate(next(iter(measured.values()))):
        axes.plot(counts, [one[stage][key] for one in measured.values()], ".-", color=f"C{place}", label=stage)
    axes.set_xscale("log")
    axes.set_yscale(scale)
    if scale == "linear":
        axes.set_ylim(0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    figure = Figure(figsize=(7, 10), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=(3, 1))
    axes = above.subplots(4)
    cutouts(axes[0], "cutouts")
    cutouts(axes[1], "cutouts-large")
    classify(axes[2])
    release(axes[3])
    seconds, memory = below.subplots(1, 2)
    scaling(seconds, "seconds", "seconds of a command, by sources", scale="log")
    scaling(memory, "peak_anonymous_mb", "MB of memory, by sources", scale="linear")
    seconds.legend(fontsize=7, frameon=False)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
