"""The spec of a simulated survey of image files: what is drawn, how it is seen, who votes, what is written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from catmorph.simulate.images.questions import ANSWERS
from catmorph.simulate.spec import require_known, require_unique
from catmorph.simulate.spec_base import Fraction, Model, Numbers, Range
from catmorph.templates import pattern_problem

KINDS = ("smooth", "disk", "irregular", "merger", "disturbed", "lens", "star", "artifact")

Positive = Annotated[float, Field(gt=0)]


class ImageBand(Model):
    """One filter of the cameras."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="Name of the filter, for example g.")
    wavelength_nm: float = Field(gt=0, description="Central wavelength in nm.")
    gain: float = Field(1.0, gt=0, description="Weight of the band in colour images.")


class SurveySpec(Model):
    """One survey: how it sees the sources, and which of them."""

    name: str = Field(pattern=r"^[a-z0-9]+$", description="Name of its folder or tar file.")
    pixel_scale_arcsec: float = Field(gt=0, description="Side of a detector pixel, arcsec.")
    fwhm_arcsec: float = Field(gt=0.02, lt=10, description="Full width at half maximum of the PSF, arcsec.")
    sky_noise: dict[str, float] = Field(
        description="Band -> surface brightness (AB mag a square arcsec) of one sigma of the noise in a square arcsec."
    )
    first: int = Field(1, ge=1, description="Number of the first source it sees, from 1.")
    sources: int | None = Field(None, ge=1, description="How many it sees; default: all the rest.")

    def sees(self, number: int) -> bool:
        """Return whether the survey sees source `number` (from 1)."""
        return self.first <= number and (self.sources is None or number < self.first + self.sources)


class ImageFiles(Model):
    """How the images are cut and written."""

    planes: tuple[str, ...] = Field((), description="Bands of the planes, in order; default: all, as listed.")
    side_pixels: int = Field(424, ge=16, le=2048, description="Side of the square images in pixels.")
    side_radii: float = Field(10.0, gt=1, description="Side of the images in R90.")
    format: Literal["jpeg", "png", "fits"] = Field(
        "jpeg", description="JPEG or PNG of three planes with an asinh stretch, or float32 FITS cubes (nanomaggies a "
        "square arcsec)."
    )
    quality: int = Field(85, ge=10, le=95, description="Quality of JPEG files.")
    container: Literal["folder", "tar"] = Field("tar", description="A folder of files, or one tar file of them.")
    black: float = Field(0.02, ge=0, lt=0.5, description="Level of the empty sky, 1 being white.")
    knee: float = Field(23.0, description="Surface brightness at which the stretch turns logarithmic, mag/arcsec2.")
    white: float = Field(17.5, description="Surface brightness that is white, mag/arcsec2.")


class Population(Model):
    """A population of sources: what they are, how bright, how far, how large."""

    name: str = Field("galaxies", pattern=r"^[a-z0-9_]+$", description="Name, for the truth table.")
    share: float = Field(1.0, gt=0, description="Its part of the sources, relative to the other populations.")
    mix: dict[str, Annotated[float, Field(ge=0)]] = Field(description="Relative numbers of the kinds of sources.")
    magnitude_bright: float = Field(14.0, description="Brightest AB magnitude in the reference band.")
    magnitude_faint: float = Field(17.0, description="Faintest AB magnitude in the reference band.")
    slope: float = Field(0.3, description="Slope of log10 counts per magnitude.")
    redshift: Range = Field((0.02, 0.12), description="Range of the redshifts.")
    size_arcsec: Positive = Field(3.2, description="Typical half-light radius at magnitude 16.5, arcsec.")
    redness: float = Field(1.0, description="Mean factor on all colours: above 1 redder. Irregular galaxies have 0.75.")
    bars: Fraction = Field(0.35, description="Fraction of the disks with a bar.")
    arms: Fraction = Field(0.75, description="Fraction of the disks with spiral arms.")
    rings: Fraction = Field(0.10, description="Fraction of the disks with a ring.")
    dust_lanes: Fraction = Field(0.25, description="Fraction of the edge-on disks with a dust lane.")

    @model_validator(mode="after")
    def _ranges(self) -> Population:
        require_known(self.mix, KINDS, f"population {self.name!r}: mix")
        if not sum(self.mix.values()) > 0:
            raise ValueError("mix has no positive number")
        if self.magnitude_bright >= self.magnitude_faint:
            raise ValueError("magnitude_bright is not brighter than magnitude_faint")
        if self.redshift[0] < 0:
            raise ValueError("redshift must be 0 or more")
        return self


