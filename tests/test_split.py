"""Dividing labelled stamps by galaxy, and the file that keeps the division."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catmorph.errors import CatalogError, UsageError
from catmorph.labels import LabelledStamps, split_sources
from catmorph.labels.split import SUBSETS, read_split, split_path, write_split
from catmorph.recipe import TrainingSection


def section(**options) -> TrainingSection:
    return TrainingSection(**({"output": "net.safetensors"} | options))


def stamps(sources: int = 60, views: int = 3, seed: int = 0, **columns) -> LabelledStamps:
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(sources), views)
    count = len(numbers)
    fractions = rng.dirichlet(np.ones(5), count).astype(np.float32)
    return LabelledStamps(**{
        "inputs": np.zeros((count, 1, 2, 2), np.float32), "fractions": fractions,
        "fields": np.where(numbers % 4 == 0, "north", "south"), "ids": numbers.astype(str),
        "views": np.tile([f"F{i}" for i in range(views)], sources),
        "names": np.array([f"s{n}_{i}" for n, i in zip(numbers, np.tile(range(views), sources), strict=True)]),
        "ra": 10 + numbers * 0.01, "dec": np.full(count, -30.0), **columns,
    })  # fmt: skip


def members(data: LabelledStamps, rows: np.ndarray) -> set[tuple[str, str, str]]:
    return set(zip(data.fields[rows], data.ids[rows], data.views[rows], strict=True))


@settings(max_examples=30, deadline=None)
@given(sources=st.integers(8, 60), views=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_stamp_is_in_one_subset_and_no_source_in_two(sources, views, seed):
    data = stamps(sources, views)
    split = split_sources(data, section(seed=seed, validation=0.25, test=0.25))
    rows = np.concatenate([split.training, split.validation, split.test])
    assert sorted(rows) == list(range(len(data)))
    ids = [set(data.sources[getattr(split, name)]) for name in SUBSETS]
    assert sum(map(len, ids)) == len(set.union(*ids)) == sources


def test_the_order_of_the_stamps_does_not_matter():
    data = stamps()
    order = np.random.default_rng(1).permutation(len(data))
    for options in ({}, {"size": 20}, {"test_fields": ["north"]}, {"validation": 30, "test": 20}):
        one, other = (split_sources(each, section(**options)) for each in (data, data.take(order)))
        for name in SUBSETS:
            assert members(data, getattr(one, name)) == members(data.take(order), getattr(other, name))


def test_sources_at_one_position_share_a_subset():
    data = stamps(40, 1)
    twin = np.arange(40) // 2
    data = stamps(40, 1, ra=10 + twin * 0.01 + (np.arange(40) % 2) * 0.4 / 3600, dec=np.zeros(40))
    for seed in range(5):
        split = split_sources(data, section(seed=seed))
        for name in SUBSETS:
            rows = getattr(split, name)
            assert len(rows) == 2 * len(set(twin[rows]))
    apart = [split_sources(data, section(seed=seed, duplicates_arcsec=0.3)) for seed in range(5)]
    assert any(len(split.test) != 2 * len(set(twin[split.test])) for split in apart)


def test_a_twin_of_a_source_in_a_test_field_is_tested_too():
    data = stamps(40, 1, dec=np.zeros(40), ra=np.where(np.arange(40) == 1, 10.0, 10 + np.arange(40) * 0.01))
    assert list(data.fields[:2]) == ["north", "south"]
    split = split_sources(data, section(test_fields=["north"]))
    assert {0, 1} <= set(split.test)


def test_sources_without_position_are_their_own():
    data = stamps(30, 2, ra=np.full(60, np.nan))
    assert sum(split_sources(data, section()).counts().values()) == 60


def test_shares_may_be_numbers_of_stamps():
    data = stamps(60, 3)
    counts = split_sources(data, section(validation=30, test=16)).counts()
    assert counts == {"training": 180 - 30 - 18, "validation": 30, "test": 18}  # whole galaxies of 3 stamps


def test_a_larger_size_holds_the_smaller():
    data = stamps()
    rows = [set(split_sources(data, section(size=size)).training) for size in (10, 50, 100)]
    assert [len(one) for one in rows] == [10, 50, 100]
    assert rows[0] < rows[1] < rows[2] < set(split_sources(data, section()).training)
    with pytest.raises(UsageError, match=r"^training.size is 1000, the training subset has 1\d\d stamps; lower "):
        split_sources(data, section(size=1000))


def test_ids_that_look_like_formulas_come_back(tmp_path):
    data = stamps()
    data = dataclasses.replace(data, ids=np.char.add("=1+", data.ids))
    split = split_sources(data, section())
    write_split(tmp_path / "split.csv", data, split)
    assert ",=" not in (tmp_path / "split.csv").read_text()
    assert list(read_split(tmp_path / "split.csv", data).test) == list(split.test)


def test_the_file_gives_the_division_back(tmp_path):
    data = stamps()
    split = split_sources(data, section(size=20))
    path = split_path(tmp_path / "net.safetensors")
    write_split(path, data, split)
    assert path.name == "net.split.csv"
    order = np.random.default_rng(2).permutation(len(data))[:100]
    again = read_split(path, data.take(order))
    for name in SUBSETS:
        kept = members(data, getattr(split, name)) & members(data, order)
        assert members(data.take(order), getattr(again, name)) == kept
    write_split(tmp_path / "again.csv", data.take(np.arange(len(data))[::-1]),
                split_sources(data.take(np.arange(len(data))[::-1]), section(size=20)))
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("text", "message"), [
    ("a,b\n1,2\n", "has no column 'stamp'"),
    ("stamp,field,id,view,subset\ns,south,1,F0,exam\n",
     "has subset 'exam'; subsets are training, validation, test, unused"),
    ("stamp,field,id,view,subset\ns,x,1,F0,test\n", "names none of the labelled stamps"),
    ("stamp,field,id,view,subset\ns,south,1,F0,test\ns,south,1,F0,test\n", "names a stamp twice"),
    ("stamp,field,id,view,subset\ns,south,1,F0,test\nt,south,1,F1,training\nu,south,2,F1,unused\n",
     "has 1 sources in two subsets: south 1; train again"),
    ("", "cannot be read as CSV"),
])  # fmt: skip
def test_damaged_files_are_one_line(tmp_path, text, message):
    path = tmp_path / "net.split.csv"
    path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        read_split(path, stamps())
    assert str(caught.value).startswith(f"{path}: {message}")


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(CatalogError, match="no such split file"):
        read_split(tmp_path / "net.split.csv", stamps())
