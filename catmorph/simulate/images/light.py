"""The light of a source in parts of one colour each, on a grid of detector pixels and before the PSF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from catmorph.simulate.images.galaxies import Galaxy

PITCH_BREAK = 0.08  # in scale lengths: where a logarithmic spiral stops winding up, as in simulate.shapes


@dataclass(frozen=True)
class Plane:
    """A square of `side` (odd) pixels of `scale_arcsec`, the source in the central one."""

    side: int
    scale_arcsec: float

    @cached_property
    def line(self) -> np.ndarray:
        """Offsets of a row of pixels from the centre, arcsec; shape (side,)."""
        return ((np.arange(self.side) - self.side // 2) * self.scale_arcsec).astype(np.float32)

    def turned(self, angle: float, x: float = 0.0, y: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return offsets (arcsec) from (x, y) along and across the direction `angle`; each (side, side)."""
        dx, dy = self.line[None, :] - np.float32(x), self.line[:, None] - np.float32(y)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return dx * cos + dy * sin, dy * cos - dx * sin


class Part(NamedTuple):
    """Light of one colour: `image` (side, side), `share` of the source's light that an image of sum 1 has."""

    name: str
    image: np.ndarray
    share: float
    colour: str


def draw_parts(galaxy: Galaxy, plane: Plane, rng: np.random.Generator) -> list[Part]:
    """Draw the parts of `galaxy`; the random numbers used do not depend on the plane."""
    if galaxy.kind == "star":
        return _star(plane, rng)
    if galaxy.kind == "artifact":
        along, across = plane.turned(galaxy.angle)
        return [Part("trail", _unit(np.exp(-0.5 * (across / 0.6) ** 2) * np.exp(-((along / 90.0) ** 2))), 1.0, "star")]
    parts = _disk(galaxy, plane, rng) if galaxy.is_disk else _body(galaxy, plane)
    for draw, share in ((_tails, galaxy.tail_fraction), (_clumps, galaxy.clump_fraction), (_arc, galaxy.arc_fraction)):
        if share > 0:
            parts.append(draw(galaxy, plane, rng))
    return parts + _companion(galaxy, plane)


def absorption(galaxy: Galaxy, plane: Plane, wavelength_nm: float) -> np.ndarray | float:
    """Return the part of the light that a dust lane lets through, more of it in the red; (side, side) or 1."""
    if galaxy.dust_depth <= 0:
        return 1.0
    along, across = plane.turned(galaxy.angle)
    lane = np.exp(-0.5 * ((across - 0.02 * galaxy.r50_arcsec) / (0.09 * galaxy.r50_arcsec)) ** 2)
    depth = galaxy.dust_depth * (550.0 / wavelength_nm) * lane * np.exp(-np.abs(along) / (1.2 * galaxy.r50_arcsec))
    return np.exp(-depth)


def sersic(plane: Plane, index: float, r50_arcsec: float, axis_ratio: float, angle: float,
           place: tuple[float, float] = (0.0, 0.0), boxiness: float = 2.0) -> np.ndarray:  # fmt: skip
    """Draw a Sersic profile of sum 1 at `place` (x, y; arcsec); boxiness 2 is elliptical, more is boxier.

    b(n) to two terms (Ciotti & Bertin 1999, equation 18).
    """
    along, across = plane.turned(angle, *place)
    across = across / np.float32(axis_ratio)
    if boxiness == 2.0:
        radius = np.hypot(along, across)
    else:
        radius = (np.abs(along) ** boxiness + np.abs(across) ** boxiness) ** np.float32(1 / boxiness)
    # Softened by a third of a pixel, far below the seeing: the cusp's pixel would depend on where in it the peak lies.
    radius = np.hypot(radius, np.float32(plane.scale_arcsec / 3))
    b = 2 * index - 1 / 3 + 4 / (405 * index)
    return _unit(np.exp(-b * (radius / np.float32(r50_arcsec)) ** np.float32(1 / index)))


