"""The sections of a recipe as frozen pydantic models; `docs/recipe.md` is generated from them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from pydantic import Field, model_validator

from catmorph.errors import suggest
from catmorph.recipe.base import PATTERN_WORDS, SAFE_NAME, Section, SectionError, Strings
from catmorph.recipe.catalog import LISTED_KEYS, CatalogSection
from catmorph.recipe.classifiers import ClassifierSection
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.recipe.experiments import ExperimentSection
from catmorph.recipe.images import ImageSection
from catmorph.recipe.labels import LabelsSection
from catmorph.recipe.pixels import BandColumns, MosaicSection, NormaliseSection, StampSection
from catmorph.recipe.release import ReleaseSection, SummarySection
from catmorph.recipe.training import TrainingSection


class RunSection(Section):
    """Production settings."""

    chunk_rows: int = Field(2048, ge=1, description="sources a chunk (sky cell) holds at most")
    tolerance: float = Field(
        0.0, ge=0, le=1,
        description="fraction of the read rows that may have a fault (a bad cell, a duplicate, an unreadable "
        "mosaic ...) before the exit status is 3",
    )


REQUIRED = ("files", "field", "id", "ra", "dec")
"""Keys of [catalog] that a survey table needs; with [images] it can do without positions."""


def missing_sources(given: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield a line for each section or key without which there is no catalog or are no pixels.

    Parameters
    ----------
    given : mapping
        The keys given in each section that a recipe has.
    """
    if "images" not in given and "catalog" not in given:
        yield "catalog: missing; the survey table"
    elif "images" not in given or "files" in given.get("catalog", ()):
        needed = REQUIRED if "images" not in given else REQUIRED[:3]
        told = {key: (CatalogSection.model_fields[key].description or "").partition(";")[0] for key in needed}
        yield from (f"catalog.{key}: missing; {text}" for key, text in told.items() if key not in given["catalog"])
    if "images" in given and "mosaics" in given:
        yield "mosaics, images: stamps are cut from one of the two; leave the other out"
    if "images" not in given and "mosaics" not in given:
        yield "mosaics: missing; the mosaics of the sky, or else [images] of one source each"


class Recipe(Section):
    """A survey's production, from catalog and mosaics to release."""

    name: str = Field(pattern=SAFE_NAME, description="short name; the run folder is runs/<name>")
    title: str = Field("", description="title of the release")
    reference: str = Field("", description="paper or source of the method")
    obtain: str = Field("", description="where catalogs, images, labels and checkpoints can be had; `catmorph check` "
                        "says it where something is missing")
    scheme: str = Field(description="label scheme: the name of a file of catmorph/schemes/, no path")
    catalog: CatalogSection = Field(default_factory=CatalogSection, description="the survey table; required, but with "
                                    "[images]")
    bands: BandColumns = Field(description="the bands")
    views: dict[str, Strings] = Field(
        {}, description="views (name = list of bands) that are cut and classified as one; default: each band"
    )
    mosaics: MosaicSection | None = Field(None, description="the mosaics of the sky; either these or [images]")
    images: ImageSection | None = Field(None, description="images of one source each, instead of [mosaics]")
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
        problems = [*self._source_problems(), *self._view_problems(), *self._classifier_problems(),
                    *self._combination_problems(), *self._image_problems()]
        if problems:
            raise SectionError(problems)
        return self

    def _source_problems(self) -> Iterator[str]:
        sections: dict[str, Section | None] = {"catalog": self.catalog, "mosaics": self.mosaics, "images": self.images}
        given = {name: section.model_fields_set for name, section in sections.items()
                 if section is not None and name in self.model_fields_set}
        yield from missing_sources(given)
        if self.images is None or self.catalog.files:
            return
        for name, info in CatalogSection.model_fields.items():
            default = info.get_default(call_default_factory=True)
            if name not in LISTED_KEYS and getattr(self.catalog, name) != default:
                yield f"catalog.{name}: means nothing without catalog.files, where the images are the catalog"

    def _view_problems(self) -> Iterator[str]:
        for view, bands in self.all_views.items():
            if not re.fullmatch(SAFE_NAME, view):
                yield f"view name {view!r} {PATTERN_WORDS[SAFE_NAME]}"
            if not bands:
                yield f"view {view!r} has no band"
            for band in bands:
                if band not in self.bands.names:
                    yield f"view {view!r} names unknown band {band!r}, {suggest(band, self.bands.names)}"

    def _classifier_problems(self) -> Iterator[str]:
        for name, classifier in self.classifiers.items():
            if not re.fullmatch(SAFE_NAME, name):
                yield f"classifier name {name!r} {PATTERN_WORDS[SAFE_NAME]}"
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

    def _image_problems(self) -> Iterator[str]:
        if self.images is None:
            if self.stamp.side_unit == "image":
                yield "stamp.side is in images: that needs [images]"
            return
        if self.stamp.side_unit in ("arcsec", "radii") and self.images.pixel_scale is None:
            yield f"stamp.side is in {self.stamp.side_unit}: images.pixel_scale (arcsec a pixel) must be given"
        if self.stamp.orientation != "mosaic":
            yield "stamp.orientation: images are not turned north, where [images] has no directions on the sky"
        if self.bands.reference is not None:
            yield "bands.reference: means nothing with [images], whose bands share their pixels"
        if self.images.planes and self.images.has_band:
            yield "images.planes: with {band} in images.name each file has one plane"
        elif self.images.planes and set(self.images.planes) != set(self.bands.names):
            yield f"images.planes: must name every band and no other: {', '.join(self.bands.names)}"

    @property
    def all_views(self) -> dict[str, tuple[str, ...]]:
        """View name -> its bands; single-band views named after their band where the recipe gives none."""
        return dict(self.views) if self.views else {band: (band,) for band in self.bands.names}

    def classifier_views(self, name: str) -> tuple[str, ...]:
        """Return the views that classifier `name` looks at, in release order."""
        chosen = self.classifiers[name].views
        return tuple(view for view in self.all_views if not chosen or view in chosen)

    def classifier_scheme(self, name: str) -> str:
        """Return the name of the label scheme that classifier `name` answers in."""
        return self.classifiers[name].scheme or self.scheme

    def file_bands(self, band: str) -> tuple[str, ...]:
        """Return what stands for `band` in file names: the first for which a field has mosaics."""
        return self.bands.files.get(band, (band,))
