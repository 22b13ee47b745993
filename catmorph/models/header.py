"""The header of a checkpoint file, read without torch and before anything else of the file is believed."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from catmorph.errors import CheckpointError, UsageError
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


def load_card(path: str | os.PathLike[str]) -> Card:
    """Read the card of a checkpoint and check the file's structure, without its weights and without torch.

    Raises
    ------
    CheckpointError
        When it is missing, cut short, of another kind or of a newer catmorph.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        return parse_card(read_header(file, path), path)


def refuse_other_file(path: str | os.PathLike[str]) -> None:
    """Refuse to write a checkpoint over a file that is none: a label table, say, whose name was given by mistake.

    Raises
    ------
    UsageError
        When there is such a file or folder.
    """
    if not Path(path).exists():
        return
    try:
        load_card(path)
    except CheckpointError as error:
        raise UsageError(f"is there already, and is no checkpoint that may be replaced ({error.message})", where=path,
                         hint="choose another name, or move it away") from None


def count_weights(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Count the numbers in a checkpoint as `catmorph.models.count_parameters` does in its network.

    Raises
    ------
    CheckpointError
        As `load_card`.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        header = read_header(file, path)
    sizes = {
        name: math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and "F" in entry["dtype"]
    }
    running = sum(size for name, size in sizes.items() if name.endswith(("running_mean", "running_var")))
    return sum(sizes.values()), running


@contextmanager
def open_checkpoint(path: Path) -> Iterator[BinaryIO]:
    """Open a checkpoint file for reading; what goes wrong with the disk becomes a CheckpointError."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(
            "no such checkpoint", where=path, hint="`catmorph train` and `catmorph models create` write one",
            absent=True,
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=path) from error


def read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, after checking it against the file's size."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(64)
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if start[8:9] != b"{":
        raise CheckpointError(f"is {kind_of_file(start, size)}, not a safetensors checkpoint", where=path, hint=HINT)
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


def kind_of_file(start: bytes, size: int) -> str:
    """Say what a file of `size` bytes is by its first 64, for an error message."""
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


def join_header(header: dict[str, Any]) -> bytes:
    """Return the first bytes of a safetensors file, up to its weights: the length of the header and the header."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Weights begin at a multiple of 8 bytes; the format fills with spaces.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def card_text(card: Card) -> str:
    """Return the JSON of a card as it lies in a checkpoint; the same card gives the same text."""
    return json.dumps(card.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def parse_card(header: dict[str, Any], path: Path) -> Card:
    """Return the card that a header holds."""
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
