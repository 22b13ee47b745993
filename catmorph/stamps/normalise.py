"""Stamps to network inputs: each stamp (by default each channel of it) is scaled by its own pixels alone.

A stamp's result is the same bits whatever else is in the array: everything here is either elementwise, an
order statistic, or a minimum or maximum along the stamp's own pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from catmorph.recipe import NormaliseSection
from catmorph.stamps.signal import MAD_TO_SIGMA

BLOCK = 64
"""Channels scaled together: the temporaries stay in the processor's cache, and memory is bounded."""


def normalise(stamps: np.ndarray, section: NormaliseSection) -> np.ndarray:
    """Turn stamps into what the network sees.

    Invalid pixels are filled first, with the channel's own median or minimum (of valid pixels), or zero;
    the scaling is measured on valid pixels only and then applied to all. A channel without a valid pixel
    becomes 0 whatever the method, and pixels that are all equal where the method divides by a range.

    Parameters
    ----------
    stamps : ndarray of float32, shape (n, channel, y, x)
        NaN (or infinity) where a pixel is invalid.
    section : NormaliseSection
        Method, its options, and the fill.

    Returns
    -------
    ndarray of float32, shape (n, channel, y, x)
        Finite throughout.
    """
    stamps = np.asarray(stamps, dtype=np.float32)
    result = np.empty(stamps.shape, dtype=np.float32)
    channels = stamps.shape[1]
    width = stamps.shape[-2] * stamps.shape[-1]
    step = max(1, BLOCK // max(channels, 1))
    for start in range(0, len(stamps), step):
        block = stamps[start : start + step]
        rows = _Rows(block.reshape(-1, width), section.fill, channels)
        empty = rows.count == 0
        scaled = METHODS[section.method](rows.merged() if section.scope == "stamp" else rows, section)
        result[start : start + step] = scaled.reshape(block.shape)
        if empty.any():
            result[start : start + step][empty.reshape(-1, channels)] = 0
    return result


class _Rows:
    """Rows of pixels, each to be scaled by itself: a channel of a stamp, or all channels of one.

    Attributes
    ----------
    pixels, filled : float32 array (row, pixel)
        NaN where invalid, and with the fill there.
    valid : bool array (row, pixel)
    count : array (row,)
        Valid pixels.
    channels : int
        Rows that belong to one stamp.
    """

    def __init__(self, pixels: np.ndarray, fill: str, channels: int, filled: np.ndarray | None = None):
        self.channels = channels
        self.valid = np.isfinite(pixels)
        self.count = self.valid.sum(axis=1)
        self.whole = bool((self.count == pixels.shape[1]).all())
        self.pixels = pixels if self.whole else np.where(self.valid, pixels, np.float32(np.nan))
        self.filled = pixels if filled is None else filled
        if filled is None and not self.whole:
            self.filled = np.where(self.valid, pixels, self._fill_values(fill)[:, None])

    def merged(self) -> _Rows:
        """Return rows of all channels of a stamp, filled channel by channel."""
        shape = (-1, self.channels * self.pixels.shape[1])
        return _Rows(self.pixels.reshape(shape), "", 1, self.filled.reshape(shape))

    @cached_property
    def ordered(self) -> np.ndarray:
        """Sorted pixels: they give all percentiles at once; NaN sorts last."""
        return np.sort(self.pixels, axis=1)

    def at(self, percentile: float) -> np.ndarray:
        """Return a percentile of each row's valid pixels, linearly interpolated, float32 (row,); 0 for none."""
        return _at(self.ordered, self.count, percentile)

    @cached_property
    def least(self) -> np.ndarray:
        """The least valid pixel of each row, float32 (row,); 0 for none."""
        # fmin and fmax leave NaN out, at a third of the speed of min and max.
        return self.pixels.min(axis=1) if self.whole else self._or_zero(np.fmin.reduce(self.pixels, axis=1))

    @cached_property
    def greatest(self) -> np.ndarray:
        """The greatest valid pixel of each row, float32 (row,); 0 for none."""
        return self.pixels.max(axis=1) if self.whole else self._or_zero(np.fmax.reduce(self.pixels, axis=1))

    def _or_zero(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.count > 0, values, np.float32(0))

    def _fill_values(self, fill: str) -> np.ndarray:
        if fill == "median":
            return self.at(50.0)
        if fill == "minimum":
            return self.least
        return np.zeros(len(self.pixels), dtype=np.float32)


def _at(ordered: np.ndarray, count: np.ndarray, percentile: float) -> np.ndarray:
    position = np.maximum(count - 1, 0) * (percentile / 100.0)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    row = np.arange(len(ordered))
    low, high = ordered[row, below].astype(np.float64), ordered[row, above].astype(np.float64)
    value = low + (position - below) * (high - low)
    return np.where(count > 0, value, 0.0).astype(np.float32)


def _none(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    return rows.filled


def _minmax(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    return _between(rows.filled, rows.least, rows.greatest)


def _bytescale(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    # scipy.misc.bytescale, which the authors of the CLASH catalog used: 255 steps, rounded half up. They did it before
    # the resize and stretched the result to 0..1 again: the same within 2/255.
    scaled = _minmax(rows, section)
    return np.floor(scaled * np.float32(255) + np.float32(0.5)) / np.float32(255)


def _percentile(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    return _between(rows.filled, rows.at(section.low), rows.at(section.high))


def _range(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    low, high = (np.full(len(rows.filled), value) for value in (section.low_value, section.high_value))
    return _between(rows.filled, low, high)


def _maximum(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    # Dominguez Sanchez et al. (2019), section 3. The limit of -1 is ours: a deep hole beside a faint source would
    # otherwise be the largest number that the network sees.
    top = rows.greatest
    with np.errstate(over="ignore"):
        scaled = rows.filled / np.where(top > 0, top, 1)[:, None]
    np.maximum(scaled, np.float32(-1), out=scaled)
    scaled[~(top > 0)] = 0
    return scaled


def _asinh(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    median, noise, spread = _sky(rows)
    # More than half of the pixels equal: the range stands in for the noise.
    unit = (section.softening * np.where(noise > 0, noise, spread)).astype(np.float32)
    stretched = np.arcsinh((rows.filled - median[:, None]) / np.where(unit > 0, unit, 1)[:, None])
    peak = np.max(stretched, axis=1, where=rows.valid, initial=0)
    return stretched / np.where(peak > 0, peak, 1).astype(np.float32)[:, None]


def _sky(rows: _Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return median (float32), noise and greatest deviation from the median (float64) of each row."""
    median = rows.at(50.0)
    deviation = np.sort(np.abs(rows.ordered - median[:, None]), axis=1)
    noise = MAD_TO_SIGMA * _at(deviation, rows.count, 50.0).astype(np.float64)
    return median, noise, _at(deviation, rows.count, 100.0).astype(np.float64)


def _lupton(rows: _Rows, section: NormaliseSection) -> np.ndarray:
    shape = -1, rows.channels, rows.pixels.shape[1]
    there = (rows.count > 0).reshape(shape[:2])
    light = (rows.filled.astype(np.float64) - rows.at(50.0)[:, None]).reshape(shape)
    light = np.where(there[:, :, None], light, 0.0)
    scale = _lupton_scale(mean_light(light, there), rows.valid.reshape(shape).any(axis=1), section)
    return lupton(light, there, scale, section.q).astype(np.float32)


def _lupton_scale(intensity: np.ndarray, valid: np.ndarray, section: NormaliseSection) -> np.ndarray:
    with np.errstate(over="ignore"):
        known = _Rows(np.where(valid, intensity, np.nan).astype(np.float32), "zero", 1)
    _, noise, _ = _sky(known)
    brightest = np.maximum(known.greatest.astype(np.float64), 0)
    # More than half of the pixels equal: then the brightest one has F = 1.
    return np.where(noise > 0, section.stretch * noise, brightest * scale_to_peak(section.q))


def lupton(light: np.ndarray, there: np.ndarray, scale: np.ndarray, q: float) -> np.ndarray:
    """Compress bright light and keep the ratios of the bands: Lupton et al. (2004), equations 2 and 3.

    The mean I of the bands is taken to F(I) = 0.1 asinh(q I / scale) / asinh(0.1 q), each band is multiplied by
    F(I) / I, and a pixel with a band above 1 is divided by its brightest band. That is astropy's `make_lupton_rgb` with
    its `stretch` = scale, `Q` = q and `minimum` 0, but for rounding to 8 bits and with any number of bands.

    Parameters
    ----------
    light : float64 array (n, band, pixel)
        Above the sky; 0 in a band that is not there.
    there : bool array (n, band)
        Bands that count in the mean.
    scale : float64 array (n,)
        In the unit of `light`; where it is not positive the result is 0.
    q : float

    Returns
    -------
    float64 array (n, band, pixel), 0 to 1
        0 where I, or the band, is not above the sky.
    """
    intensity = mean_light(light, there)
    scale = scale[:, None]
    lit = (intensity > 0) & (scale > 0)
    compressed = 0.1 * np.arcsinh(q * (intensity / np.where(scale > 0, scale, 1))) / np.arcsinh(0.1 * q)
    factor = np.where(lit, compressed / np.where(lit, intensity, 1), 0)
    image = np.maximum(light * factor[:, None], 0)
    return image / np.maximum(image.max(axis=1, keepdims=True), 1)


def scale_to_peak(q: float) -> float:
    """Return the scale over the intensity that `lupton` takes to 1."""
    return float(q / np.sinh(10 * np.arcsinh(0.1 * q)))


def mean_light(light: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the mean (n, pixel) of the bands (n, band, pixel) that are there."""
    total = np.zeros((len(light), light.shape[2]))
    # Band by band: the order of the sum is then the same in any array.
    for band in range(light.shape[1]):
        total += light[:, band]
    return total / np.maximum(there.sum(axis=1), 1)[:, None]


def _between(filled: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map low..high of each row to 0..1, clipped; rows without a range become 0."""
    # In float64: the difference of two float32 extremes can overflow.
    span = high.astype(np.float64) - low
    scaled = np.subtract(filled, low[:, None], dtype=np.float64)
    scaled /= np.where(span > 0, span, 1.0)[:, None]
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if not (span > 0).all():
        scaled[~(span > 0)] = 0
    return scaled.astype(np.float32)


METHODS: dict[str, Callable[[_Rows, NormaliseSection], np.ndarray]] = {
    "none": _none,
    "minmax": _minmax,
    "bytescale": _bytescale,
    "percentile": _percentile,
    "asinh": _asinh,
    "maximum": _maximum,
    "range": _range,
    "lupton": _lupton,
}
"""Method name -> function of rows and section to scaled rows."""
