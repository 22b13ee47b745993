"""From components to pixels in a band, and what of the source can be seen there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from catmorph.simulate.population import Source, component_magnitude
from catmorph.simulate.shapes import OVERSAMPLE, Component, Grid, draw_psf
from catmorph.simulate.spec import Band, SimulationSpec

APERTURE_ARCSEC = 0.2  # radius of the aperture that the depth of a band refers to


@dataclass(frozen=True)
class Appearance:
    """What of a source is visible in a band, from its noise-free image and the noise.

    Attributes
    ----------
    snr : float
        Signal to noise of a matched filter, sqrt(sum I^2) / sigma.
    asymmetry, asymmetry_snr : float
        sum |I - I_180| / (2 sum I) (Conselice 2003, about the catalog position, no background term), and the signal to
        noise of the difference.
    structure, structure_snr : float
        sum |S| / sum I of arms, knots and bar against the smooth light, and its signal to noise.
    elongation : float
        1 - axis ratio from second moments.
    size_ratio : float
        Half-light radius over that of the PSF.
    disk_fraction : float
        Part of the light in this band that a disk gives.
    """

    snr: float
    asymmetry: float
    asymmetry_snr: float
    structure: float
    structure_snr: float
    elongation: float
    size_ratio: float
    disk_fraction: float


def noise_sigma(band: Band, spec: SimulationSpec) -> float:
    """Return the noise of a pixel, in counts/s: the depth is 5 sigma in 0.4" diameter."""
    flux = 10 ** (-0.4 * (band.depth - spec.zero_point))
    pixels = np.pi * (APERTURE_ARCSEC / spec.pixel_scale_arcsec) ** 2
    return float(flux / 5.0 / np.sqrt(pixels))


class Renderer:
    """Draws one source in any band; the transforms of its components are made once.

    Parameters
    ----------
    source : Source
    components : list of Component
        All of the shape of `grid`.
    """

    def __init__(self, source: Source, components: list[Component], grid: Grid, spec: SimulationSpec):
        self.source, self.components, self.grid, self.spec = source, components, grid, spec
        self._size = fft.next_fast_len(grid.side, real=True)
        self._transforms = [fft.rfft2(one.image, (self._size, self._size)) for one in components]

    def fluxes(self, band: Band) -> np.ndarray:
        """Return the flux of each component in `band`, counts/s; shape (component,)."""
        magnitudes = [self._magnitude(one.colour, band) for one in self.components]
        shares = np.array([one.share for one in self.components])
        return shares * 10 ** (-0.4 * (np.array(magnitudes) - self.spec.zero_point))

    def _magnitude(self, colour: str, band: Band) -> float:
        reference = self.spec.reference_band
        if colour in self.spec.colours:
            values = self.spec.colours[colour]
            return self.source.magnitude + self.source.colour * (values[band.name] - values[reference])
        nanometres = self.spec.band(reference).wavelength_nm
        return component_magnitude(self.source, colour, band.wavelength_nm, nanometres)

    def image(self, band: Band, structure_only: bool = False) -> np.ndarray:
        """Draw the noise-free source on the fine grid through the PSF of `band`, counts/s; (side, side)."""
        total = np.zeros_like(self._transforms[0])
        for flux, transform, one in zip(self.fluxes(band), self._transforms, self.components, strict=True):
            if one.structure or not structure_only:
                total += np.float32(flux) * transform
        total *= _psf_transform(band.fwhm_arcsec, self.grid, self._size)
        return fft.irfft2(total, (self._size, self._size))[: self.grid.side, : self.grid.side]

    def appearance(self, band: Band, image: np.ndarray) -> Appearance:
        """Measure what is visible in `image`, as :meth:`image` returns it for `band`."""
        pixels = bin_pixels(image)
        sigma = noise_sigma(band, self.spec)
        flux = max(float(pixels.sum()), 1e-30)
        difference = pixels - pixels[::-1, ::-1]
        structure, structure_snr = self._structure(band, flux, sigma)
        return Appearance(
            snr=float(np.sqrt(np.sum(pixels**2)) / sigma),
            asymmetry=float(np.abs(difference).sum() / (2 * flux)),
            asymmetry_snr=float(np.sqrt(np.sum(difference**2) / 2) / sigma),
            structure=structure,
            structure_snr=structure_snr,
            elongation=elongation(pixels),
            size_ratio=half_light_radius(pixels) / _psf_radius(band.fwhm_arcsec, self.grid),
            disk_fraction=self._disk_fraction(band),
        )

    def _disk_fraction(self, band: Band) -> float:
        fluxes = self.fluxes(band) * np.array([one.image.sum() for one in self.components])
        return float(fluxes[[one.disk for one in self.components]].sum() / fluxes.sum())

    def _structure(self, band: Band, flux: float, sigma: float) -> tuple[float, float]:
        if not any(one.structure for one in self.components):
            return 0.0, 0.0
        pixels = bin_pixels(self.image(band, structure_only=True))
        return float(np.abs(pixels).sum() / flux), float(np.sqrt(np.sum(pixels**2)) / sigma)


