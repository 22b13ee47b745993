"""What decides the bits of logits, told without torch."""

from __future__ import annotations

from importlib.metadata import version

from catmorph.files import digest_json

CODE_VERSION = 1
"""Raised when the same network and stamps give other logits; part of the fingerprint."""

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
PASSES = {"none": 1, "d4": 8}
"""Test-time augmentation -> how often the network sees each stamp."""


def classifier_fingerprint(network: str, *, precision: str, batch: int, device: str, test_time: str = "none") -> str:
    """Return the sha256 of everything about a classifier that decides the bits of its logits.

    Parameters
    ----------
    network : str
        From `catmorph.models.identity`: it does not change when only the title, metrics or temperature of the card do.
    """
    return digest_json({
        "network": network, "precision": precision, "batch": batch, "device": device, "test_time": test_time,
        "code": CODE_VERSION, "torch": version("torch"),
    })


def possible_fingerprints(network: str, *, batch: int, test_time: str = "none") -> tuple[str, ...]:
    """Return the fingerprints of a classifier on any device, in any precision.

    ``--device`` and ``--precision`` are no part of the recipe: logits made in another way than this machine
    would choose are as valid for the release.
    """
    return tuple(
        classifier_fingerprint(network, precision=precision, batch=batch, device=device, test_time=test_time)
        for device in DEVICES for precision in PRECISIONS
    )
