"""How far probabilities in bfloat16 are from those in float32: one recipe, classified in both.

    catmorph simulate configs/simulations/clash-training.toml --out simulated/clash-training
    python benchmarks/precision.py configs/samples/clash-training.toml \\
        --set classifiers.inception.checkpoint=sample_data/checkpoints/clash-inception-simulated.safetensors \\
        --set 'catalog.files=simulated/clash-training/catalogs/*0[1-9].cat' --device openvino \\
        --out benchmarks/results/precision.json

The run folder is put into a temporary folder. A processor without bfloat16 arithmetic emulates it, three times slower
than float32: the probabilities are those of the same roundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import CATMORPH, measure
from script import Report, options, say, scratch

from catmorph.api import open_run
from catmorph.release.reading import read_results
from catmorph.workspace import RunFolder

SURE_MARGIN = 0.05
"""Where the two largest probabilities differ by more, another class is another answer."""
PRECISIONS = ("float32", "bfloat16")


def probabilities(run: RunFolder) -> np.ndarray:
    """Return the probabilities of all classified stamps, shape (n, class)."""

    def each() -> Iterator[np.ndarray]:
        for result in read_results(run):
            for view in result.views.values():
                yield view.probabilities[view.classified]

    return np.concatenate(list(each())).astype(np.float64)


def compared(exact: np.ndarray, rough: np.ndarray) -> dict[str, Any]:
    """Return what the differences of probabilities come to, over all stamps and classes."""
    difference = np.abs(exact - rough)
    best = np.sort(exact, axis=1)
    sure = best[:, -1] - best[:, -2] > SURE_MARGIN
    other = exact.argmax(axis=1) != rough.argmax(axis=1)
    return {
        "stamps": len(exact), "median": float(np.median(difference)), "p99": float(np.quantile(difference, 0.99)),
        "p99_of_the_largest_of_a_stamp": float(np.quantile(difference.max(axis=1), 0.99)),
        "max": float(difference.max()), "stamps_with_another_class": int(other.sum()),
        f"of_these_sure_by_{SURE_MARGIN}": int((other & sure).sum()),
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as that of catmorph")
    args = parser.parse_args()
    report = Report(args.out, "torch")
    with scratch(args.folder, gigabytes=2) as folder:
        where = ("-r", str(args.recipe), "-w", str(folder / "run"), "-q", *(f"--set={one}" for one in args.set))
        measure(*CATMORPH, "cutouts", *where, folder=Path.cwd())
        found = {}
        for precision in PRECISIONS:
            say(f"classify in {precision}")
            how = ("--device", args.device, "--precision", precision)
            measure(*CATMORPH, "classify", *where, *how, folder=Path.cwd())
            found[precision] = probabilities(open_run(args.recipe, folder / "run", args.set))
    report.end(device=args.device, **compared(found["float32"], found["bfloat16"]))


if __name__ == "__main__":
    main()
