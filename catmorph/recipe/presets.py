"""The recipes and simulations that catmorph ships, and their text for a folder of the user."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from catmorph.errors import RecipeError, UsageError, shortened, suggest

if TYPE_CHECKING:
    from catmorph.recipe.model import Recipe

REPOSITORY = "the folder sample_data of catmorph's repository"
_SAMPLES = "samples"
_DATA = "../../sample_data/"
_SIMULATED = "../../simulated/"


def preset_folder() -> Path:
    """Return the folder of the shipped recipes: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Return the names of the shipped recipes, such as ``clash`` and ``samples/clash``."""
    folder = preset_folder()
    paths = [*folder.glob("*.toml"), *(folder / _SAMPLES).glob("*.toml")]
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths)


def preset_titles() -> dict[str, str]:
    """Return the title of each shipped recipe."""
    return {name: tomllib.loads(preset_path(name).read_text(encoding="utf-8")).get("title", "")
            for name in preset_names()}


def preset_path(name: str) -> Path:
    """Return the file of preset `name`; an unknown one is an error that lists the valid ones."""
    if name not in preset_names():
        raise RecipeError(f"unknown preset {shortened(name)!r}", hint=suggest(name, preset_names()))
    return preset_folder() / f"{name}.toml"


def has_data(name: str) -> bool:
    """Return whether the paths of preset `name` lead to data of a checkout; those of the others are the user's."""
    return name.startswith(f"{_SAMPLES}/")


def simulation_path(spec: Path) -> Path:
    """Return the file of a simulation: `spec`, or the shipped one of that name, such as ``clash-training``.

    Raises
    ------
    UsageError
        When it is neither the name of a file nor a shipped one.
    """
    folder = preset_folder() / "simulations"
    if spec.exists() or spec.suffix:
        return spec
    shipped = sorted(path.stem for path in folder.glob("*.toml"))
    if str(spec) in shipped:
        return folder / f"{spec}.toml"
    raise UsageError("no such file, and no shipped simulation", where=spec, hint=suggest(spec, shipped))


def preset_text(name: str, output: Path) -> str:
    """Return the text of preset `name` for the file `output`: its paths and commands are those of that folder.

    Published recipes are as shipped but for the name of their file. Those of samples lie in a checkout: what they
    extend is named as a preset, data of the sample are looked for in the checkout or else in ``sample_data/`` beside
    `output`, simulated data and results beside `output`.
    """
    text = preset_path(name).read_text(encoding="utf-8")
    if not has_data(name):
        # Comments tell commands that name the file.
        line = re.compile(rf"^(#.* ){re.escape(name)}\.toml", flags=re.MULTILINE)
        return line.sub(lambda found: found[1] + output.name, text)
    text = re.sub(r'^extend = "([^"/]+)\.toml"', rf'extend = "{_SAMPLES}/\1"', text, flags=re.MULTILINE)
    text = re.sub(rf'^(output = "){re.escape(_DATA)}', r"\1", text, flags=re.MULTILINE)
    text = text.replace(_DATA, _data_folder(output)).replace(_SIMULATED, "simulated/")
    text = re.sub(r"configs/simulations/([\w-]+)\.toml", r"\1", text)
    text = text.replace(f"configs/{name}.toml", output.name).replace("Run it from a clone:", "Run it:")
    text = re.sub(rf"configs/{_SAMPLES}/([\w-]+\.toml)", r"\1", text)
    return re.sub(r"configs/([\w-]+)\.toml", r"the recipe \1", text)


def _data_folder(output: Path) -> str:
    """Return the folder of the samples' data as `output` is to name it."""
    checkout, folder = preset_folder().parent, output.absolute().parent
    if not (checkout / "sample_data").is_dir():
        return "sample_data/"
    inside = folder.is_relative_to(checkout)
    path = os.path.relpath(checkout, folder) if inside else str(checkout)
    return Path(path, "sample_data").as_posix() + "/"


def preset_needs(name: str, recipe: Recipe, text: str, output: Path) -> list[str]:
    """Return what a recipe just written from preset `name` needs besides, and how to get it."""
    folder = output.absolute().parent
    others = [Path(recipe.experiments.source).stem] if recipe.experiments.source else []
    if has_data(name):
        commands = re.findall(r"catmorph simulate \S+ --out [^\s\"]+", text)
        needs = [f"its data: `{command}`" for command in dict.fromkeys(commands)]
        others += [f"{_SAMPLES}/{other}" for other in re.findall(r"catmorph \w+ ([\w-]+)\.toml", text)]
        if '"sample_data/' in text and not (folder / "sample_data").is_dir():
            needs.append(f"its data: {REPOSITORY}, beside the recipe")
    else:
        needs = [f"its data: {recipe.obtain or 'as the comments at its head say'}"]
    for other in dict.fromkeys(others):
        path = folder / f"{Path(other).name}.toml"
        if other in preset_names() and path != output.absolute() and not path.exists():
            needs.append(f"{path.name}: `catmorph init {other} -o {path.name}`")
    return needs
