"""What decides the bits of logits, told without torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from catmorph.files import digest_json

CODE_VERSION = 2
"""Raised when the same network and stamps give other logits; part of the fingerprint."""

DEVICES = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "bfloat16"), "openvino": ("float32", "bfloat16")}
"""Where a network may run -> in which arithmetic; openvino is the processor, through OpenVINO."""

PASSES = {"none": 1, "d4": 8}
"""Test-time augmentation -> how often the network sees each stamp."""


def classifier_fingerprint(network: str, *, precision: str, batch: int, device: str, test_time: str = "none") -> str:
    """Return the sha256 of everything about a classifier that decides the bits of its logits.

    Parameters
    ----------
    network : str
        From `catmorph.models.identity`: it does not change when only the title, metrics or temperature of the card do.
    """
    runtime = {"torch": version("torch")}
    if device == "openvino":
        runtime["openvino"] = version("openvino")
    return digest_json({
        "network": network, "precision": precision, "batch": batch, "device": device, "test_time": test_time,
        "code": CODE_VERSION, **runtime,
    })


def possible_fingerprints(network: str, *, batch: int, test_time: str = "none") -> tuple[str, ...]:
    """Return the fingerprints of a classifier on any device, in any precision.

    ``--device`` and ``--precision`` are no part of the recipe: logits made in another way than this machine
    would choose are as valid for the release.
    """
    return tuple(
        classifier_fingerprint(network, precision=precision, batch=batch, device=device, test_time=test_time)
        for device in _usable_devices() for precision in DEVICES[device]
    )


def _usable_devices() -> list[str]:
    """Return the devices whose logits this machine could tell from others."""
    try:
        version("openvino")
    except PackageNotFoundError:
        return [device for device in DEVICES if device != "openvino"]
    return list(DEVICES)
