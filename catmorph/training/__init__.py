"""Training of checkpoints from labelled stamps; needs the extra ``train``."""

from __future__ import annotations

from catmorph.training.data import LabelledStamps, Split, split_sources
from catmorph.training.labels import LabelMatch, LabelTable, match_labels, read_labels, stamp_names

__all__ = [
    "LabelMatch",
    "LabelTable",
    "LabelledStamps",
    "Split",
    "match_labels",
    "read_labels",
    "split_sources",
    "stamp_names",
]
