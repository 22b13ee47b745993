"""One field: sources placed, mosaics of all bands drawn, and what is visible of each source measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from astropy.wcs import WCS

from catmorph.simulate.artefacts import draw_artefacts, draw_stars
from catmorph.simulate.population import Source, draw_sources
from catmorph.simulate.render import Appearance, Renderer, bin_pixels, noise_sigma, petrosian_radius
from catmorph.simulate.shapes import OVERSAMPLE, draw_components, grid_for
from catmorph.simulate.spec import Band, FieldSpec, SimulationSpec
from catmorph.simulate.streams import stream


@dataclass(frozen=True)
class Placed:
    """A source in its place: `x`, `y` are 0-based pixel positions, multiples of a third of a pixel."""

    renderer: Renderer
    petro_radius_pixels: float
    x: float
    y: float

    @property
    def source(self) -> Source:
        """The source."""
        return self.renderer.source


@dataclass(frozen=True)
class Seen:
    """What is visible of a placed source in a band.

    `artefact` is the strength of artefacts within two Petrosian radii relative to the source (ratio of the
    roots of the summed squares), `contamination` the light of other sources relative to its own inside the
    Petrosian radius, `uncovered` the part of 1.5 Petrosian radii without data, `covered` whether its
    centre has data.
    """

    id: int
    magnitude: float
    appearance: Appearance
    artefact: float
    contamination: float
    uncovered: float
    covered: bool


@dataclass(frozen=True)
class Mosaic:
    """A drawn mosaic: `pixels` (ny, nx) float32, counts/s, blank where not covered."""

    band: Band
    pixels: np.ndarray
    sigma: float
    seen: list[Seen]


def field_wcs(field: FieldSpec, pixel_scale_arcsec: float) -> WCS:
    """Return the TAN projection of a field, turned by its rotation, the same for all bands."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [field.ra, field.dec]
    wcs.wcs.crpix = [(field.side_pixels + 1) / 2, (field.side_pixels + 1) / 2]
    scale, turn = pixel_scale_arcsec / 3600, np.deg2rad(field.rotation_deg)
    wcs.wcs.cdelt = [-scale, scale]
    wcs.wcs.pc = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def place_sources(spec: SimulationSpec, field: FieldSpec) -> list[Placed]:
    """Draw the sources of a field, measure their Petrosian radii in the reference band and place them."""
    rng = stream(spec.seed, field.name, "places")
    placed: list[Placed] = []
    for source in draw_sources(spec, field):
        renderer = _renderer(source, spec, field)
        radius = petrosian_radius(bin_pixels(renderer.image(spec.band(spec.reference_band))))
        x, y = _free_place(placed, radius, field.side_pixels, spec.population.edge_sources, rng)
        placed.append(Placed(renderer, radius, x, y))
    return placed


def _renderer(source: Source, spec: SimulationSpec, field: FieldSpec) -> Renderer:
    grid = grid_for(source, spec.pixel_scale_arcsec)
    components = draw_components(source, grid, stream(spec.seed, field.name, source.id, "shape"))
    return Renderer(source, components, grid, spec)


