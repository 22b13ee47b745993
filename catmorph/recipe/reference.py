"""The recipe reference, written from the models themselves."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from catmorph.recipe.base import inner_model
from catmorph.recipe.catalog import ColumnTable, FieldRule
from catmorph.recipe.model import Recipe

MINIMAL = """\
name = "virgo"
scheme = "clash"

[catalog]
files = "evcc.fits"
field = { value = "virgo" }
id = "id_evcc"
ra = "ra"
dec = "dec"
size = { column = "r_50", unit = "arcsec" }

[bands]
names = ["g", "r"]

[mosaics]
pattern = "mosaics/{field}_{band}.fits*"

[classifiers.mine]
checkpoint = "clash.safetensors"
"""
"""The shortest recipe that runs through every stage."""

_INTRODUCTION = f"""\
# Recipe reference

A recipe is one TOML file that says everything about a production. `catmorph init PRESET` writes a commented
one; this page lists every key. It is generated from the models in `catmorph/recipe/` (a test holds it current).

The shortest recipe that runs through every stage:

```toml
{MINIMAL}```

- Paths are relative to the recipe that gives them, those of a preset to the recipe that extends it;
  in `--set` to the current folder.
- `extend = "clash"` (a preset) or `extend = "base.toml"` (a path) at the top takes another recipe as base:
  the keys of each section replace those of the base one by one, a column, `field` or `[views]` as a whole.
  `without = ["training.backbone"]` beside it leaves keys, or sections, of the base out.
- `--set section.key=value` overrides one value; the value is TOML, or else text: `--set run.chunk_rows=512`,
  `--set catalog.ra.unit=rad`, `--set 'bands.names=["g", "r"]'`, `--set "catalog.cuts=magnitude < 20"`.
- A list of one may be written without brackets. A *column* is a name, a number (from 1, for tables without
  header), or a table `{{ column = "RA", unit = "deg", null = -99 }}`.
- An unknown key, a wrong unit or a combination that cannot work is refused before any work starts; all problems
  are named at once.
- The resolved recipe, with every default written out, lies in the run folder as `recipe.toml`.
"""

_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false"}


def reference_markdown() -> str:
    """Return the reference of all recipe keys as Markdown: one table a section."""
    parts = [_INTRODUCTION, _section("Top level", Recipe, "")]
    parts += [_section(title, model, _lead(model)) for title, model in _sections(Recipe, "")]
    parts.append(_section("A column", ColumnTable, _lead(ColumnTable)))
    return "\n".join(parts)


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the heading and model of each section and part of a section, in order."""
    for name, info in model.model_fields.items():
        inner, kind = inner_model(info.annotation)
        if inner is None or inner is ColumnTable:
            continue
        key = f"{prefix}{name}" + (".NAME" if kind is dict else "")
        yield (f"`[[{key}]]`" if kind is tuple else f"`[{key}]`"), inner
        yield from _sections(inner, f"{key}.")


def _lead(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split()) + "\n\n"


def _section(title: str, model: type[BaseModel], lead: str) -> str:
    rows = [
        f"| `{name}` | {_type(info.annotation, info)} | {_default(info)} | {_escaped(info.description or '')} |"
        for name, info in model.model_fields.items()
    ]
    return f"## {title}\n\n{lead}| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _type(annotation: Any, info: FieldInfo | None = None) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        text = _type(inner[0])
    elif origin in (Union, types.UnionType):
        text = " or ".join(dict.fromkeys(_type(one) for one in inner if one is not type(None)))
    elif origin is Literal:
        text = ", ".join(f"`{value}`" for value in inner)
    elif origin is tuple:
        text = f"list of {_type(inner[0])}"
    elif origin is dict:
        text = "table of tables" if get_origin(inner[1]) is dict else f"table of {_type(inner[1])}"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        text = "column" if annotation is ColumnTable else "section"
    else:
        text = _TYPES.get(annotation, str(annotation))
    return text + (_limits(info) if info else "")


def _limits(info: FieldInfo) -> str:
    signs = {annotated_types.Gt: ">", annotated_types.Ge: "≥", annotated_types.Lt: "<", annotated_types.Le: "≤"}
    limits = [f"{sign} {getattr(one, kind.__name__.lower()):g}" for one in info.metadata
              for kind, sign in signs.items() if isinstance(one, kind)]
    return f", {', '.join(limits)}" if limits else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, ColumnTable | FieldRule):
        return f"`{value.column}`"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return ", ".join(f"`{one.source}`" for one in value)  # type: ignore[attr-defined]
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
