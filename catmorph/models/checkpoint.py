"""Checkpoints: safetensors files of weights whose metadata holds the card.

Opening one runs no code of the file: pickles and torch's own archives are refused by their first bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from catmorph.errors import CheckpointError, UsageError
from catmorph.files import write_bytes
from catmorph.models import MODELS, build
from catmorph.models.card import Card
from catmorph.models.header import METADATA_KEY, card_text, join_header, open_checkpoint, parse_card, read_header
from catmorph.models.identity import network_digest


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its card, its weights (float32, by layer) and the sha256 of its file.

    `network` is the digest of what decides its logits, see `catmorph.models.identity`.
    """

    path: Path
    card: Card
    state: dict[str, Tensor]
    digest: str
    network: str = ""


def save_checkpoint(
    path: str | os.PathLike[str],
    module: nn.Module,
    card: Card,
    precision: Literal["float32", "float16"] = "float32",
) -> None:
    """Write the weights of `module` and `card` to `path`, whole or not at all; same content, same bytes.

    Parameters
    ----------
    precision : {"float32", "float16"}
        Number format of the weights in the file; float16 halves it.
    """
    dtype = getattr(torch, precision)
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in module.state_dict().items()
    }
    write_bytes(Path(path), safetensors.torch.save(tensors, {METADATA_KEY: card_text(card)}))


def rewrite_card(path: str | os.PathLike[str], card: Card) -> None:
    """Replace the card of checkpoint `path`, whole or not at all; the bytes of the weights stay as they are.

    Raises
    ------
    CheckpointError
        When `path` is no checkpoint, or `card` is of another model, or another number of classes or channels,
        than the card in it.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        header = read_header(file, path)
        old = parse_card(header, path)
        weights = file.read()
    for name in ("model", "channels", "classes"):
        mine, theirs = getattr(old, name), getattr(card, name)
        if (len(mine) != len(theirs)) if name == "classes" else (mine != theirs):
            raise CheckpointError(f"has weights of another network: {name} {mine}, not {theirs}", where=path)
    header["__metadata__"][METADATA_KEY] = card_text(card)
    write_bytes(path, join_header(header) + weights)


def round_weights(module: nn.Module, precision: Literal["float32", "float16"]) -> None:
    """Round the weights of `module`, in place, to what a file of that precision holds."""
    dtype = getattr(torch, precision)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.to(dtype))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint.

    Raises
    ------
    CheckpointError
        When it is missing, cut short, damaged, of another kind or of a newer catmorph.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        header = read_header(file, path)
        card, begin = parse_card(header, path), file.tell()
        file.seek(0)
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}", where=path, hint="copy or train it again") from error
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    network = network_digest(card, header, hashlib.sha256(memoryview(data)[begin:]).hexdigest())
    return Checkpoint(path=path, card=card, state=state, digest=hashlib.sha256(data).hexdigest(), network=network)


def build_from(checkpoint: Checkpoint) -> nn.Module:
    """Build the network of a checkpoint and put its weights in.

    Raises
    ------
    CheckpointError
        When a layer is missing, unknown or of another shape (the first such layer is named), or the card's
        stamps are not of the size the architecture takes.
    """
    card = checkpoint.card
    try:
        spec = MODELS.get(card.model)
    except UsageError as error:
        raise CheckpointError(
            f"needs model {card.model!r}, which this catmorph does not have", where=checkpoint.path, hint=error.hint
        ) from error
    if not spec.takes(card.stamp.pixels):
        raise CheckpointError(
            f"its card has stamps of {card.stamp.pixels} pixels, {card.model} takes {spec.sizes}", where=checkpoint.path
        )
    # On the meta device nothing is allocated or initialised, whatever sizes the card declares.
    with torch.device("meta"):
        module = build(card.model, classes=len(card.classes), channels=card.channels)
    _check_layers(module.state_dict(), checkpoint)
    if any(name not in checkpoint.state for name, _ in module.named_buffers()):
        # Tables that a network computes when it is built are not in the file, and the meta device has none.
        module = build(card.model, classes=len(card.classes), channels=card.channels, seed=0)
    module.load_state_dict(checkpoint.state, assign=True)
    return module


def _check_layers(wanted: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    for name in [*wanted, *sorted(checkpoint.state.keys() - wanted.keys())]:
        mine = tuple(checkpoint.state[name].shape) if name in checkpoint.state else None
        theirs = tuple(wanted[name].shape) if name in wanted else None
        if mine != theirs:
            raise CheckpointError(
                f"layer {name!r} is {_shape(mine)} in the file, {_shape(theirs)} in model "
                f"{checkpoint.card.model!r} with {checkpoint.card.channels} channels and "
                f"{len(checkpoint.card.classes)} classes",
                where=checkpoint.path,
                hint="the weights belong to another network",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a single number"
