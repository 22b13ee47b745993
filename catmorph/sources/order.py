"""The natural order of identifiers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def natural_rank(identifiers: np.ndarray) -> np.ndarray:
    """Return each identifier's place (row,) in the `natural_order`."""
    order = natural_order(pa.array(identifiers, pa.string()))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def natural_order(texts: pa.StringArray) -> np.ndarray:
    """Return the rows (row,) in order: whole numbers first, by value, then everything else as text."""
    whole = pc.match_substring_regex(texts, r"\A[0-9]{1,18}\z")
    value = pc.if_else(whole, texts, "0").cast(pa.int64())
    table = pa.table({"other": pc.invert(whole).cast(pa.int8()), "value": value, "text": texts})
    return pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names]).to_numpy()
