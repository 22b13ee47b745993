"""The sections of a recipe as frozen pydantic models; `docs/recipe.md` is generated from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from catmorph.errors import suggest
from catmorph.recipe.base import SAFE_NAME, Section, SectionError, Strings, as_tuple
from catmorph.recipe.catalog import CatalogSection
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.recipe.experiments import ExperimentSection
from catmorph.recipe.labels import LabelsSection
from catmorph.recipe.training import TrainingSection
from catmorph.templates import pattern_problem

_SIDE = re.compile(r"^\s*([0-9.eE+-]+)\s*(radii|arcsec|pixels)\s*$")


class BandColumns(Section):
    """The bands of the survey."""

    names: Strings = Field(min_length=1, description="band names, in the order of the release (usually by wavelength)")
    files: dict[str, str] = Field({}, description="what {band} stands for in file names, where not the name")
    reference: str | None = Field(None, description="band whose pixels count where a size is in pixels")

    @model_validator(mode="after")
    def _known(self) -> BandColumns:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a band is named twice")
        for name in self.names:
            if not re.fullmatch(SAFE_NAME, name):
                raise ValueError(f"band name {name!r} must be letters, digits, '.', '_', '+' and '-'")
        for name in [*self.files, *([self.reference] if self.reference else [])]:
            if name not in self.names:
                raise ValueError(f"unknown band {name!r}; bands are {', '.join(self.names)}")
        return self


class MosaicSection(Section):
    """The images the stamps are cut from."""

    pattern: Strings = Field(min_length=1, description="file pattern(s) with {field} and {band}, globs allowed; "
                             "several files for one field and band are tiles")
    hdu: int | str | None = Field(None, description="HDU with the image; default: the first with a 2-d image")
    weight: str | None = Field(None, description="pattern of weight maps: weight <= 0 or not finite is invalid")
    weight_hdu: int | str | None = Field(None, description="HDU of the weight map")
    flag: str | None = Field(None, description="pattern of integer flag maps")
    flag_hdu: int | str | None = Field(None, description="HDU of the flag map")
    flag_bits: int | None = Field(None, ge=0, description="bits of the flag map that make a pixel invalid; "
                                  "default: any")
    blank: Annotated[tuple[float, ...], BeforeValidator(as_tuple)] = Field(
        (), description="pixel values that mean 'not observed', such as 0"
    )

    @field_validator("pattern", "weight", "flag")
    @classmethod
    def _placeholders(cls, value: Any) -> Any:
        for pattern in (value,) if isinstance(value, str) else value or ():
            problem = pattern_problem(pattern, ("field", "band"))
            if problem:
                raise ValueError(problem)
        return value


class StampSection(Section):
    """Geometry of the stamps."""

    side: str = Field("4 radii", description="side of the square: '<n> radii', '<n> arcsec' or '<n> pixels' "
                      "(native pixels of bands.reference)")
    pixels: int = Field(80, ge=4, le=2048, description="stamp size in pixels, after resampling")
    resample: Literal["bilinear", "area"] = Field(
        "bilinear", description="triangle filter (widened when shrinking, as PIL's bilinear) or pixel areas"
    )
    orientation: Literal["mosaic", "north"] = Field("mosaic", description="pixel axes of the mosaic, or north up, "
                                                    "east left")
    values: Literal["surface_brightness", "flux"] = Field(
        "surface_brightness", description="keep the value a native pixel, or the flux a stamp pixel"
    )
    min_side_pixels: float = Field(2.0, gt=0, description="smaller stamps (native pixels) are flagged BAD_SIZE")
    max_side_pixels: float = Field(4096.0, gt=0, description="larger stamps (native pixels) are flagged BAD_SIZE")
    max_bad_fraction: float = Field(0.5, ge=0, le=1, description="more invalid pixels than this: BAD_PIXELS")
    min_signal: float | None = Field(None, description="signal-to-noise ratio below which LOW_SIGNAL warns")

    @field_validator("side")
    @classmethod
    def _side(cls, value: str) -> str:
        match = _SIDE.match(value)
        if not match or not float(match.group(1)) > 0:
            raise ValueError("must be a positive number and a unit: '4 radii', '10 arcsec' or '50 pixels'")
        return value

    @property
    def side_value(self) -> float:
        """The number of `side`."""
        return float(_SIDE.match(self.side).group(1))  # type: ignore[union-attr]

    @property
    def side_unit(self) -> str:
        """The unit of `side`: radii, arcsec or pixels."""
        return _SIDE.match(self.side).group(2)  # type: ignore[union-attr]


class NormaliseSection(Section):
    """How a stamp's pixels become the network's input; each looks at one stamp (one channel) alone."""

    method: Literal["none", "minmax", "bytescale", "percentile", "asinh"] = Field(
        "minmax",
        description="none; minmax: (p - min) / (max - min); bytescale: the same in 256 steps, as the CLASH "
        "authors' code; percentile: clipped to low..high percentiles, to 0..1; asinh: asinh((p - median) / "
        "(softening * noise)), divided by its maximum, noise from the median absolute deviation",
    )
    low: float = Field(0.5, ge=0, lt=100, description="lower percentile")
    high: float = Field(99.5, gt=0, le=100, description="upper percentile")
    softening: float = Field(3.0, gt=0, description="asinh: where the stretch turns logarithmic, in noise sigmas")
    fill: Literal["zero", "median", "minimum"] = Field(
        "median", description="what the network sees instead of invalid pixels (before scaling)"
    )


class ClassifierSection(Section):
    """A trained network, or an ensemble of them, and the views it looks at."""

    checkpoint: str | tuple[str, ...] = Field(
        description="checkpoint file (safetensors), relative to the recipe; several are an ensemble: the release "
        "has the mean of their probabilities, and in formats other than CSV how much they disagree"
    )
    views: Strings = Field((), description="views it classifies; default: all")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic: auto takes bfloat16 where the processor has it, else float32"
    )
    batch: int = Field(256, ge=16, le=65536, description="stamps in the network's fixed batch")
    test_time: Literal["none", "d4"] = Field(
        "none", description="d4: the network sees each stamp in its 8 rotations by 90 degrees and mirror images, and "
        "the probabilities are averaged; takes 8 times as long"
    )
    temperature: float | Literal["card"] = Field(
        1.0, description="logits are divided by it at export (calibration): a number above 0, or `card` for the "
        "temperature in each checkpoint's card, which `catmorph evaluate --calibrate` fits"
    )

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, list | tuple) or not paths or not all(isinstance(one, str) for one in paths):
            raise ValueError("must be a file name or a list of file names")
        twice = [one for one in dict.fromkeys(paths) if paths.count(one) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is named more than once")
        return paths[0] if len(paths) == 1 else tuple(paths)

    @field_validator("temperature", mode="before")
    @classmethod
    def _positive_or_card(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "card" or (number and 0 < value < math.inf):
            return value
        raise ValueError("must be a number above 0, or 'card'")

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The members: one checkpoint, or those of the ensemble."""
        return (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint


class ReleaseColumn(Section):
    """A leading column of the release."""

    name: str = Field(description="name in the released table")
    source: str = Field(description="field, id, ra, dec, size_arcsec, magnitude, or a kept column")
    decimals: int | None = Field(None, ge=0, le=12, description="decimals in CSV")
    ucd: str | None = Field(None, description="IVOA unified content descriptor")
    description: str | None = Field(None, description="what it is")


class ReleaseSection(Section):
    """Layout of the released catalog."""

    name: str = Field("catalog", pattern=SAFE_NAME, description="file name without ending")
    formats: Strings = Field(("csv",), description="formats that `export` and `run` write")
    require: Literal["any", "all", "none"] = Field(
        "any", description="a source is released with a classified stamp in any view, in all, or in none at all"
    )
    columns: tuple[ReleaseColumn, ...] = Field(
        (
            ReleaseColumn(name="field", source="field"),
            ReleaseColumn(name="id", source="id"),
            ReleaseColumn(name="ra", source="ra", decimals=6),
            ReleaseColumn(name="dec", source="dec", decimals=6),
        ),
        description="leading columns, in order",
    )
    probability: str = Field(
        "{view}_{class}",
        description="name of a probability column, from {classifier}, {view}, {class}, {code}; filters "
        "|lower |upper |capital",
    )
    quantity: str = Field(
        "{view}_{quantity}",
        description="name of the columns that formats other than CSV add for a view, from {classifier}, {view} "
        "and {quantity} (class, entropy, flags; for ensembles mutual_information)",
    )
    spread: str = Field(
        "{probability}_spread",
        description="name of the column with the standard deviation of a probability among the members of an "
        "ensemble, from {probability} (the name of its column), {classifier}, {view}, {class}, {code}",
    )
    decimals: int = Field(4, ge=1, le=12, description="decimals of probabilities in CSV")


class SummarySection(Section):
    """What `summarize` counts."""

    threshold: float = Field(0.5, ge=0, le=1, description="probability above which a class counts as confident")
    merger_class: str | None = Field(None, description="class of the merger fraction; default: the scheme's own")
    merger_threshold: float = Field(0.30, gt=0, le=1, description="probability from which it counts as merger")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")


class RunSection(Section):
    """Production settings."""

    chunk_rows: int = Field(2048, ge=1, description="sources a chunk (sky cell) holds at most")
    tolerance: float = Field(
        0.0, ge=0, le=1,
        description="fraction of the read rows that may have a fault (a bad cell, a duplicate, an unreadable "
        "mosaic ...) before the exit status is 3",
    )


class Recipe(Section):
    """A survey's production, from catalog and mosaics to release."""

    name: str = Field(pattern=SAFE_NAME, description="short name; the run folder is runs/<name>")
    title: str = Field("", description="title of the release")
    reference: str = Field("", description="paper or source of the method")
    scheme: str = Field(description="label scheme, a file of catmorph/schemes/")
    catalog: CatalogSection = Field(description="the survey table")
    bands: BandColumns = Field(description="the bands")
    views: dict[str, Strings] = Field(
        {}, description="views (name = list of bands) that are cut and classified as one; default: each band"
    )
    mosaics: MosaicSection = Field(description="the images")
    stamp: StampSection = Field(default_factory=StampSection, description="stamp geometry")
    normalise: NormaliseSection = Field(default_factory=NormaliseSection, description="network input")
    classifiers: dict[str, ClassifierSection] = Field({}, description="networks, by name")
    release: ReleaseSection = Field(default_factory=ReleaseSection, description="released catalog")
    summary: SummarySection = Field(default_factory=SummarySection, description="summaries")
    run: RunSection = Field(default_factory=RunSection, description="production settings")
    labels: LabelsSection = Field(default_factory=LabelsSection, description="human labels")
    training: TrainingSection | None = Field(None, description="training")
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection, description="evaluation of checkpoints")
    experiments: ExperimentSection = Field(default_factory=ExperimentSection, description="grids of trainings")

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        problems = [*self._view_problems(), *self._classifier_problems(), *self._combination_problems()]
        if problems:
            raise SectionError(problems)
        return self

    def _view_problems(self) -> Iterator[str]:
        for view, bands in self.all_views.items():
            if not re.fullmatch(SAFE_NAME, view):
                yield f"view name {view!r} must be letters, digits, '.', '_', '+' and '-'"
            if not bands:
                yield f"view {view!r} has no band"
            for band in bands:
                if band not in self.bands.names:
                    yield f"view {view!r} names unknown band {band!r}, {suggest(band, self.bands.names)}"

    def _classifier_problems(self) -> Iterator[str]:
        for name, classifier in self.classifiers.items():
            if not re.fullmatch(SAFE_NAME, name):
                yield f"classifier name {name!r} must be letters, digits, '.', '_', '+' and '-'"
            for view in classifier.views:
                if view not in self.all_views:
                    yield f"classifier {name!r} names unknown view {view!r}, {suggest(view, self.all_views)}"

    def _combination_problems(self) -> Iterator[str]:
        if self.stamp.side_unit == "radii" and self.catalog.size is None:
            yield "stamp.side is in radii: catalog.size must name the column of the radius"
        if self.catalog.duplicates == "brightest" and self.catalog.magnitude is None:
            yield "catalog.duplicates = 'brightest' needs catalog.magnitude"
        if self.stamp.min_side_pixels >= self.stamp.max_side_pixels:
            yield "stamp.min_side_pixels must be below stamp.max_side_pixels"
        if self.normalise.low >= self.normalise.high:
            yield "normalise.low must be below normalise.high"

    @property
    def all_views(self) -> dict[str, tuple[str, ...]]:
        """View name -> its bands; single-band views named after their band where the recipe gives none."""
        return dict(self.views) if self.views else {band: (band,) for band in self.bands.names}

    def classifier_views(self, name: str) -> tuple[str, ...]:
        """Return the views that classifier `name` looks at, in release order."""
        chosen = self.classifiers[name].views
        return tuple(view for view in self.all_views if not chosen or view in chosen)

    def file_band(self, band: str) -> str:
        """Return what stands for `band` in file names."""
        return self.bands.files.get(band, band)
