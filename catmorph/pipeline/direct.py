"""Classifying without keeping stamps: `catmorph classify --direct`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress

from catmorph.errors import CatmorphError
from catmorph.failures import write_failures
from catmorph.inference import direct
from catmorph.inference.supply import Supply
from catmorph.inference.tasks import LogitsTask
from catmorph.ledger import State
from catmorph.pipeline.cutouts import add_result, blank_fields, count_stamps, seconds_to_cut, unmatched_bands
from catmorph.pipeline.report import StageReport
from catmorph.stamps import build
from catmorph.workspace import RunFolder

STAGE = "cutouts, not kept"
"""What reports call it: its rate is not that of `cutouts`, for it waits for the network."""


class DirectStamps:
    """Stamps that are cut for a network, and not kept; valid shards that are there are read instead.

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

    def __init__(self, run: RunFolder, views: Sequence[str], *, workers: int, fail_fast: bool = False):
        self.report = StageReport(STAGE)
        self._run, self._workers, self._fail_fast = run, workers, fail_fast
        self._cuts = direct.cuts_of(run, views)
        self.report.warnings += unmatched_bands(run, list(self._cuts.values()))
        run.identities.save()

    def state(self, task: LogitsTask) -> State:
        """Return whether logits are there and valid."""
        return direct.direct_state(self._run, task, self._cuts[task.view, task.chunk.key])

    def supplies(self, tasks: Sequence[LogitsTask]) -> Generator[Supply, None, None]:
        """Yield the stamps of each task."""
        cuts = [self._cuts[task.view, task.chunk.key] for task in tasks]
        return direct.from_mosaics(self._run, tasks, self._cuts, workers=self._workers,
                                   seconds=seconds_to_cut(self._run, cuts), tell=self._note)

    def _note(self, result: build.CutReport) -> None:
        self.report.note_bad_images(result.bad_images)
        add_result(self.report, result, self._fail_fast)

    def close(self) -> None:
        """Write failures.parquet, count the stamps of all views, and warn of what a user should look at."""
        report, cuts = self.report, list(self._cuts.values())
        # A disk that is full is told by the error that is on its way.
        with suppress(CatmorphError):
            write_failures(self._run)
        for cut in cuts:
            marker = self._run.ledger.read(cut.shard)
            if marker:
                count_stamps(report, marker["sources"], marker["stamps"], marker["flags"])
        report.warn_of_bad_images()
        report.warnings += blank_fields(self._run, cuts)
