"""What a network took from other weights, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from catmorph.errors import listed


@dataclass(frozen=True)
class Transfer:
    """What a network took from a checkpoint, or from the weights of a backbone.

    A layer is a module with numbers of its own (a convolution, a batch normalisation, a dense layer); it is
    taken whole or not at all. `adapted` says of those that were changed on the way how. `fresh` says of every
    other layer of the network why it was initialised instead, `unused` names the layers of the checkpoint that have
    no place in the network, and `warnings` says, a line each, what differs between the stamps of the two.
    """

    title: str
    sha256: str
    taken: tuple[str, ...]
    parameters: int
    fresh: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    adapted: dict[str, str] = field(default_factory=dict)

    def report(self) -> list[str]:
        """Return the account as lines: what was taken and what not, and what was left unused."""
        lines = [f"taken {layers_in_words(len(self.taken))}, {_count(self.parameters)} parameters; fresh: "
                 + (_explained(self.fresh) or "nothing")]
        if self.adapted:
            lines.append(f"adapted: {_explained(self.adapted)}")
        if self.unused:
            lines.append(f"not used: {layers_in_words(len(self.unused))} of the checkpoint: {listed(self.unused)}")
        return lines

    def to_card(self) -> dict[str, Any]:
        """Return what the new checkpoint's card says of it."""
        adapted = {"adapted": self.adapted} if self.adapted else {}
        return {
            "title": self.title, "sha256": self.sha256, "layers": len(self.taken), "parameters": self.parameters,
            "fresh": self.fresh, "unused": list(self.unused), "differences": list(self.warnings), **adapted,
        }


def by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the tensors of a state by layer: layer -> full name -> tensor."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        layers.setdefault(name.rpartition(".")[0], {})[name] = value
    return layers


def shape_in_words(value: Tensor) -> str:
    """Return a shape as ``64x3x7x7``."""
    return "x".join(map(str, value.shape)) or "a number"


def layers_in_words(count: int) -> str:
    """Return ``1 layer``, ``2 layers``."""
    return f"{count:,} layer{'' if count == 1 else 's'}"


def _explained(layers: dict[str, str]) -> str:
    return listed([f"{name} ({why})" for name, why in layers.items()])


def _count(number: int) -> str:
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number:,}"
