"""`catmorph run --dry-run`: what would be made, how many stamps, and how long at the last rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from catmorph.inference import tasks
from catmorph.inference.classify import fingerprint_of
from catmorph.inference.direct import cuts_of
from catmorph.inference.identity import PASSES
from catmorph.inference.members import all_members
from catmorph.logbook import logged_events
from catmorph.pipeline.ingest import sources_state
from catmorph.release.kept import release_state
from catmorph.sources.ingest import planned_chunks
from catmorph.stamps import build
from catmorph.workspace import Chunk, RunFolder


@dataclass
class StageForecast:
    """What one stage would do: products to make and to keep, (source, view)s to work on, and why.

    `work` counts a (source, view) for each network, `passes` also for each time that the network sees its stamp.
    """

    stage: str
    make: int = 0
    keep: int = 0
    work: int = 0
    passes: int = 0
    why: Counter[str] = field(default_factory=Counter)
    seconds: float | None = None

    def add(self, why: str, work: int, passes: int = 1) -> None:
        """Count one product; an empty `why` means that it is kept."""
        if why:
            self.make += 1
            self.work += work
            self.passes += work * passes
            self.why[why] += 1
        else:
            self.keep += 1

    def line(self) -> str:
        """Return it as one line for people."""
        why = "; ".join(f"{text} ({count})" for text, count in self.why.most_common(3))
        text = f"{self.stage}: {self.make} to make, {self.keep} up to date"
        if self.work:
            text += f"; {self.work:,} (source, view)s"
        if self.passes > self.work:
            text += f", {self.passes:,} stamps with those of test-time augmentation"
        if self.seconds is not None:
            text += f", about {self.seconds:,.0f} s at the last rate"
        return f"{text}; {why}" if why else text


def forecast(
    run: RunFolder, *, device: str = "auto", precision: str | None = None, direct: bool = False
) -> list[StageForecast]:
    """Return what `catmorph run` would do now; nothing is written, and pixels are not read.

    The catalog is read when it has changed, to know its chunks. With `direct`, stamps need not be there. `device` and
    `precision` are as of `catmorph.inference.classify.load_predictor`; logits made in another way are made again.
    """
    ingest, (_, state) = StageForecast("ingest"), sources_state(run)
    ingest.add(state.why, 0)
    chunks = run.chunks() if state.done else planned_chunks(run)
    classify = _classify(run, chunks, device, precision)
    stages = [ingest, *([classify] if direct else [_cutouts(run, chunks), classify])]
    stages.append(_export(run, stages))
    rates = _last_rates(run, direct=direct)
    for stage in stages:
        if stage.work and stage.stage in rates:
            stage.seconds = stage.passes / rates[stage.stage]
    return stages


def _cutouts(run: RunFolder, chunks: Sequence[Chunk]) -> StageForecast:
    cutouts = StageForecast("cutouts")
    for task in build.cut_tasks(run, run.recipe.all_views, chunks):
        cutouts.add(build.task_state(run, task).why, task.chunk.count)
    return cutouts


def _classify(run: RunFolder, chunks: Sequence[Chunk], device: str, precision: str | None) -> StageForecast:
    """Return what the networks would classify, their stamps cut before or on the way."""
    result = StageForecast("classify")
    found = cuts_of(run, list(run.recipe.all_views), chunks)
    cuts = {key: build.recorded_state(run, cut) for key, cut in found.items()}
    for member in all_members(run.recipe):
        passes = PASSES[run.recipe.classifiers[member.classifier].test_time]
        made_by = fingerprint_of(run, member, device=device, precision=precision)
        views = run.recipe.classifier_views(member.classifier)
        for task in tasks.logits_tasks(run, member, views, made_by, chunks):
            state = tasks.state_with_stamps(run, task, cuts[task.view, task.chunk.key])
            result.add(state.why, task.chunk.count, passes)
    return result


def _export(run: RunFolder, stages: Sequence[StageForecast]) -> StageForecast:
    """Return whether the catalog would be written anew; `stages` are those before."""
    result = StageForecast("export")
    # A shard that was removed or damaged is cut to the same stamps.
    before = [stage.stage for stage in stages if stage.make and stage.stage != "cutouts"]
    result.add(f"after {' and '.join(before)}" if before else release_state(run).why, 0)
    return result


def _last_rates(run: RunFolder, *, direct: bool) -> dict[str, float]:
    """Return (source, view)s a second of each stage, from the last run that did some of it in the same way.

    Where networks run, it is the stamps they see that count. A `classify` that cut its stamps itself (`direct`) tells
    nothing of one that reads them, nor the other way round.
    """
    rates = {}
    for stage in logged_events(run.path, "stage"):
        name, done, seconds = stage.get("stage"), stage.get("passes") or stage.get("worked"), stage.get("seconds")
        # A log may have been edited.
        if isinstance(name, str) and isinstance(done, int) and isinstance(seconds, float) and min(done, seconds) > 0 \
                and (name != "classify" or direct == ("cut" in stage)):
            rates[name] = done / seconds
    return rates
