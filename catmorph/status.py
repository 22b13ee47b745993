"""What is done, stale or missing in a run folder, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from catmorph.errors import CatmorphError, printable
from catmorph.inference import tasks
from catmorph.inference.members import all_members
from catmorph.ledger import DAMAGED, State
from catmorph.pipeline.ingest import sources_state
from catmorph.places import MEF_STAMPS
from catmorph.release.kept import release_state
from catmorph.stamps import build, mef
from catmorph.stamps.reasons import by_reason
from catmorph.workspace import RunFolder

_MOST_REASONS = 100


@dataclass
class Row:
    """One stage and view: how many products are in which state, why, and the flags of those made."""

    stage: str
    view: str
    states: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)

    def add(self, state: State) -> None:
        """Count one product."""
        self.states[state.name] += 1
        if state.why:
            self.why[state.why] += 1
        self.flags.update(state.marker.get("flags", {}))


@dataclass
class Status:
    """The state of a run folder."""

    folder: str
    rows: list[Row]
    failures: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain dictionaries."""
        return {
            "folder": self.folder,
            "stages": [
                {"stage": row.stage, "view": row.view, **{name: row.states[name] for name in
                 ("done", "stale", "missing")}, "why": dict(row.why), "flags": dict(row.flags)}
                for row in self.rows
            ],
            "failures": self.failures,
        }

    def text(self) -> str:
        """Return it as a table for people."""
        wide = max(16, *(len(row.view) for row in self.rows))
        lines = [self.folder, f"{'stage':<10} {'view':<{wide}} {'done':>6} {'stale':>6} {'missing':>8}  why / flags"]
        for row in self.rows:
            why = "; ".join(f"{text} ({count})" for text, count in row.why.most_common(3))
            flags = ", ".join(f"{name} {count}" for name, count in sorted(row.flags.items()))
            lines.append(f"{row.stage:<10} {row.view:<{wide}} {row.states['done']:>6} {row.states['stale']:>6} "
                         f"{row.states['missing']:>8}  {' / '.join(filter(None, (why, flags)))}".rstrip())
        lines += [f"failed: {mosaic}: {reason}" for mosaic, reason in sorted(self.failures.items())]
        return "\n".join(map(printable, lines))


def status_of(run: RunFolder) -> Status:
    """Compare everything in the run folder with what the recipe and its inputs ask for now.

    Raises
    ------
    UsageError
        When it is no run folder, and no run could be made there.
    """
    run.refuse_strangers()
    ingest, state = Row("ingest", ""), _ingest_state(run)
    ingest.add(state)
    if not run.plan_path().exists():
        return Status(str(run.path), [ingest], {})
    try:
        with run.ledger.remembered():
            return _of_chunks(run, ingest)
    except CatmorphError as error:
        # Of what `ingest` is to make again, some cannot be read now, and with it what the other stages have to do.
        if state.done or error.where not in (run.plan_path(), run.sources_path()):
            raise
        return Status(str(run.path), [ingest], {})


def _ingest_state(run: RunFolder) -> State:
    try:
        product, state = sources_state(run)
    except CatmorphError as error:
        return State("missing", str(error))
    if not state.why.startswith(DAMAGED):
        return state
    return replace(state, why=f"{product.name} is {state.why}; `catmorph run` makes it again")


def _of_chunks(run: RunFolder, ingest: Row) -> Status:
    rows, failures = [ingest], {}
    bad_images: dict[str, list[str]] = {}
    cuts: dict[tuple[str, str], State] = {}
    for view in run.recipe.all_views:
        row = Row("cutouts", view)
        for task in build.cut_tasks(run, [view]):
            state = build.task_state(run, task)
            row.add(state)
            # Stamps that were not kept are missing, and yet may be what the logits were made of.
            cuts[view, task.chunk.key] = state if state.done else build.recorded_state(run, task)
            for mosaic, reason in state.marker.get("failures", []):
                failures[f"{mosaic} (field {task.chunk.field})"] = reason
            for image, reason in state.marker.get("bad_images", []):
                bad_images.setdefault(reason, []).append(image)
        rows.append(row)
    rows += _file_rows(run)
    failures.update(by_reason(bad_images, _MOST_REASONS))
    rows += _classifier_rows(run, cuts)
    if run.recipe.classifiers:
        rows.append(_release_row(run, rows))
    return Status(str(run.path), rows, failures)


def _file_rows(run: RunFolder) -> list[Row]:
    """Return a row for each view of which FITS files were asked for, with `cutouts --format mef`."""
    rows = []
    for view in run.recipe.all_views:
        if (run.path / MEF_STAMPS / view).is_dir():
            row = Row("mef", view)
            for task in mef.mef_tasks(run, [view]):
                row.add(mef.task_state(run, task))
            rows.append(row)
    return rows


def _classifier_rows(run: RunFolder, cuts: Mapping[tuple[str, str], State]) -> list[Row]:
    """Return a row for each network and view; `cuts` is what is recorded of the stamps."""
    rows: list[Row] = []
    several = len(run.recipe.classifiers) > 1
    for member in all_members(run.recipe):
        before = f"{member.classifier}/" if several else ""
        after = f" ({member.name})" if member.name else ""
        views = run.recipe.classifier_views(member.classifier)
        by_view = {view: Row("classify", f"{before}{view}{after}") for view in views}
        try:
            for task in tasks.recorded_tasks(run, member):
                by_view[task.view].add(tasks.state_with_stamps(run, task, cuts[task.view, task.chunk.key]))
        except CatmorphError as error:
            for row in by_view.values():
                row.states["missing"] += len(run.chunks())
                row.why[str(error)] += len(run.chunks())
        rows += by_view.values()
    return rows


def _release_row(run: RunFolder, rows: list[Row]) -> Row:
    """Return the row of the released catalog, which is stale where anything before it is."""
    row = Row("export", "")
    try:
        state = release_state(run)
    except CatmorphError as error:
        state = State("stale", str(error))
    before = sorted({one.stage for one in rows if one.states.total() > one.states["done"]} & {"ingest", "classify"})
    if state.done and before:
        state = State("stale", f"exported before what {' and '.join(before)} is to do")
    row.add(state)
    return row
