"""Division of labelled stamps into training, validation and test subsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catmorph.errors import UsageError
from catmorph.labels.stamps import LabelledStamps
from catmorph.recipe import TrainingSection


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
