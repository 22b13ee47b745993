from pathlib import Path

import numpy as np
import pytest

from catmorph.quality import BLOCKING, FLAGS, Flag, blocked, count_flags, describe, flags_markdown

DOCS = Path(__file__).parents[1] / "docs"


def test_every_flag_has_one_description():
    assert [info.flag for info in FLAGS] == list(Flag)


def test_faults_block():
    assert all(info.severity == "blocks" for info in FLAGS if info.fault)


@pytest.mark.parametrize("info", FLAGS, ids=lambda info: info.flag.name)
def test_blocked_follows_the_severity(info):
    assert bool(blocked(np.array([int(info.flag)], np.uint32))[0]) == (info.severity == "blocks")


def test_counts_and_names():
    flags = np.array([Flag.EDGE, Flag.EDGE | Flag.OFF_IMAGE, 0], np.uint32)
    assert count_flags(flags) == {"OFF_IMAGE": 1, "EDGE": 2}
    assert describe(int(Flag.EDGE | Flag.OFF_IMAGE)) == "OFF_IMAGE|EDGE"
    assert BLOCKING & Flag.EDGE == 0


def test_documented_table_is_current():
    assert flags_markdown() in (DOCS / "flags.md").read_text()
