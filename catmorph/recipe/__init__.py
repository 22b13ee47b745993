"""Recipes: one TOML file says everything about a production."""

from catmorph.recipe.catalog import CatalogSection, Column, MatchSection
from catmorph.recipe.classifiers import ClassifierSection
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.recipe.experiments import ExperimentSection
from catmorph.recipe.images import ImageSection
from catmorph.recipe.labels import LabelsSection
from catmorph.recipe.loading import load_recipe, write_recipe
from catmorph.recipe.model import Recipe, RunSection
from catmorph.recipe.pixels import BandColumns, MosaicSection, NormaliseSection, StampSection
from catmorph.recipe.presets import preset_names, preset_needs, preset_path, preset_text, simulation_path
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
    "simulation_path",
    "write_recipe",
]
