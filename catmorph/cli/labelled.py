"""The labelled stamps that a command works on, cut first where they are not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catmorph.cli.common import Session
from catmorph.cli.production import tell
from catmorph.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from catmorph.labels import LabelledStamps


def gather(session: Session, *, workers: int, scheduler: str | None, columns: bool = False) -> LabelledStamps:
    """Return the labelled stamps of the session's recipe, and say what was left over.

    The run folder's lock must be held. Stamp files (``labels.stamp_files``) need no cutting, and no survey table but
    with `columns`, where the recipe's [evaluation] has expressions on its columns.
    """
    from catmorph.labels import check_labels, labelled_stamps
    from catmorph.pipeline.cutouts import run_cutouts
    from catmorph.pipeline.ingest import prepare, run_ingest
    from catmorph.sources.names import check_names

    folder = session.run
    if session.recipe.labels.stamp_files is None:
        check_names(session.recipe)
        check_labels(session.recipe)
    prepare(folder)
    if session.recipe.labels.stamp_files is None:
        tell(session, run_ingest(folder))
        tell(session, run_cutouts(folder, workers=workers, scheduler=scheduler, shown=session.shows_progress))
    elif columns and session.recipe.evaluation.needs_columns:
        _read_survey(session)
    data, left_over = labelled_stamps(folder)
    session.say(f"labels: {len(data):,} labelled stamps")
    for line in left_over:
        session.warn(line)
    return data


def _read_survey(session: Session) -> None:
    """Read the survey table in, for stamps that are files."""
    from catmorph.pipeline.ingest import run_ingest
    from catmorph.sources.names import check_names

    try:
        check_names(session.recipe)
        tell(session, run_ingest(session.run))
    except CatalogError as error:
        raise UsageError(f"evaluation.groups, colour_magnitude and pairs need the survey table: {error.message}",
                         where=error.where, hint="give it in [catalog], or leave them out of the recipe") from error
