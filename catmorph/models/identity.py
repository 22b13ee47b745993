"""What of a checkpoint decides its logits, as a digest; torch is not needed to tell."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from catmorph.files import digest_json
from catmorph.models.card import Card
from catmorph.models.header import open_checkpoint, parse_card, read_header

DECISIVE = ("model", "scheme", "classes", "channels", "stamp", "normalise")
"""Fields of the card on which logits depend. Title, metrics, evaluation and temperature are not among them."""


def network_digest(card: Card, header: dict[str, Any], weights_sha256: str) -> str:
    """Return the sha256 of what decides the logits of a checkpoint.

    Parameters
    ----------
    header : dict
        The file's header, from `catmorph.models.header.read_header`; its metadata (the card) does not count.
    weights_sha256 : str
        sha256 of the bytes after the header.
    """
    layers = {name: entry for name, entry in header.items() if name != "__metadata__"}
    fields = card.model_dump(mode="json", include=set(DECISIVE)) | {"normalise": card.normalise.fingerprint_values}
    return digest_json({"card": fields, "layers": layers, "weights": weights_sha256})


def read_network_digest(path: Path) -> str:
    """Return the `network_digest` of a checkpoint file, which is read once and never held in memory.

    Raises
    ------
    CheckpointError
        As `catmorph.models.header.load_card`.
    """
    with open_checkpoint(path) as file:
        header = read_header(file, path)
        # `file_digest` reads from where the header ends.
        weights = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return network_digest(parse_card(header, path), header, weights)
