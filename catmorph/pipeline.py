"""The stages as functions of a run folder: what each finds done, makes, and reports.

`catmorph run` is these in a row. Each holds the folder's lock while it works, skips what is there and still
valid, and returns a `StageReport`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catmorph.errors import CatmorphError, UsageError
from catmorph.failures import write_failures
from catmorph.files import digest, remove_partial_files
from catmorph.inference import classify as inference
from catmorph.inference.members import Member, all_members
from catmorph.ledger import State
from catmorph.progress import progress
from catmorph.quality import Flag
from catmorph.release.bundle import ExportResult
from catmorph.release.bundle import export as export_release
from catmorph.release.summary import Summary
from catmorph.release.summary import summarize as summarize_release
from catmorph.sources.ingest import ingest as ingest_catalog
from catmorph.sources.ingest import ingest_parts, ingest_state
from catmorph.sources.match import match_lines
from catmorph.stamps import build, mef
from catmorph.stamps.block import may_be_missing
from catmorph.stamps.images_check import by_reason
from catmorph.stamps.mosaics import describe_unmatched
from catmorph.workspace import RunFolder

STAMPS_A_SECOND = 3000
"""Rough rate of one core, to tell whether worker processes pay."""

FILES_A_SECOND = 500
"""The same for FITS files of one source each."""

IMAGES_A_SECOND = 200
"""The same of JPEGs of 424 x 424 pixels, which are decoded whole."""

_MOST_REASONS = 10

_NOT_FINITE = Flag.NOT_FINITE.name or ""


@dataclass
class StageReport:
    """What a stage did.

    Attributes
    ----------
    made, kept : int
        Products made now, and found valid.
    counts : dict
        What the stage counts (rows, stamps ...), over products made and kept.
    flags : dict of str to int
        Flags of the (source, view)s, over products made and kept.
    failures : dict of str to str
        Mosaic or image -> why it could not be read, but may be another time.
    bad_images : dict of str to list of str
        Why images cannot be used as they are -> the images.
    why : dict of str to int
        Why products were made, with their number.
    warnings : list of str
        What a user should look at.
    worked : int
        (source, view)s of the products made now; of an ensemble, those of each member.
    passes : int
        How many stamps the networks have seen for that: more than `worked` with test-time augmentation.
    damaged : list of str
        Products whose bytes are not those that were written, and what is wrong with them.
    """

    stage: str
    made: int = 0
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    bad_images: dict[str, list[str]] = field(default_factory=dict)
    why: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    worked: int = 0
    passes: int = 0
    damaged: list[str] = field(default_factory=list)

    def note_why(self, product: Path, why: str) -> None:
        """Count why a product is made."""
        self.why[why] += 1
        if why.startswith("damaged"):
            self.damaged.append(f"{product}: {why}")

    def warn_of_damage(self) -> None:
        """Warn of the damaged products noted since the last time, by the first of them."""
        if self.damaged:
            others = f" (and {len(self.damaged) - 1} more)" if len(self.damaged) > 1 else ""
            self.warnings.append(f"{self.damaged[0]}{others}; made again")
            self.damaged.clear()

    def note_bad_images(self, images: Iterable[tuple[str, str]]) -> None:
        """Note images and why each cannot be used."""
        for image, reason in images:
            self.bad_images.setdefault(reason, []).append(image)

    def warn_of_bad_images(self) -> None:
        """Warn of the images noted, by the first of each reason and how many there are."""
        found = by_reason(self.bad_images, _MOST_REASONS)
        self.warnings += [f"{images}: {reason}; flagged, see failures.parquet" for images, reason in found]

    def facts(self) -> dict[str, Any]:
        """Return the report as plain values, for the log and run.json."""
        return {
            "made": self.made, "kept": self.kept, "worked": self.worked, "passes": self.passes,
            "counts": dict(self.counts),
            "flags": dict(self.flags), "failures": dict(self.failures), "why": dict(self.why),
            **({"bad_images": {reason: len(set(images)) for reason, images in sorted(self.bad_images.items())}}
               if self.bad_images else {}),
            "warnings": list(self.warnings),
        }

    def line(self) -> str:
        """Return the report as one line for people."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        flags = ", ".join(f"{count:,} {name}" for name, count in sorted(self.flags.items()))
        text = f"{self.stage}: {counts}; {self.made} made, {self.kept} up to date"
        return f"{text}; flags: {flags}" if flags else text


def prepare(run: RunFolder) -> None:
    """Make the run folder ready for work: format mark, resolved recipe, nothing half-written left over."""
    run.prepare()
    remove_partial_files(run.path)


