"""Convolutions with large kernels as products of Fourier transforms: the same answer in fewer operations.

On a ring of T positions a correlation is a product of transforms (the convolution theorem), and as many positions as
the maps and one margin of zeros hold keep the valid part apart. The transforms are products with small matrices: at
these sizes those run at the full rate of the processor, where fast Fourier transforms wait for memory. The 6x6
convolution of `clash-inception` has half of all its operations: a sixth of them is left, in a third of the time. The
answer differs in the last bits of float32: its error is that of the brightest value of a map, everywhere on it, where
the direct one's is that of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

LEAST_GAIN = 4.0
"""Multiplications of a convolution for each one of this way. Measured through OpenVINO: 6.1 takes a third of the time,
4.1 to 4.5 take 0.6 to 0.75; 2.5 to 3.5 (kernels of 3x3), faster in one network, gain nothing in ResNets.
With it, and with the limit below, the bits of logits change: raise `catmorph.inference.identity.CODE_VERSION`."""

LARGEST_BYTES = 128_000_000
"""Of the transformed weights of a network, which are read for every part of a batch."""


@dataclass(frozen=True)
class Plan:
    """The sizes of one convolution with stride 1, along y and along x.

    Attributes
    ----------
    channels, width : int
        Maps in and out.
    kernel, margin, maps : (int, int)
        Of the kernel; of the zeros on each side; of the maps that come in.
    """

    channels: int
    width: int
    kernel: tuple[int, int]
    margin: tuple[int, int]
    maps: tuple[int, int]

    @property
    def ring(self) -> tuple[int, int]:
        """Positions of the ring: the zeros on one side are those on the other."""
        return self.maps[0] + self.margin[0], self.maps[1] + self.margin[1]

    @property
    def out(self) -> tuple[int, int]:
        """Size of the maps that go out."""
        (y, x), (above, beside), (tall, wide) = self.maps, self.margin, self.kernel
        return y + 2 * above - tall + 1, x + 2 * beside - wide + 1

    @property
    def waves(self) -> int:
        """Frequencies along y that are kept; the others are their conjugates, the maps being real."""
        return self.ring[0] // 2 + 1

    @property
    def weight_bytes(self) -> int:
        """Bytes of the transformed weights."""
        return 4 * self.waves * self.ring[1] * (2 * self.channels) * (2 * self.width)

    @property
    def gain(self) -> float:
        """Multiplications of the convolution for each one of this way."""
        (y, x), (below, right), waves, ring = self.maps, self.out, self.waves, self.ring[1]
        inputs, outputs = self.channels, self.width
        there = inputs * waves * (2 * y * x + 4 * ring * x)
        products = waves * ring * 4 * inputs * outputs
        back = outputs * waves * (4 * right * ring + 2 * below * right)
        return self.kernel[0] * self.kernel[1] * inputs * outputs * below * right / (there + products + back)


class FourierConvolution(nn.Module):
    """A convolution with stride 1 of maps of one size, through Fourier transforms.

    Parameters
    ----------
    layer : nn.Conv2d
        Where its weights and bias come from.
    plan : Plan
        Its sizes.
    """

    along_y: Tensor
    along_x: Tensor
    back_x: Tensor
    back_y: Tensor
    weights: Tensor

    def __init__(self, layer: nn.Conv2d, plan: Plan):
        super().__init__()
        self.plan = plan
        (y, x), (below, right), (rows, columns), waves = plan.maps, plan.out, plan.ring, plan.waves
        # Complex numbers are pairs of rows: (frequency, part) along y, (part, frequency) along x.
        along_y = _waves(np.arange(waves), np.arange(y), rows)
        self._keep("along_y", np.stack([along_y.real, along_y.imag], 1).reshape(2 * waves, y))
        self._keep("along_x", _complex(_waves(np.arange(columns), np.arange(x), columns)))
        # The maps that go out begin one margin before those that come in.
        back_x = _waves(np.arange(right) - plan.margin[1], np.arange(columns), columns).conj() / columns
        self._keep("back_x", _complex(back_x))
        back_y = _waves(np.arange(below) - plan.margin[0], np.arange(waves), rows).conj() / rows
        back_y *= np.where(2 * np.arange(waves) % rows == 0, 1, 2)  # the conjugates that were not kept
        self._keep("back_y", np.stack([back_y.real, -back_y.imag], 2).reshape(below, 2 * waves))
        self._keep("weights", _transformed(layer.weight.detach().numpy(), plan))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, channel, y, x) to (n, width, y, x), both best with channels last."""
        plan = self.plan
        (y, x), (below, right), columns, waves = plan.maps, plan.out, plan.ring[1], plan.waves
        inputs, outputs = plan.channels, plan.width
        values = maps.permute(0, 2, 3, 1).reshape(-1, y, x * inputs)
        values = torch.matmul(self.along_y, values).reshape(-1, waves, 2 * x, inputs)
        values = torch.matmul(self.along_x, values).reshape(-1, waves, 2, columns, inputs)
        # (wave, column, n, part and channel): at each frequency one product for all stamps
        values = values.permute(1, 3, 0, 2, 4).reshape(waves * columns, -1, 2 * inputs)
        values = torch.matmul(values, self.weights).reshape(waves, columns, -1, 2, outputs)
        values = values.permute(2, 0, 3, 1, 4).reshape(-1, waves, 2 * columns, outputs)
        values = torch.matmul(self.back_x, values).reshape(-1, 2 * waves, right * outputs)
        values = torch.matmul(self.back_y, values).reshape(-1, below, right, outputs)
        if self.bias is not None:
            values = values + self.bias
        return values.permute(0, 3, 1, 2)


