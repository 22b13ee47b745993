"""Random rotation, mirroring and shift of a batch, as one affine resampling on its device; mixing of its stamps."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from catmorph.recipe import TrainingSection


def augment(inputs: Tensor, section: TrainingSection, generator: torch.Generator) -> Tensor:
    """Return a perturbed copy of each stamp: `resample` with `perturbations`.

    Parameters
    ----------
    inputs : Tensor, shape (n, channel, y, x)
        The channels of a stamp move together.
    generator : torch.Generator
        A generator on the processor: the same perturbations whatever the device.
    """
    return resample(inputs, perturbations(len(inputs), inputs.shape[-2:], section, generator))


def resample(inputs: Tensor, matrices: Tensor) -> Tensor:
    """Resample stamps (n, channel, y, x) bilinearly through `matrices` (n, 2, 3), each in one step.

    What turns in from outside the stamp is its own mirror image: zeros would be a noiseless corner that the
    network never meets again. (The authors' Keras code repeats the nearest edge pixel instead.)
    """
    grid = functional.affine_grid(matrices.to(inputs.device, inputs.dtype), list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def perturbations(
    count: int, size: tuple[int, int] | torch.Size, section: TrainingSection, generator: torch.Generator
) -> Tensor:
    """Draw the perturbations of `count` stamps of `size` (y, x) pixels.

    Each is rotated by any angle or by one of ``section.rotate`` evenly spaced ones (0 among them), mirrored in x and
    in y with probability 1/2 each, shifted by up to ``section.shift_pixels`` in x and y (Perez-Carrasco et al. 2019,
    Sect. 4.2), and shows a part of the sky whose side is that of the stamp times a factor from ``section.zoom``: below
    1 the galaxy grows.

    Returns
    -------
    matrices : Tensor, shape (count, 2, 3)
        From a place (x, y, 1) in the perturbed stamp to (x, y) in the given one, in half stamp sides from the centre.
    """
    angle, flip, shift = (
        torch.rand(count, generator=generator),
        torch.rand(count, 2, generator=generator),
        torch.rand(count, 2, generator=generator),
    )
    angle = _turned(angle, section.rotate)
    signs = torch.where(flip < 0.5, -1.0, 1.0) if section.flip else torch.ones(count, 2)
    # grid_sample measures positions in half stamp sides, x before y.
    half = torch.tensor([size[1] / 2, size[0] / 2])
    offset = (2 * shift - 1) * section.shift_pixels / half
    cos, sin = torch.cos(angle), torch.sin(angle)
    turned = torch.stack([cos * signs[:, 0], -sin * signs[:, 1], sin * signs[:, 0], cos * signs[:, 1]], dim=1)
    if section.zoom != (1.0, 1.0):
        low, high = section.zoom
        turned = turned * (low + (high - low) * torch.rand(count, 1, generator=generator))
    return torch.cat([turned.reshape(count, 2, 2), offset[:, :, None]], dim=2)


def mixing_share(concentration: float, generator: torch.Generator) -> float:
    """Draw what share of itself each stamp of a batch keeps: Beta(concentration, concentration) distributed."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(concentration, concentration))


def mixed(values: Tensor, share: float) -> Tensor:
    """Return a batch each of whose rows is `share` times itself and the rest times the row before it.

    Of stamps and vote fractions alike (Zhang et al. 2018, mixup); a batch is drawn at random, so that the row before
    is a random one.
    """
    return share * values + (1 - share) * values.roll(1, dims=0)


def _turned(drawn: Tensor, rotate: bool | int) -> Tensor:
    """Return angles in radians from numbers drawn uniformly from [0, 1)."""
    if rotate is False:
        return torch.zeros_like(drawn)
    return 2 * math.pi * (drawn if rotate is True else torch.floor(drawn * rotate) / rotate)