def run_ingest(run: RunFolder) -> StageReport:
    """Read the survey table in, unless the sources are there, valid and undamaged."""
    report = StageReport("ingest")
    product, why = _why_ingest(run)
    if why:
        report.note_why(product, why)
        report.warn_of_damage()
        counts = ingest_catalog(run)
        for product in (run.rejected_path(), run.plan_path()):
            run.ledger.write(product, ingest_parts(run))
        report.made = 1
    else:
        report.kept = 1
        counts = run.ingest_counts()
    report.counts.update({"rows read": counts["read"], "rejected": counts["rejected"], "sources": counts["sources"]})
    for match in (run.ledger.read(run.sources_path()) or {}).get("matches", ()):
        report.counts[f"matched with {match['name']}"] += match["matched"]
        report.warnings += match_lines(match) if report.made else []
    return report


def _why_ingest(run: RunFolder) -> tuple[Path, str]:
    """Return which file of the sources is to be made again, and why; no reason where none is."""
    states = [(run.sources_path(), ingest_state(run))]
    if states[0][1].done:
        states += [(path, run.ledger.state(path, ingest_parts(run), deep=True)) for path in _ingested(run)]
    return next(((path, state.why) for path, state in states if not state.done), (run.sources_path(), ""))


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
    build.chosen_views(run, bands)
    run.ingest_counts()
    refuse_damaged_sources(run)


def refuse_damaged_sources(run: RunFolder) -> None:
    """Raise a CatmorphError when the bytes of what `ingest` wrote are not those that it wrote."""
    for product in _ingested(run):
        marker = run.ledger.read(product)
        if not product.exists():
            raise CatmorphError("is missing", where=product, hint="run `catmorph ingest`")
        if marker and digest(product) != marker["sha256"]:
            raise CatmorphError("is damaged: its bytes are not what was written", where=product,
                                hint="run `catmorph ingest`")


def run_cutouts(
    run: RunFolder, bands: Iterable[str] = (), *, workers: int = 1, scheduler: str | None = None, shown: bool = False,
    fail_fast: bool = False,
) -> StageReport:
    """Cut the stamps of the views called `bands` (default: all) that are not there or not valid any more.

    Raises
    ------
    CatmorphError
        With `fail_fast`, at the first mosaic that cannot be read; else its sources are flagged.
    """
    from catmorph.engine import run_tasks

    report = StageReport("cutouts")
    tasks = build.cut_tasks(run, build.chosen_views(run, bands))
    report.warnings += _unmatched_bands(run, tasks)
    run.identities.save()
    todo = []
    for task in tasks:
        state = build.task_state(run, task)
        if state.done:
            report.kept += 1
            _count_stamps(report, state.marker["sources"], state.marker["stamps"], state.marker["flags"])
            report.note_bad_images(state.marker.get("bad_images", []))
        else:
            todo.append(task)
            report.note_why(task.shard, state.why)
            report.warnings += _given_up(task, state.marker.get("stamps", 0))
    report.warn_of_damage()
    rate = IMAGES_A_SECOND if run.recipe.images else STAMPS_A_SECOND
    seconds = sum(task.chunk.count for task in todo) / rate
    results = run_tasks(build.cut_chunk, todo, workers=workers, estimated_seconds=seconds, scheduler=scheduler)
    try:
        # Closing the generator ends its worker processes, also where this loop is left early.
        with closing(progress(results, total=len(todo), label="cutouts", shown=shown)) as shown_results:
            for result in shown_results:
                _add(report, result, fail_fast)
    finally:
        results.close()
        # A disk that is full is told by the error that is on its way.
        with suppress(CatmorphError):
            write_failures(run)
    report.warn_of_bad_images()
    report.warnings += _blank_fields(run, tasks)
    return report


def run_mef(
    run: RunFolder, bands: Iterable[str] = (), *, workers: int = 1, scheduler: str | None = None, shown: bool = False,
) -> StageReport:
    """Write the stamps of the views called `bands` (default: all) as FITS files, where they are not there or not valid.

    `run_cutouts` comes first: the files are made from its shards.
    """
    from catmorph.engine import run_tasks

    report, views = StageReport("mef"), build.chosen_views(run, bands)
    todo = []
    for task in mef.mef_tasks(run, views):
        state = mef.task_state(run, task)
        if state.done:
            report.kept += 1
            _count_files(report, state.marker["sources"], state.marker["files"])
        else:
            todo.append(task)
            report.note_why(task.list, state.why)
    report.warn_of_damage()
    seconds = sum(task.chunk.count for task in todo) / FILES_A_SECOND
    results = run_tasks(mef.write_chunk, todo, workers=workers, estimated_seconds=seconds, scheduler=scheduler)
    with closing(results), closing(progress(results, total=len(todo), label="mef", shown=shown)) as shown_results:
        for result in shown_results:
            report.made += 1
            report.worked += result.sources
            _count_files(report, result.sources, result.files)
    removed = mef.remove_unlisted(run, views)
    if removed:
        report.counts["files removed"] = removed
    return report


