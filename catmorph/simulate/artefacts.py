"""What goes wrong in mosaics: cosmic-ray and satellite trails, saturated stars, hot pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catmorph.simulate.spec import Artefacts


@dataclass(frozen=True)
class Star:
    """A saturated star: position in pixels, flux relative to the noise of a pixel, turn of its spikes."""

    x: float
    y: float
    flux: float
    angle: float


def draw_stars(artefacts: Artefacts, side: int, rng: np.random.Generator) -> list[Star]:
    """Draw the saturated stars of a field, the same in all its bands."""
    number = rng.poisson(artefacts.saturated_stars)
    draws = zip(rng.uniform(0, side, (number, 2)), rng.uniform(2e4, 2e5, number), strict=True)
    return [Star(xy[0], xy[1], flux, rng.uniform(0, np.pi / 2)) for xy, flux in draws]


def draw_artefacts(
    artefacts: Artefacts, stars: list[Star], sigma: float, side: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw all artefacts of a mosaic, to be added to it; shape (side, side), float32, unit of `sigma`."""
    image = np.zeros((side, side), dtype=np.float32)
    for star in stars:
        _add_star(image, star)
    for _ in range(rng.poisson(artefacts.cosmic_rays)):
        start, angle = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
        _add_line(image, start, angle, rng.uniform(5, 30), 0.6, rng.uniform(10, 60))
    for _ in range(rng.poisson(artefacts.satellite_trails)):
        start, angle = rng.uniform(0.1 * side, 0.9 * side, 2), rng.uniform(0, 2 * np.pi)
        start -= 2.0 * side * np.array([np.cos(angle), np.sin(angle)])
        _add_line(image, start, angle, 4.0 * side, 1.6, rng.uniform(10, 40))
    hot = rng.poisson(artefacts.hot_pixels)
    image[rng.integers(0, side, hot), rng.integers(0, side, hot)] += rng.uniform(8, 40, hot)
    return image * np.float32(sigma)


def _add_line(image: np.ndarray, start: np.ndarray, angle: float, length: float, width: float, height: float) -> None:
    """Add a straight trail from `start` (x, y) of Gaussian cross-section `width` pixels."""
    step = np.arange(0.0, length, 0.5)
    for across in np.arange(-np.ceil(3 * width), np.ceil(3 * width) + 0.5, 0.5):
        x = np.rint(start[0] + step * np.cos(angle) - across * np.sin(angle)).astype(int)
        y = np.rint(start[1] + step * np.sin(angle) + across * np.cos(angle)).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
        value = np.float32(height * np.exp(-0.5 * (across / width) ** 2))
        image[y[inside], x[inside]] = np.maximum(image[y[inside], x[inside]], value)


def _add_star(image: np.ndarray, star: Star) -> None:
    """Add a saturated core with a power-law halo, four spikes and a bleed column."""
    full = star.flux / 50.0
    reach = 120
    rows = np.arange(max(int(star.y) - reach, 0), min(int(star.y) + reach + 1, image.shape[0]))
    columns = np.arange(max(int(star.x) - reach, 0), min(int(star.x) + reach + 1, image.shape[1]))
    dy, dx = rows[:, None] - star.y, columns[None, :] - star.x
    radius = np.hypot(dx, dy)
    halo = star.flux / 12.0 * (1.0 + (radius / 1.2) ** 2) ** -1.8
    cos, sin = np.cos(star.angle), np.sin(star.angle)
    one, other = np.abs(dx * cos + dy * sin), np.abs(dy * cos - dx * sin)
    spikes = 0.3 * full * (_spike(one, other) + _spike(other, one))
    bleed = np.where((np.abs(dx) < 1.5) & (np.abs(dy) < 8 + star.flux / 4e3), full, 0.0)
    window = np.clip((reach - radius) / 20.0, 0, 1)
    image[np.ix_(rows, columns)] += np.minimum((halo + spikes) * window + bleed, full).astype(np.float32)


def _spike(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (across / 0.9) ** 2) * np.exp(-along / 14.0)
