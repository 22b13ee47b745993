"""Checkpoints: safetensors files of weights whose metadata holds the card.

Opening one runs no code of the file: pickles and torch's own archives are refused by their first bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from catmorph.errors import CheckpointError
from catmorph.files import write_bytes
from catmorph.models import build
from catmorph.models.card import FORMAT, Card

METADATA_KEY = "catmorph"
HEADER_LIMIT = 16 * 2**20
"""Bytes; the header of a network with 10,000 tensors takes about 1 MB."""
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Number formats of safetensors that a checkpoint may hold, and their bytes."""
FOREIGN = (
    (b"PK\x03\x04", "a zip archive, such as torch.save writes"),
    (b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
    (b"SIMPLE  =", "a FITS file"),
)
HINT = "a checkpoint is a safetensors file with a card, as `catmorph train` and `catmorph models create` write"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its card, its weights (float32, by layer) and the sha256 of its file."""

    path: Path
    card: Card
    state: dict[str, Tensor]
    digest: str


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
    text = json.dumps(card.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(Path(path), safetensors.torch.save(tensors, {METADATA_KEY: text}))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint.

    Raises
    ------
    CheckpointError
        When it is missing, cut short, damaged, of another kind or of a newer catmorph.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            header = _read_header(file, os.fstat(file.fileno()).st_size, path)
            card = _read_card(header, path)
            file.seek(0)
            data = file.read()
    except FileNotFoundError:
        raise CheckpointError("no such checkpoint", where=path) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=path) from error
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}", where=path, hint="copy or train it again") from error
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return Checkpoint(path=path, card=card, state=state, digest=hashlib.sha256(data).hexdigest())


def load_card(path: str | os.PathLike[str]) -> Card:
    """Read the card of a checkpoint without its weights; errors as `load_checkpoint`."""
    return load_checkpoint(path).card


def build_from(checkpoint: Checkpoint) -> nn.Module:
    """Build the network of a checkpoint and put its weights in.

    Raises
    ------
    CheckpointError
        When a layer is missing, unknown or of another shape; the first such layer is named.
    """
    card = checkpoint.card
    # On the meta device nothing is allocated or initialised, whatever sizes the card declares.
    with torch.device("meta"):
        module = build(card.model, classes=len(card.classes), channels=card.channels)
    _check_layers(module.state_dict(), checkpoint)
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


def _read_header(file: Any, size: int, path: Path) -> dict[str, Any]:
    start = file.read(64)
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if start[8:9] != b"{":
        raise CheckpointError(f"is {_kind(start, size)}, not a safetensors checkpoint", where=path, hint=HINT)
    if length > HEADER_LIMIT:
        raise CheckpointError(f"declares a header of {length} bytes, more than {HEADER_LIMIT}", where=path, hint=HINT)
    if length > size - 8:
        raise _truncated(8 + length, size, path)
    file.seek(8)
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError("is damaged: its header is not valid JSON", where=path, hint="copy or train it again")
    _check_sizes(header, size - 8 - length, size, path)
    return header


def _check_sizes(header: dict[str, Any], room: int, size: int, path: Path) -> None:
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, stop = tensor["data_offsets"]
            declared = math.prod(tensor["shape"]) * DTYPES[tensor["dtype"]]
            sound = 0 <= begin <= stop and min(tensor["shape"], default=0) >= 0 and declared == stop - begin
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise CheckpointError(
                f"is damaged: the header's entry of layer {name!r} contradicts itself",
                where=path,
                hint="copy or train it again",
            )
        end = max(end, stop)
    if end > room:
        raise _truncated(end + size - room, size, path)


def _truncated(wanted: int, size: int, path: Path) -> CheckpointError:
    return CheckpointError(f"is cut short: {size} of {wanted} bytes", where=path, hint="copy it again")


def _kind(start: bytes, size: int) -> str:
    if size == 0:
        return "empty"
    for magic, kind in FOREIGN:
        if start.startswith(magic):
            return kind
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle, which could run code when opened"
    if start.lstrip()[:1] == b"<":
        return "a web page or XML"
    return "cut short" if size < 9 else "of an unknown kind"


def _read_card(header: dict[str, Any], path: Path) -> Card:
    metadata = header.get("__metadata__")
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CheckpointError("has weights but no card", where=path, hint=HINT)
    try:
        table = json.loads(text)
        if isinstance(table, dict) and table.get("format") != FORMAT:
            raise CheckpointError(
                f"has card format {table.get('format')!r}; this catmorph reads {FORMAT}",
                where=path,
                hint="use the catmorph that wrote it",
            )
        return Card.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "card"
        raise CheckpointError(f"has a card that is not valid: {key}: {first['msg']}", where=path, hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError("has a card that is not valid JSON", where=path, hint=HINT) from error