def _waves(left: np.ndarray, right: np.ndarray, ring: int) -> np.ndarray:
    """Return exp(-2 pi i left right / ring), (left, right) complex128."""
    return np.exp(-2j * np.pi / ring * (np.outer(left, right) % ring))


def _complex(matrix: np.ndarray) -> np.ndarray:
    """Return the real matrix that acts on (part, position) as `matrix` does on complex numbers."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _transformed(weights: np.ndarray, plan: Plan) -> np.ndarray:
    """Return real matrices (frequency, part and channel, part and width) for weights (width, channel, y, x)."""
    (tall, wide), (rows, columns) = plan.kernel, plan.ring
    along_y = _waves(np.arange(plan.waves), np.arange(tall), rows)
    along_x = _waves(np.arange(columns), np.arange(wide), columns)
    kernels = weights.astype(np.float64).transpose(2, 3, 1, 0).reshape(tall, wide, -1)
    spectrum = along_y.conj() @ (along_x.conj() @ kernels).reshape(tall, -1)
    spectrum = spectrum.reshape(-1, plan.channels, plan.width)
    matrices = np.empty((len(spectrum), 2, plan.channels, 2, plan.width), dtype=np.float32)
    with np.errstate(over="ignore"):
        matrices[:, 0, :, 0] = matrices[:, 1, :, 1] = spectrum.real
        matrices[:, 0, :, 1] = spectrum.imag
        matrices[:, 1, :, 0] = -spectrum.imag
    return matrices.reshape(len(spectrum), 2 * plan.channels, 2 * plan.width)


def fourier_where_it_pays(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Replace the convolutions of a network that gain by it, in place, and return the network.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, float32, on the processor.
    shape : (int, int, int)
        (channel, y, x) of its stamps.
    """
    for name, (layer, plan) in _plans(module, shape).items():
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, FourierConvolution(layer, plan))
    return module


def _plans(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, tuple[nn.Conv2d, Plan]]:
    """Return name -> layer and plan of the convolutions that gain."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d) and _simple(layer)}
    seen: dict[str, set[Plan]] = {name: set() for name in layers}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        seen[name].add(_plan(layer, inputs[0].shape))

    hooks = [layer.register_forward_pre_hook(partial(note, name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            module(torch.zeros(2, *shape))  # two: some layers refuse one
    finally:
        for hook in hooks:
            hook.remove()
    plans = {name: each.pop() for name, each in seen.items() if len(each) == 1}
    chosen, left = {}, LARGEST_BYTES
    for name in sorted(plans, key=lambda name: -plans[name].gain):
        if plans[name].gain >= LEAST_GAIN and plans[name].weight_bytes <= left:
            chosen[name] = layers[name], plans[name]
            left -= plans[name].weight_bytes
    return chosen


def _plan(layer: nn.Conv2d, shape: torch.Size) -> Plan:
    (tall, wide), (above, beside) = layer.kernel_size, cast("tuple[int, int]", layer.padding)
    return Plan(layer.in_channels, layer.out_channels, (tall, wide), (above, beside), (shape[2], shape[3]))


def _simple(layer: nn.Conv2d) -> bool:
    """Whether a convolution has stride 1, no groups and no holes, margins of zeros, and is computed as torch does."""
    # Other classes and hooks may standardise weights or choose margins as they are called.
    own = type(layer) is not nn.Conv2d or layer._forward_hooks or layer._forward_pre_hooks
    return (not own and layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
            and layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
