"""Catalogs and recipes for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tomli_w

from catmorph.recipe import CatalogSection, load_recipe
from catmorph.sources.ingest import ingest
from catmorph.workspace import RunFolder

SECTION = {"files": "cat.csv", "field": {"value": "f"}, "id": "ID", "ra": "RA", "dec": "DEC"}


def section(**changes: Any) -> CatalogSection:
    """Return a catalog section with columns ID, RA and DEC, with changes."""
    return CatalogSection(**{**SECTION, **changes})


def recipe_text(**catalog: Any) -> str:
    """Return a small recipe, with changes of its catalog section, as TOML."""
    return tomli_w.dumps({
        "name": "small", "scheme": "clash", "catalog": {**SECTION, **catalog},
        "bands": {"names": ["F160W"]}, "mosaics": {"pattern": "{field}_{band}.fits"}, "stamp": {"side": "5 arcsec"},
    })


def new_run(folder: Path, *overrides: str, where: str = "run", **catalog: Any) -> RunFolder:
    """Return a run folder below `folder`, for a recipe written there."""
    recipe = folder / "small.toml"
    recipe.write_text(recipe_text(**catalog))
    return RunFolder(folder / where, load_recipe(recipe, overrides))


def read_in(folder: Path, *overrides: str, where: str = "run", **catalog: Any) -> tuple[Any, Any, dict[str, int]]:
    """Ingest and return sources and rejected rows as data frames, and the counts."""
    run = new_run(folder, *overrides, where=where, **catalog)
    counts = ingest(run)
    return pq.read_table(run.sources_path()).to_pandas(), pq.read_table(run.rejected_path()).to_pandas(), counts
