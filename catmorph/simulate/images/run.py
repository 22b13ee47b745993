"""From a spec to a folder of image files, catalog, truth and labels."""

from __future__ import annotations

from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from catmorph.engine import one_blas_thread, run_tasks
from catmorph.simulate.files import write_truth
from catmorph.simulate.folder import new_folder, watched
from catmorph.simulate.images import files
from catmorph.simulate.images.galaxies import Galaxy, draw_galaxy
from catmorph.simulate.images.render import magnitudes, r90_arcsec, see
from catmorph.simulate.images.spec import ImageSpec, SurveySpec
from catmorph.simulate.images.voters import answer_chances, cumulative, label_table, vote_on
from catmorph.simulate.streams import stream

BLOCK = 16
"""Sources a worker draws at a time."""
_SECONDS_AN_IMAGE = 0.15
_DECIMALS = {"ra": 6, "dec": 6, "r90": 3, "z": 4}


class SimulatedImages(NamedTuple):
    """What :func:`simulate_images` wrote: the folder, and its catalog and truth table."""

    folder: Path
    catalog: pd.DataFrame
    truth: pd.DataFrame


def simulate_images(spec: ImageSpec, out: str | Path, workers: int = 1, progress: bool = False) -> SimulatedImages:
    """Draw all images of `spec` into the new folder `out`.

    The folder appears when everything in it is complete. The same spec gives the same bytes, whatever the number
    of workers; an image does not depend on the others.

    Parameters
    ----------
    spec : ImageSpec
    out : path
        Must not exist, or be empty.
    workers : int
        Processes.
    progress : bool
        Whether to show a bar on standard error.

    Returns
    -------
    SimulatedImages

    Raises
    ------
    UsageError
        When `out` is not empty.
    """
    with new_folder(Path(out)) as folder:
        for survey in spec.surveys:
            (folder / survey.name).mkdir()
        starts = range(1, spec.sources + 1, BLOCK)
        tasks = [(start, min(start + BLOCK, spec.sources + 1), spec, folder) for start in starts]
        seconds = _SECONDS_AN_IMAGE * spec.sources * len(spec.surveys)
        done = run_tasks(_draw_block, tasks, workers=workers, estimated_seconds=seconds)
        blocks = sorted(watched(done, len(tasks), "images", progress), key=itemgetter(0))
        catalog = pd.DataFrame([row for _, rows, _ in blocks for row in rows])
        truth = _table([row for _, _, rows in blocks for row in rows])
        files.write_table(folder / "catalog.csv", catalog, _DECIMALS)
        write_truth(folder / "truth.parquet", truth)
        for survey in spec.surveys:
            _finish(survey, truth[truth["survey"] == survey.name], spec, folder)
    return SimulatedImages(Path(out), catalog, truth)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the truth table in single precision: it is a hundred columns wide."""
    table = pd.DataFrame(rows)
    return table.astype({str(name): np.float32 for name in table if table[name].dtype == np.float64})


def _finish(survey: SurveySpec, truth: pd.DataFrame, spec: ImageSpec, folder: Path) -> None:
    """Write the label tables of a survey, and pack its images."""
    for one in spec.labels:
        path = folder / one.file.replace("{survey}", survey.name)
        files.write_table(path, label_table(truth, one), {})
    if spec.images.container == "tar":
        files.pack(folder / survey.name)


def _draw_block(task: tuple[int, int, ImageSpec, Path]) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    start, stop, spec, folder = task
    catalog, truth = [], []
    with one_blas_thread():
        for number in range(start, stop):
            galaxy = draw_galaxy(number, spec.populations, stream(spec.seed, number, "galaxy"))
            r90 = r90_arcsec(galaxy, spec)
            catalog.append(_catalog_row(galaxy, r90, spec))
            truth += [
                _draw_image(galaxy, r90, survey, spec, folder) for survey in spec.surveys if survey.sees(number)
            ]
    return start, catalog, truth


def _catalog_row(galaxy: Galaxy, r90: float, spec: ImageSpec) -> dict[str, Any]:
    rng = stream(spec.seed, galaxy.number, "catalog")
    place = {"ra": rng.uniform(0, 360), "dec": float(np.rad2deg(np.arcsin(rng.uniform(-0.5, 0.9))))}
    bands = {f"mag_{name}": value + rng.normal(0, 0.02) for name, value in magnitudes(galaxy, spec).items()}
    return {"id": _id(galaxy.number, spec), **place, "r90": r90, "z": galaxy.redshift, **bands}


def _id(number: int, spec: ImageSpec) -> int:
    return spec.first_id + number - 1


def _draw_image(galaxy: Galaxy, r90: float, survey: SurveySpec, spec: ImageSpec, folder: Path) -> dict[str, Any]:
    """Draw and write one image; return its row of the truth table."""
    seen = see(galaxy, r90, survey, spec)
    fault = _fault(galaxy.number, survey, spec)
    if fault != "missing":
        pixel_arcsec = spec.images.side_radii * r90 / spec.images.side_pixels
        data = files.image_bytes(seen.planes, spec, survey, pixel_arcsec, grey=fault == "grey")
        name = f"{_id(galaxy.number, spec)}{files.ENDINGS[spec.images.format]}"
        (folder / survey.name / name).write_bytes(data[: len(data) // 2] if fault == "truncated" else data)
    chances = answer_chances(galaxy, seen, survey.fwhm_arcsec)
    votes = vote_on(galaxy, chances, survey.name, spec)
    shape = {key: value for key, value in asdict(galaxy).items() if key not in ("number", "companion")}
    return (
        {"id": _id(galaxy.number, spec), "survey": survey.name, "r90": r90, "fault": fault}
        | shape
        | {"companion": galaxy.companion is not None, "snr": max(seen.snr.values())}
        | {f"p_{answer}": chance for answer, chance in cumulative(chances).items()}
        | {f"n_{answer}": count for answer, count in votes.items()}
    )


def _fault(number: int, survey: SurveySpec, spec: ImageSpec) -> str:
    """Return what is wrong with the image of a source: the last ones that the survey sees have the faults."""
    last = spec.sources if survey.sources is None else min(survey.first + survey.sources - 1, spec.sources)
    place = last - number
    for name, count in (("truncated", spec.dirt.truncated), ("grey", spec.dirt.grey), ("missing", spec.dirt.missing)):
        if 0 <= place < count:
            return name
        place -= count
    return ""
