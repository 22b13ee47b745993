"""Recipes: one TOML file says everything about a production."""

from catmorph.recipe.catalog import CatalogSection, Column
from catmorph.recipe.loading import load_recipe, preset_names, preset_path, write_recipe
from catmorph.recipe.model import (
    BandColumns,
    ClassifierSection,
    MosaicSection,
    NormaliseSection,
    Recipe,
    ReleaseColumn,
    ReleaseSection,
    RunSection,
    StampSection,
    SummarySection,
    TrainingSection,
)

__all__ = [
    "BandColumns",
    "CatalogSection",
    "ClassifierSection",
    "Column",
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
    "preset_path",
    "write_recipe",
]
