"""The spec of simulated fields: a TOML file checked by frozen models before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from catmorph.errors import suggest
from catmorph.simulate.spec_base import Fraction, Model
from catmorph.simulate.spec_kinds import Experts, Kind, kind_problems

KINDS = ("spheroid", "disk", "irregular", "point_source")

Rectangle = tuple[Fraction, Fraction, Fraction, Fraction]


class Band(Model):
    """One filter."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="Name of the filter, for example F160W.")
    wavelength_nm: float = Field(gt=0, description="Central wavelength in nm.")
    fwhm_arcsec: float = Field(gt=0.02, lt=2, description="Full width at half maximum of the PSF, in arcsec.")
    depth: float = Field(description='5 sigma limiting AB magnitude in an aperture of 0.4" diameter.')


class FieldSpec(Model):
    """One field, or `copies` fields numbered from 01 and 0.1 degree apart in right ascension."""

    name: str = Field(pattern=r"^[a-z0-9]+$", description="Name, lower case letters and digits.")
    ra: float = Field(ge=0, lt=360, description="Right ascension of the centre, degrees.")
    dec: float = Field(ge=-89, le=89, description="Declination of the centre, degrees.")
    side_pixels: int = Field(ge=64, le=20000, description="Side of the square mosaics in pixels.")
    sources: int = Field(ge=1, description="Number of sources drawn in the field.")
    rotation_deg: float = Field(0.0, description="Rotation of the mosaics on the sky, degrees.")
    bands: tuple[str, ...] = Field((), description="Bands the field has a mosaic in; empty: all.")
    coverage: dict[str, Rectangle] = Field(
        default_factory=dict,
        description="Band -> covered part (x0, x1, y0, y1) as fractions of the side; default: all of it.",
    )
    copies: int = Field(1, ge=1, le=99, description="How many such fields; above 1, names end in 01, 02, ...")


class Population(Model):
    """What the sources are."""

    mix: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={"spheroid": 0.40, "disk": 0.28, "irregular": 0.25, "point_source": 0.07},
        description="Relative numbers of spheroid, disk, irregular and point_source.",
    )
    magnitude_bright: float = Field(19.0, description="Brightest AB magnitude in the reference band.")
    magnitude_faint: float = Field(24.5, description="Faintest AB magnitude in the reference band.")
    slope: float = Field(0.15, description="Slope of log10 counts per magnitude.")
    companions: Fraction = Field(0.10, description="Fraction of the galaxies with a close companion.")
    edge_sources: Fraction = Field(0.02, description="Fraction of the sources put next to an edge.")


class Artefacts(Model):
    """Mean numbers of artefacts in a mosaic (in a field, for saturated stars)."""

    cosmic_rays: float = Field(4.0, ge=0, description="Cosmic-ray trails left in a mosaic.")
    satellite_trails: float = Field(0.1, ge=0, description="Satellite trails across a mosaic.")
    saturated_stars: float = Field(0.5, ge=0, description="Saturated stars with bleed and spikes, a field.")
    hot_pixels: float = Field(5.0, ge=0, description="Hot pixels left in a mosaic.")


class Dirt(Model):
    """Faults put into each catalog, by number."""

    duplicates: int = Field(0, ge=0, description="Rows repeated under the same ID.")
    sentinels: int = Field(0, ge=0, description="Rows whose PETRO_RADIUS is -99.")
    off_image: int = Field(0, ge=0, description="Rows of a source that lies off the mosaics.")


class Votes(Model):
    """The voters: how what is visible becomes class probabilities, and how many vote.

    The defaults were fitted so that the training spec gives the mean label of the public CLASH table (.428
    .200 .182 .064 .127) and its share of unanimous stamps (.305); it gives .427 .199 .181 .063 .130 and .305.
    """

    numbers: tuple[int, ...] = Field((5, 6, 7, 8, 9), description="Possible numbers of votes for a stamp.")
    weights: tuple[float, ...] = Field((0.15, 0.25, 0.30, 0.20, 0.10), description="How often each occurs.")
    labelled_per_band: int | None = Field(None, ge=0, description="Stamps labelled in each band; none: all.")
    bias: tuple[float, float, float, float] = Field(
        (0.0, -0.92, -2.29, -0.70), description="Added to the scores of spheroid, disk, irregular, point source."
    )
    temperature: float = Field(1.8, gt=0, description="Disagreement: the scores are divided by it.")
    half_snr: float = Field(6.0, gt=0, description="Signal to noise at which half give up on a stamp.")


