"""The `export` and `summarize` stages: the released catalog and what it counts, from logits that are up to date."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from catmorph.errors import CatmorphError
from catmorph.inference import tasks as inference
from catmorph.inference.members import all_members
from catmorph.ledger import State
from catmorph.pipeline.ingest import refuse_damaged_sources
from catmorph.release.bundle import ExportResult
from catmorph.release.bundle import export as export_release
from catmorph.release.kept import changed_since_export
from catmorph.release.summary import Summary
from catmorph.release.summary import summarize as summarize_release
from catmorph.workspace import RunFolder


def run_release(
    run: RunFolder, formats: Iterable[str] = (), *, workers: int = 1, shown: bool = False
) -> ExportResult:
    """Write the released catalog in `formats` (default: the recipe's); see `catmorph.release.bundle.export`.

    Raises
    ------
    CatmorphError
        When sources or logits are missing, damaged or not what the recipe asks for.
    """
    with run.ledger.remembered():
        run.ledger.once(lambda: refuse_outdated(run), "logits")
        result = export_release(run, tuple(formats), workers=workers, shown=shown, compared=True)
    run.identities.save()
    return result


def run_summary(run: RunFolder, *, workers: int = 1, shown: bool = False) -> Summary:
    """Write the summaries, and the figures that the recipe asks for.

    See `catmorph.release.summary.summarize` and `catmorph.report.release_figures.draw_release`.
    """
    with run.ledger.remembered():
        run.ledger.once(lambda: refuse_outdated(run), "logits")
        figures: list[Path] = []
        if run.recipe.evaluation.of_release:
            # Matplotlib takes half a second to import.
            from catmorph.report.release_figures import draw_release

            figures = draw_release(run, workers=workers)
        _remove_older_figures(run, figures)
        names = [path.name for path in figures]
        summary = summarize_release(run, names, workers=workers, shown=shown, compared=True)
        return replace(summary, changed=changed_since_export(run))


def _remove_older_figures(run: RunFolder, drawn: list[Path]) -> None:
    """Remove figures of a recipe that asked for more: a release holds nothing that is out of date."""
    folder = run.release_folder() / "figures"
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".pdf") and path not in drawn:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def refuse_outdated(run: RunFolder) -> None:
    """Refuse to release logits that are missing, damaged, or made with other stamps or another checkpoint.

    Mosaics are not looked at: they may be gone once the stamps are cut.
    """
    refuse_damaged_sources(run)
    for member in all_members(run.recipe):
        tasks = inference.recorded_tasks(run, member)
        states = [(task.product, inference.task_state(run, task)) for task in tasks]
        bad = [(product, state) for product, state in states if not state.done]
        if bad:
            raise _outdated(*bad[0], f"{len(bad)} of {len(tasks)}")
        if len({task.parts.values["classifier"] for task in tasks}) > 1:
            raise CatmorphError(f"logits of {member.label!r} were made on different devices or in different precision",
                                where=run.path, hint="run `catmorph run` or `catmorph classify`")


def _outdated(product: Path, state: State, how_many: str) -> CatmorphError:
    kind = "missing" if state.name == "missing" else "out of date"
    stage = "cutouts` and `catmorph classify" if "stamps" in state.why else "classify"
    return CatmorphError(f"{kind} ({state.why}), as {how_many} logits files are", where=product,
                         hint=f"run `catmorph run` or `catmorph {stage}`")
