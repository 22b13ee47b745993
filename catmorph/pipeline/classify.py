"""The `classify` stage: every network of the recipe over the stamps."""

from __future__ import annotations

from collections.abc import Iterable

from catmorph.errors import UsageError
from catmorph.inference import classify as inference
from catmorph.inference.members import Member, all_members
from catmorph.pipeline.report import StageReport
from catmorph.progress import progress
from catmorph.quality import Flag
from catmorph.workspace import RunFolder

_NOT_FINITE = Flag.NOT_FINITE.name or ""


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every network of the recipe, one by one."""
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    views = run.chosen_views(bands)
    for member in all_members(run.recipe):
        _classify_by(run, member, views, report, device=device, precision=precision, shown=shown)
    return report


def _classify_by(
    run: RunFolder, member: Member, views: Iterable[str], report: StageReport, *, device: str, precision: str | None,
    shown: bool,
) -> None:
    """Classify with one network, and add what it did to the report."""
    predictor = inference.load_predictor(run, member, device=device, precision=precision)
    todo, before = [], report.flags[_NOT_FINITE]
    for task in inference.logits_tasks(run, member, views, predictor.fingerprint):
        state = inference.task_state(run, task)
        if state.done:
            report.kept += 1
            _count_logits(report, state.marker["classified"], state.marker["blocked"], state.marker["flags"])
        else:
            todo.append(task)
            report.note_why(task.product, state.why)
    report.warn_of_damage()
    results = inference.classify(run, predictor, todo)
    for result in progress(results, total=len(todo), label=member.label, shown=shown):
        report.made += 1
        report.warnings += [result.note] if result.note else []
        report.worked += result.classified
        report.passes += result.classified * predictor.passes
        _count_logits(report, result.classified, result.blocked, result.flags)
    spoilt = report.flags[_NOT_FINITE] - before
    if spoilt and member.name:
        report.warnings.append(f"{member.checkpoint}: its output is not finite for {spoilt} (source, view)s; the "
                               f"ensemble {member.classifier!r} has no probabilities for them")


def _count_logits(report: StageReport, classified: int, blocked: int, flags: dict[str, int]) -> None:
    report.counts.update({"classified": classified, "blocked": blocked})
    # The others are those of the stamps, which the stage before has told.
    report.flags.update({name: count for name, count in flags.items() if name == _NOT_FINITE})
