"""Kinds of sources as data: what they are made of, how common they are, and what people call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from catmorph.simulate.spec_base import Fraction, Model, Numbers, Range


class Part(Model):
    """Light of one shape and colour; several of it are scattered about the centre."""

    profile: Literal["sersic", "point"] = Field("sersic", description="Sersic profile, or a point.")
    index: Annotated[float, Field(ge=0.5, le=6)] = Field(1.0, description="Sersic index.")
    r50_arcsec: Range = Field((0.1, 0.1), description="Half-light radius before the PSF.")
    axis_ratio: Range = Field((0.7, 1.0), description="Minor over major axis.")
    share: Range = Field((1.0, 1.0), description="Flux of this part relative to the other parts of the source.")
    number: Numbers = Field((1, 1), description="How many; the share is divided among them at random.")
    spread_arcsec: Range = Field((0.0, 0.0), description="Standard deviation of their places about the centre, in x "
                                 "and y.")
    colour: str | tuple[str, ...] = Field(description="Name of its colours in [colours]; of several, one is drawn.")

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours that it may have."""
        return (self.colour,) if isinstance(self.colour, str) else self.colour

    @field_validator("r50_arcsec", "axis_ratio", "share")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] > 0:
            raise ValueError("must be above 0")
        return value

    @field_validator("number")
    @classmethod
    def _some(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] < 1:
            raise ValueError("must be 1 or more")
        return value


class Kind(Model):
    """A kind of source."""

    weight: float = Field(ge=0, description="Relative number of sources of this kind.")
    answer: str = Field("", description="What people call it in the label table; none: it is not labelled.")
    listed: bool = Field(True, description="Whether it is in the catalog, or only in the mosaics.")
    magnitude: Range | None = Field(None, description="AB magnitudes in the reference band; default: those of "
                                    "[population].")
    flag: int = Field(0, ge=0, description="Bits added to its FLAG in the catalog, such as 4 for stars.")
    redshift: Range | None = Field(None, description="Redshifts, for the catalog's Z_SPEC.")
    parts: tuple[Part, ...] = Field(min_length=1, description="What it is made of.")


class Experts(Model):
    """Those who classify sources one by one, a class each."""

    number: int = Field(3, ge=1, le=9, description="How many look at each source.")
    agreement: Fraction = Field(0.85, description="Chance that one of them gives the source's own class at high signal "
                                "to noise; otherwise any class that occurs.")
    half_snr: float = Field(8.0, gt=0, description="Signal to noise in the reference band at which that chance is half "
                            "of it.")
    spectra: Fraction = Field(0.0, description="Fraction of the sources with a spectroscopic redshift.")


def kind_problems(
    kinds: Mapping[str, Kind], colours: Mapping[str, Mapping[str, float]], bands: list[str]
) -> list[str]:
    """Return what of kinds and colours does not fit together."""
    problems = [
        f"colours.{name} has no value for band {band!r}"
        for name, values in colours.items() for band in bands if band not in values
    ]
    problems += [
        f"kinds.{name} names colour {colour!r}, which [colours] does not have"
        for name, kind in kinds.items() for part in kind.parts for colour in part.colours if colour not in colours
    ]
    if kinds and not sum(kind.weight for kind in kinds.values()) > 0:
        problems.append("kinds: no weight is above 0")
    return problems
