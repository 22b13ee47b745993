"""The sections of a recipe on bands, mosaics, stamps and what the network sees of them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from catmorph.recipe.base import PATTERN_WORDS, SAFE_NAME, Globs, PathMark, Section, Strings, as_tuple
from catmorph.templates import pattern_problem

_SIDE = re.compile(r"^\s*(\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(radii|arcsec|pixels|image)\s*$")


class BandColumns(Section):
    """The bands of the survey."""

    names: Strings = Field(min_length=1, description="band names, in the order of the release (usually by wavelength)")
    files: dict[str, Strings] = Field({}, description="what {band} stands for in file names, where not the name; of "
                                      "several, a field takes the first that it has mosaics of")
    reference: str | None = Field(None, description="band whose pixels count where a size is in pixels")
    colour: Strings = Field((), description="bands drawn as red, green and blue in pictures of views of three or more "
                            "bands; each may be a sum, such as 'F438W+F555W'; default: the last, middle and first band "
                            "of the view, and the planes of 8-bit pictures in their order")

    @model_validator(mode="after")
    def _known(self) -> BandColumns:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a band is named twice")
        for name in self.names:
            if not re.fullmatch(SAFE_NAME, name):
                raise ValueError(f"band name {name!r} {PATTERN_WORDS[SAFE_NAME]}")
        for name, stands in self.files.items():
            if not stands or len(set(stands)) != len(stands):
                raise ValueError(f"bands.files.{name} must be a name, or several different ones")
        for name in [*self.files, *([self.reference] if self.reference else [])]:
            if name not in self.names:
                raise ValueError(f"unknown band {name!r}; bands are {', '.join(self.names)}")
        if self.colour and len(self.colour) != 3:
            raise ValueError(f"colour must name what is red, green and blue, not {len(self.colour)} of them")
        for colour in self.colour_bands:
            for name in colour:
                if name not in self.names:
                    raise ValueError(f"colour: unknown band {name!r}; bands are {', '.join(self.names)}")
        return self

    @property
    def colour_bands(self) -> tuple[tuple[str, ...], ...]:
        """The bands summed for red, green and blue; none where `colour` does not say. A ``+`` may be part of a name."""
        return tuple((text,) if text in self.names else tuple(part.strip() for part in text.split("+"))
                     for text in self.colour)


MapPattern = Annotated[str | None, PathMark(is_pattern=True, looked_for=False)]
"""The pattern of what lies beside the mosaics."""


class MosaicSection(Section):
    """The images the stamps are cut from."""

    pattern: Globs = Field(min_length=1, description="file pattern(s) with {field} and {band}, globs allowed; "
                           "several files for one field and band are tiles")
    hdu: int | str | None = Field(None, description="HDU with the image; default: the first with a 2-d image")
    weight: MapPattern = Field(None, description="pattern of weight maps: weight <= 0 or not finite is invalid")
    weight_hdu: int | str | None = Field(None, description="HDU of the weight map")
    flag: MapPattern = Field(None, description="pattern of integer flag maps")
    flag_hdu: int | str | None = Field(None, description="HDU of the flag map")
    flag_bits: int | None = Field(None, ge=0, description="bits of the flag map that make a pixel invalid; "
                                  "default: any")
    blank: Annotated[tuple[float, ...], BeforeValidator(as_tuple)] = Field(
        (), description="pixel values that mean 'not observed', such as 0"
    )

    @field_validator("pattern", "weight", "flag")
    @classmethod
    def _placeholders(cls, value: Any) -> Any:
        for pattern in (value,) if isinstance(value, str) else value or ():
            problem = pattern_problem(pattern, ("field", "band"))
            if problem:
                raise ValueError(problem)
        return value


class StampSection(Section):
    """Geometry of the stamps."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"missing", "max_missing"})

    side: str = Field("4 radii", description="side of the square: '<n> radii', '<n> arcsec', '<n> pixels' "
                      "(native pixels of bands.reference) or, of [images], '<n> image' (the shorter side)")
    pixels: int = Field(80, ge=4, le=2048, description="stamp size in pixels, after resampling")
    resample: Literal["bilinear", "area"] = Field(
        "bilinear", description="triangle filter (widened when shrinking, as PIL's bilinear) or pixel areas"
    )
    orientation: Literal["mosaic", "north"] = Field("mosaic", description="pixel axes of the mosaic, or north up, "
                                                    "east left")
    values: Literal["surface_brightness", "flux"] = Field(
        "surface_brightness", description="keep the value a native pixel, or the flux a stamp pixel"
    )
    min_side_pixels: float = Field(2.0, gt=0, description="smaller stamps (native pixels) are flagged BAD_SIZE")
    max_side_pixels: float = Field(4096.0, gt=0, description="larger stamps (native pixels) are flagged BAD_SIZE")
    max_bad_fraction: float = Field(0.5, ge=0, le=1, description="more invalid pixels than this: BAD_PIXELS")
    min_signal: float | None = Field(None, description="signal-to-noise ratio below which LOW_SIGNAL warns")
    missing: Literal["flag", "zero"] = Field(
        "flag", description="a view of several bands where one has no mosaic, does not reach the source or was not "
        "observed there: flag: no stamp; zero: the network sees zeros in its place, MISSING_BAND warns"
    )
    max_missing: int = Field(1, ge=1, description="missing = 'zero': where more bands are missing, or all, there is no "
                             "stamp")

    @field_validator("side", mode="before")
    @classmethod
    def _side(cls, value: Any) -> Any:
        match = _SIDE.match(value) if isinstance(value, str) else None
        if not match or not 0 < float(match.group(1)) < math.inf:
            raise ValueError("must be a positive number and a unit: '4 radii', '10 arcsec' or '50 pixels'")
        return value

    @property
    def side_value(self) -> float:
        """The number of `side`."""
        return float(_SIDE.match(self.side).group(1))  # type: ignore[union-attr]

    @property
    def side_unit(self) -> str:
        """The unit of `side`: radii, arcsec, pixels or image."""
        return _SIDE.match(self.side).group(2)  # type: ignore[union-attr]