def _count_files(report: StageReport, sources: int, files: int) -> None:
    report.counts.update({"(source, view)s": sources, "files": files, "without stamp": sources - files})


def _given_up(task: build.CutTask, stamps: int) -> list[str]:
    """Warn where what `stamps` were cut from is not there any more."""
    if task.images is not None:
        lacking = (task.images.index < 0).sum(axis=0)
        there = int((lacking <= may_be_missing(task.stamp, len(task.images.index))).sum())
        return [f"{task.view}, field {task.chunk.field}: images have gone; {stamps - there} stamps are given up"
                ] if there < stamps else []
    gone = sum(not tiles for tiles in task.mosaics)
    if stamps and gone > may_be_missing(task.stamp, len(task.mosaics)):
        return [f"{task.view}, field {task.chunk.field}: the mosaic has gone; its {stamps} stamps are given up"]
    return []


def _add(report: StageReport, result: build.CutReport, fail_fast: bool) -> None:
    report.made += 1
    report.worked += result.sources
    _count_stamps(report, result.sources, result.stamps, result.flags)
    report.note_bad_images(result.bad_images)
    if fail_fast and result.bad_images:
        image, reason = result.bad_images[0]
        raise CatmorphError(reason, where=image, hint="repair or remove it and run again, or leave --fail-fast out")
    for mosaic, reason in result.failures:
        report.failures[f"{mosaic} (field {result.chunk.field})"] = reason
        if fail_fast:
            raise CatmorphError(reason, where=mosaic, hint="repair it and run again, or leave --fail-fast out")


def _blank_fields(run: RunFolder, tasks: list[build.CutTask]) -> list[str]:
    """Warn of fields that a view's mosaics cover without one valid pixel at a source."""
    stamps: Counter[tuple[str, str]] = Counter()
    blank: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        marker, key = run.ledger.read(task.shard) or {}, (task.view, task.chunk.field)
        stamps[key] += marker.get("stamps", 0)
        blank[key] += marker.get("flags", {}).get(Flag.NO_DATA.name, 0)
    return [
        f"{view}, field {field}: its mosaics hold no valid pixel at any source ({count} NO_DATA); are they blank?"
        for (view, field), count in blank.items() if count and not stamps[view, field]
    ]


def _count_stamps(report: StageReport, sources: int, stamps: int, flags: dict[str, int]) -> None:
    report.counts.update({"(source, view)s": sources, "stamps": stamps})
    report.flags.update(flags)


def _unmatched_bands(run: RunFolder, tasks: list[build.CutTask]) -> list[str]:
    """Warn of bands without any mosaic; without one in all bands there is nothing to cut. The same of images."""
    if run.recipe.images is not None:
        return build.image_warnings(run)
    found = {band: False for task in tasks for band in task.bands}
    for task in tasks:
        for band, tiles in zip(task.bands, task.mosaics, strict=True):
            found[band] |= bool(tiles)
    unmatched = [band for band, matched in found.items() if not matched]
    if not unmatched:
        return []
    text = describe_unmatched(run.recipe, unmatched)
    if len(unmatched) == len(found):
        raise UsageError(text)
    return [text]


def run_classify(
    run: RunFolder, bands: Iterable[str] = (), *, device: str = "auto", precision: str | None = None,
    shown: bool = False,
) -> StageReport:
    """Classify the stamps of the views called `bands` (default: all) with every network of the recipe, one by one."""
    report = StageReport("classify")
    if not run.recipe.classifiers:
        raise UsageError("the recipe names no classifier", hint="add [classifiers.NAME] with a checkpoint")
    views = build.chosen_views(run, bands)
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


def run_release(run: RunFolder, formats: Iterable[str] = ()) -> ExportResult:
    """Write the released catalog in `formats` (default: the recipe's); see `catmorph.release.bundle.export`.

    Raises
    ------
    CatmorphError
        When sources or logits are missing, damaged or not what the recipe asks for.
    """
    refuse_outdated(run)
    result = export_release(run, tuple(formats))
    run.identities.save()
    return result


def run_summary(run: RunFolder) -> Summary:
    """Write the summaries, and the figures that the recipe asks for.

    See `catmorph.release.summary.summarize` and `catmorph.report.release_figures.draw_release`.
    """
    refuse_outdated(run)
    figures: list[Path] = []
    if run.recipe.evaluation.of_release:
        # Matplotlib takes half a second to import.
        from catmorph.report.release_figures import draw_release

        figures = draw_release(run)
    _remove_older_figures(run, figures)
    return summarize_release(run, [path.name for path in figures])


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
