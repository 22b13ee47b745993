"""Running a trained network: the same stamp gives the same bits whatever shares its batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from catmorph.errors import UsageError, suggest
from catmorph.inference.batches import Packer
from catmorph.inference.combine import average_logits
from catmorph.inference.fourier import fourier_where_it_pays
from catmorph.inference.identity import PASSES, classifier_fingerprint
from catmorph.inference.openvino_network import OpenVinoNetwork
from catmorph.inference.torch_network import TorchNetwork, steady_dense
from catmorph.models.checkpoint import Checkpoint, build_from
from catmorph.models.device import resolve_device, resolve_precision
from catmorph.models.symmetry import symmetries
from catmorph.schemes import load_scheme

Key = TypeVar("Key", bound=Hashable)

SMALLEST_BATCH = 16
"""Batches of 8 and below take other paths through oneDNN, and differ by up to 7e-6 in a logit."""

_PART = 32
"""Stamps that a processor computes at a time: those of a batch of 256 do not stay in its cache. Measured with
`clash-inception`, torch: 6.8 ms a stamp by 32, 8.8 by 64, 12 by 256; OpenVINO: 5.1 to 5.2 by any.
Some networks give other last bits by other parts: raise `catmorph.inference.identity.CODE_VERSION` with it."""


class Predictor:
    """A network ready for inference.

    The network always sees one batch shape, padded with zeros: then a stamp's logits do not depend on its
    neighbours, its place in the batch, the chunk it came in, or the number of threads.

    Parameters
    ----------
    checkpoint : Checkpoint
        From `catmorph.models.checkpoint.load_checkpoint`.
    device : {"auto", "cpu", "cuda", "openvino"}
        auto takes the GPU where there is one; openvino is the processor, through OpenVINO.
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
        When the device is not there, the batch is too small, or OpenVINO cannot run the network.
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
        self._network: TorchNetwork | OpenVinoNetwork
        # The same parts of any batch; none is smaller than a batch may be.
        self._part = batch if self.device == "cuda" else math.ceil(batch / math.ceil(batch / _PART))
        if self.device != "cuda" and (self.device, self.precision) != ("openvino", "bfloat16"):
            # OpenVINO's dense layers are steady in bfloat16, and those of `clash-inception` 10% of it faster.
            module = steady_dense(module)
        if self.device != "cuda" and self.precision == "float32":
            module = fourier_where_it_pays(module, self.shape[1:])
        if self.device == "openvino":
            together = math.ceil(batch / self._part) * self.passes
            self._network = OpenVinoNetwork(module, (self._part, *self.shape[1:]), self.precision, together)
        else:
            self._network = TorchNetwork(module, self.device, self.precision)

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
        packer: Packer[Key] = self.packer()
        return packer.stream((key, self.checked(inputs)) for key, inputs in items)

    def packer(self) -> Packer[Any]:
        """Return empty batches, for stamps that are handed over piece by piece; each piece is to be `checked`."""
        return Packer(self._run, self.shape, len(self.classes))

    def checked(self, inputs: np.ndarray) -> np.ndarray:
        """Return `inputs`; a UsageError where they are no stamps (n, channel, y, x) of the network's size."""
        if inputs.ndim != 4 or inputs.shape[1:] != self.shape[1:]:
            raise UsageError(f"stamps are {inputs.shape}, the network takes (n, {', '.join(map(str, self.shape[1:]))})")
        return inputs

    def _run(self, batch: np.ndarray, count: int) -> np.ndarray:
        """Return the logits of the first `count` stamps of a batch."""
        logits = np.empty((count, len(self.classes)), dtype=np.float32)
        # The last part, too, is whole: it begins earlier, and its stamps get the same bits again.
        begins = [min(start, len(batch) - self._part) for start in range(0, count, self._part)]
        parts = (batch[begin : begin + self._part] for begin in begins)
        with torch.inference_mode():
            for begin, found in zip(begins, self._each(parts), strict=True):
                logits[begin : begin + self._part] = found[: count - begin]
        return logits

    def _each(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the logits of each part."""
        placed = map(self._network.place, parts)
        if self.test_time == "none":
            yield from self._network.each(placed)
            return
        views = self._network.each(view for part in placed for view in symmetries(part))
        for first in views:
            each = np.stack([first, *islice(views, self.passes - 1)])
            yield average_logits(load_scheme(self.card.scheme), each).astype(np.float32)
