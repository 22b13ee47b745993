"""What the files of a ledger must hold to be believed: someone may have edited one since, and sealed it anew."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from catmorph.files import read_sealed
from catmorph.places import COUNTS, EXPORT, IDENTITIES, LOGITS, MEF_STAMPS, STAMPS

Count = Annotated[int, Field(ge=0, lt=2**53)]
_Reasons = list[Annotated[list[str], Field(min_length=2, max_length=2)]]
"""Files, each with why it could not be read."""
_Identity = Annotated[tuple[int, int, int, str], Field(strict=False)]
"""Size, time of change, inode and checksum; a list in JSON."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Marker(_Part):
    fingerprint: str
    parts: dict[str, Any]
    kept: bool = True
    size: Count = 0
    checksum: str = ""


class _Rows(_Part):
    read: Count
    rejected: Count
    sources: Count

    @model_validator(mode="after")
    def _add_up(self) -> _Rows:
        if self.read != self.rejected + self.sources:
            raise ValueError("rows are lost")
        return self


class _Match(_Part):
    name: str
    matched: Count
    without_position: Count
    contested: Count
    several: Count
    shared: Count


class _Sources(_Marker):
    counts: _Rows
    matches: list[_Match] = []
    empty: list[str] = []


class _Stamps(_Marker):
    sources: Count
    stamps: Count
    blocked: Count
    flags: dict[str, Count]
    failures: _Reasons
    bad_images: _Reasons = []


class _Network(_Part):
    classifier: str


class _Logits(_Marker):
    parts: _Network  # type: ignore[assignment]
    classified: Count
    blocked: Count
    flags: dict[str, Count]


class _Files(_Marker):
    sources: Count
    files: Count


class _Identities(_Part):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Identity] = Field(init=False)
    derived: dict[str, str] = {}


class _Written(_Part):
    bytes: Count
    checksum: str


class _Account(_Part):
    model_config = ConfigDict(extra="forbid")
    read: Count
    rejected: Count
    omitted: Count
    released: Count
    widths: dict[str, Count]


class _Export(_Part):
    fingerprint: str
    sources: str | None
    files: dict[str, _Written]
    formats: dict[str, str]
    account: _Account


class _Tally(_Part):
    sources: Count
    classified: Count
    counted: Count
    kept: Count
    mergers: Count
    flags: dict[str, Count]
    most_probable: list[Count]
    above: list[Count]
    sums: list[Annotated[int, Field(ge=0, lt=2**100)]]

    @model_validator(mode="after")
    def _are_parts(self) -> _Tally:
        if not max(self.kept, self.mergers) <= self.counted <= self.classified <= self.sources:
            raise ValueError("more than there are")
        if not len(self.most_probable) == len(self.above) == len(self.sums):
            raise ValueError("other classes")
        return self


class _Counted(_Part):
    sources: Count
    released: Count
    tallies: list[_Tally]


class _Groups(_Part):
    none: Count
    overlapping: Count
    each: dict[str, _Counted]


class _Whole(_Part):
    sources: Count
    released: Count
    faulty: Count
    fields: dict[str, _Counted]
    groups: _Groups

    @model_validator(mode="after")
    def _add_up(self) -> _Whole:
        for name in ("sources", "released"):
            if getattr(self, name) != sum(getattr(one, name) for one in self.fields.values()):
                raise ValueError("other fields")
        return self


class _Counts(_Part):
    fingerprint: str
    counts: _Whole


_MODELS: dict[str, type[_Part]] = {
    "sources.parquet": _Sources, STAMPS: _Stamps, MEF_STAMPS: _Files, LOGITS: _Logits,
    IDENTITIES: _Identities, EXPORT: _Export, COUNTS: _Counts,
}
"""By the first part of the path of a product in its run folder, or by the name of a file that is no marker."""


def read_believed(path: str | os.PathLike[str], name: str) -> dict[str, Any] | None:
    """Read a file of the ledger; None where there is none, it is damaged, or not what the ledger holds under `name`.

    Parameters
    ----------
    name : str
        The path of a marker's product in its run folder, or the name of a file that is no marker.
    """
    found = read_sealed(path)
    if found is None:
        return None
    try:
        _MODELS.get(name.partition(os.sep)[0], _Marker).model_validate(found)
    except (ValidationError, OverflowError):
        return None
    return found