def _free_place(
    placed: list[Placed], radius: float, side: int, edge_sources: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Find a place away from the others; the wanted distance shrinks slowly when the field is crowded."""
    at_edge = rng.uniform() < edge_sources
    apart = 1.7
    while True:
        x, y = _any_place(radius, side, at_edge, rng)
        gaps = (np.hypot(x - one.x, y - one.y) / (radius + one.petro_radius_pixels) for one in placed)
        if min(gaps, default=9.0) > apart:
            return x, y
        apart *= 0.995


def _any_place(radius: float, side: int, at_edge: bool, rng: np.random.Generator) -> tuple[float, float]:
    margin = min(2.2 * radius, 0.4 * side)
    place = rng.uniform(margin, side - 1 - margin, 2)
    if at_edge:
        near = rng.uniform(0, 1.2 * radius)
        place[rng.integers(2)] = near if rng.uniform() < 0.5 else side - 1 - near
    fine = np.rint(place * OVERSAMPLE) / OVERSAMPLE
    return float(fine[0]), float(fine[1])


def draw_mosaics(spec: SimulationSpec, field: FieldSpec, placed: list[Placed]) -> Iterator[Mosaic]:
    """Draw the mosaics of a field, one band after the other."""
    stars = draw_stars(spec.artefacts, field.side_pixels, stream(spec.seed, field.name, "stars"))
    for band in spec.bands_of(field):
        rng = stream(spec.seed, field.name, band.name, "artefacts")
        sigma = noise_sigma(band, spec)
        artefacts = draw_artefacts(spec.artefacts, stars, sigma, field.side_pixels, rng)
        covered = covered_part(field, band)
        light, seen = _draw_light(spec, field, placed, band, artefacts, covered)
        pixels = _observe(light, artefacts, sigma, spec, stream(spec.seed, field.name, band.name, "noise"))
        pixels[~covered] = np.nan if spec.files.blank == "nan" else 0.0
        yield Mosaic(band, pixels, sigma, seen)


def covered_part(field: FieldSpec, band: Band) -> np.ndarray:
    """Return where the mosaic of `band` has data; shape (side, side), bool."""
    side = field.side_pixels
    x0, x1, y0, y1 = (round(part * side) for part in field.coverage.get(band.name, (0.0, 1.0, 0.0, 1.0)))
    covered = np.zeros((side, side), dtype=bool)
    covered[y0:y1, x0:x1] = True
    return covered


def _observe(
    light: np.ndarray, artefacts: np.ndarray, sigma: float, spec: SimulationSpec, rng: np.random.Generator
) -> np.ndarray:
    """Add the noise of sky and photons, and the artefacts."""
    deviation = np.sqrt(sigma**2 + np.maximum(light, 0) / spec.exposure_s)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    return (light + deviation * noise + artefacts).astype(np.float32)


def _draw_light(
    spec: SimulationSpec,
    field: FieldSpec,
    placed: list[Placed],
    band: Band,
    artefacts: np.ndarray,
    covered: np.ndarray,
) -> tuple[np.ndarray, list[Seen]]:
    """Add up the noise-free sources, then look at each of them among its neighbours."""
    light = np.zeros((field.side_pixels, field.side_pixels), dtype=np.float32)
    own, looks, fluxes = [], [], []
    for one in placed:
        fine = one.renderer.image(band)
        looks.append(one.renderer.appearance(band, fine))
        own.append(_add(light, fine, one))
        fluxes.append(float(one.renderer.fluxes(band).sum()))
    seen = []
    for one, flux, look, inside in zip(placed, fluxes, looks, own, strict=True):
        norm = max(look.snr, 1e-6) * noise_sigma(band, spec)
        total = _aperture(light, one, 1.0).sum(dtype=np.float64)
        seen.append(
            Seen(
                id=one.source.id,
                magnitude=spec.zero_point - 2.5 * float(np.log10(flux)),
                appearance=look,
                artefact=float(np.sqrt(np.sum(_aperture(artefacts, one, 2.0) ** 2, dtype=np.float64)) / norm),
                contamination=max(float((total - inside) / max(inside, 1e-30)), 0.0),
                uncovered=1.0 - float(_aperture(covered, one, 1.5).sum()) / _aperture_area(one, 1.5),
                covered=bool(covered[round(one.y), round(one.x)]),
            )
        )
    return light, seen


def _add(light: np.ndarray, fine: np.ndarray, one: Placed) -> float:
    """Add a source at its place, cut at the edges; return its own flux inside the Petrosian radius."""
    x, y = round(one.x), round(one.y)
    shift = (round((one.y - y) * OVERSAMPLE), round((one.x - x) * OVERSAMPLE))
    pixels = bin_pixels(fine, shift)
    half = pixels.shape[0] // 2
    alone = np.zeros_like(light[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1])
    rows, columns = max(half - y, 0), max(half - x, 0)
    alone += pixels[rows : rows + alone.shape[0], columns : columns + alone.shape[1]]
    light[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1] += alone
    centred = Placed(one.renderer, one.petro_radius_pixels, one.x - max(x - half, 0), one.y - max(y - half, 0))
    return float(_aperture(alone, centred, 1.0).sum(dtype=np.float64))


def _aperture(image: np.ndarray, one: Placed, factor: float) -> np.ndarray:
    """Return the pixels of `image` within `factor` Petrosian radii of the source, as far as it reaches."""
    reach = factor * one.petro_radius_pixels
    rows = np.arange(max(int(one.y - reach), 0), min(int(one.y + reach) + 2, image.shape[0]))
    columns = np.arange(max(int(one.x - reach), 0), min(int(one.x + reach) + 2, image.shape[1]))
    near = np.hypot(rows[:, None] - one.y, columns[None, :] - one.x) <= reach
    return image[np.ix_(rows, columns)][near]


def _aperture_area(one: Placed, factor: float) -> int:
    """Count the pixels within `factor` Petrosian radii of the source on an endless image."""
    reach = factor * one.petro_radius_pixels
    line = np.arange(-int(reach) - 2, int(reach) + 3)
    y, x = line[:, None] - one.y % 1, line[None, :] - one.x % 1
    return int((np.hypot(y, x) <= reach).sum())


def appearance_columns(seen: Seen) -> dict[str, float]:
    """Return what is visible as columns of the truth table."""
    return asdict(seen.appearance) | {
        "artefact": seen.artefact,
        "contamination": seen.contamination,
        "uncovered": seen.uncovered,
    }
