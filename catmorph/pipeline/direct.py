"""Classifying without keeping stamps: `catmorph classify --direct`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial

from catmorph.errors import CatmorphError
from catmorph.failures import write_failures
from catmorph.inference import direct
from catmorph.inference.supply import Group, Supply
from catmorph.inference.tasks import LogitsTask, state_with_stamps
from catmorph.ledger import DAMAGED, State
from catmorph.pipeline.cutouts import add_result, blank_fields, count_kept, seconds_to_cut, sort_out, unmatched_bands
from catmorph.pipeline.report import StageReport
from catmorph.stamps import build
from catmorph.workspace import RunFolder

STAGE = "cutouts, not kept"
"""What reports call it: its rate is not that of `cutouts`, for it waits for the network."""

WANTED_AGAIN = "stamps are not kept, and a network is to see them"
"""Why is cut again what is recorded and valid."""


class DirectStamps:
    """Stamps that are cut for networks, and not kept; valid shards that are there are read instead.

    All networks see a chunk's stamps before the next chunk is cut, so that each is cut once.

    Parameters
    ----------
    run : RunFolder
    views : sequence of str
        The views to classify.
    workers : int
        Processes that cut.
    fail_fast : bool
        Whether a mosaic or image that cannot be read is an error.

    Attributes
    ----------
    report : StageReport
        What was cut: the counts are there after `close`.
    """

    one_pass = True

    def __init__(self, run: RunFolder, views: Sequence[str], *, workers: int, fail_fast: bool = False):
        self.report = StageReport(STAGE)
        self._run, self._workers, self._fail_fast = run, workers, fail_fast
        seen = {view for name in run.recipe.classifiers for view in run.recipe.classifier_views(name)}
        self._cuts = direct.cuts_of(run, [view for view in views if view in seen])
        tasks = list(self._cuts.values())
        self.report.warnings += unmatched_bands(run, tasks)
        run.identities.save()
        _, self._kept = sort_out(self.report, tasks, partial(build.recorded_state, run))
        self._remove_damaged(task for task in tasks if task.shard in self._kept and task.shard.exists())

    def _remove_damaged(self, tasks: Iterable[build.CutTask]) -> None:
        """Remove shards that are damaged where what is recorded of their stamps stays valid without them."""
        for task in tasks:
            why = build.task_state(self._run, task).why
            if why.startswith(DAMAGED):
                task.shard.unlink()
                self.report.damaged.append(f"{task.shard}: {why}")
        self.report.warn_of_damage("removed, as stamps need not be kept")

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""
        cut = self._cuts[task.view, task.chunk.key]
        return state_with_stamps(self._run, task, build.recorded_state(self._run, cut))

    def supplies(self, groups: Sequence[Group]) -> Generator[Supply, None, None]:
        """Yield the stamps of each group."""
        return direct.from_mosaics(self._run, groups, self._cuts, workers=self._workers,
                                   seconds=partial(seconds_to_cut, self._run), tell=self._note)

    def _note(self, result: build.CutReport) -> None:
        shard = self._cuts[result.view, result.chunk.key].shard
        if self._kept.pop(shard, None):
            self.report.note_why(shard, WANTED_AGAIN)
        add_result(self.report, result, self._fail_fast)

    def close(self) -> None:
        """Write failures.parquet, count what was not cut, and warn of what a user should look at."""
        # A disk that is full is told by the error that is on its way.
        with suppress(CatmorphError):
            write_failures(self._run)
        for state in self._kept.values():
            count_kept(self.report, state)
        self.report.warn_of_bad_images()
        self.report.warnings += blank_fields(self._run, list(self._cuts.values()))
