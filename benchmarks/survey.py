"""Surveys that the benchmarks make: recipe, network and sky."""

from __future__ import annotations

import json
from pathlib import Path

from astropy.wcs import WCS
from measure import CATMORPH, measure

SCALE = 0.065
"""Arcseconds a pixel, as CLASH."""
_SURVEY = """\
name = "{name}"
scheme = "clash"
[catalog]
files = "{table}"
field = {field}
id = "id"
ra = {{ column = "ra", unit = "deg" }}
dec = {{ column = "dec", unit = "deg" }}
size = {{ column = "size", unit = "arcsec" }}
[bands]
names = {bands}
[mosaics]
pattern = "{mosaics}"
"""
_NETWORK = """\
[normalise]
method = "asinh"
[classifiers.net]
checkpoint = "net.safetensors"
precision = "{precision}"
"""
ONE_FIELD, FIELD_COLUMN = '{ value = "F" }', '{ column = "field" }'


def survey_recipe(
    name: str, *, bands: list[str], mosaics: str, table: str = "sources.csv", field: str = ONE_FIELD
) -> str:
    """Return the sections of a recipe that say what the survey is; column ``size`` is a radius in arcsec."""
    return _SURVEY.format(name=name, bands=json.dumps(bands), mosaics=mosaics, table=table, field=field)


def network_recipe(precision: str = "float32") -> str:
    """Return the sections of a recipe that let ``net.safetensors`` classify."""
    return _NETWORK.format(precision=precision)


def create_network(model: str, folder: Path, recipe: str = "recipe.toml") -> None:
    """Write ``net.safetensors``, untrained."""
    measure(*CATMORPH, "models", "create", model, "-r", recipe, "--output", "net.safetensors", folder=folder)


def sky(side: int, ra: float = 64.0, dec: float = -24.0) -> WCS:
    """Return the WCS of a mosaic of ``side`` x ``side`` pixels around a place in degrees (TAN, north up)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [side / 2] * 2
    wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
    return wcs