class LabelFile(Model):
    """A label table of each survey, counted from the votes on its images."""

    file: str = Field(description="Name of the file, with {survey} where there are several surveys.")
    answers: dict[str, str] = Field(description="Column -> answer whose vote fraction it holds.")
    fraction: Literal["cumulative", "question"] = Field(
        "question", description="question: of those who answered the question, with a column `votes` of how many they "
        "were, and without the sources that nobody was asked about; cumulative: the fractions multiplied down the tree."
    )

    @model_validator(mode="after")
    def _valid(self) -> LabelFile:
        problem = pattern_problem(self.file, ("survey",))
        if problem or "/" in self.file.replace("labels/", "", 1) or ".." in self.file:
            raise ValueError(problem or "file must be a plain name, or one in labels/")
        require_known(self.answers.values(), ANSWERS, "answers")
        if self.fraction == "question" and len({ANSWERS[name] for name in self.answers.values()}) != 1:
            raise ValueError("a table of fractions within a question can hold the answers of one question alone")
        return self


class Dirt(Model):
    """Faults put into each survey's images, by number; truncated, grey and missing are different sources."""

    truncated: int = Field(0, ge=0, description="Files cut off in the middle.")
    grey: int = Field(0, ge=0, description="Images of one plane instead of three.")
    missing: int = Field(0, ge=0, description="Sources of the catalog without a file.")


class ImageSpec(Model):
    """Everything about simulated surveys of image files."""

    title: str = Field("", description="What this simulation is for.")
    seed: int = Field(1, ge=0, description="Seed of every random stream.")
    sources: int = Field(ge=1, le=1_000_000, description="Number of sources.")
    first_id: int = Field(100001, ge=1, description="ID of source 1; the others follow.")
    reference_band: str = Field("r", description="Band of the magnitudes, radii and of what is visible.")
    neighbours: float = Field(3.0, ge=0, description="Stars and galaxies beside the sources, a square arcmin.")
    bands: tuple[ImageBand, ...] = Field(min_length=1, description="The bands of the catalog and the images.")
    surveys: tuple[SurveySpec, ...] = Field(min_length=1, description="The surveys.")
    images: ImageFiles = Field(description="How the images are written.")
    populations: tuple[Population, ...] = Field(min_length=1, description="What the sources are.")
    voters: Numbers = Field((35, 55), description="Fewest and most voters of an image.")
    labels: tuple[LabelFile, ...] = Field((), description="The label tables.")
    dirt: Dirt = Field(Dirt(), description="Faults of the images.")

    @field_validator("voters")
    @classmethod
    def _some(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] < 1:
            raise ValueError("must be 1 or more")
        return value

    @model_validator(mode="after")
    def _names_fit(self) -> ImageSpec:
        names = [band.name for band in self.bands]
        require_unique(names, "band")
        require_unique([one.name for one in self.surveys], "survey")
        require_unique([one.name for one in self.populations], "population")
        require_unique([one.file for one in self.labels], "label file")
        require_known([self.reference_band], names, "reference_band")
        require_known(self.images.planes, names, "images.planes")
        if self.images.format != "fits" and len(self.planes) != 3:
            raise ValueError(f"images.planes: {self.images.format} files have three planes, not {len(self.planes)}")
        for survey in self.surveys:
            require_known(survey.sky_noise, names, f"survey {survey.name!r}: sky_noise")
            missing = [name for name in {*self.planes, self.reference_band} if name not in survey.sky_noise]
            if missing:
                raise ValueError(f"survey {survey.name!r}: sky_noise has no band {sorted(missing)[0]!r}")
        if len(self.surveys) > 1 and any("{survey}" not in one.file for one in self.labels):
            raise ValueError("labels.file needs {survey} where there are several surveys")
        return self

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of the bands of the planes, in order."""
        return self.images.planes or tuple(band.name for band in self.bands)

    def band(self, name: str) -> ImageBand:
        """Return the band called `name`."""
        return next(band for band in self.bands if band.name == name)
