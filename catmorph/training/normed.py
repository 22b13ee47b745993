"""Batch norms that a network has only while it is trained; at the end they become part of its weights.

Networks without batch norms learn slowly from random weights: their learning rate has to be so small that no layer's
outputs run away. A batch norm after a layer is a factor and a constant for each channel once the training is over, and
so the same network as published comes out, with other weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from catmorph.errors import UsageError


class _Normed(nn.Module):
    """A layer and the batch norm after it (Ioffe & Szegedy 2015)."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm2d(layer.out_channels) if isinstance(layer, nn.Conv2d) \
            else nn.BatchNorm1d(layer.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.layer(inputs))

    @torch.no_grad()
    def folded(self) -> nn.Conv2d | nn.Linear:
        """Return the layer alone, which gives what both give in evaluation.

        g (W x + b - m) / s + c, with the norm's factor g, constant c, mean m and deviation s, is
        (g W / s) x + g (b - m) / s + c.
        """
        layer, norm = self.layer, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert layer.bias is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        layer.bias.copy_(factor * (layer.bias - norm.running_mean) + norm.bias)
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        return layer


def add_batch_norms(module: nn.Module, head: str) -> None:
    """Put a batch norm after each convolution and dense layer of `module`, but those of stage `head`; in place.

    Raises
    ------
    UsageError
        When the network has batch norms of its own, or a layer without a constant term.
    """
    if any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in module.modules()):
        raise UsageError("the network has batch norms of its own", where="training.batch_norm",
                         hint="leave it out; it is for networks without any")
    last = set(getattr(module, head).modules())
    for parent, name, layer in list(_children(module)):
        if layer in last or not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if layer.bias is None:
            raise UsageError(f"layer {name!r} has no constant term that could take up a batch norm's",
                             where="training.batch_norm")
        setattr(parent, name, _Normed(layer))


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Make the batch norms of `add_batch_norms` part of the weights of `module`, in place, and return it."""
    for parent, name, layer in list(_children(module)):
        if isinstance(layer, _Normed):
            setattr(parent, name, layer.folded())
    return module


def folded_copy(module: nn.Module) -> nn.Module:
    """Return `module` as it would be saved; itself where it has no batch norm to fold."""
    if not any(isinstance(layer, _Normed) for layer in module.modules()):
        return module
    return fold_batch_norms(copy.deepcopy(module))


def _children(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in module.modules():
        for name, layer in parent.named_children():
            yield parent, name, layer
