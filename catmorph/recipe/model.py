"""The sections of a recipe as frozen pydantic models; `docs/recipe.md` is generated from them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field, model_validator

from catmorph.errors import suggest
from catmorph.recipe.base import SAFE_NAME, Section, SectionError, Strings
from catmorph.recipe.catalog import CatalogSection
from catmorph.recipe.classifiers import ClassifierSection
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.recipe.experiments import ExperimentSection
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

    def classifier_scheme(self, name: str) -> str:
        """Return the name of the label scheme that classifier `name` answers in."""
        return self.classifiers[name].scheme or self.scheme

    def file_bands(self, band: str) -> tuple[str, ...]:
        """Return what stands for `band` in file names: the first for which a field has mosaics."""
        return self.bands.files.get(band, (band,))
