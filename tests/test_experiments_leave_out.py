"""Views that are left out of the training and validation subsets."""

import numpy as np
import pytest

from catmorph.errors import UsageError
from catmorph.labels import LabelledStamps, split_sources
from catmorph.recipe import TrainingSection


def stamps(sources=40, views=("F160W", "F475W", "F814W")):
    ids, names = np.repeat(np.arange(sources).astype(str), len(views)), np.tile(views, sources)
    count = len(ids)
    return LabelledStamps(
        np.zeros((count, 1, 2, 2), np.float32), np.full((count, 5), 0.2, np.float32), np.full(count, "a"), ids, names
    )


def test_a_view_left_out_is_tested_and_nothing_else_changes():
    data, section = stamps(), TrainingSection(output="net.safetensors", seed=3)
    whole = split_sources(data, section)
    without = split_sources(data, section.model_copy(update={"leave_out": ("F475W",)}))
    assert np.array_equal(without.test, whole.test)
    for name in ("training", "validation"):
        rows = getattr(whole, name)
        assert np.array_equal(getattr(without, name), rows[data.views[rows] != "F475W"])


def test_an_unknown_view_is_refused():
    section = TrainingSection(output="net.safetensors", leave_out="F999W")
    with pytest.raises(UsageError, match=r"^training.leave_out: no labelled stamp is of view F999W$"):
        split_sources(stamps(), section)
