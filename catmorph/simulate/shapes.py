"""The light of one source in components, on a grid finer than the pixels and before the PSF.

GalSim draws the Sersic profiles and the PSF; spiral arms, bars, knots and clumps are numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from catmorph.errors import UsageError
from catmorph.simulate.kinds import DrawnPart
from catmorph.simulate.population import Source

Shift = tuple[float, float]
OVERSAMPLE = 3  # a UV PSF of 0.07" is then 3.2 fine pixels wide, so that shifts and FFTs do not ring


def load_galsim() -> ModuleType:
    """Import GalSim, or say how to get it."""
    try:
        import galsim
    except ImportError as error:
        raise UsageError("the simulator needs GalSim", hint="pip install 'catmorph[simulate]'") from error
    return galsim


@dataclass(frozen=True)
class Component:
    """Light of one colour.

    Attributes
    ----------
    image : ndarray, shape (ny, nx), float32
        Surface brightness on the fine grid; `share` is the part of the source's reference flux that an
        image of sum 1 has.
    colour : str
        Name of its colours in ``population.COLOURS``.
    structure : bool
        Whether it is structure of a disk (arms, knots, bar), as against smooth light.
    disk : bool
        Whether it is light of a disk, smooth or structured.
    """

    image: np.ndarray
    share: float
    colour: str
    structure: bool = False
    disk: bool = False


@dataclass(frozen=True)
class Grid:
    """The fine grid of a source: `side` fine pixels, the source in the central one."""

    side: int
    scale_arcsec: float

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y from the centre in arcsec, each of shape (side, side)."""
        line = (np.arange(self.side) - self.side // 2) * self.scale_arcsec
        x, y = np.meshgrid(line, line)
        return x, y

    def taper(self) -> np.ndarray:
        """Return a window that falls from 1 to 0 over the outer fifth of the radius; shape (side, side)."""
        return _taper(self.side)


@lru_cache(maxsize=32)
def _taper(side: int) -> np.ndarray:
    line = (np.arange(side) - side // 2) / (side / 2)
    part = np.hypot(line[:, None], line[None, :])
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((part - 0.8) / 0.2, 0, 1))


def grid_for(source: Source, pixel_scale_arcsec: float) -> Grid:
    """Return a grid that reaches to about 6.5 half-light radii: 16 to 96 pixels from the centre.

    In steps of 8 pixels, so that few PSFs are drawn.
    """
    half = 8 * int(np.clip(np.ceil(6.5 * source.r50_arcsec / pixel_scale_arcsec / 8) + 1, 2, 12))
    return Grid((2 * half + 1) * OVERSAMPLE, pixel_scale_arcsec / OVERSAMPLE)


def draw_psf(fwhm_arcsec: float, grid: Grid) -> np.ndarray:
    """Draw a Moffat PSF (beta 3, the core and halo of a drizzled HST PSF) of sum 1; shape (side, side)."""
    galsim = load_galsim()
    return _unit(_draw(galsim.Moffat(beta=3.0, fwhm=fwhm_arcsec), grid.side, grid.scale_arcsec))


def draw_components(source: Source, grid: Grid, rng: np.random.Generator) -> list[Component]:
    """Draw the components of `source`; their shares sum to about 1."""
    if source.parts:
        return [_part(one, grid) for one in source.parts]
    draw = {"spheroid": _spheroid, "disk": _disk, "irregular": _irregular, "point_source": _point_source}
    return draw[source.kind](source, grid, rng) + _companion(source, grid)


def _part(part: DrawnPart, grid: Grid) -> Component:
    if part.profile == "sersic":
        image = _sersic(part.index, part.r50_arcsec, part.axis_ratio, part.angle, grid, part.shift_arcsec)
    else:
        image = _blobs(grid, np.array([part.shift_arcsec]), np.zeros(1), np.ones(1))
    return Component(image, part.share, part.colour)


def _draw(profile: Any, side: int, scale_arcsec: float) -> np.ndarray:
    """Sample `profile` at the centres of (side, side) pixels, times the area of one.

    In real space: 40 times faster than the FFT that integrates over the fine pixels, which are a third of
    the smallest PSF.
    """
    image = load_galsim().ImageF(side, side, scale=scale_arcsec)
    profile.drawImage(image=image, method="no_pixel")
    return image.array


def _unit(image: np.ndarray) -> np.ndarray:
    """Scale `image` to sum 1, in float32."""
    return (image / image.sum()).astype(np.float32)


def _sersic(
    index: float, r50_arcsec: float, axis_ratio: float, angle: float, grid: Grid, shift: Shift = (0.0, 0.0)
) -> np.ndarray:
    """Draw a Sersic profile of sum 1, `shift` arcsec (x, y) from the centre.

    The cusp of one in the centre is sampled 6 x 6 times in each of the central 15 x 15 fine pixels.
    """
    galsim = load_galsim()
    profile = galsim.Sersic(n=index, half_light_radius=r50_arcsec)
    profile = profile.shear(q=axis_ratio, beta=angle * galsim.radians).shift(*shift)
    image = _draw(profile, grid.side, grid.scale_arcsec)
    if shift == (0.0, 0.0):
        finer = _draw(profile, 15 * 6, grid.scale_arcsec / 6)
        centre = slice(grid.side // 2 - 7, grid.side // 2 + 8)
        image[centre, centre] = finer.reshape(15, 6, 15, 6).sum(axis=(1, 3))
    return _unit(image * grid.taper())


def _blobs(grid: Grid, centres: np.ndarray, sigmas: np.ndarray, fluxes: np.ndarray) -> np.ndarray:
    """Sum round Gaussians at `centres` (n, 2), in arcsec; the image has sum 1."""
    line = (np.arange(grid.side) - grid.side // 2) * grid.scale_arcsec
    sigmas = np.maximum(sigmas, 0.7 * grid.scale_arcsec)[:, None]
    along_x = np.exp(-0.5 * ((line - centres[:, :1]) / sigmas) ** 2) / sigmas
    along_y = np.exp(-0.5 * ((line - centres[:, 1:]) / sigmas) ** 2) / sigmas
    return _unit((along_y * fluxes[:, None]).T @ along_x * grid.taper())


def _to_sky(u: np.ndarray, v: np.ndarray, source: Source) -> np.ndarray:
    """Turn positions in the plane of the galaxy into offsets (n, 2) on the sky: incline, then rotate."""
    cos, sin = np.cos(source.angle), np.sin(source.angle)
    v = v * source.axis_ratio
    return np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1)


def _plane(source: Source, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return radius (arcsec) and azimuth in the plane of the galaxy at each fine pixel."""
    x, y = grid.offsets()
    cos, sin = np.cos(source.angle), np.sin(source.angle)
    u, v = x * cos + y * sin, (y * cos - x * sin) / source.axis_ratio
    return np.hypot(u, v), np.arctan2(v, u)


def _spheroid(source: Source, grid: Grid, rng: np.random.Generator) -> list[Component]:
    image = _sersic(source.sersic_index, source.r50_arcsec, source.axis_ratio, source.angle, grid)
    return [Component(image, 1.0, "old")]


def _point_source(source: Source, grid: Grid, rng: np.random.Generator) -> list[Component]:
    image = np.zeros((grid.side, grid.side), dtype=np.float32)
    image[grid.side // 2, grid.side // 2] = 1.0
    return [Component(image, 1.0, "star")]


def _companion(source: Source, grid: Grid) -> list[Component]:
    if source.companion is None:
        return []
    distance = source.companion.distance * max(source.r50_arcsec, 0.25)
    shift = (distance * np.cos(source.companion.angle), distance * np.sin(source.companion.angle))
    image = _sersic(2.0, 0.45 * max(source.r50_arcsec, 0.2), 0.8, source.companion.angle, grid, shift)
    return [Component(image, source.companion.flux, "old" if source.kind == "spheroid" else "young")]


def _disk(source: Source, grid: Grid, rng: np.random.Generator) -> list[Component]:
    length = source.r50_arcsec / 1.678
    radius, azimuth = _plane(source, grid)
    smooth = np.exp(-radius / length) * grid.taper()
    total = smooth.sum()
    phase = rng.uniform(0, 2 * np.pi)
    arms = smooth * _arm_pattern(source, radius / length, azimuth, phase) / total
    disk_share = 1.0 - source.bulge_fraction - source.bar_fraction
    knots = 0.25 * source.arm_strength * disk_share if source.clumps else 0.0
    parts = [
        Component((smooth / total).astype(np.float32), disk_share - knots, "young", disk=True),
        Component(arms.astype(np.float32), disk_share - knots, "young", structure=True, disk=True),
    ]
    if knots > 0:
        image = _arm_knots(source, grid, length, phase, rng)
        parts.append(Component(image, knots, "knot", structure=True, disk=True))
    if source.bulge_fraction > 0.02:
        bulge_q = 0.5 + 0.5 * source.axis_ratio
        bulge = _sersic(source.sersic_index, 0.25 * source.r50_arcsec, bulge_q, source.angle, grid)
        parts.append(Component(bulge, source.bulge_fraction, "old"))
    if source.bar_fraction > 0:
        bar = _bar(grid, radius, azimuth, length, rng)
        parts.append(Component(bar, source.bar_fraction, "old", structure=True, disk=True))
    return parts


def _arm_pattern(source: Source, radius: np.ndarray, azimuth: np.ndarray, phase: float) -> np.ndarray:
    """Return the relative modulation by logarithmic spiral arms, of mean zero along a circle.

    `radius` is in scale lengths. The ridge follows azimuth = ln(radius) / tan(pitch); exp(k cos) makes
    the arms narrower than the gaps, with the modified Bessel function I0 as its mean.
    """
    sharpness = 1.6
    turn = source.arms * (azimuth - np.log(radius + 0.08) / np.tan(source.pitch)) + phase
    pattern = np.exp(sharpness * np.cos(turn)) / np.i0(sharpness) - 1.0
    grown = 1.0 - np.exp(-((radius / 0.7) ** 2))
    return source.arm_strength * grown * pattern


def _arm_knots(source: Source, grid: Grid, length: float, phase: float, rng: np.random.Generator) -> np.ndarray:
    """Draw star-forming knots along the arms, at 0.7 to 3.2 scale lengths, in opposite pairs."""
    radius = np.tile(rng.uniform(0.7, 3.2, source.clumps), 2)
    arm = rng.integers(0, source.arms, source.clumps)
    azimuth = np.log(radius + 0.08) / np.tan(source.pitch) - phase / source.arms
    azimuth += np.append(2 * np.pi * arm / source.arms, 2 * np.pi * arm / source.arms + np.pi)
    azimuth += rng.normal(0, 0.06, 2 * source.clumps)
    centres = _to_sky(length * radius * np.cos(azimuth), length * radius * np.sin(azimuth), source)
    sigmas = length * np.tile(rng.uniform(0.1, 0.22, source.clumps), 2)
    return _blobs(grid, centres, sigmas, np.exp(-0.5 * radius) * rng.lognormal(0, 0.2, 2 * source.clumps))


def _bar(grid: Grid, radius: np.ndarray, azimuth: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a bar of 1.1 scale lengths half length and axis ratio 0.2 in the plane of the disk."""
    turned = azimuth - rng.uniform(0, np.pi)
    along, across = radius * np.cos(turned) / (1.1 * length), radius * np.sin(turned) / (0.22 * length)
    return _unit(np.exp(-((along**4 + across**2) ** 0.75)) * grid.taper())


def _irregular(source: Source, grid: Grid, rng: np.random.Generator) -> list[Component]:
    size = source.r50_arcsec
    offset = size * 0.7 * source.clump_fraction * rng.normal(0, 1, 2).clip(-1.5, 1.5)
    body = _sersic(1.0, size, source.axis_ratio, source.angle, grid, (offset[0], offset[1]))
    clumps = source.clump_fraction
    tail = 0.25 * clumps if rng.uniform() < 0.4 else 0.0
    parts = [
        Component(body, 1.0 - clumps, "young"),
        Component(_clumps(source, grid, rng), clumps - tail, "knot"),
    ]
    if tail:
        parts.append(Component(_tail(source, grid, rng), tail, "young"))
    return parts


def _clumps(source: Source, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Draw clumps scattered over the body, and every second time a bright second nucleus."""
    spread = 0.95 * source.r50_arcsec
    centres = _to_sky(rng.normal(0, spread, source.clumps), rng.normal(0, spread, source.clumps), source)
    sigmas = source.r50_arcsec * rng.uniform(0.1, 0.28, source.clumps)
    fluxes = rng.lognormal(0, 0.7, source.clumps)
    if rng.uniform() < 0.5:
        fluxes[0] += fluxes[1:].sum()
    return _blobs(grid, centres, sigmas, fluxes)


def _tail(source: Source, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Draw a one-sided curved tidal tail out to about three half-light radii."""
    step = np.linspace(0.5, 3.0, 24)
    azimuth = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * 0.6 * step
    centres = source.r50_arcsec * np.stack([step * np.cos(azimuth), step * np.sin(azimuth)], axis=-1)
    return _blobs(grid, centres, np.full(24, 0.25 * source.r50_arcsec), np.exp(-0.5 * step))
