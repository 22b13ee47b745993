"""The natural order of identifiers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catmorph.sources.arrow import number_array, numbers_of


def natural_rank(texts: pa.StringArray | pa.LargeStringArray | pa.ChunkedArray) -> np.ndarray:
    """Return each text's place (row,) in the `natural_order`."""
    order = natural_order(texts)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def natural_order(texts: pa.StringArray | pa.LargeStringArray | pa.ChunkedArray) -> np.ndarray:
    """Return the rows (row,) in order: whole numbers first, by value, then everything else as text."""
    whole = pc.match_substring_regex(texts, r"\A[0-9]{1,18}\z")
    are_whole, value = numbers_of(whole)[0], np.zeros(len(texts), dtype=np.int64)
    value[are_whole] = numbers_of(texts.filter(whole).cast(pa.int64()))[0]
    table = pa.table([number_array((~are_whole).view(np.int8)), number_array(value), texts], ["other", "value", "text"])
    return numbers_of(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names]))[0]
