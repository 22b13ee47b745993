"""Where networks run, and in which arithmetic."""

from __future__ import annotations

import torch

from catmorph.errors import UsageError


def resolve_device(device: str) -> str:
    """Return cpu or cuda for auto, any other as it is; asking for a GPU that is not there is an error."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device that torch can use", hint="use --device cpu or auto")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return float32 or bfloat16: for auto, bfloat16 where `device` (cpu or cuda) computes in it."""
    if device == "openvino":
        if precision == "bfloat16":
            raise UsageError("OpenVINO runs networks in float32 here", hint="use --device cpu for bfloat16")
        return "float32"
    if precision != "auto":
        return precision
    # The first GPUs with bfloat16 arithmetic have compute capability 8.0.
    native = torch.cuda.get_device_capability() >= (8, 0) if device == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def _cpu_has_bfloat16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
