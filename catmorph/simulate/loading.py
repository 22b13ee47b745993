"""Reading specs: which kind a file is, and all its problems in one error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from catmorph.errors import ProblemsError, UsageError, suggest
from catmorph.simulate.images.spec import ImageSpec
from catmorph.simulate.spec import SimulationSpec
from catmorph.simulate.spec_base import Model

Spec = TypeVar("Spec", bound=Model)


def load_spec(path: str | Path) -> SimulationSpec | ImageSpec:
    """Read and check a spec: of image files where it has a table [images], of fields and mosaics otherwise.

    Raises
    ------
    UsageError
        When the file is missing, is no TOML, or is not valid; one line says where and what to do.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the spec: {error.strerror}", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not valid TOML: {error}", where=path) from error
    if "images" in table:
        return parse_spec(ImageSpec, table, where=path)
    return parse_spec(SimulationSpec, table, where=path)


def parse_spec(model: type[Spec], table: dict[str, Any], where: object = None) -> Spec:
    """Check the tables of a spec of kind `model`; all problems come in one error."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ProblemsError([_problem(model, one) for one in error.errors()], where=where) from error


def _problem(model: type[Model], error: Any) -> str:
    """Say one pydantic error in a line, with the nearest valid key for an unknown one."""
    place = [part for part in error["loc"] if part != "function-after"]
    key = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {suggest(place[-1], _keys_at(model, place[:-1]))}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _keys_at(model: type[Model], place: list[Any]) -> list[str]:
    """Return the valid keys of the table at `place`, for example ``['fields', 0]``."""
    for part in place:
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[Model] | None:
    """Return the table that a field holds, alone or in a tuple of them."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def tiny_spec(**changes: Any) -> SimulationSpec:
    """Return a spec that draws in about a second: one field, two bands, six sources, 200 pixels.

    Parameters
    ----------
    **changes
        Top-level keys of the spec to replace, as tables: ``tiny_spec(dirt={"duplicates": 1})``.
    """
    table: dict[str, Any] = {
        "title": "tiny",
        "bands": [
            {"name": "F435W", "wavelength_nm": 433.0, "fwhm_arcsec": 0.09, "depth": 27.2},
            {"name": "F160W", "wavelength_nm": 1540.0, "fwhm_arcsec": 0.18, "depth": 27.5},
        ],
        "fields": [{"name": "tiny", "ra": 150.1, "dec": 2.2, "side_pixels": 200, "sources": 6, "rotation_deg": 8.0}],
        "population": {"magnitude_faint": 23.0},
        "artefacts": {"cosmic_rays": 1.0, "satellite_trails": 0.0, "saturated_stars": 0.0, "hot_pixels": 1.0},
    }
    return parse_spec(SimulationSpec, table | changes)
