"""The labelled stamps that a recipe describes, wherever they are."""

from __future__ import annotations

from catmorph.errors import UsageError
from catmorph.labels.files import labelled_stamp_files
from catmorph.labels.shards import labelled_shards
from catmorph.labels.stamps import LabelledStamps
from catmorph.labels.tables import read_labels
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder


def labelled_stamps(run: RunFolder) -> tuple[LabelledStamps, list[str]]:
    """Return the normalised stamps that have a label, and what was left over, a line each.

    They come from the files of ``labels.stamp_files`` where the recipe names such, else from the shards of `run`.

    Raises
    ------
    UsageError
        When the recipe names no label table.
    CatmorphError
        When a shard is missing or the label table does not fit.
    """
    section = run.recipe.labels
    if section.table is None:
        raise UsageError("the recipe names no label table", hint="set labels.table")
    scheme = load_scheme(run.recipe.scheme)
    table = read_labels(section.table, scheme, id_column=section.id_column, votes_column=section.votes_column)
    if section.stamp_files is not None:
        return labelled_stamp_files(run.recipe, table)
    return labelled_shards(run, table)
