"""Killed anywhere, any number of times: the next run goes on and every released byte is the same."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from killing import Runs, drawn, kill

RUN = ("run", "tiny.toml", "--set", "run.chunk_rows=3")
SHORT_HITS, LONG_HITS = 4, 30
DRAWS_A_HIT = 6
"""Kills drawn for each that must hit: whether one comes before the end of its run depends on the machine's load."""
OTHER = ("--set", "stamp.max_bad_fraction=0.4", "--set", "catalog.cuts=magnitude < 23")
"""A change that makes every shard and all logits anew; some runs are killed with it, and the next goes on without."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    launched = Runs(tmp_path_factory.mktemp("runs"))
    launched.start(Path.cwd(), "--version")
    launched.wait()
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def reference(pristine_survey, tmp_path_factory, runs, release_bytes):
    """The bytes of an uninterrupted run, its seconds, and how many steps its writes have."""
    survey = pristine_survey.copy(tmp_path_factory.mktemp("reference") / "tiny")
    start = time.monotonic()
    runs.start(survey.folder, *RUN)
    status, text = runs.wait()
    assert status == 0, text
    seconds = time.monotonic() - start
    files = [path for path in survey.run.rglob("*") if path.is_file() and path.name != "lock"]
    return release_bytes(survey), seconds, 4 * len(files)


def hold_against_kills(survey, runs, reference, release_bytes, seed, wanted):
    """Kill up to three runs in a row, let the next end, compare, until `wanted` kills have hit."""
    expected, seconds, steps = reference
    generator = random.Random(seed)
    hits, missed = [], 0
    kills = drawn(random.Random(f"kills {seed}"), steps)
    while len(hits) < wanted:
        assert len(hits) + missed < DRAWS_A_HIT * wanted, (seed, hits)
        for one in itertools.islice(kills, generator.randint(1, 3)):
            other = OTHER if generator.random() < 0.25 and not one.kind.startswith("worker") else ()
            where = kill(runs, survey, one, 2.5 * seconds if one.pool else seconds, (*RUN, *other))
            hits += [(one, where)] * bool(where)
            missed += not where
        runs.start(survey.folder, *RUN)
        status, text = runs.wait()
        assert status == 0, (seed, hits, text)
        assert release_bytes(survey) == expected, (seed, hits)
        assert not list(survey.run.rglob(".partial-*")), (seed, hits)
        if generator.random() < 0.8:
            start_again(survey, generator)
    report(seed, hits, missed)


def start_again(survey, generator):
    """Remove the run folder, or some of its products with or without their markers."""
    if generator.random() < 0.7:
        survey.run.rename(survey.folder / f"old-{generator.random()}")
        return
    for path in sorted(survey.run.rglob("*")):
        if path.is_file() and generator.random() < 0.3:
            path.unlink()


def report(seed, hits, missed):
    print(f"\nseed {seed}: {len(hits)} kills hit, {missed} came after the end")
    for (kind, pool, where), count in sorted(Counter((one.kind, one.pool, where) for one, where in hits).items()):
        print(f"  {count} x {kind}{', pool' * pool}: {where}")


def test_a_few_kills(survey, runs, reference, release_bytes):
    hold_against_kills(survey, runs, reference, release_bytes, 20261121, SHORT_HITS)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [3, 4])
def test_many_kills(survey, runs, reference, release_bytes, seed):
    hold_against_kills(survey, runs, reference, release_bytes, seed, LONG_HITS)
