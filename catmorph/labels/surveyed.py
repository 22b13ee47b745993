"""The columns of the survey table for stamps that are files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa

from catmorph.errors import UsageError, listed
from catmorph.labels.sources import read_all_sources
from catmorph.labels.stamps import LabelledStamps
from catmorph.sources.regions import source_columns
from catmorph.workspace import RunFolder


def with_survey(run: RunFolder, data: LabelledStamps) -> tuple[LabelledStamps, list[str]]:
    """Return stamps that are files with the columns of their sources, which field and id tell, or the id alone.

    Where the names of the files hold no field, an id that several fields have tells none. Stamps of no source have no
    values: in an expression these are missing.

    Returns
    -------
    stamps : LabelledStamps
        With `survey`, and with the magnitudes and sizes of the sources.
    left_over : list of str
        A line where stamps are of no source.

    Raises
    ------
    UsageError
        When the sources are not there, or no stamp is of any of them.
    """
    table = read_all_sources(run)
    places = list(zip(table["field"].to_pylist(), table["id"].to_pylist(), strict=True))
    named = any(map(str, data.fields))
    counts = Counter(identifier for _, identifier in places)
    rows = {place if named else place[1]: row for row, place in enumerate(places) if named or counts[place[1]] == 1}
    keys = zip(map(str, data.fields), map(str, data.ids), strict=True)
    found = [rows.get(key if named else key[1]) for key in keys]
    if all(row is None for row in found):
        raise UsageError(f"no stamp file is of a source of the survey table: files say {str(data.called[0])!r}, the "
                         f"table {'/'.join(places[0]) if places else 'nothing'}", where=run.recipe.labels.stamp_files,
                         hint="set labels.stamp, catalog.field and catalog.id so that field and id agree")
    taken = table.take(pa.array(found, pa.int64()))
    columns = source_columns(taken)
    stamps = replace(data, survey=columns, magnitude=columns["magnitude"], size_arcsec=columns["size_arcsec"])
    lost = np.flatnonzero([row is None for row in found])
    lines = [f"{len(lost)} stamp files are of no source of the survey table: {listed(data.called[lost])}"]
    return stamps, lines if len(lost) else []