class Files(Model):
    """How the mosaics are written."""

    compression: Literal["none", "rice"] = Field("none", description="Plain FITS, or RICE tiles (.fits.fz).")
    quantize_level: float = Field(4.0, gt=0, description="RICE: quantisation steps in one sigma of the noise.")
    blank: Literal["nan", "zero"] = Field("nan", description="Pixel value where a mosaic is not covered.")


class SimulationSpec(Model):
    """Everything about a simulated survey."""

    title: str = Field("", description="What this simulation is for.")
    seed: int = Field(1, ge=0, description="Seed of every random stream.")
    pixel_scale_arcsec: float = Field(0.065, gt=0, description="Side of a pixel in arcsec.")
    zero_point: float = Field(26.0, description="AB magnitude of a source of one count per second.")
    exposure_s: float = Field(4000.0, gt=0, description="Exposure time for the photon noise of bright sources.")
    reference_band: str = Field("F160W", description="Band of the catalog magnitude and Petrosian radius.")
    bands: tuple[Band, ...] = Field(min_length=1, description="The bands, in wavelength order.")
    fields: tuple[FieldSpec, ...] = Field(min_length=1, description="The fields.")
    population: Population = Field(Population(), description="What the sources are.")
    artefacts: Artefacts = Field(Artefacts(), description="Artefacts in the mosaics.")
    dirt: Dirt = Field(Dirt(), description="Faults in the catalogs.")
    votes: Votes = Field(Votes(), description="The simulated voters.")
    files: Files = Field(Files(), description="How the mosaics are written.")
    kinds: dict[str, Kind] = Field({}, description="Kinds of sources, instead of population.mix.")
    colours: dict[str, dict[str, float]] = Field({}, description="Colours of the parts of those kinds: AB magnitude in "
                                                 "each band, relative to any zero.")
    experts: Experts = Field(Experts(), description="Who classifies sources of those kinds.")

    @model_validator(mode="after")
    def _names_fit(self) -> SimulationSpec:
        names = [band.name for band in self.bands]
        require_unique(names, "band")
        require_unique([field.name for field in self.all_fields()], "field")
        require_known([self.reference_band], names, "reference_band")
        for field in self.fields:
            require_known([*field.bands, *field.coverage], names, f"field {field.name!r}")
        require_known(self.population.mix, KINDS, "population.mix")
        if not sum(self.population.mix.values()) > 0:
            raise ValueError("population.mix has no positive number")
        if len(self.votes.numbers) != len(self.votes.weights):
            raise ValueError("votes.numbers and votes.weights differ in length")
        problems = kind_problems(self.kinds, self.colours, names)
        if problems:
            raise ValueError("; ".join(problems))
        if self.population.magnitude_bright >= self.population.magnitude_faint:
            raise ValueError("population.magnitude_bright is not brighter than magnitude_faint")
        return self

    def band(self, name: str) -> Band:
        """Return the band called `name`."""
        return next(band for band in self.bands if band.name == name)

    def bands_of(self, field: FieldSpec) -> tuple[Band, ...]:
        """Return the bands that `field` has a mosaic in, in the order of the spec."""
        return tuple(band for band in self.bands if not field.bands or band.name in field.bands)

    def all_fields(self) -> tuple[FieldSpec, ...]:
        """Return the fields with copies written out."""
        return tuple(one for field in self.fields for one in _copies(field))


def _copies(field: FieldSpec) -> list[FieldSpec]:
    if field.copies == 1:
        return [field]
    return [
        field.model_copy(update={"name": f"{field.name}{i + 1:02d}", "ra": (field.ra + 0.1 * i) % 360, "copies": 1})
        for i in range(field.copies)
    ]


def require_unique(names: list[str], what: str) -> None:
    """Raise a ValueError where two of `names` differ in nothing but case."""
    twice = sorted({name for name in names if [n.lower() for n in names].count(name.lower()) > 1})
    if twice:
        raise ValueError(f"{what} {twice[0]!r} is given twice")


def require_known(names: Iterable[str], valid: Iterable[str], where: str) -> None:
    """Raise a ValueError that suggests a valid name where one of `names` is not valid."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ValueError(f"{where} names {name!r}, which is not known; {suggest(name, valid)}")
