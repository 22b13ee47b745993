"""The sections of a recipe on the released catalog and its summaries."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catmorph.recipe.base import SAFE_NAME, Section, Strings


class ReleaseColumn(Section):
    """A leading column of the release."""

    name: str = Field(description="name in the released table")
    source: str = Field(description="field, id, ra, dec, size_arcsec, magnitude, or a kept column")
    decimals: int | None = Field(None, ge=0, le=12, description="decimals in CSV")
    ucd: str | None = Field(None, description="IVOA unified content descriptor")
    description: str | None = Field(None, description="what it is")


class ReleaseSection(Section):
    """Layout of the released catalog."""

    name: str = Field("catalog", pattern=SAFE_NAME, description="file name without ending")
    formats: Strings = Field(("csv",), description="formats that `export` and `run` write")
    require: Literal["any", "all", "none"] = Field(
        "any", description="a source is released with a classified stamp in `any` view, or in `all`; `none`: all "
        "sources, whether classified or not"
    )
    columns: tuple[ReleaseColumn, ...] = Field(
        (
            ReleaseColumn(name="field", source="field"),
            ReleaseColumn(name="id", source="id"),
            ReleaseColumn(name="ra", source="ra", decimals=6),
            ReleaseColumn(name="dec", source="dec", decimals=6),
        ),
        description="leading columns, in order",
    )
    probability: str = Field(
        "{view}_{class}",
        description="name of a probability column, from {classifier}, {view}, {class}, {code}; filters "
        "|lower |upper |capital",
    )
    quantity: str = Field(
        "{view}_{quantity}",
        description="name of the columns that formats other than CSV add for a view, from {classifier}, {view} "
        "and {quantity} (class, entropy, flags; for ensembles mutual_information)",
    )
    spread: str = Field(
        "{probability}_spread",
        description="name of the column with the standard deviation of a probability among the members of an "
        "ensemble, from {probability} (the name of its column), {classifier}, {view}, {class}, {code}",
    )
    decimals: int = Field(4, ge=1, le=12, description="decimals of probabilities in CSV")


class SummarySection(Section):
    """What `summarize` counts."""

    threshold: float = Field(0.5, ge=0, le=1, description="probability from which a class counts as confident")
    merger_class: str | None = Field(None, description="class of the merger fraction; default: the scheme's own")
    merger_threshold: float = Field(0.30, gt=0, le=1, description="probability from which it counts as merger")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
