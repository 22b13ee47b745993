"""From a spec to a folder of mosaics, catalogs, truth and labels."""

from __future__ import annotations

from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.wcs import WCS

from catmorph.engine import one_blas_thread, run_tasks
from catmorph.simulate import files, sky
from catmorph.simulate.folder import new_folder, watched
from catmorph.simulate.kinds import classify_by_experts, draw_redshifts
from catmorph.simulate.render import noise_sigma
from catmorph.simulate.shapes import load_galsim
from catmorph.simulate.spec import FieldSpec, SimulationSpec
from catmorph.simulate.streams import stream
from catmorph.simulate.votes import class_probabilities, draw_labels, probability_columns

STRUCTURE_COLUMNS = (
    "sersic_index", "axis_ratio", "angle", "r50_arcsec", "bulge_fraction", "arm_strength", "bar_fraction",
    "clump_fraction",
)  # fmt: skip

_SECONDS_A_SOURCE = 0.03
"""Time that a source takes in one band, on one core."""


class Simulated(NamedTuple):
    """What :func:`simulate_fields` wrote: the folder, and the tables it holds."""

    folder: Path
    truth: pd.DataFrame
    labels: pd.DataFrame


def simulate_fields(spec: SimulationSpec, out: str | Path, workers: int = 1, progress: bool = False) -> Simulated:
    """Draw all fields of `spec` into the new folder `out`.

    The folder appears when everything in it is complete. The same spec gives the same bytes, whatever
    the number of workers.

    Parameters
    ----------
    spec : SimulationSpec
    out : path
        Must not exist, or be empty.
    workers : int
        Processes; a field is drawn by one of them.
    progress : bool
        Whether to show a bar on standard error.

    Returns
    -------
    Simulated

    Raises
    ------
    UsageError
        When `out` is not empty, or GalSim is not installed.
    """
    load_galsim()
    with new_folder(Path(out)) as folder:
        for name in ("mosaics", "catalogs"):
            (folder / name).mkdir()
        fields = spec.all_fields()
        truth = pd.concat(_draw_all(spec, fields, folder, workers, progress), ignore_index=True)
        labels = _labels(truth, spec)
        truth = truth.drop(columns="dirty")
        files.write_truth(folder / "truth.parquet", truth)
        files.write_labels(folder / "labels.csv", labels)
    return Simulated(Path(out), truth, labels)


def _labels(truth: pd.DataFrame, spec: SimulationSpec) -> pd.DataFrame:
    if not spec.kinds:
        return draw_labels(truth, spec.votes, spec.seed)
    answers = {name: kind.answer for name, kind in spec.kinds.items()}
    return classify_by_experts(truth[truth["band"] == spec.reference_band], answers, spec.experts, spec.seed)


def _draw_all(
    spec: SimulationSpec, fields: tuple[FieldSpec, ...], folder: Path, workers: int, progress: bool
) -> list[pd.DataFrame]:
    """Draw the fields here or in processes; their tables come in the order of the spec."""
    tasks = [(number, spec, field, folder) for number, field in enumerate(fields)]
    seconds = sum(_SECONDS_A_SOURCE * one.sources * len(spec.bands_of(one)) for one in fields)
    done = run_tasks(_draw_numbered, tasks, workers=workers, estimated_seconds=seconds)
    return [table for _, table in sorted(watched(done, len(fields), "fields", progress), key=itemgetter(0))]


def _draw_numbered(task: tuple[int, SimulationSpec, FieldSpec, Path]) -> tuple[int, pd.DataFrame]:
    number, spec, field, folder = task
    return number, draw_field(spec, field, folder)


def draw_field(spec: SimulationSpec, field: FieldSpec, folder: Path) -> pd.DataFrame:
    """Draw one field into `folder`: its mosaics and its catalog; return its part of the truth table."""
    wcs = sky.field_wcs(field, spec.pixel_scale_arcsec)
    rows: list[dict] = []
    with one_blas_thread():
        placed = sky.place_sources(spec, field)
        for mosaic in sky.draw_mosaics(spec, field, placed):
            name = files.mosaic_name(field.name, mosaic.band.name, spec.files)
            files.write_mosaic(folder / "mosaics" / name, mosaic, wcs, field, spec)
            rows += _truth_rows(field, mosaic, placed, spec)
    truth = pd.DataFrame(rows)
    if spec.kinds:
        truth["class"] = [spec.kinds[kind].answer for kind in truth["kind"]]
        truth["listed"] = [spec.kinds[kind].listed for kind in truth["kind"]]
    else:
        truth[probability_columns()] = class_probabilities(truth, spec.votes)
    catalog = _catalog(spec, field, placed, wcs, truth)
    if spec.kinds:
        catalog = _with_photometry(catalog, spec, field, placed)
    sentinels = _dirty(catalog, spec, field, wcs)
    truth["dirty"] = truth["id"].isin(sentinels.ids)
    files.write_catalog(folder / "catalogs" / f"{field.name}.cat", sentinels.catalog)
    return truth


