"""Labelled stamps in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class LabelledStamps:
    """Normalised stamps with the vote fractions people gave them.

    Parameters
    ----------
    inputs : ndarray of float32, shape (n, channel, y, x)
        What the network sees: after normalisation, without NaN.
    fractions : ndarray of float32, shape (n, class)
        Vote fractions in the order of the scheme's classes; rows sum to 1 for softmax schemes.
    fields, ids, views : ndarray of str, shape (n,)
        Field and id make the source; one source may have stamps in several views.
    votes : ndarray of int, shape (n,), optional
        Number of votes behind each row of fractions.
    names : ndarray of str, shape (n,), optional
        What the label table calls each stamp.
    ra, dec, magnitude, size_arcsec : ndarray of float64, shape (n,), optional
        Of the source: position (ICRS, degrees), magnitude and radius in arcsec, NaN where the survey has none.
    survey : mapping of str to ndarray, shape (n,) each, optional
        All columns of the source, as `catmorph.sources.regions.source_columns` returns them.
    top_first : ndarray of bool, shape (n, channel), optional
        Whether the first row of pixels is the top one, as `catmorph.stamps.store.Shard` has it; None: the last is.
    """

    inputs: np.ndarray
    fractions: np.ndarray
    fields: np.ndarray
    ids: np.ndarray
    views: np.ndarray
    votes: np.ndarray | None = None
    names: np.ndarray | None = None
    ra: np.ndarray | None = None
    dec: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    size_arcsec: np.ndarray | None = None
    survey: Mapping[str, np.ndarray] | None = None
    top_first: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.inputs)
        for name, array in self.columns().items():
            if len(array) != count:
                raise ValueError(f"{name} has {len(array)} rows, inputs has {count}")
        if self.inputs.ndim != 4 or self.inputs.dtype != np.float32:
            raise ValueError(f"inputs must be float32 (n, channel, y, x), not {self.inputs.dtype} {self.inputs.shape}")

    def __len__(self) -> int:
        return len(self.inputs)

    def columns(self) -> dict[str, np.ndarray]:
        """Return every array that is there, by name, but for those of `survey`."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "survey"}
        return {name: value for name, value in values.items() if value is not None}

    def take(self, rows: np.ndarray) -> LabelledStamps:
        """Return the stamps of `rows`, in that order."""
        survey = None if self.survey is None else {name: values[rows] for name, values in self.survey.items()}
        return LabelledStamps(**{name: value[rows] for name, value in self.columns().items()}, survey=survey)

    def top_of(self, row: int) -> tuple[bool, ...]:
        """Return whether the first row of pixels is the top one, for each channel of a stamp."""
        return (False,) * self.inputs.shape[1] if self.top_first is None else tuple(self.top_first[row].tolist())

    @property
    def sources(self) -> np.ndarray:
        """Number of each stamp's source, shape (n,): equal for stamps of one (field, id), counted in their order."""
        keys = np.array([f"{field}\0{name}" for field, name in zip(self.fields, self.ids, strict=True)])
        return np.unique(keys, return_inverse=True)[1]

    @property
    def called(self) -> np.ndarray:
        """What messages and files call each stamp, shape (n,): its name in the label table, else field, view, id."""
        if self.names is not None:
            return np.asarray(self.names)
        rows = zip(self.fields, self.views, self.ids, strict=True)
        return np.array(["_".join(map(str, row)) for row in rows])

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views that occur, sorted."""
        return tuple(sorted(set(map(str, self.views))))
