"""The `ingest` stage: the survey table, read in once; and what the other stages ask of it before they work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from catmorph.errors import CatmorphError
from catmorph.files import checksum, remove_partial_files
from catmorph.ledger import State
from catmorph.pipeline.report import StageReport
from catmorph.sources.inputs import ingest_parts, ingest_state
from catmorph.workspace import RunFolder


def prepare(run: RunFolder) -> None:
    """Make the run folder ready for work: format mark, resolved recipe, nothing half-written left over."""
    run.prepare()
    remove_partial_files(run.path)


def run_ingest(run: RunFolder) -> StageReport:
    """Read the survey table in, unless the sources are there, valid and undamaged."""
    report = StageReport("ingest")
    product, state = sources_state(run)
    if not state.done:
        # What reads tables takes a tenth of a second to import, which a run with its sources in place does without.
        from catmorph.sources.ingest import ingest as ingest_catalog

        report.note_why(product, state.why)
        report.warn_of_damage()
        counts = ingest_catalog(run)
        for product in (run.rejected_path(), run.plan_path()):
            run.ledger.write(product, ingest_parts(run))
        report.made = 1
    else:
        report.kept = 1
        counts = run.ingest_counts()
    report.counts.update({"rows read": counts["read"], "rejected": counts["rejected"], "sources": counts["sources"]})
    marker = run.ledger.read(run.sources_path()) or {}
    if report.made:
        report.warnings += [f"{name}: the file has no rows" for name in marker.get("empty", ())]
    for match in marker.get("matches", ()):
        report.counts[f"matched with {match['name']}"] += match["matched"]
        if report.made:
            from catmorph.sources.match import match_lines

            report.warnings += match_lines(match)
    return report


def sources_state(run: RunFolder) -> tuple[Path, State]:
    """Return whether the files of `ingest` are there, valid and, byte for byte, whole; and which of them is not."""
    states = [(run.sources_path(), ingest_state(run))]
    if states[0][1].done:
        states += [(path, run.ledger.state(path, ingest_parts(run), deep=True)) for path in _ingested(run)]
    return next((one for one in states if not one[1].done), states[0])


def _ingested(run: RunFolder) -> tuple[Path, ...]:
    return run.sources_path(), run.rejected_path(), run.plan_path()


def catalog_changes(run: RunFolder) -> str:
    """Say what of the catalog has changed since it was read in; nothing where it cannot be told."""
    try:
        state = ingest_state(run)
    except (CatmorphError, OSError):
        return ""
    return state.why if state.name == "stale" else ""


def refuse_before_work(run: RunFolder, bands: Iterable[str]) -> None:
    """Refuse an unknown band, or a folder without sound sources, before anything is written.

    Raises
    ------
    UsageError
        When a band is unknown or the survey table is not read in yet.
    CatmorphError
        When what was read in is damaged.
    """
    run.chosen_views(bands)
    run.ingest_counts()
    refuse_damaged_sources(run)


def refuse_damaged_sources(run: RunFolder) -> None:
    """Raise a CatmorphError when the bytes of what `ingest` wrote are not those that it wrote."""
    for product in _ingested(run):
        marker = run.ledger.read(product)
        if not product.exists():
            raise CatmorphError("is missing", where=product, hint="run `catmorph ingest`")
        if marker and checksum(product) != marker.get("checksum"):
            raise CatmorphError("is damaged: its bytes are not what was written", where=product,
                                hint="run `catmorph ingest`")
