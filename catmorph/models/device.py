"""Where networks run, and in which arithmetic; torch, seconds to import, is asked only where there may be a GPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from catmorph.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "openvino")
"""What `resolve_device` takes."""
PRECISIONS = ("auto", "float32", "bfloat16")
"""What `resolve_precision` takes."""

_PROCESSOR = Path("/proc/cpuinfo")
_DEVICES = Path("/dev")
_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Device files of GPUs that torch uses as CUDA devices: NVIDIA's, Jetson's, AMD's, and those of Windows' Linux."""

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of x86-64 and Arm processors that compute in bfloat16."""
_BFLOAT16_OF_OPENVINO = {"avx512_bf16", "amx_bf16"}
"""Those where OpenVINO does; on Arm it does not."""


def resolve_device(device: str) -> str:
    """Return cpu or cuda for auto, any other as it is; asking for what is not there, or unknown, is an error."""
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}", hint=f"valid: {', '.join(DEVICES)}")
    if device == "openvino" and find_spec("openvino") is None:
        raise UsageError("--device openvino needs OpenVINO", hint="pip install 'catmorph[openvino]'")
    if device == "cuda" and not _torch_has_gpu():
        raise UsageError("there is no CUDA device that torch can use", hint="use --device cpu or auto")
    if device == "auto":
        return "cuda" if _may_have_gpu() and _torch_has_gpu() else "cpu"
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return float32 or bfloat16: for auto, bfloat16 where `device` (cpu, cuda or openvino) computes in it."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", hint=f"valid: {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and device == "openvino" and not _processor_has(_BFLOAT16_OF_OPENVINO):
        raise UsageError("OpenVINO does not compute in bfloat16 on this processor",
                         hint="use --precision float32, or --device cpu, which imitates it slowly")
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bfloat16" if _gpu_has_bfloat16() else "float32"
    flags = _BFLOAT16_OF_OPENVINO if device == "openvino" else _BFLOAT16
    return "bfloat16" if _processor_has(flags) else "float32"


def _may_have_gpu() -> bool:
    return sys.platform != "linux" or any(any(_DEVICES.glob(name)) for name in _DRIVERS)


def _torch_has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _gpu_has_bfloat16() -> bool:
    import torch

    # The first GPUs with bfloat16 arithmetic have compute capability 8.0.
    return torch.cuda.get_device_capability() >= (8, 0)


def _processor_has(wanted: set[str]) -> bool:
    """Return whether Linux tells one of these flags; on other systems no."""
    try:
        lines = _PROCESSOR.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not wanted.isdisjoint(flags.split())
