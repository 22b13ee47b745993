"""Keras' defaults, which the published networks were built with."""

from __future__ import annotations

from torch import nn

EPSILON = 1e-3
"""Batch normalisation: added to the variance."""
MOMENTUM = 0.01
"""Batch normalisation: weight of a new batch in the running statistics; Keras calls this momentum 0.99."""


def initialise(layer: nn.Module) -> None:
    """Initialise a layer: Glorot's uniform kernels, zero biases."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