def blobs(plane: Plane, centres: np.ndarray, sigmas: np.ndarray, fluxes: np.ndarray) -> np.ndarray:
    """Sum round Gaussians at `centres` (n, 2), in arcsec; the image has sum 1."""
    sigmas = np.maximum(sigmas, 0.5 * plane.scale_arcsec)[:, None]
    along_x = np.exp(-0.5 * ((plane.line - centres[:, :1]) / sigmas) ** 2) / sigmas
    along_y = np.exp(-0.5 * ((plane.line - centres[:, 1:]) / sigmas) ** 2) / sigmas
    return _unit((along_y * fluxes[:, None]).T @ along_x)


def _unit(image: np.ndarray) -> np.ndarray:
    return (image / max(float(image.sum(dtype=np.float64)), 1e-30)).astype(np.float32)


def _body(galaxy: Galaxy, plane: Plane) -> list[Part]:
    share = 1.0 - galaxy.clump_fraction - galaxy.tail_fraction - galaxy.arc_fraction
    image = sersic(plane, galaxy.sersic_index, galaxy.r50_arcsec, galaxy.axis_ratio, galaxy.angle)
    return [Part("body", image, share, "old")]


def _disk(galaxy: Galaxy, plane: Plane, rng: np.random.Generator) -> list[Part]:
    """Disk, arms, ring, bar and bulge. Lengths in the plane of the disk are in its scale lengths."""
    length = galaxy.r50_arcsec / 1.678
    along, across = plane.turned(galaxy.angle)
    radius = np.hypot(along, across / np.float32(galaxy.axis_ratio)) / np.float32(length)
    azimuth = np.arctan2(across / np.float32(galaxy.axis_ratio), along)
    turn, phase, hand = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    smooth = np.exp(-radius)
    total = float(smooth.sum(dtype=np.float64))
    special = galaxy.bulge_fraction + galaxy.bar_fraction + galaxy.ring_fraction
    share = (1.0 - special) * (1.0 - galaxy.clump_fraction - galaxy.tail_fraction)
    colour = "knot" if galaxy.kind == "irregular" else "young"
    parts = [Part("disk", (smooth / total).astype(np.float32), share, colour)]
    if galaxy.arm_strength > 0:
        start = 1.1 if galaxy.bar_fraction > 0 else 0.6
        pattern = _arm_pattern(galaxy, radius, hand * azimuth, phase, start) * smooth / total
        parts.append(Part("arms", pattern.astype(np.float32), share, "knot"))
    if galaxy.ring_fraction > 0:
        ring = np.exp(-0.5 * ((radius - rng.uniform(1.5, 2.2)) / 0.2) ** 2)
        parts.append(Part("ring", _unit(ring), galaxy.ring_fraction, "knot"))
    if galaxy.bar_fraction > 0:
        turned = azimuth - turn
        bar = np.exp(-(((radius * np.cos(turned) / 1.25) ** 4 + (radius * np.sin(turned) / 0.28) ** 2) ** 0.75))
        parts.append(Part("bar", _unit(bar), galaxy.bar_fraction, "old"))
    if galaxy.bulge_fraction > 0:
        thick = 0.62 + 0.38 * galaxy.axis_ratio
        size = galaxy.r50_arcsec * (0.15 + 0.35 * galaxy.bulge_fraction)
        index = 1.2 if galaxy.boxiness > 2 else 2.5
        bulge = sersic(plane, index, size, thick, galaxy.angle, boxiness=galaxy.boxiness)
        parts.append(Part("bulge", bulge, galaxy.bulge_fraction, "old"))
    return parts


def _arm_pattern(galaxy: Galaxy, radius: np.ndarray, azimuth: np.ndarray, phase: float, start: float) -> np.ndarray:
    """Return the relative modulation by logarithmic spiral arms, of mean zero along a circle.

    The ridge follows azimuth = ln(radius) / tan(pitch); exp(k cos) makes the arms narrower than the gaps, with
    the modified Bessel function I0 as its mean.
    """
    sharpness = 1.8
    winding = np.log(radius + PITCH_BREAK) / np.tan(np.deg2rad(galaxy.pitch_deg))
    # Real arms wander: a slow wave along the circle keeps them from being copies of one another.
    turn = galaxy.arms * (azimuth - winding) + phase + 0.4 * np.sin(azimuth + 2 * phase) + 0.3 * np.sin(2.3 * radius)
    pattern = np.exp(sharpness * np.cos(turn)) / np.i0(sharpness) - 1.0
    grown = 1.0 - np.exp(-((radius / start) ** 4))
    return galaxy.arm_strength * grown * pattern