USED_OPTIONS: dict[str, tuple[str, ...]] = {
    "minmax": ("scope",),
    "bytescale": ("scope",),
    "percentile": ("low", "high", "scope"),
    "asinh": ("softening", "scope"),
    "maximum": ("scope",),
    "range": ("low_value", "high_value"),
    "lupton": ("stretch", "q"),
}
"""Normalisation method -> the options that it reads, besides `fill`."""


class NormaliseSection(Section):
    """How a stamp's pixels become the network's input, each stamp by itself. A band without a valid pixel is 0."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"scope", "low_value", "high_value", "stretch", "q"})

    method: Literal["none", "minmax", "bytescale", "percentile", "asinh", "maximum", "range", "lupton"] = Field(
        "minmax",
        description="none; minmax: (p - min) / (max - min); bytescale: the same in 256 steps, as the CLASH "
        "authors' code; percentile: clipped to low..high percentiles, to 0..1; asinh: asinh((p - median) / "
        "(softening * noise)), divided by its maximum, noise from the median absolute deviation; maximum: p / max, "
        "negative values not below -1, 0 where max is not positive; range: (p - low_value) / (high_value - low_value), "
        "clipped to 0..1; lupton: the colour composite of Lupton et al. (2004), see docs/normalisation.md",
    )
    scope: Literal["band", "stamp"] = Field(
        "band", description="minmax, bytescale, percentile, asinh, maximum: measured in each band by itself, or over "
        "all bands of the stamp together, which keeps their ratios"
    )
    low: float = Field(0.5, ge=0, lt=100, description="lower percentile")
    high: float = Field(99.5, gt=0, le=100, description="upper percentile")
    softening: float = Field(3.0, gt=0, description="asinh: where the stretch turns logarithmic, in noise sigmas")
    low_value: float = Field(0.0, description="range: pixel value that becomes 0")
    high_value: float = Field(255.0, description="range: pixel value that becomes 1")
    stretch: float = Field(10.0, gt=0, le=1e6, description="lupton: a tenth of this intensity (mean of the bands above "
                           "their medians, in noise sigmas) lies on the linear part, as astropy's stretch")
    q: float = Field(8.0, gt=0, le=1e3, description="lupton: the higher, the more faint light against bright")
    fill: Literal["zero", "median", "minimum"] = Field(
        "median", description="what the network sees instead of invalid pixels (before scaling)"
    )

    @model_validator(mode="after")
    def _combines(self) -> NormaliseSection:
        if self.low_value >= self.high_value:
            raise ValueError("low_value must be below high_value")
        if self.scope == "stamp" and "scope" not in USED_OPTIONS.get(self.method, ()):
            able = ", ".join(method for method, options in USED_OPTIONS.items() if "scope" in options)
            raise ValueError(f"scope = 'stamp' is for the methods {able}, not {self.method}")
        return self
