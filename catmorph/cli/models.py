"""The commands that list, show, create and import networks and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from catmorph.cli.common import Session, choice, run_options
from catmorph.errors import printable


@click.group(epilog="Example: catmorph models show checkpoints/clash-inception.safetensors")
def models() -> None:
    """List, show, create and import networks and checkpoints."""


@models.command("list", epilog="Example: catmorph models list --json")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
def list_models(as_json: bool) -> None:
    """List the architectures.

    Two kinds are not listed one by one: timm/NAME is any network of the library timm, and NAME-d4 any network averaged
    over the 8 rotations and mirror images of a stamp.
    """
    from catmorph.models import MODELS

    specs = [MODELS.get(name) for name in MODELS.names()]
    if as_json:
        _print_json([{"name": one.name, "title": one.title, "source": one.source} for one in specs])
        return
    width = max(len(one.name) for one in specs)
    for one in specs:
        click.echo(f"{one.name:<{width}}  {one.title} ({one.source})")


@models.command(epilog="Example: catmorph models show clash-inception --json")
@click.argument("name", metavar="NAME_OR_CHECKPOINT")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
def show(name: str, as_json: bool) -> None:
    """Show an architecture, or the card of a checkpoint file.

    An architecture is a name of `catmorph models list`, timm/NAME, or either with -d4 at its end.
    """
    found = _checkpoint(Path(name)) if _is_file(name) else _architecture(name)
    if as_json:
        _print_json(found)
        return
    for line in _lines(found):
        click.echo(line)


@models.command(epilog="Example: catmorph models create clash-inception -r clash.toml --output untrained.safetensors")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="Checkpoint to write.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, metavar="N",
              help="Seed of the weights [default: 0].")
@click.option("--backbone", metavar="SOURCE", help="Weights to start the network's backbone from: `imagenet`, which "
              "timm fetches, or a file (safetensors or .pth).")
@run_options
def create(session: Session, name: str, output: Path, seed: int, backbone: str | None) -> None:
    """Write an untrained checkpoint that fits the recipe.

    NAME is an architecture. Its weights are random: for trials of the pipeline, not for science. With --backbone only
    the last layers are; what was taken is printed.
    """
    from catmorph.models.create import create_untrained

    _, taken = create_untrained(name, session.recipe, output, seed=seed, backbone=backbone)
    for line in taken.report() if taken else ():
        session.say(line)
    session.say("this checkpoint is untrained: its probabilities mean nothing")
    click.echo(output)


@models.command(
    "import-keras",
    epilog="Example: catmorph models import-keras weights.h5 --model clash-inception-released -r clash.toml",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="NAME", help="Architecture that the weights belong to.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Checkpoint to write [default: the file's name with the ending .safetensors].")
@click.option("--backend", type=choice("theano", "tensorflow"),
              help="Backend that the kernels were made with [default: what the file says].")
@click.option("--flatten", type=choice("channels-first", "channels-last"),
              help="Order in which maps were flattened [default: what the file says, else the authors'].")
@click.option("--licence", default="", metavar="TEXT", help="Licence of the weights, for the card.")
@run_options
def import_keras(
    session: Session, file: Path, model: str, output: Path | None, backend: str | None, flatten: str | None,
    licence: str,
) -> None:
    """Turn the Keras weights (HDF5) of a published network into a checkpoint.

    Keras and TensorFlow are not needed, and nothing in the file is run. The card gets the stamps, normalisation and
    classes of the recipe, which must be those that the weights were trained on.
    """
    from catmorph.models import MODELS
    from catmorph.models.keras_weights import import_keras as convert

    output = output or file.with_suffix(".safetensors")
    first = None if flatten is None else flatten == "channels-first"
    card = convert(file, model, session.recipe, output, backend=backend, channels_first=first, licence=licence)
    spec = MODELS.get(card.model)
    if spec.keras and spec.keras.normalise not in ("", card.normalise.method):
        session.warn(
            f"the authors' weights expect normalise.method = {spec.keras.normalise!r}, the recipe has "
            f"{card.normalise.method!r}"
        )
    training = card.training
    session.say(f"{card.model}: {training['backend']} kernels, flattened {training['flattened']}")
    click.echo(output)


def _is_file(name: str) -> bool:
    # An architecture's name has no ending, and no folder but that of the networks of timm.
    folder = "/" in name and not name.startswith("timm/")
    return Path(name).exists() or folder or name.endswith(".safetensors")


def _architecture(name: str) -> dict[str, Any]:
    from catmorph.models import MODELS, parameters_of

    spec = MODELS.get(name)
    parameters, running = parameters_of(name)
    return {
        "name": spec.name,
        "title": spec.title,
        "parameters": parameters,
        "running_statistics": running,
        "input": [spec.channels, spec.pixels, spec.pixels],
        "sizes": spec.sizes,
        "classes": spec.classes,
        "scheme": spec.scheme,
        "stages": list(spec.stages),
        "backbone": spec.backbone,
        "keras_weights": spec.keras is not None,
        "source": spec.source,
        "licence": spec.licence,
        "notes": spec.notes,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from catmorph.files import digest
    from catmorph.models.header import count_weights, load_card

    card = load_card(path)
    parameters, running = count_weights(path)
    return {
        "file": path.name,
        "sha256": digest(path),
        "parameters": parameters,
        "running_statistics": running,
        "input": [card.channels, card.stamp.pixels, card.stamp.pixels],
        "card": card.model_dump(mode="json"),
    }


def _lines(found: dict[str, Any], indent: str = "") -> list[str]:
    """Write nested keys as an indented list; what is empty is left out."""
    lines: list[str] = []
    for key, value in found.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif value not in ("", None, {}, []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(printable(f"{indent}{key}: {text}"))
    return lines


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
