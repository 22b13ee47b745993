"""Reading, extending, overriding and writing recipes."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError

from catmorph.errors import LONGEST, ProblemsError, RecipeError, UsageError, shortened, suggest
from catmorph.recipe.base import PATTERN_WORDS, SectionError, inner_model
from catmorph.recipe.catalog import CatalogSection
from catmorph.recipe.model import REQUIRED, Recipe, missing_sources
from catmorph.recipe.paths import change_paths
from catmorph.recipe.presets import has_data, preset_names, preset_path
from catmorph.schemes import load_scheme

_FEW_KEYS = 8
"""So many keys of a table are named where something else was given."""
_ALTERNATIVE = re.compile(r"(literal|dict)\[.*\]|constrained-\w+")
"""What pydantic puts among the keys to name one of the types that a value may have."""


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with what it extends and the `section.key=value` overrides applied.

    Relative paths are resolved against the folder of the file that gives them (those of a shipped recipe that another
    extends: against the folder of that; overrides: against the current folder).

    Raises
    ------
    RecipeError, ProblemsError
        Naming every key that is wrong at once.
    """
    table = _read_with_base(Path(path), seen=())
    for override in overrides:
        _apply_override(table, override)
    return _validate(table, where=str(path))


def write_recipe(recipe: Recipe) -> str:
    """Return the resolved `recipe` as TOML text."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _read_with_base(path: Path, seen: tuple[Path, ...], folder: Path | None = None) -> dict[str, Any]:
    """Return a recipe with what it extends; its paths are relative to `folder`, or to its own."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise RecipeError("its folder is that of a user who is not there", where=path) from error
    if path.resolve() in seen:
        raise RecipeError("the recipe extends itself", where=path)
    table = _read_toml(path)
    base, left_out = table.pop("extend", None), table.pop("without", [])
    folder = folder or path.resolve().parent
    _absolute_paths(table, folder)
    if base is None:
        if left_out:
            raise RecipeError("`without` is for recipes that `extend` another", where=path)
        return table
    if not isinstance(base, str):
        raise RecipeError("`extend` must be the path or preset name of one recipe", where=path)
    base_path, data = path.resolve().parent / base, None
    if not os.path.isfile(base_path):  # also where it is too long for a file name
        name = base.removesuffix(".toml")
        # No data lie beside a shipped recipe: its paths are meant for the folder of who uses it.
        base_path, data = preset_path(name), None if has_data(name) else folder
    below = _read_with_base(base_path, (*seen, path.resolve()), data)
    return _extended(_without(below, left_out, path), table)


