"""Options that the commands share."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catmorph.errors import UsageError, printable

if TYPE_CHECKING:
    from catmorph.recipe import Recipe
    from catmorph.workspace import RunFolder


@dataclass
class Session:
    """What the common options say."""

    recipe_path: Path | None
    workdir: Path | None
    overrides: tuple[str, ...]
    quiet: bool
    verbose: bool
    no_progress: bool
    json: bool = False

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe: the option, else $CATMORPH_RECIPE, else catmorph.toml in the current folder."""
        from catmorph.recipe import load_recipe

        return load_recipe(self.recipe_file(), self.overrides)

    def draft(self) -> dict[str, Any]:
        """Return what the recipe's own file says, not checked and without what it extends; nothing where unreadable.

        The classes that check a recipe take half a second to make.
        """
        with suppress(UsageError, OSError, ValueError, RuntimeError):
            return tomllib.loads(self.recipe_file().expanduser().read_text(encoding="utf-8"))
        return {}

    @cached_property
    def run(self) -> RunFolder:
        """The run folder: the option, else runs/<recipe name> below the current folder."""
        from catmorph.workspace import RunFolder

        return RunFolder(self.workdir or Path("runs") / self.recipe.name, self.recipe)

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars may be shown."""
        return not (self.no_progress or self.quiet)

    def say(self, text: str) -> None:
        """Print a line for people on stderr, unless -q."""
        if not self.quiet:
            click.echo("\n".join(map(printable, text.splitlines())), err=True)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, unless -q."""
        self.say(f"catmorph: warning: {text}")

    def recipe_file(self) -> Path:
        """Return the file of the recipe.

        Raises
        ------
        UsageError
            When none is given or found.
        """
        if self.recipe_path:
            return self.recipe_path
        if os.environ.get("CATMORPH_RECIPE"):
            return Path(os.environ["CATMORPH_RECIPE"])
        if Path("catmorph.toml").is_file():
            return Path("catmorph.toml")
        raise UsageError(
            "no recipe", hint="give one, set CATMORPH_RECIPE, or work where a catmorph.toml is "
            "(`catmorph init PRESET` writes one)"
        )


def run_options(command: Callable[..., Any] | None = None, *, argument: bool = False, json: bool = False) -> Any:
    """Add the common options to a command, which gets a `Session` as its first argument.

    Parameters
    ----------
    argument : bool
        The recipe is the command's argument instead of an option.
    json : bool
        The command reports, and takes ``--json``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def with_session(
            recipe_path: Path | None, workdir: Path | None, overrides: tuple[str, ...],
            quiet: bool, verbose: bool, no_progress: bool, as_json: bool = False, **rest: Any,
        ) -> Any:
            session = Session(recipe_path, workdir, overrides, quiet, verbose, no_progress, as_json)
            return function(session, **rest)

        wrapped: Callable[..., Any] = with_session
        for option in reversed(_options(argument, json)):
            wrapped = option(wrapped)
        return wrapped

    return decorate if command is None else decorate(command)


def _options(argument: bool, json: bool) -> list[Callable[..., Any]]:
    path = click.Path(path_type=Path)
    recipe = (
        click.argument("recipe_path", metavar="[RECIPE]", type=path, required=False)
        if argument
        else click.option("-r", "--recipe", "recipe_path", type=path, metavar="FILE",
                          help="Recipe [default: $CATMORPH_RECIPE, else ./catmorph.toml].")
    )
    options = [
        recipe,
        click.option("-w", "--workdir", type=path, metavar="DIR", help="Run folder [default: runs/<recipe name>]."),
        click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE",
                     help="Override a value of the recipe, repeatable."),
        click.option("-q", "--quiet", is_flag=True, help="Print no progress and no warnings, only errors."),
        click.option("-v", "--verbose", is_flag=True, help="Also say why products are made again."),
        click.option("--no-progress", is_flag=True, help="Show no progress bars."),
    ]
    if json:
        options.append(click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout."))
    return options


def worker_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--workers`` and ``--scheduler``."""
    function = click.option("--scheduler", metavar="ADDRESS",
                            help="Cut on the workers of the Dask cluster with this scheduler instead.")(function)
    work = "cut stamps, unless --scheduler does, and in `run` also read what the networks answered"
    return process_option(work)(function)


def process_option(work: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds ``--workers``: processes of this machine that do some work."""
    return click.option("--workers", type=click.IntRange(1), metavar="N", default=usable_cores,
                        help=f"Processes on this machine that {work} [default: the cores this process may use].")


def usable_cores() -> int:
    """Return the number of cores that this process may use: a batch system often grants a few of many."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def choice(*words: str) -> click.Choice[str]:
    """Return the type of an option that takes one of some words, in capitals or not."""
    return click.Choice(words, case_sensitive=False)


def device_option(purpose: str, devices: Sequence[str] = ("auto", "cpu", "cuda")) -> Callable[..., Any]:
    """Return a decorator that adds ``--device``."""
    return click.option("--device", type=choice(*devices), default="auto",
                        help=f"{purpose} [default: auto, a GPU where there is one].")


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--device`` and ``--precision``."""
    function = click.option("--precision", type=choice("auto", "float32", "bfloat16"),
                            help="Arithmetic of the network [default: the recipe's].")(function)
    return device_option("Where the network runs; openvino is the processor, through OpenVINO, which is faster",
                         ("auto", "cpu", "cuda", "openvino"))(function)
