"""Stamps as pictures: in colour where a view has three bands or more, else grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catmorph.recipe import Recipe
from catmorph.stamps.normalise import lupton, mean_light, scale_to_peak
from catmorph.stamps.signal import MAD_TO_SIGMA
from catmorph.stamps.upright import TopFirst, upright

MISSING = (0.16, 0.18, 0.30)
"""Colour of what has no valid pixel."""

_SOFTENING = 3.0
_Q = 8.0
_SKY = 1.0
"""Where the sky lies above black, in sigmas of its noise, which is then seen on both sides of it."""

_FAINTEST = 4.0
"""Least stretch in sigmas: the noise of an empty stamp stays dark."""


@dataclass(frozen=True)
class Palette:
    """How a stamp is drawn.

    Attributes
    ----------
    planes : tuple of tuple of int
        Channels whose sum is red, green and blue; empty: the mean of all channels in grey.
    values : (float, float), optional
        Pixel values drawn as black and as full light, in between on a straight line; None: stretched.
    top_first : bool, or tuple of bool (channel)
        Whether the first row of pixels is the top one, of all channels or of each.
    """

    planes: tuple[tuple[int, ...], ...] = ()
    values: tuple[float, float] | None = None
    top_first: bool | tuple[bool, ...] = False


GREY = Palette()


def palette_for(recipe: Recipe, view: str, top_first: TopFirst = False, *, inputs: bool = False) -> Palette:
    """Return how a stamp of `view` is drawn.

    The bands of `bands.colour` are red, green and blue; where the view does not have one of each, or nothing is said,
    its last, middle and first band are. Pictures of 8 bits and pixels of a known range (``normalise.method = "range"``)
    are drawn as they are, pictures in the order of their planes.

    Parameters
    ----------
    top_first : bool, or array of bool (channel)
        Whether the first row of pixels is the top one, as shards and labelled stamps say. JPEG and PNG files have it
        so, which alone are pictures of 8 bits.
    inputs : bool
        Whether the stamp is what the network sees: normalised.
    """
    bands, tops = recipe.all_views[view], np.asarray(top_first, bool)
    pictures = bool(tops.all())
    values = _input_range(recipe, pictures) if inputs else _range(recipe, pictures)
    planes = chosen_planes(recipe.bands.colour_bands, bands) if len(bands) >= 3 else ()
    if not planes and len(bands) >= 3:
        order = (0, 1, 2) if pictures else (len(bands) - 1, len(bands) // 2, 0)
        planes = tuple((channel,) for channel in order)
    return Palette(planes, values, tuple(tops.tolist()) if tops.any() and not pictures else pictures)


def _range(recipe: Recipe, pictures: bool) -> tuple[float, float] | None:
    if recipe.normalise.method == "range":
        return recipe.normalise.low_value, recipe.normalise.high_value
    # Flux grows with the area of a pixel, beyond the 8 bits.
    return (0.0, 255.0) if pictures and recipe.stamp.values == "surface_brightness" else None


def _input_range(recipe: Recipe, pictures: bool) -> tuple[float, float] | None:
    """Return the range of normalised pixels that need no stretch; what was linear light is stretched as in shards."""
    if recipe.normalise.method == "none":
        return _range(recipe, pictures)
    return (0.0, 1.0) if pictures or recipe.normalise.method in ("range", "lupton") else None


def chosen_planes(colours: Sequence[Sequence[str]], bands: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the channels of a view of `bands` that each colour sums; none where a colour has no band in the view."""
    planes = tuple(tuple(channel for channel, band in enumerate(bands) if band in colour) for colour in colours)
    return planes if all(planes) else ()


def picture(stamp: np.ndarray, palette: Palette = GREY) -> np.ndarray:
    """Return a stamp as an image (y, x, 3) of values 0..1, its top row last; invalid pixels are bluish.

    Parameters
    ----------
    stamp : ndarray, shape (channel, y, x)
        NaN where invalid.
    palette : Palette
    """
    stamp = upright(np.where(np.isfinite(stamp), stamp, np.nan).astype(np.float64), palette.top_first)
    if palette.planes:
        planes = np.stack([_sum([stamp[channel] for channel in channels]) for channels in palette.planes])
    else:
        planes = _mean(stamp)[None]
    valid = np.isfinite(planes).any(axis=0)
    if palette.values is not None:
        low, high = palette.values
        image = np.nan_to_num(np.clip((planes - low) / (high - low), 0.0, 1.0))
    else:
        image = _composite(planes) if len(planes) == 3 else asinh(planes[0])[None]
    image = np.moveaxis(np.broadcast_to(image, (3, *stamp.shape[1:])), 0, -1).copy()
    image[~valid] = MISSING
    return image


def _sum(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Add planes (y, x), a missing pixel or band for nothing; NaN where all are missing."""
    stack = np.stack(planes)
    return np.where(np.isfinite(stack).any(axis=0), np.nansum(stack, axis=0), np.nan)


def _mean(stamp: np.ndarray) -> np.ndarray:
    count = np.isfinite(stamp).sum(axis=0)
    return np.where(count > 0, np.nansum(stamp, axis=0) / np.maximum(count, 1), np.nan)


def _composite(planes: np.ndarray) -> np.ndarray:
    """Return the composite (3, y, x) of Lupton et al. (2004) of planes in units of their own noise."""
    light = np.zeros(planes.shape)
    there = np.isfinite(planes).any(axis=(1, 2))
    for index in np.flatnonzero(there):
        values = planes[index][np.isfinite(planes[index])]
        # Bands of any unit and depth then have a grey sky, and none drowns the others.
        sky, noise = _sky(values)
        light[index] = np.nan_to_num((planes[index] - sky) / noise, nan=0.0) + _SKY
    flat, there = light.reshape(1, 3, -1), there[None]
    scale = max(_FAINTEST, float(np.percentile(mean_light(flat, there), 99.8)) * scale_to_peak(_Q))
    return lupton(flat, there, np.array([scale]), _Q).reshape(planes.shape)


def _sky(values: np.ndarray) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, float(MAD_TO_SIGMA * np.median(np.abs(values - middle)) or np.std(values) or 1.0)


def asinh(plane: np.ndarray) -> np.ndarray:
    """Return a plane (y, x), NaN where invalid, stretched to 0..1."""
    values = plane[np.isfinite(plane)]
    if not values.size:
        return np.zeros(plane.shape)
    low, noise = _sky(values)
    scaled = np.arcsinh((np.nan_to_num(plane, nan=low) - low) / (_SOFTENING * noise))
    bottom = -np.arcsinh(2.0 / _SOFTENING)
    top = max(np.percentile(np.arcsinh((values - low) / (_SOFTENING * noise)), 99.8), bottom + 1e-6)
    return np.clip((scaled - bottom) / (top - bottom), 0.0, 1.0)
