"""The command line: thin commands over the library, imported one at a time."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from catmorph.errors import CatmorphError, ProblemsError, one_line

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("production:run", "All stages, from survey table to release."),
    "init": ("recipes:init", "Write a commented recipe."),
    "check": ("recipes:check", "Validate recipe, catalog, mosaics and checkpoint without working."),
    "ingest": ("production:ingest", "Read the survey table into canonical sources."),
    "cutouts": ("production:cutouts", "Cut the stamps."),
    "classify": ("production:classify", "Run the networks over the stamps."),
    "export": ("release:export", "Write the released catalog."),
    "summarize": ("release:summarize", "Count classes, mergers and every row."),
    "gallery": ("release:gallery", "Draw stamps with their labels."),
    "status": ("production:status", "Show what is done, stale, missing or failed."),
    "models": ("models:models", "List, show and create networks and checkpoints."),
    "train": ("training:train", "Train a checkpoint from labelled stamps."),
    "simulate": ("simulate:simulate", "Simulate clusters, mosaics, catalogs and votes."),
}
"""Command name -> (module:object in this package, what it does); modules are imported when needed."""


class _LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        return getattr(import_module(f"catmorph.cli.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: catmorph run configs/samples/clash.toml",
)
@click.version_option(package_name="catmorph")
def cli() -> None:
    """From survey catalogs and mosaics to released catalogs of galaxy morphology.

    `catmorph run RECIPE` does everything; each stage can also be run alone, and what is already there
    and still valid is not made again.

    Exit status: 0 done; 1 failed, run again to go on; 2 usage or recipe error, nothing started;
    3 done, with more faulty rows than the recipe tolerates; 4 another run holds the folder.
    """


def main() -> NoReturn:
    """Run the command line; every error a user can cause is one line on stderr."""
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(_status(sys.argv[1:]))


def _status(arguments: list[str]) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="catmorph", standalone_mode=False)
    except click.exceptions.Abort:
        return _fail("interrupted: run the same command again to go on", 1)
    except KeyboardInterrupt:
        return _fail("interrupted: run the same command again to go on", 1)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ProblemsError as error:
        for problem in error.problems:
            _fail(one_line(problem, where=error.where), error.exit_status)
        return error.exit_status
    except CatmorphError as error:
        return _fail(str(error), error.exit_status)
    except BrokenPipeError:
        return 1
    return result if isinstance(result, int) else 0


def _fail(message: str, status: int) -> int:
    click.echo(f"catmorph: error: {message}", err=True)
    return status


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