@lru_cache(maxsize=512)
def _psf_image(fwhm_arcsec: float, grid: Grid) -> np.ndarray:
    return draw_psf(fwhm_arcsec, grid)


@lru_cache(maxsize=512)
def _psf_radius(fwhm_arcsec: float, grid: Grid) -> float:
    return half_light_radius(bin_pixels(_psf_image(fwhm_arcsec, grid)))


@lru_cache(maxsize=256)
def _psf_transform(fwhm_arcsec: float, grid: Grid, size: int) -> np.ndarray:
    """Return the transform of the PSF centred on pixel (0, 0), so that convolution does not shift."""
    padded = np.zeros((size, size), dtype=np.float32)
    padded[: grid.side, : grid.side] = _psf_image(fwhm_arcsec, grid)
    return fft.rfft2(np.roll(padded, (-(grid.side // 2), -(grid.side // 2)), axis=(0, 1)))


def bin_pixels(image: np.ndarray, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Sum the fine grid into pixels, after moving it by `shift` (y, x) fine pixels; a third of the side."""
    if shift != (0, 0):
        image = np.roll(image, shift, axis=(0, 1))
    rows = np.add.reduce([image[i::OVERSAMPLE] for i in range(OVERSAMPLE)])
    return np.add.reduce([rows[:, i::OVERSAMPLE] for i in range(OVERSAMPLE)])


@lru_cache(maxsize=256)
def radii(side: int) -> np.ndarray:
    """Return the distance of each pixel from the central one; shape (side, side)."""
    line = np.arange(side) - side // 2
    return np.hypot(line[:, None], line[None, :])


@lru_cache(maxsize=256)
def _outwards(side: int) -> np.ndarray:
    """Return the flat indices of the pixels, from the centre outwards."""
    return np.argsort(radii(side).ravel(), kind="stable")


def half_light_radius(pixels: np.ndarray) -> float:
    """Return the radius in pixels of the circle that holds half of the light."""
    grown = np.cumsum(pixels.ravel()[_outwards(pixels.shape[0])], dtype=np.float64)
    area = np.arange(1, grown.size + 1)
    half = np.searchsorted(grown, 0.5 * grown[-1])
    before = grown[half - 1] if half else 0.0
    part = (0.5 * grown[-1] - before) / max(grown[half] - before, 1e-30)
    return float(np.sqrt((area[half] - 1 + part) / np.pi))


def elongation(pixels: np.ndarray) -> float:
    """Return 1 - b/a from the second moments, of the light above 2% of the maximum."""
    light = np.where(pixels > 0.02 * pixels.max(), pixels, 0.0)
    line = np.arange(pixels.shape[0]) - pixels.shape[0] // 2
    total = light.sum()
    x, y = (light.sum(0) @ line) / total, (light.sum(1) @ line) / total
    xx, yy = (light.sum(0) @ line**2) / total - x * x, (light.sum(1) @ line**2) / total - y * y
    xy = line @ light @ line / total - x * y
    small, large = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return float(1.0 - np.sqrt(max(small, 0.0) / large))


def petrosian_radius(pixels: np.ndarray) -> float:
    """Return the radius in pixels at which the surface brightness is 0.2 of its mean inside (Petrosian 1976).

    Between 5 pixels, about the PSF's, and 30 pixels.
    """
    distance = radii(pixels.shape[0])
    ring = distance.astype(int)
    light = np.bincount(ring.ravel(), pixels.ravel())[: pixels.shape[0] // 2]
    count = np.bincount(ring.ravel())[: pixels.shape[0] // 2]
    local = light / count
    inside = np.cumsum(light) / np.cumsum(count)
    ratio = local / np.maximum(inside, 1e-30)
    below = np.flatnonzero(ratio < 0.2)
    if not below.size:
        return 30.0
    last = int(below[0])
    part = (ratio[last - 1] - 0.2) / (ratio[last - 1] - ratio[last]) if last else 0.0
    return float(np.clip(last - 0.5 + part, 5.0, 30.0))
