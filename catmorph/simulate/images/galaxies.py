"""What the sources are: kinds, magnitudes, sizes and the features that people see, before any pixel is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from catmorph.simulate.images.spec import Population

PITCHES_DEG = {"tight": (7.0, 13.0), "medium": (16.0, 22.0), "loose": (27.0, 38.0)}


@dataclass(frozen=True)
class Companion:
    """A second galaxy: offset in half-light radii, flux and half-light radius relative to the first."""

    distance: float
    angle: float
    flux: float
    size: float
    axis_ratio: float
    turn: float


@dataclass(frozen=True)
class Galaxy:
    """One source as drawn from its population.

    Angles are in radians; `r50_arcsec` is the half-light radius of the main body before the PSF, 0 for a star;
    `magnitude` is AB in the reference band; `redness` multiplies all colours. `axis_ratio` is that of the
    projected disk or body, `*_fraction` are parts of its light.
    """

    number: int
    population: str
    kind: str
    magnitude: float
    redshift: float
    r50_arcsec: float
    axis_ratio: float
    angle: float
    redness: float
    sersic_index: float = 1.0
    bulge_fraction: float = 0.0
    boxiness: float = 2.0
    bar_fraction: float = 0.0
    arms: int = 0
    arm_strength: float = 0.0
    pitch_deg: float = 0.0
    ring_fraction: float = 0.0
    dust_depth: float = 0.0
    clump_fraction: float = 0.0
    tail_fraction: float = 0.0
    arc_fraction: float = 0.0
    companion: Companion | None = None

    @property
    def is_disk(self) -> bool:
        """Whether its main body is a disk."""
        return self.sersic_index == 1.0 and self.r50_arcsec > 0


def draw_galaxy(number: int, populations: tuple[Population, ...], rng: np.random.Generator) -> Galaxy:
    """Draw one source: its population, kind, magnitude and size, then the features of its kind."""
    shares = np.array([one.share for one in populations])
    population = populations[rng.choice(len(populations), p=shares / shares.sum())]
    weights = np.array(list(population.mix.values()))
    kind = list(population.mix)[rng.choice(len(weights), p=weights / weights.sum())]
    magnitude = _magnitude(population, rng)
    size = population.size_arcsec * 10 ** (-0.15 * (magnitude - 16.5)) * rng.lognormal(0.0, 0.22)
    low, high = population.redshift
    shared: dict[str, Any] = {
        "number": number,
        "population": population.name,
        "kind": kind,
        "magnitude": magnitude,
        "redshift": low + (high - low) * np.sqrt(rng.uniform()),
        "angle": rng.uniform(0, np.pi),
        "redness": population.redness * rng.normal(1.0, 0.08),
        "r50_arcsec": float(np.clip(size, 1.2, 9.0)),
    }
    return Galaxy(**shared | _FEATURES[kind](population, shared["r50_arcsec"], rng))


def _magnitude(population: Population, rng: np.random.Generator) -> float:
    """Draw from counts that grow as 10 ** (slope * magnitude)."""
    rate, span = population.slope * np.log(10.0), population.magnitude_faint - population.magnitude_bright
    chance = rng.uniform()
    grown = chance * span if abs(rate) < 1e-9 else np.log1p(chance * np.expm1(rate * span)) / rate
    return population.magnitude_bright + grown


def _smooth(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    shape = rng.choice(3, p=[0.38, 0.47, 0.15])
    low, high = ((0.86, 1.0), (0.5, 0.85), (0.22, 0.42))[shape]
    return {"axis_ratio": rng.uniform(low, high), "sersic_index": float(rng.choice([2.0, 2.5, 3.0, 4.0]))}


def _disk(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    """A disk at any inclination; bar, arms and ring each with their own chance."""
    axis_ratio = float(np.clip(rng.uniform(0.0, 1.0), 0.12, 1.0))
    features = {
        "axis_ratio": axis_ratio,
        "r50_arcsec": 1.25 * size,
        "bulge_fraction": float(np.clip(rng.beta(1.3, 3.5), 0.0, 0.75)),
        "bar_fraction": rng.uniform(0.1, 0.26) if rng.uniform() < population.bars else 0.0,
        "ring_fraction": rng.uniform(0.12, 0.3) if rng.uniform() < population.rings else 0.0,
        "boxiness": 4.0 if rng.uniform() < 0.2 else 2.0,
    }
    armed, strength = rng.uniform() < population.arms, rng.uniform(0.45, 1.2)
    features |= _arms(rng) | {"arm_strength": strength if armed else 0.0}
    dusty, depth = rng.uniform() < population.dust_lanes, rng.uniform(0.8, 1.6)
    return features | {"dust_depth": depth if dusty and axis_ratio < 0.25 else 0.0}


def _arms(rng: np.random.Generator) -> dict[str, Any]:
    winding = list(PITCHES_DEG)[rng.choice(3, p=[0.3, 0.4, 0.3])]
    number = int(rng.choice([1, 2, 3, 4, 6], p=[0.07, 0.6, 0.15, 0.1, 0.08]))
    return {"arms": number, "pitch_deg": rng.uniform(*PITCHES_DEG[winding])}


def _irregular(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"axis_ratio": rng.uniform(0.4, 0.9), "clump_fraction": rng.uniform(0.25, 0.7), "redness": 0.75}


def _merger(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    """Two galaxies of comparable light, mostly with tidal tails."""
    main = _disk(population, size, rng) if rng.uniform() < 0.5 else _smooth(population, size, rng)
    companion = Companion(
        distance=rng.uniform(1.3, 2.8), angle=rng.uniform(0, 2 * np.pi), flux=rng.uniform(0.25, 1.0),
        size=rng.uniform(0.6, 1.0), axis_ratio=rng.uniform(0.4, 1.0), turn=rng.uniform(0, np.pi),
    )  # fmt: skip
    tails = rng.uniform(0.1, 0.3) if rng.uniform() < 0.8 else 0.03
    return main | {"axis_ratio": max(main["axis_ratio"], 0.35), "companion": companion, "tail_fraction": tails}


def _disturbed(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    main = _disk(population, size, rng)
    return main | {
        "axis_ratio": max(main["axis_ratio"], 0.35), "tail_fraction": rng.uniform(0.12, 0.3),
        "clump_fraction": rng.uniform(0.0, 0.15),
    }  # fmt: skip


def _lens(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    return _smooth(population, size, rng) | {"axis_ratio": rng.uniform(0.7, 1.0), "arc_fraction": rng.uniform(0.1, 0.2)}


def _star(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"r50_arcsec": 0.0, "axis_ratio": 1.0, "magnitude": rng.uniform(12.0, 15.0)}


def _artifact(population: Population, size: float, rng: np.random.Generator) -> dict[str, Any]:
    """The trail of a satellite, taken for a galaxy."""
    return {"axis_ratio": 0.01, "magnitude": rng.uniform(13.5, 15.0)}


_FEATURES: dict[str, Callable[[Population, float, np.random.Generator], dict[str, Any]]] = {
    "smooth": _smooth, "disk": _disk, "irregular": _irregular, "merger": _merger, "disturbed": _disturbed,
    "lens": _lens, "star": _star, "artifact": _artifact,
}  # fmt: skip
