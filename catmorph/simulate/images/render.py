"""From parts to the planes of an image as a survey sees it, and to what is visible of each part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import fft

from catmorph.simulate.images.galaxies import Galaxy
from catmorph.simulate.images.light import Part, Plane, absorption, draw_parts, sersic
from catmorph.simulate.images.spec import ImageSpec, SurveySpec
from catmorph.simulate.population import COLOURS, WAVELENGTHS_NM
from catmorph.simulate.streams import stream

ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy; pixels are in nanomaggies a square arcsec."""
SMALLEST_R90_ARCSEC = 2.0
LARGEST_R90_ARCSEC = 25.0


class Seen(NamedTuple):
    """A source as a survey saw it.

    `planes` (plane, y, x) float32 in nanomaggies a square arcsec, y upwards; `snr` is the signal to noise of a
    matched filter of each part, in the reference band, and `contrast` its light relative to that of the whole.
    """

    planes: np.ndarray
    snr: dict[str, float]
    contrast: dict[str, float]


@dataclass(frozen=True)
class Camera:
    """A survey that looks at a square of its own detector pixels."""

    survey: SurveySpec
    plane: Plane

    @property
    def size(self) -> int:
        """Side of the transforms."""
        return int(fft.next_fast_len(self.plane.side, real=True))

    def sigma(self, band: str) -> float:
        """Return the noise of a detector pixel, nanomaggies a square arcsec."""
        return 10 ** (-0.4 * (self.survey.sky_noise[band] - ZERO_POINT)) / self.survey.pixel_scale_arcsec

    def blur(self, light: np.ndarray) -> np.ndarray:
        """Convolve `light` (side, side), nanomaggies a pixel, with the PSF; nanomaggies a square arcsec."""
        transform = fft.rfft2(light, (self.size, self.size))
        transform *= _psf_transform(self.survey.fwhm_arcsec, self.plane.scale_arcsec, self.size)
        sharp = fft.irfft2(transform, (self.size, self.size))[: self.plane.side, : self.plane.side]
        return sharp / np.float32(self.plane.scale_arcsec**2)


@lru_cache(maxsize=64)
def _psf_transform(fwhm_arcsec: float, scale_arcsec: float, size: int) -> np.ndarray:
    """Return the transform of a Moffat PSF (beta 3) of sum 1, centred on pixel (0, 0)."""
    line = np.minimum(np.arange(size), size - np.arange(size)) * scale_arcsec
    width = fwhm_arcsec / (2 * np.sqrt(2 ** (1 / 3) - 1))
    psf = (1 + (line[:, None] ** 2 + line[None, :] ** 2) / width**2) ** -3.0
    return fft.rfft2((psf / psf.sum()).astype(np.float32))


def r90_arcsec(galaxy: Galaxy, spec: ImageSpec) -> float:
    """Measure the radius of 90% of the light of the main body, with the seeing of the first survey in quadrature."""
    if galaxy.kind in ("star", "artifact"):
        return 2.0 * SMALLEST_R90_ARCSEC
    plane = Plane(129, 10.0 * galaxy.r50_arcsec / 129)
    parts = _parts(galaxy, plane, spec)
    light = sum(one.share * one.image for one in parts if one.name not in ("companion", "tails", "arc"))
    order = np.argsort(np.hypot(plane.line[:, None], plane.line[None, :]), axis=None, kind="stable")
    grown = np.cumsum(np.asarray(light).ravel()[order], dtype=np.float64)
    radius = np.sqrt((np.searchsorted(grown, 0.9 * grown[-1]) + 1) / np.pi) * plane.scale_arcsec
    # SDSS measures within two Petrosian radii: R90 / R50 is hardly above 3 for any galaxy.
    radius = min(radius, 2.9 * galaxy.r50_arcsec)
    return float(np.clip(np.hypot(radius, 0.7 * spec.surveys[0].fwhm_arcsec), SMALLEST_R90_ARCSEC, LARGEST_R90_ARCSEC))


def magnitudes(galaxy: Galaxy, spec: ImageSpec) -> dict[str, float]:
    """Return the AB magnitude of the source in each band of the spec, its companion included."""
    parts = _parts(galaxy, Plane(65, 12.0 * max(galaxy.r50_arcsec, 1.0) / 65), spec)
    fluxes = {band.name: sum(_flux(galaxy, one, spec, band.name) for one in parts) for band in spec.bands}
    return {name: ZERO_POINT - 2.5 * float(np.log10(one)) for name, one in fluxes.items()}


def _parts(galaxy: Galaxy, plane: Plane, spec: ImageSpec) -> list[Part]:
    return draw_parts(galaxy, plane, stream(spec.seed, galaxy.number, "shape"))


