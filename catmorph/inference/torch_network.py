"""A network that torch runs: on the processor or a GPU, in float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class TorchNetwork:
    """A network ready for inference.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; it is changed. On the processor as `steady_dense` returns it.
    device : {"cpu", "cuda"}
    precision : {"float32", "bfloat16"}
    """

    def __init__(self, module: nn.Module, device: str, precision: str):
        self._device = device
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module = _in_bfloat16(module) if precision == "bfloat16" else module

    def place(self, batch: np.ndarray) -> Tensor:
        """Return a batch of stamps (batch, channel, y, x) float32 on the device."""
        return torch.from_numpy(batch).to(self._device)

    def each(self, batches: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield the logits (batch, class) float32 of each batch that is on the device."""
        for batch in batches:
            inputs = batch.contiguous(memory_format=torch.channels_last)
            # cuDNN's float32 would round to 10 bits (TF32) and could choose its algorithm by timing.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                logits = self._module(inputs)
            yield logits.float().cpu().numpy()


class _Dense(nn.Module):
    """A dense layer computed as a 1x1 convolution."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(layer.weight[:, :, None, None], requires_grad=False)
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., features) to (..., width)."""
        maps = inputs.reshape(-1, inputs.shape[-1], 1, 1).contiguous(memory_format=torch.channels_last)
        return functional.conv2d(maps, self.weight, self.bias).reshape(*inputs.shape[:-1], -1)


def steady_dense(module: nn.Module) -> nn.Module:
    """Turn the dense layers of a network into convolutions, in place, and return it."""
    # Measured: the matrix product of a dense layer changes in its last bits with the number of threads (4e-8
    # after a layer of 1024, MKL); convolutions do not.
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, _Dense(child))
    return module


def _in_bfloat16(module: nn.Module) -> nn.Module:
    """Turn convolutions and dense layers to bfloat16, except the first and the last of them."""
    layers = _with_products(module)
    head = layers[-1]
    # A network of several side by side has as many first layers.
    parts: dict[str, nn.Module] = getattr(module, "parts", {"": module})
    firsts = {_with_products(part)[0] for part in parts.values()}
    for layer in layers:
        if layer in firsts:
            layer.register_forward_hook(_as_bfloat16)
        elif layer is head:
            layer.register_forward_pre_hook(_inputs_as(torch.float32))
        else:
            layer.to(torch.bfloat16)
            layer.register_forward_pre_hook(_inputs_as(torch.bfloat16))
    # Batch norms keep float32 parameters: torch takes them with bfloat16 maps, and they are exact.
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            layer.register_forward_pre_hook(_inputs_as(torch.float32))
    return module


def _with_products(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear | _Dense)]


def _as_bfloat16(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(torch.bfloat16)


def _inputs_as(dtype: torch.dtype) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda layer, inputs: tuple(one.to(dtype) for one in inputs)