def _tails(galaxy: Galaxy, plane: Plane, rng: np.random.Generator) -> Part:
    """Draw two curved tidal tails, the second starting from the companion where there is one."""
    first = rng.uniform(0, 2 * np.pi)
    bend, reach = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.8), rng.uniform(3.0, 4.5)
    balance = rng.uniform(0.1, 0.6)
    step = np.linspace(0.6, reach, 40)
    places, fluxes = [], []
    for number, flux in ((0, 1.0 - balance), (1, balance)):
        azimuth = first + number * np.pi + bend * step
        centre = _place_of(galaxy.companion, 1.0) if number and galaxy.companion else np.zeros(2)
        places.append(centre + np.stack([step * np.cos(azimuth), step * np.sin(azimuth)], axis=-1))
        fluxes.append(flux * np.exp(-0.45 * step))
    sigmas = np.tile(0.16 + 0.05 * step, 2) * galaxy.r50_arcsec
    image = blobs(plane, np.concatenate(places) * galaxy.r50_arcsec, sigmas, np.concatenate(fluxes))
    return Part("tails", image, galaxy.tail_fraction, "young")


def _clumps(galaxy: Galaxy, plane: Plane, rng: np.random.Generator) -> Part:
    """Draw clumps over the body, off its centre."""
    number = int(rng.integers(4, 11))
    offset = rng.normal(0, 0.35, 2).clip(-0.6, 0.6)
    places = (offset + rng.normal(0, 0.75, (number, 2))) * [1.0, galaxy.axis_ratio]
    cos, sin = np.cos(galaxy.angle), np.sin(galaxy.angle)
    centres = galaxy.r50_arcsec * places @ np.array([[cos, sin], [-sin, cos]])
    sigmas = galaxy.r50_arcsec * rng.uniform(0.08, 0.25, number)
    return Part("clumps", blobs(plane, centres, sigmas, rng.lognormal(0, 0.6, number)), galaxy.clump_fraction, "knot")


def _arc(galaxy: Galaxy, plane: Plane, rng: np.random.Generator) -> Part:
    """Draw a gravitational arc: a piece of a thin ring around the galaxy, blue."""
    radius = galaxy.r50_arcsec * rng.uniform(1.5, 2.2)
    along, across = plane.turned(rng.uniform(0, 2 * np.pi))
    thin = np.exp(-0.5 * ((np.hypot(along, across) - radius) / (0.12 * galaxy.r50_arcsec)) ** 2)
    piece = np.exp(-0.5 * (np.arctan2(across, along) / 0.6) ** 2)
    return Part("arc", _unit(thin * piece), galaxy.arc_fraction, "knot")


def _companion(galaxy: Galaxy, plane: Plane) -> list[Part]:
    one = galaxy.companion
    if one is None:
        return []
    x, y = _place_of(one, galaxy.r50_arcsec)
    index, colour = (1.0, "young") if one.axis_ratio < 0.7 else (2.5, "old")
    image = sersic(plane, index, one.size * galaxy.r50_arcsec, one.axis_ratio, one.turn, (x, y))
    return [Part("companion", image, one.flux, colour)]


def _place_of(companion: object, unit: float) -> np.ndarray:
    distance, angle = companion.distance * unit, companion.angle  # type: ignore[attr-defined]
    return np.array([distance * np.cos(angle), distance * np.sin(angle)])


def _star(plane: Plane, rng: np.random.Generator) -> list[Part]:
    """Draw a bright star: a point, and the spikes of the telescope's spider."""
    point = np.zeros((plane.side, plane.side), dtype=np.float32)
    point[plane.side // 2, plane.side // 2] = 1.0
    along, across = plane.turned(rng.uniform(0, np.pi / 2))
    spikes = _spike(across, along) + _spike(along, across)
    return [Part("star", point, 0.95, "star"), Part("spikes", _unit(spikes), 0.05, "star")]


def _spike(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (across / 0.25) ** 2) * np.exp(-np.abs(along) / 5.0)
