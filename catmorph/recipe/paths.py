"""The paths in a recipe: which keys hold them, as the sections mark them, and what is done to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from catmorph.recipe.base import PathMark, TablesOf, inner_model, path_marks
from catmorph.recipe.model import Recipe

Keys = tuple[str, ...]
"""The keys that lead to a value, from the top; ``*`` stands for each in a list or table."""


def _path_keys(model: type[BaseModel], above: Keys = ()) -> Iterator[tuple[Keys, PathMark]]:
    yield from (((*above, name), mark) for name, mark in path_marks(model).items())
    for name, info in model.model_fields.items():
        inner, kind = inner_model(info.annotation)
        if inner is not None:
            yield from _path_keys(inner, (*above, name) if kind is None else (*above, name, "*"))
        for one in info.metadata:
            if isinstance(one, TablesOf):
                marks = path_marks(one.section)
                yield from (((*above, name, "*", key), marks[key]) for key in one.keys if key in marks)


PATH_KEYS = dict(_path_keys(Recipe))
"""Keys of a recipe that hold paths, relative to the file that gives them."""


def paths_in(table: Any) -> Iterator[tuple[str, str, PathMark]]:
    """Yield the paths in the plain values of a recipe, each with its key in full and its mark."""
    for keys, mark in PATH_KEYS.items():
        for called, holder in _holders(table, keys):
            value = holder[keys[-1]]
            yield from ((called, one, mark) for one in (value if isinstance(value, list) else [value])
                        if _is_path(one, mark))  # fmt: skip


def change_paths(table: Any, change: Callable[[str, PathMark], str]) -> None:
    """Replace every path in the plain values of a recipe, in which anything else may be wrong."""

    def changed(value: Any, mark: PathMark) -> Any:
        if isinstance(value, list):
            return [changed(one, mark) for one in value]
        return change(value, mark) if _is_path(value, mark) else value

    for keys, mark in PATH_KEYS.items():
        for _, holder in _holders(table, keys):
            holder[keys[-1]] = changed(holder[keys[-1]], mark)


def _is_path(value: Any, mark: PathMark) -> bool:
    return isinstance(value, str) and value not in mark.words


def _holders(table: Any, keys: Keys, above: Keys = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each table that has the last of `keys`, with what that key is called in full."""
    key, rest = keys[0], keys[1:]
    if key == "*":
        parts = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
        for name, part in parts:
            yield from _holders(part, rest, (*above, str(name)))
    elif isinstance(table, dict) and key in table:
        if rest:
            yield from _holders(table[key], rest, (*above, key))
        else:
            yield ".".join((*above, key)), table
