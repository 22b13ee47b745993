"""Teachers: trained networks whose answers a training takes as labels, beside those of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from catmorph.errors import CheckpointError
from catmorph.models.card import transfer_differences
from catmorph.models.checkpoint import Checkpoint, build_from, load_checkpoint
from catmorph.recipe import Recipe
from catmorph.schemes import Scheme, load_scheme
from catmorph.training.losses import probabilities


@dataclass(frozen=True)
class Teachers:
    """Networks that see each perturbed stamp before the one that is trained (Hinton et al. 2015).

    Attributes
    ----------
    checkpoints : tuple of Checkpoint
    scheme : Scheme
    share : float
        Share of the teachers' answer in a label; the rest is the label of people.
    """

    checkpoints: tuple[Checkpoint, ...]
    scheme: Scheme
    share: float

    def to_card(self) -> list[dict[str, str]]:
        """Return what the card of the network that they taught says of them."""
        return [{"title": one.card.title, "sha256": one.digest} for one in self.checkpoints]

    def networks(self) -> list[nn.Module]:
        """Return the networks, as in evaluation."""
        return [build_from(one).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                for one in self.checkpoints]

    @torch.no_grad()
    def labels(self, networks: Sequence[nn.Module], stamps: Tensor, fractions: Tensor) -> Tensor:
        """Return labels (n, class) of perturbed `stamps`, of which people say `fractions`.

        The teachers' answer is the mean of their probabilities, without temperatures.
        """
        answers = [probabilities(network(stamps), self.scheme.form) for network in networks]
        return (1 - self.share) * fractions + self.share * torch.stack(answers).mean(dim=0)


def load_teachers(paths: Sequence[str | Path], share: float, recipe: Recipe) -> Teachers | None:
    """Open the checkpoints of teachers; None where there are none.

    Raises
    ------
    CheckpointError
        When a file is no checkpoint, was never trained, or has other classes, bands, stamps or normalisation than
        `recipe`.
    """
    if not paths:
        return None
    scheme = load_scheme(recipe.scheme)
    bands = {len(names) for names in recipe.all_views.values()}
    checkpoints = tuple(load_checkpoint(path) for path in paths)
    for one in checkpoints:
        card = one.card
        different = transfer_differences(card, recipe)
        if card.classes != scheme.class_names:
            different = [f"classes are {', '.join(card.classes)} in the checkpoint", *different]
        if {card.channels} != bands:
            different = [f"it takes {card.channels} bands", *different]
        if not card.trained:
            different = ["its weights were never trained", *different]
        if different:
            raise CheckpointError(f"cannot teach: {'; '.join(different)}", where=one.path,
                                  hint="a teacher sees the same stamps: train it with this recipe")
    return Teachers(checkpoints, scheme, share)
