"""What the sources are: kinds, magnitudes, sizes, structure and colours, before any pixel is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from catmorph.simulate.kinds import DrawnPart, draw_parts, uniform
from catmorph.simulate.spec import KINDS, FieldSpec, Population, SimulationSpec
from catmorph.simulate.spec_kinds import Kind
from catmorph.simulate.streams import stream

# AB colours m(band) - m(F160W) of an old and of a star-forming population as seen at z ~ 0.4, and of the
# knots of the latter: drawn by hand (old: a 4000 A break), then adjusted so that UV stamps are as often
# unclassifiable as in the public CLASH labels.
WAVELENGTHS_NM = np.array([225, 275, 336, 390, 435, 475, 606, 775, 850, 1050, 1250, 1540], dtype=float)
OLD = np.array([5.1, 4.5, 3.7, 2.8, 2.4, 2.1, 1.4, 0.9, 0.75, 0.5, 0.3, 0.0])
YOUNG = np.array([2.3, 2.2, 2.0, 1.6, 1.45, 1.3, 0.9, 0.6, 0.5, 0.3, 0.2, 0.0])
KNOT = np.array([0.9, 0.9, 0.9, 0.6, 0.55, 0.5, 0.35, 0.2, 0.15, 0.1, 0.05, 0.0])
STAR = np.array([4.5, 3.4, 2.0, 1.4, 1.1, 0.9, 0.4, 0.1, 0.05, 0.0, 0.0, 0.0])
COLOURS = {"old": OLD, "young": YOUNG, "knot": KNOT, "star": STAR}


@dataclass(frozen=True)
class Companion:
    """A compact neighbour: offset in half-light radii, flux relative to the source."""

    distance: float
    angle: float
    flux: float


@dataclass(frozen=True)
class Source:
    """One source as drawn from the population.

    Angles are in radians, `r50_arcsec` is the half-light radius of the main component before the PSF,
    `magnitude` is AB in the reference band, `colour` stretches all colours of the source.
    """

    id: int
    kind: str
    magnitude: float
    r50_arcsec: float
    axis_ratio: float
    angle: float
    colour: float
    sersic_index: float = 1.0
    bulge_fraction: float = 0.0
    arm_strength: float = 0.0
    arms: int = 2
    pitch: float = 0.3
    bar_fraction: float = 0.0
    clump_fraction: float = 0.0
    clumps: int = 0
    companion: Companion | None = None
    parts: tuple[DrawnPart, ...] = ()


def component_magnitude(source: Source, colour: str, wavelength_nm: float, reference_nm: float) -> float:
    """Return the magnitude in a band of light of `colour` that has `source.magnitude` in the reference."""
    difference = np.interp([wavelength_nm, reference_nm], WAVELENGTHS_NM, COLOURS[colour])
    return source.magnitude + source.colour * float(difference[0] - difference[1])


def draw_sources(spec: SimulationSpec, field_spec: FieldSpec) -> list[Source]:
    """Draw the sources of a field, each from its own random stream; IDs count from 1."""
    streams = ((number, stream(spec.seed, field_spec.name, number, "source"))
               for number in range(1, field_spec.sources + 1))
    if spec.kinds:
        return [draw_source_of_kinds(number, spec.kinds, spec.population, rng) for number, rng in streams]
    return [draw_source(number, spec.population, rng) for number, rng in streams]


def draw_source_of_kinds(
    number: int, kinds: Mapping[str, Kind], population: Population, rng: np.random.Generator
) -> Source:
    """Draw one source of the kinds that the spec describes."""
    weights = np.array([kind.weight for kind in kinds.values()])
    name = list(kinds)[rng.choice(len(kinds), p=weights / weights.sum())]
    ends = kinds[name].magnitude
    parts = draw_parts(kinds[name], rng)
    return Source(
        id=number, kind=name, magnitude=uniform(ends, rng) if ends else _magnitude(population, rng),
        r50_arcsec=max(one.reach_arcsec for one in parts), axis_ratio=1.0, angle=0.0,
        colour=float(rng.normal(1.0, 0.05)), parts=parts,
    )


def draw_source(number: int, population: Population, rng: np.random.Generator) -> Source:
    """Draw one source: kind, magnitude and size, then the structure of its kind."""
    weights = np.array([population.mix.get(kind, 0.0) for kind in KINDS])
    kind = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
    magnitude = _magnitude(population, rng)
    size = 0.46 * 10 ** (-0.09 * (magnitude - 22.0)) * rng.lognormal(0.0, 0.22)
    shared: dict[str, Any] = {
        "id": number,
        "kind": kind,
        "magnitude": magnitude,
        "angle": rng.uniform(0, np.pi),
        "colour": rng.normal(1.0, 0.1),
        "companion": _companion(population, rng) if kind != "point_source" else None,
    }
    return Source(**shared, **_STRUCTURES[kind](size, rng))


def _magnitude(population: Population, rng: np.random.Generator) -> float:
    """Draw from counts that grow as 10 ** (slope * magnitude)."""
    rate = population.slope * np.log(10.0)
    span = population.magnitude_faint - population.magnitude_bright
    chance = rng.uniform()
    if abs(rate) < 1e-9:
        return population.magnitude_bright + chance * span
    return population.magnitude_bright + np.log1p(chance * np.expm1(rate * span)) / rate


def _companion(population: Population, rng: np.random.Generator) -> Companion | None:
    distance, angle, flux = rng.uniform(1.4, 2.6), rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
    return Companion(distance, angle, flux) if rng.uniform() < population.companions else None


def _spheroid(size: float, rng: np.random.Generator) -> dict:
    return {
        "r50_arcsec": float(np.clip(0.75 * size, 0.14, 0.8)),
        "axis_ratio": rng.uniform(0.6, 1.0),
        "sersic_index": float(rng.choice([3.0, 3.5, 4.0, 4.5])),
        "bulge_fraction": 1.0,
    }


def _disk(size: float, rng: np.random.Generator) -> dict:
    barred = rng.uniform() < 0.35
    return {
        "r50_arcsec": float(np.clip(1.3 * size, 0.3, 0.95)),
        "axis_ratio": float(np.clip(rng.uniform(0.08, 1.0), 0.15, 1.0)),
        "sersic_index": 3.0,
        "bulge_fraction": rng.beta(1.6, 5.0),
        "arm_strength": rng.beta(2.0, 1.3),
        "arms": int(rng.choice([2, 2, 2, 4])),
        "pitch": np.deg2rad(rng.uniform(14, 32)),
        "bar_fraction": rng.uniform(0.05, 0.2) if barred else 0.0,
        "clumps": int(rng.integers(6, 16)),
    }


def _irregular(size: float, rng: np.random.Generator) -> dict:
    return {
        "r50_arcsec": float(np.clip(1.0 * size, 0.22, 0.8)),
        "axis_ratio": rng.uniform(0.4, 0.95),
        "clump_fraction": 0.15 + 0.7 * rng.beta(1.8, 1.5),
        "clumps": int(rng.integers(3, 11)),
    }


def _point_source(size: float, rng: np.random.Generator) -> dict:
    return {"r50_arcsec": 0.0, "axis_ratio": 1.0}


_STRUCTURES = {"spheroid": _spheroid, "disk": _disk, "irregular": _irregular, "point_source": _point_source}
