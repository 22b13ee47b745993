"""Columns that a recipe names, looked for before any work: in it, and in the headers of its tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.errors import CatalogError, ProblemsError, RecipeError, one_line, suggest
from catmorph.recipe import CatalogSection, Recipe
from catmorph.sources.expressions import Expression
from catmorph.sources.header import column_names
from catmorph.sources.images import IMAGE_COLUMNS
from catmorph.sources.inputs import catalog_files
from catmorph.sources.mapping import CANONICAL
from catmorph.sources.match import reading

_HIDDEN = ("cell", "file", "row", "size_arcsec")
"""Columns of the sources that messages do not offer: bookkeeping, and another name of ``size``."""
_KEEP = "columns of the survey table go into catalog.keep"


def check_names(recipe: Recipe) -> None:
    """Check that there is each column which a recipe names; of a table of several files, the first is looked at.

    These are the columns of [catalog], its cuts and its matches, and those in labels.class_column, labels.rules and
    the expressions of [evaluation], which see the sources' columns: catmorph's own, kept and matched ones.

    Raises
    ------
    ProblemsError
        Naming every column that there is not, with the nearest or all that there are.
    """
    header = _header(recipe)
    problems = [*_of_table(header), *_of_matches(recipe.catalog), *_of_sources(recipe, header)]
    if problems:
        raise ProblemsError(dict.fromkeys(problems))


def _of_sources(recipe: Recipe, header: _Header) -> Iterator[str]:
    known = (*CANONICAL, "size", *recipe.catalog.carried)
    shown = [name for name in known if name not in _HIDDEN]
    asked = [(f"{where}: cut {text!r} names", _names(text)) for where, text in _expressions(recipe)]
    if recipe.labels.table is None:
        asked += [("labels.class_column names", [f"col{one}" if isinstance(one, int) else one])
                  for one in recipe.labels.class_column]  # fmt: skip
    for what, names in asked:
        unknown = [name for name in names if name not in known]
        if unknown:
            kept = [name for name in unknown if name in (header.names or ())]
            keep = f"add {', '.join(kept)} of the survey table to catalog.keep" if kept else _KEEP
            near = suggest(unknown[0] if len(unknown) == 1 else "", shown)
            plural = "s" if len(unknown) > 1 else ""
            yield one_line(f"{what} unknown column{plural} {', '.join(map(repr, unknown))}", hint=f"{near}; {keep}")


def _expressions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of each expression on the columns of the sources."""
    section = recipe.evaluation
    yield from ((f"evaluation.groups.{name}", text) for name, text in section.groups.items())
    if section.colour_magnitude:
        yield from ((f"evaluation.colour_magnitude.{key}", getattr(section.colour_magnitude, key)) for key in "xy")
    yield from (("evaluation.pairs", text) for text in section.pairs)
    yield from ((f"labels.rules.{name}", text) for name, text in recipe.labels.rules.items())


def _names(text: str) -> list[str]:
    try:
        expression = Expression(text)
    except RecipeError:
        return []  # what is no expression is told elsewhere
    return sorted(expression.names | expression.quoted)


@dataclass(frozen=True)
class _Header:
    """The columns that [catalog] and its cuts need, the first file, and the columns it has, where these are known."""

    wanted: list[tuple[str, Any]]
    in_cuts: dict[str, list[str]]
    own: list[str]
    path: Path | None
    names: Collection[str] | None


def _header(recipe: Recipe) -> _Header:
    section = recipe.catalog
    wanted: list[tuple[str, Any]] = [(f"catalog.{key}", column) for key, column in section.columns.items()]
    wanted += [("catalog.keep", name) for name in section.keep]
    own = [*section.columns, *(name for one in section.match for name in one.names.values())]
    in_cuts = {text: [name for name in _names(text) if name not in own] for text in section.cuts}
    needed = {name for _, name in wanted if isinstance(name, str)}.union(*in_cuts.values())
    path, names = _table(section, needed) if section.files else (Path("images"), IMAGE_COLUMNS)
    return _Header(wanted, in_cuts, own, path, names)


def _of_table(header: _Header) -> Iterator[str]:
    if header.names is None:
        return
    yield from _lacking(header.wanted, header.names, header.path)
    for text, there in header.in_cuts.items():
        for name in there:
            if name not in header.names:
                hint = suggest(name, dict.fromkeys([*header.names, *header.own]))
                yield one_line(f"cut {text!r} names unknown column {name!r}", hint=hint)


def _of_matches(section: CatalogSection) -> Iterator[str]:
    for one in section.match:
        wanted = [("catalog.match.ra", one.ra.column), ("catalog.match.dec", one.dec.column)]
        wanted += [("catalog.match.columns", name) for name in one.columns]
        path, names = _table(reading(one), {name for _, name in wanted if isinstance(name, str)})
        if names is not None:
            yield from _lacking(wanted, names, path)


def _table(section: CatalogSection, needed: Collection[str]) -> tuple[Path | None, Collection[str] | None]:
    """Return the first file of a table and the names of its columns, None where they are not known."""
    try:
        path = catalog_files(section)[0]
    except CatalogError:
        return None, None  # told elsewhere
    return path, column_names(path, section, needed)


def _lacking(wanted: list[tuple[str, Any]], names: Collection[str], path: Path | None) -> Iterator[str]:
    for key, name in wanted:
        if isinstance(name, str) and name not in names:
            yield one_line(f"no column {name!r} for {key}", where=path, hint=suggest(name, names))
