"""The commands about recipes: init, check."""

from __future__ import annotations

import json
from pathlib import Path

import click

from catmorph.cli.common import Session, run_options
from catmorph.errors import ProblemsError, UsageError, printable


@click.command(epilog="Example: catmorph init clash --output catmorph.toml")
@click.argument("preset", metavar="PRESET")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              default=Path("catmorph.toml"), help="Recipe to write [default: catmorph.toml].")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(preset: str, output: Path, force: bool) -> None:
    """Write a commented recipe to start from.

    PRESET is one of the shipped recipes; `catmorph init list` names them, with their titles. What the recipe needs
    besides, and where to get it, is said in a line.
    """
    from catmorph.files import write_bytes
    from catmorph.recipe import load_recipe, preset_needs, preset_text, preset_titles

    if preset == "list":
        titles = preset_titles()
        wide = max(map(len, titles))
        click.echo("\n".join(f"{name:<{wide}}  {title}".rstrip() for name, title in titles.items()))
        return
    text = preset_text(preset, output)
    if output.exists() and not force:
        raise UsageError("exists already", where=output, hint="choose another -o/--output, or --force")
    write_bytes(output, text.encode())
    click.echo(output)
    needs = preset_needs(preset, load_recipe(output), text, output)
    if needs:
        click.echo(printable("; ".join(needs)), err=True)


@click.command(epilog="Example: catmorph check -r clash.toml")
@click.option("--deep", is_flag=True, help="Also read all inputs and products again, and compare their bytes.")
@run_options(json=True)
def check(session: Session, deep: bool) -> None:
    """Validate recipe, catalog, mosaics and checkpoints without working.

    Lists every problem at once, one a line; exit status 2 where there is one.
    """
    from catmorph.check import check_run

    found = check_run(session.run, deep=deep)
    if session.json:
        click.echo(json.dumps({"problems": found.problems, "notes": found.notes}, indent=2))
    else:
        for note in found.notes:
            session.say(note)
    if found.problems:
        raise ProblemsError(found.problems)
    session.say("no problems")
