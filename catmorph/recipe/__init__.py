"""Recipes: one TOML file says everything about a production.

A name is imported when it is asked for: what needs one section does without the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catmorph.recipe.catalog import CatalogSection, Column, MatchSection
    from catmorph.recipe.classifiers import ClassifierSection
    from catmorph.recipe.evaluation import EvaluationSection
    from catmorph.recipe.experiments import ExperimentSection
    from catmorph.recipe.images import ImageSection
    from catmorph.recipe.labels import LabelsSection
    from catmorph.recipe.loading import load_recipe, write_recipe
    from catmorph.recipe.model import Recipe, RunSection
    from catmorph.recipe.pixels import BandColumns, MosaicSection, NormaliseSection, StampSection
    from catmorph.recipe.presets import (
        preset_names,
        preset_needs,
        preset_path,
        preset_text,
        preset_titles,
        simulation_path,
    )
    from catmorph.recipe.release import ReleaseColumn, ReleaseSection, SummarySection
    from catmorph.recipe.training import TrainingSection

__all__ = [
    "BandColumns",
    "CatalogSection",
    "ClassifierSection",
    "Column",
    "EvaluationSection",
    "ExperimentSection",
    "ImageSection",
    "LabelsSection",
    "MatchSection",
    "MosaicSection",
    "NormaliseSection",
    "Recipe",
    "ReleaseColumn",
    "ReleaseSection",
    "RunSection",
    "StampSection",
    "SummarySection",
    "TrainingSection",
    "load_recipe",
    "preset_names",
    "preset_needs",
    "preset_path",
    "preset_text",
    "preset_titles",
    "simulation_path",
    "write_recipe",
]

_NAMES = {
    "catalog": ("CatalogSection", "Column", "MatchSection"),
    "classifiers": ("ClassifierSection",),
    "evaluation": ("EvaluationSection",),
    "experiments": ("ExperimentSection",),
    "images": ("ImageSection",),
    "labels": ("LabelsSection",),
    "loading": ("load_recipe", "write_recipe"),
    "model": ("Recipe", "RunSection"),
    "pixels": ("BandColumns", "MosaicSection", "NormaliseSection", "StampSection"),
    "presets": ("preset_names", "preset_needs", "preset_path", "preset_text", "preset_titles", "simulation_path"),
    "release": ("ReleaseColumn", "ReleaseSection", "SummarySection"),
    "training": ("TrainingSection",),
}
"""What each module defines of these."""

_PLACES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
