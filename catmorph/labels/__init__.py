"""Human labels: votes, label tables, and the stamps they belong to."""

from __future__ import annotations

from catmorph.labels.gather import check_labels, labelled_stamps
from catmorph.labels.split import Split, split_sources
from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.tables import LabelMatch, LabelTable, match_labels, read_labels, stamp_names

__all__ = [
    "LabelMatch",
    "LabelTable",
    "LabelledStamps",
    "Split",
    "check_labels",
    "labelled_stamps",
    "match_labels",
    "read_labels",
    "split_sources",
    "stamp_names",
]