def _truth_rows(field: FieldSpec, mosaic: sky.Mosaic, placed: list[sky.Placed], spec: SimulationSpec) -> list[dict]:
    rows = []
    for one, seen in zip(placed, mosaic.seen, strict=True):
        structure = asdict(one.source)
        rows.append(
            {
                "field": field.name,
                "id": one.source.id,
                "band": mosaic.band.name,
                "kind": one.source.kind,
                "x": one.x,
                "y": one.y,
                "magnitude": seen.magnitude,
                "petro_radius_arcsec": one.petro_radius_pixels * spec.pixel_scale_arcsec,
                "covered": seen.covered,
            }
            | sky.appearance_columns(seen)
            | {name: structure[name] for name in STRUCTURE_COLUMNS}
            | {"companion": one.source.companion is not None}
        )
    return rows


def _catalog(
    spec: SimulationSpec, field: FieldSpec, placed: list[sky.Placed], wcs: WCS, truth: pd.DataFrame
) -> pd.DataFrame:
    """Return the clean catalog: one row a source, in the order of their IDs."""
    band = spec.band(spec.reference_band)
    ra, dec = wcs.pixel_to_world_values([one.x for one in placed], [one.y for one in placed])
    bands = [one.name for one in spec.bands_of(field)]
    look = truth[truth["band"] == (band.name if band.name in bands else bands[-1])]
    fluxes = np.array([one.renderer.fluxes(band).sum() for one in placed])
    scatter = [stream(spec.seed, field.name, one.source.id, "catalog").normal(0, 0.02) for one in placed]
    flag = (look["contamination"] > 0.1).astype(int) + 2 * (look["uncovered"] > 0).astype(int)
    return pd.DataFrame(
        {
            "ID": [one.source.id for one in placed],
            "RA": ra,
            "DEC": dec,
            "PETRO_RADIUS": [one.petro_radius_pixels for one in placed],
            f"{band.name}_MAG": spec.zero_point - 2.5 * np.log10(fluxes) + scatter,
            "FLAG": flag.to_numpy(),
        }
    )


def _with_photometry(
    catalog: pd.DataFrame, spec: SimulationSpec, field: FieldSpec, placed: list[sky.Placed]
) -> pd.DataFrame:
    """Add a magnitude in every other band and the spectroscopic redshift; leave out what is not listed."""
    catalog = catalog.copy()
    for band in spec.bands:
        fluxes = np.array([one.renderer.fluxes(band).sum() for one in placed])
        sigma = noise_sigma(band, spec) * np.array([np.sqrt(np.pi) * one.petro_radius_pixels for one in placed])
        scatter = [stream(spec.seed, field.name, one.source.id, band.name, "photometry").normal() for one in placed]
        measured = np.maximum(fluxes + sigma * np.array(scatter), 0.05 * fluxes)
        if band.name != spec.reference_band:
            catalog[f"{band.name}_MAG"] = spec.zero_point - 2.5 * np.log10(measured)
    kinds = [(one.source.id, spec.kinds[one.source.kind]) for one in placed]
    catalog["FLAG"] |= np.array([kind.flag for _, kind in kinds])
    if any(kind.redshift for _, kind in kinds):
        catalog["Z_SPEC"] = draw_redshifts(
            kinds, spec.experts, lambda number: stream(spec.seed, field.name, number, "spectrum"))
    return catalog[[kind.listed for _, kind in kinds]].reset_index(drop=True)


class _Dirtied(NamedTuple):
    catalog: pd.DataFrame
    ids: list[int]


def _dirty(catalog: pd.DataFrame, spec: SimulationSpec, field: FieldSpec, wcs: WCS) -> _Dirtied:
    """Put the faults of the spec into `catalog`; `ids` are the sources without a usable size.

    Bright sources get them first, so that a cut in magnitude does not hide the faults.
    """
    rng = stream(spec.seed, field.name, "dirt")
    bright = np.argsort(catalog.iloc[:, 4].to_numpy(), kind="stable")
    half = (len(catalog) + 1) // 2
    order = np.append(rng.permutation(bright[:half]), bright[half:])
    sentinels = order[: spec.dirt.sentinels]
    repeated = catalog.iloc[order[spec.dirt.sentinels :][: spec.dirt.duplicates]]
    catalog = catalog.copy()
    catalog.loc[catalog.index[sentinels], "PETRO_RADIUS"] = -99.0
    lost = catalog.iloc[[0] * spec.dirt.off_image].copy()
    for i in range(len(lost)):
        ra, dec = wcs.pixel_to_world_values(field.side_pixels * (1.3 + 0.1 * i), field.side_pixels * 0.5)
        lost.iloc[i, [0, 1, 2, 3]] = [catalog["ID"].max() + 1 + i, ra, dec, 12.0]
    parts = [part for part in (catalog, repeated, lost) if len(part)]
    return _Dirtied(pd.concat(parts).astype({"ID": int, "FLAG": int}), catalog["ID"].iloc[sentinels].tolist())
