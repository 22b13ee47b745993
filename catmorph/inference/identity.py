"""What decides the bits of logits, told without torch."""

from __future__ import annotations

from importlib.metadata import version

from catmorph.files import digest_json

CODE_VERSION = 1
"""Raised when the same checkpoint and stamps give other logits; part of the fingerprint."""

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


def classifier_fingerprint(checkpoint_digest: str, *, precision: str, batch: int, device: str) -> str:
    """Return the sha256 of everything about a classifier that decides the bits of its logits."""
    return digest_json({
        "checkpoint": checkpoint_digest, "precision": precision, "batch": batch, "device": device,
        "code": CODE_VERSION, "torch": version("torch"),
    })


def possible_fingerprints(checkpoint_digest: str, *, batch: int) -> tuple[str, ...]:
    """Return the fingerprints of a classifier on any device, in any precision.

    ``--device`` and ``--precision`` are no part of the recipe: logits made in another way than this machine
    would choose are as valid for the release.
    """
    return tuple(
        classifier_fingerprint(checkpoint_digest, precision=precision, batch=batch, device=device)
        for device in DEVICES for precision in PRECISIONS
    )