def _without(table: dict[str, Any], keys: Any, path: Path) -> dict[str, Any]:
    """Return `table` without the keys, such as ``training.backbone``, that a recipe does not take from its base."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise RecipeError("`without` must be a list of keys, such as 'training.backbone'", where=path)
    for key in keys:
        table = _without_key(table, key.split("."), f"{path}: without: {shortened(key)!r}")
    return table


def _without_key(table: Any, parts: list[str], what: str) -> dict[str, Any]:
    if not isinstance(table, dict) or parts[0] not in table:
        known = suggest(parts[0], table) if isinstance(table, dict) and table else None
        raise RecipeError(f"{what} is no key of the recipe that is extended", hint=known)
    if len(parts) == 1:
        return {key: value for key, value in table.items() if key != parts[0]}
    return table | {parts[0]: _without_key(table[parts[0]], parts[1:], what)}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = f"`catmorph init {path.stem} -o {path.name}` writes it" if path.stem in preset_names() else None
        raise RecipeError("no such recipe", where=path, hint=shipped or "`catmorph init PRESET` writes one") from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise RecipeError("is not text in UTF-8", where=path, hint="a recipe is a TOML file") from error
    except RecursionError:
        raise RecipeError("is not a recipe: its tables are nested too deeply", where=path) from None
    except tomllib.TOMLDecodeError as error:
        text, at, place = str(error).rpartition(" (at ")  # of a key that is there twice, it names the key
        raise RecipeError(f"is not valid TOML: {shortened(text)}{at}{place}", where=path) from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise RecipeError("has a number of too many digits", where=path) from error


def _extended(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    # Keys of sections replace one by one; a value that is itself a table, such as a column, replaces whole.
    result = dict(base)
    for key, value in table.items():
        if key == "classifiers" and isinstance(value, dict) and isinstance(base.get(key, {}), dict):
            result[key] = _extended(base.get(key, {}), value)
        elif isinstance(value, dict) and isinstance(base.get(key), dict) and key != "views":
            result[key] = base[key] | value
        else:
            result[key] = value
    return result


def _merged(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _absolute_paths(table: dict[str, Any], folder: Path) -> None:
    change_paths(table, lambda text, mark: _absolute(text, folder, is_pattern=mark.is_pattern))


def _absolute(text: str, folder: Path, *, is_pattern: bool) -> str:
    if not text:
        return text  # joined to the folder it would name the folder itself
    # A folder called a[1] is that folder, not a glob.
    base = glob.escape(str(folder)) if is_pattern else str(folder)
    return os.path.normpath(os.path.join(base, os.path.expanduser(text)))


def _apply_override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(f"--set {shortened(override)!r} must be section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # no TOML, or a number of too many digits
        value = text
    nested: Any = value
    for part in reversed(parts):
        nested = {part: nested}
    _absolute_paths(nested, Path.cwd())
    _spell_out_column(table, parts)
    table.update(_merged(table, nested))


def _spell_out_column(table: dict[str, Any], parts: list[str]) -> None:
    # For catalog.ra.unit=rad, `ra = "RA"` has to be the table it stands for.
    section = table.get("catalog")
    if len(parts) == 3 and parts[0] == "catalog" and isinstance(section, dict):
        short = section.get(parts[1])
        if isinstance(short, str | int) and _model_at(parts[:2]) is not CatalogSection:
            table["catalog"] = {**section, parts[1]: {"column": short}}


def _validate(table: dict[str, Any], where: str) -> Recipe:
    problems, recipe = [], None
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        # What is missing is found out again: pydantic does not look at the whole where a part is wrong.
        given = {name: keys if isinstance(keys, dict) else REQUIRED for name, keys in table.items()}
        problems = [*missing_sources(given), *(problem for item in error.errors() for problem in _problems(item))]
    problems += _unusable_texts(table)
    problems += [problem for name in _schemes(table) for problem in _scheme_problems(name)]
    if recipe is None or problems:
        long = _long_texts(table)
        raise ProblemsError(dict.fromkeys(_with_short(problem, long) for problem in problems), where=where)
    return recipe


def _long_texts(value: Any) -> set[str]:
    """Return the keys and texts of a recipe that are too long to be shown whole."""
    if isinstance(value, dict):
        return _long_texts(list(value)).union(*map(_long_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_long_texts, value))
    return {value} if isinstance(value, str) and len(value) > LONGEST else set()


def _with_short(problem: str, texts: Iterable[str]) -> str:
    """Return a line with each of `texts` shortened, as it is or with escapes."""
    for text in sorted(texts, key=len, reverse=True):
        escaped = repr(text)[1:-1]
        problem = problem.replace(text, shortened(text)).replace(escaped, shortened(escaped))
    return problem


def _unusable_texts(value: Any, keys: tuple[str, ...] = ()) -> list[str]:
    """Return a line for each text that no file can be called: with a zero byte, or not encodable in UTF-8."""
    if isinstance(value, dict):
        return [line for key, one in value.items() for line in _unusable_texts(one, (*keys, str(key)))]
    if isinstance(value, list):
        return [line for one in value for line in _unusable_texts(one, keys)]
    if not isinstance(value, str) or ("\0" not in value and value.encode("utf-8", "ignore").decode() == value):
        return []
    return [f"{'.'.join(keys)}: is not text in UTF-8 without zero bytes (got {value!r})"]


def _schemes(table: dict[str, Any]) -> list[str]:
    """Return the names of the label schemes in a recipe that may be wrong everywhere, each once."""
    classifiers = table.get("classifiers")
    sections = [table, *(classifiers.values() if isinstance(classifiers, dict) else [])]
    names = [section.get("scheme") for section in sections if isinstance(section, dict)]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _scheme_problems(name: str) -> list[str]:
    try:
        load_scheme(name)
    except UsageError as error:
        return [str(error)]
    return []


def _problems(item: Any) -> list[str]:
    error = item.get("ctx", {}).get("error")
    if isinstance(error, SectionError):
        return error.problems
    keys = [str(part) for part in item["loc"] if not _ALTERNATIVE.fullmatch(str(part))]
    message = item["msg"].removeprefix("Value error, ")
    if len(keys) > 1 and keys[-1] in ("str", "int", "float") and (keys[-2] in ("column", "hdu") or keys[-2].isdigit()):
        # pydantic names each alternative that did not fit; they are one problem.
        keys, message = keys[:-1], "must be text or a number"
    key = ".".join(keys) or "recipe"
    if item["type"] == "extra_forbidden":
        return [f"{key}: unknown key, {suggest(keys[-1], _keys_at(keys[:-1]))}"]
    if item["type"] == "missing":
        return [f"{key}: missing; {_description_at(keys)}"]
    value = item.get("input")
    told = not isinstance(value, str | int | float | bool) or str(value) in message
    came = "" if told else f" (got {value!r})" if isinstance(value, str) else f" (got {shortened(repr(value))})"
    if item["type"] == "string_pattern_mismatch":
        message = PATTERN_WORDS[item["ctx"]["pattern"]]
    message = _in_words(message, keys, of_list=isinstance(item["loc"][-1] if keys else None, int))
    return [f"{key}: {message}{came}{_nearest(item) if item['type'] == 'literal_error' else ''}"]


def _in_words(message: str, keys: list[str], *, of_list: bool) -> str:
    """Return a message of pydantic in the words of recipes; `of_list` where it is about one thing of a list."""
    key, holds_tables = ".".join(keys), _holds_tables(keys)
    table = f"a table [[{'.'.join(keys[:-1])}]]" if of_list else "a table"
    message = re.sub(r"a valid dictionary or instance of \w+", lambda _: f"{table}{_of_keys(keys)}", message)
    message = message.replace("a valid dictionary", f"a table [{key}.NAME]" if holds_tables else f"a table [{key}]")
    message = message.replace("a valid tuple", f"a list of tables [[{key}]]" if holds_tables else "a list")
    return message.replace("Tuple", "List").replace(" after validation", "")


def _holds_tables(keys: list[str]) -> bool:
    """Return whether there are tables in the table or list at `keys`."""
    model = _model_at(keys[:-1])
    info = model.model_fields.get(keys[-1]) if model and keys else None
    if info is None or get_origin(info.annotation) not in (dict, tuple):
        return False
    return any(inner_model(inner)[0] or get_origin(inner) is dict for inner in get_args(info.annotation))


def _of_keys(keys: list[str]) -> str:
    """Return which keys the table at `keys` has, where it is one of few."""
    names = _keys_at(keys) if _model_at(keys) is not _model_at(keys[:-1]) else []
    return f" of {', '.join(names)}" if 0 < len(names) <= _FEW_KEYS else ""


def _nearest(item: Any) -> str:
    """Return the valid value that a wrong one may have been meant for."""
    near = suggest(item.get("input"), re.findall(r"'([^']*)'", item["ctx"]["expected"]))
    return f"; {near}" if near.startswith("did you mean") else ""


def _model_at(keys: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Recipe
    for key in keys:
        if model is None:
            return None
        if key in model.model_fields:
            found, _ = inner_model(model.model_fields[key].annotation)
            if found is not None:
                model = found
    return model


def _keys_at(keys: list[str]) -> list[str]:
    model = _model_at(keys)
    return list(model.model_fields) if model else []


def _description_at(keys: list[str]) -> str:
    model = _model_at(keys[:-1])
    info = model.model_fields.get(keys[-1]) if model else None
    return (info.description or "") if info else ""
