"""Labelled stamps in memory, and their division into training, validation and test subsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catmorph.errors import UsageError
from catmorph.recipe import TrainingSection


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
    """

    inputs: np.ndarray
    fractions: np.ndarray
    fields: np.ndarray
    ids: np.ndarray
    views: np.ndarray
    votes: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.inputs)
        arrays = {"fractions": self.fractions, "fields": self.fields, "ids": self.ids, "views": self.views}
        if self.votes is not None:
            arrays["votes"] = self.votes
        for name, array in arrays.items():
            if len(array) != count:
                raise ValueError(f"{name} has {len(array)} rows, inputs has {count}")
        if self.inputs.ndim != 4 or self.inputs.dtype != np.float32:
            raise ValueError(f"inputs must be float32 (n, channel, y, x), not {self.inputs.dtype} {self.inputs.shape}")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def sources(self) -> np.ndarray:
        """Number of each stamp's source, shape (n,): equal for stamps of one (field, id), counted in their order."""
        keys = np.array([f"{field}\0{name}" for field, name in zip(self.fields, self.ids, strict=True)])
        return np.unique(keys, return_inverse=True)[1]

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views that occur, sorted."""
        return tuple(sorted(set(map(str, self.views))))


@dataclass(frozen=True)
class Split:
    """Row numbers of the three subsets, each sorted."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return the number of stamps in each subset."""
        return {name: len(getattr(self, name)) for name in ("training", "validation", "test")}


def split_sources(data: LabelledStamps, section: TrainingSection) -> Split:
    """Divide `data` by source, so that no source is in two subsets even through different views.

    The test subset is all sources of ``section.test_fields`` where given, else a fraction; the validation
    subset is a fraction of the sources that are not of test fields. The division depends on the seed and on
    which sources there are, not on their order.

    Raises
    ------
    UsageError
        When a test field does not occur, or a subset would be empty.
    """
    source = data.sources
    fields = np.asarray(data.fields).astype(str)
    missing = sorted(set(section.test_fields) - set(fields))
    if missing:
        raise UsageError(f"training.test_fields: no labelled stamp is in field {', '.join(missing)}")
    held = np.unique(source[np.isin(fields, section.test_fields)])
    free = np.setdiff1d(np.arange(source.max(initial=-1) + 1), held)
    free = np.random.default_rng(section.seed).permutation(free)
    n_validation = round(section.validation * len(free))
    n_test = 0 if section.test_fields else round(section.test * len(free))
    parts = np.split(free, [n_validation, n_validation + n_test])
    members = {"validation": parts[0], "test": np.union1d(held, parts[1]), "training": parts[2]}
    rows = {name: np.flatnonzero(np.isin(source, chosen)) for name, chosen in members.items()}
    for name, found in rows.items():
        if not len(found):
            raise UsageError(
                f"the {name} subset would be empty: {len(data)} labelled stamps of {len(free) + len(held)} sources",
                hint="label more stamps or change training.validation, training.test and training.test_fields",
            )
    return Split(**rows)