def _flux(galaxy: Galaxy, part: Part, spec: ImageSpec, band: str) -> float:
    """Return the light of a part in `band`, nanomaggies."""
    return part.share * float(part.image.sum()) * _scale(galaxy.magnitude, galaxy.redness, part.colour, spec, band)


def _scale(magnitude: float, redness: float, colour: str, spec: ImageSpec, band: str) -> float:
    """Return nanomaggies in `band` of light of `colour` that has `magnitude` in the reference band."""
    wavelengths = [spec.band(band).wavelength_nm, spec.band(spec.reference_band).wavelength_nm]
    difference = np.interp(wavelengths, WAVELENGTHS_NM, COLOURS[colour])
    return float(10 ** (-0.4 * (magnitude + redness * (difference[0] - difference[1]) - ZERO_POINT)))


def see(galaxy: Galaxy, r90: float, survey: SurveySpec, spec: ImageSpec) -> Seen:
    """Draw `galaxy` and its neighbours as `survey` sees them, on its own pixels, and resample to the image's."""
    side = spec.images.side_radii * r90 / survey.pixel_scale_arcsec  # of the image, in detector pixels
    camera = Camera(survey, Plane(2 * int(np.ceil(side / 2)) + 3, survey.pixel_scale_arcsec))
    parts = _parts(galaxy, camera.plane, spec)
    around = _neighbours(galaxy, r90, camera.plane, spec)
    rng = stream(spec.seed, galaxy.number, survey.name, "noise")
    planes = []
    for band in spec.planes:
        light = np.zeros((camera.plane.side, camera.plane.side), dtype=np.float32)
        for one in parts:
            scale = _scale(galaxy.magnitude, galaxy.redness, one.colour, spec, band)
            light += np.float32(scale * one.share) * one.image
        light *= absorption(galaxy, camera.plane, spec.band(band).wavelength_nm)
        for one in around:
            light += np.float32(_scale(ZERO_POINT, 1.0, one.colour, spec, band) * one.share) * one.image
        noise = camera.sigma(band) * rng.standard_normal(light.shape, dtype=np.float32)
        planes.append(_resample(camera.blur(light) + noise, side, spec.images.side_pixels))
    return Seen(np.stack(planes), *_visible(galaxy, parts, camera, spec))


def _resample(pixels: np.ndarray, side: float, wanted: int) -> np.ndarray:
    """Resample the central `side` pixels to (wanted, wanted), bicubic and antialiased where that shrinks."""
    low = 0.5 * (pixels.shape[0] - side)
    box = (low, low, low + side, low + side)
    image = Image.fromarray(pixels.astype(np.float32))
    return np.asarray(image.resize((wanted, wanted), Image.Resampling.BICUBIC, box=box))


def _neighbours(galaxy: Galaxy, r90: float, plane: Plane, spec: ImageSpec) -> list[Part]:
    """Draw stars and small galaxies around the source; shares are nanomaggies in the reference band.

    Places and kinds are the same for every survey.
    """
    rng = stream(spec.seed, galaxy.number, "neighbours")
    reach = 0.5 * spec.images.side_radii * r90
    parts = []
    for _ in range(rng.poisson(spec.neighbours * (2 * reach / 60) ** 2)):
        place, size, turn = rng.uniform(-reach, reach, 2), rng.uniform(0.6, 1.8), rng.uniform(0, np.pi)
        magnitude = 16.0 + 5.5 * rng.power(3.0)
        is_star, axis_ratio = rng.uniform() < 0.5, rng.uniform(0.4, 1.0)
        colour = "star" if is_star else ("old", "young")[int(rng.integers(2))]
        if np.hypot(*place) < 1.3 * r90:
            continue
        image = sersic(plane, 1.0, 0.15 if is_star else size, 1.0 if is_star else axis_ratio, turn, tuple(place))
        parts.append(Part("neighbour", image, float(10 ** (-0.4 * (magnitude - ZERO_POINT))), colour))
    return parts


def _visible(
    galaxy: Galaxy, parts: list[Part], camera: Camera, spec: ImageSpec
) -> tuple[dict[str, float], dict[str, float]]:
    """Return signal to noise and contrast of each part after the PSF, in the reference band."""
    band = spec.reference_band
    seen = {
        one.name: camera.blur(_scale(galaxy.magnitude, galaxy.redness, one.colour, spec, band) * one.share * one.image)
        for one in parts
    }
    total = max(float(sum(one.sum(dtype=np.float64) for one in seen.values())), 1e-30)
    snr = {name: float(np.sqrt(np.sum(one**2, dtype=np.float64))) / camera.sigma(band) for name, one in seen.items()}
    return snr, {name: float(np.abs(one).sum(dtype=np.float64)) / total for name, one in seen.items()}
