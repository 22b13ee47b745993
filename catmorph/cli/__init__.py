"""The command line: thin commands over the library, imported one at a time."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import click

from catmorph.errors import CatmorphError, ProblemsError, UsageError, one_line, suggest
from catmorph.lifetime import begin

TRACEBACK = "CATMORPH_TRACEBACK"
"""Environment variable: set it to see where an unexpected error comes from."""

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("production:run", "Do everything, from survey table to release."),
    "init": ("recipes:init", "Write a commented recipe to start from."),
    "check": ("recipes:check", "Validate recipe, catalog, mosaics and checkpoints without working."),
    "ingest": ("production:ingest", "Read the survey table into canonical sources."),
    "cutouts": ("production:cutouts", "Cut the stamps, first reading the survey table in where needed."),
    "classify": ("production:classify", "Run the networks over the stamps."),
    "export": ("release:export", "Write the released catalog."),
    "summarize": ("release:summarize", "Count classes, mergers and every row of the release."),
    "gallery": ("release:gallery", "Draw stamps with their labels."),
    "status": ("production:status", "Show what is done, stale or missing, and what failed."),
    "clean": ("production:clean", "Remove what the recipe does not need any more."),
    "models": ("models:models", "List, show, create and import networks and checkpoints."),
    "labels": ("labels:labels", "Draw stamps to label, show them, count the votes, and report on labels."),
    "train": ("training:train", "Train a checkpoint from labelled stamps."),
    "finetune": ("training:finetune", "Train on, from the weights of another checkpoint."),
    "evaluate": ("evaluation:evaluate", "Compare a checkpoint with human votes."),
    "experiment": ("experiment:experiment", "Do a grid of trainings, with tables and a figure."),
    "simulate": ("simulate:simulate", "Simulate mosaics or image files, catalogs and votes."),
}
"""Command name -> (module:object in this package, what it does); modules are imported when needed."""


class _LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        call = partial(super().main, args=args, standalone_mode=False, **extra)
        return sys.exit(_status(call)) if standalone_mode else call()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would print an empty line first
            _Stop.ending = True
            raise CatmorphError("interrupted", hint="run the same command again to go on") from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        return getattr(import_module(f"catmorph.cli.{module}"), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            raise UsageError(f"unknown command {args[0]!r}", hint=suggest(args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _tell_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    # Takes longer to import than all of the rest.
    from importlib.metadata import version

    from catmorph.stamps.compiled import kernel

    click.echo(f"catmorph, version {version('catmorph')}" + ("" if kernel else " (cutting without compiled code)"))
    context.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: catmorph run configs/samples/clash.toml",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version,
              help="Show the version and exit.")
def cli() -> None:
    """From survey catalogs and mosaics to released catalogs of galaxy morphology.

    `catmorph run RECIPE` does everything; each stage can also be run alone, and what is already there
    and still valid is not made again.

    Exit status: 0 done; 1 failed, run again to go on; 2 usage, recipe, catalog or checkpoint error;
    3 done, with more faulty rows than the recipe tolerates; 4 another run holds the folder.
    """


def main() -> NoReturn:
    """Run the command line; every error a user can cause is one line on stderr."""
    leaving = begin(1)
    # Worker processes would begin by running the script of this command, for nothing.
    vars(sys.modules["__main__"]).pop("__file__", None)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell lets it be ignored
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGALRM, _stop)
    sys.unraisablehook = _dropped
    try:
        cli.main(prog_name="catmorph")
    except SystemExit as done:
        leaving.status = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        raise
    except KeyboardInterrupt:  # a second one, while the first was told
        sys.exit(1)
    raise AssertionError("click's main exits")


_AGAIN_SECONDS = 0.01
"""After this an interrupt that had no effect comes again."""

_INTERRUPTED = "interrupted; run the same command again to go on"


class _Stop:
    """Whether this process was told to stop, and whether it is ending: what comes then changes nothing."""

    came = ending = False


def _status(call: Callable[[], Any]) -> int:
    """Call a command and return its exit status; what it raises becomes one line each."""
    try:
        return _told_status(call)
    finally:
        _Stop.ending = True


def _told_status(call: Callable[[], Any]) -> int:
    try:
        result = call()
        if sys.stdout:
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        _Stop.ending = True
        return _fail(_INTERRUPTED, 1)
    except click.ClickException as error:
        return _misused(error)
    except ProblemsError as error:
        for problem in error.problems:
            _fail(one_line(problem, where=error.where), error.exit_status)
        return error.exit_status
    except CatmorphError as error:
        return _fail(str(error), error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        # A library that is interrupted while it is imported may swallow that, and stumble over the rest.
        return _fail(_INTERRUPTED if _Stop.came else _unexpected(error), 1)
    return result if isinstance(result, int) else 0


def _misused(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    if not isinstance(error, click.UsageError) or context is None or type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    text = text[:1].lower() + text[1:].replace(". Did you mean", "; did you mean")
    by_option = any("--recipe" in parameter.opts for parameter in context.command.params)
    hint = None
    if by_option and "unexpected extra argument" in text:
        hint = "this command takes the recipe as -r RECIPE"
    elif not by_option and getattr(error, "option_name", None) in ("-r", "--recipe"):
        hint = "this command takes the recipe as its argument"
    return _fail(one_line(f"{text} (see `{context.command_path} --help`)", hint=hint), error.exit_code)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror, where=error.filename, hint=_way_out(error))
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return one_line(
        f"internal error, {type(error).__name__}: {error} ({os.path.basename(frame.filename)}, line {frame.lineno})",
        hint=f"this is a bug of catmorph, please report it; {TRACEBACK}=1 shows more",
    )


def _way_out(error: OSError) -> str:
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return "move away what is there, run again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "change its permissions or choose another place, run again"
    return "run the same command again to go on"


def _fail(message: str, status: int) -> int:
    click.echo(f"catmorph: error: {message}", err=True)
    return status


def _stop(signum: int, frame: object) -> None:
    _Stop.came = True
    if not _Stop.ending:
        raise KeyboardInterrupt


def _dropped(found: sys.UnraisableHookArgs) -> None:
    """Let an interrupt come again that met Python where it passes nothing on, as in the end of an object."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)
    elif not _Stop.ending:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
