"""Running a trained network: the same stamp gives the same bits whatever shares its batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from catmorph.errors import UsageError, suggest
from catmorph.inference.batches import Packer
from catmorph.inference.combine import average_logits
from catmorph.inference.identity import PASSES, classifier_fingerprint
from catmorph.models.checkpoint import Checkpoint, build_from
from catmorph.models.device import resolve_device, resolve_precision
from catmorph.models.symmetry import symmetries
from catmorph.schemes import load_scheme

Key = TypeVar("Key", bound=Hashable)

SMALLEST_BATCH = 16
"""Batches of 8 and below take other paths through oneDNN, and differ by up to 7e-6 in a logit."""


class Predictor:
    """A network ready for inference.

    The network always sees one batch shape, padded with zeros: then a stamp's logits do not depend on its
    neighbours, its place in the batch, the chunk it came in, or the number of threads.

    Parameters
    ----------
    checkpoint : Checkpoint
        From `catmorph.models.checkpoint.load_checkpoint`.
    device : {"auto", "cpu", "cuda"}
        auto takes the GPU where there is one.
    precision : {"auto", "float32", "bfloat16"}
        auto takes bfloat16 where the device computes in it (a GPU that supports it; a processor with
        AVX512-BF16 or AMX). The first layer and the head stay in float32.
    batch : int
        Stamps of the fixed batch, at least 16.
    test_time : {"none", "d4"}
        d4: the network sees each stamp in the eight symmetries of the square (rotations by 90 degrees and mirror
        images), each in a batch of the same shape; the logits are those of the mean probabilities, see
        `catmorph.inference.combine.average_logits`.

    Raises
    ------
    UsageError
        When the device is not there or the batch is too small.
    CheckpointError
        When the weights do not fit the network the card names.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = "auto", precision: str = "auto", batch: int = 256,
        test_time: str = "none",
    ):
        if batch < SMALLEST_BATCH:
            raise UsageError(f"a batch of {batch} is too small: at least {SMALLEST_BATCH}")
        self.card, self.batch = checkpoint.card, batch
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        if test_time not in PASSES:
            raise UsageError(f"unknown test-time augmentation {test_time!r}", hint=suggest(test_time, PASSES))
        self.network, self.test_time = checkpoint.network or checkpoint.digest, test_time
        module = build_from(checkpoint).eval().requires_grad_(False)
        if self.device == "cpu":
            _steady_dense(module)
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module = _in_bfloat16(module) if self.precision == "bfloat16" else module

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.card.classes

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The fixed shape of a batch: (batch, channel, y, x)."""
        pixels = self.card.stamp.pixels
        return self.batch, self.card.channels, pixels, pixels

    @property
    def fingerprint(self) -> str:
        """sha256 of everything here that decides the bits of the logits."""
        return classifier_fingerprint(self.network, precision=self.precision, batch=self.batch, device=self.device,
                                      test_time=self.test_time)

    @property
    def passes(self) -> int:
        """How often the network sees each stamp."""
        return PASSES[self.test_time]

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Predict normalised stamps.

        Parameters
        ----------
        inputs : ndarray of float32, shape (n, channel, y, x)

        Returns
        -------
        ndarray of float32, shape (n, class)
            Not finite where the network's output is not.
        """
        ((_, logits),) = self.stream([(None, inputs)])
        return logits

    def stream(self, items: Iterable[tuple[Key, np.ndarray]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Predict the stamps of many keys; those of successive keys share batches.

        Parameters
        ----------
        items : iterable of (key, ndarray of float32, shape (n_i, channel, y, x))
            Read one at a time; n_i may be 0.

        Yields
        ------
        key, ndarray of float32, shape (n_i, class)
            In order, each as soon as its last stamp is done.
        """
        packer = Packer(self._run, self.shape, len(self.classes))
        return packer.stream((key, self._checked(inputs)) for key, inputs in items)

    def _checked(self, inputs: np.ndarray) -> np.ndarray:
        if inputs.ndim != 4 or inputs.shape[1:] != self.shape[1:]:
            raise UsageError(f"stamps are {inputs.shape}, the network takes (n, {', '.join(map(str, self.shape[1:]))})")
        return inputs

    def _run(self, batch: np.ndarray) -> np.ndarray:
        # cuDNN's float32 would round to 10 bits (TF32) and could choose its algorithm by timing.
        steady = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), steady:
            inputs = torch.from_numpy(batch).to(self.device)
            if self.test_time == "none":
                return self._forward(inputs)
            each = np.stack([self._forward(one) for one in symmetries(inputs)])
        return average_logits(load_scheme(self.card.scheme), each).astype(np.float32)

    def _forward(self, inputs: Tensor) -> np.ndarray:
        return self._module(inputs.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()


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


def _steady_dense(module: nn.Module) -> None:
    # Measured: the matrix product of a dense layer changes in its last bits with the number of threads (4e-8
    # after a layer of 1024, MKL); convolutions do not.
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, _Dense(child))


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
