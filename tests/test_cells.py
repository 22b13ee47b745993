"""The chunk plan: cells of the sky and the order within them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catmorph.sources.arrow import text_array
from catmorph.sources.cells import groups, sky_keys, split_keys
from catmorph.sources.order import natural_rank

positions = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 360, exclude_max=True), st.sampled_from([0.0, 45.0, 180.0, 359.9999999])),
        st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 0.0, 90.0])),
    ),
    max_size=60,
)
clustered = st.lists(st.tuples(st.floats(10, 10.001), st.floats(-5.001, -5)), max_size=60)


def cells_of(rows, chunk_rows):
    array = np.array(rows, dtype=float).reshape(-1, 2)
    return split_keys(sky_keys(array[:, 0], array[:, 1]), chunk_rows, "o")


def contents(rows, chunk_rows):
    """Return cell name -> the positions it holds, as a multiset."""
    return {cell.name: sorted(rows[row] for row in cell.rows) for cell in cells_of(rows, chunk_rows)}


@given(st.one_of(positions, clustered), st.integers(1, 20))
def test_every_row_is_in_exactly_one_cell(rows, chunk_rows):
    cells = cells_of(rows, chunk_rows)
    assert sorted(row for cell in cells for row in cell.rows.tolist()) == list(range(len(rows)))
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert len(cell.rows) <= chunk_rows or cell.name.startswith("o29p")


@given(st.one_of(positions, clustered), st.integers(1, 20), st.randoms())
def test_cells_do_not_depend_on_the_order_of_rows(rows, chunk_rows, random):
    shuffled = random.sample(rows, len(rows))
    assert list(contents(rows, chunk_rows).items()) == list(contents(shuffled, chunk_rows).items())


@given(st.one_of(positions, clustered), st.integers(1, 20), st.tuples(st.floats(0, 359), st.floats(-90, 90)))
def test_an_added_row_changes_only_its_cell(rows, chunk_rows, added):
    before, after = contents(rows, chunk_rows), contents([*rows, added], chunk_rows)
    changed = [name for name in before if after.get(name) != before[name]]
    assert len(changed) <= 1
    new = [name for name in after if before.get(name) != after[name]]
    held = sorted(row for name in new for row in after[name])
    assert held == sorted([*(before[changed[0]] if changed else []), added])


def test_identical_positions_stay_together():
    cells = cells_of([(10.0, -5.0)] * 7 + [(200.0, 5.0)], 3)
    assert sorted(len(cell.rows) for cell in cells) == [1, 7]


@pytest.mark.parametrize("dec", [90.0, -90.0])
def test_a_pole_is_one_place_whatever_the_right_ascension(dec):
    cells = cells_of([(ra, dec) for ra in np.linspace(0, 359, 40)], 10)
    assert sum(len(cell.rows) for cell in cells) == 40
    assert len(cells) <= 4 * 40


@pytest.mark.parametrize(("ra", "dec", "deepest"), [
    (0.0, 0.0, 1369094286720630784), (10.684708, 41.26875, 190633513587146677),
    (83.633083, 22.0145, 1701909093095840580),
    (150.1, 2.2, 1918129809776324852), (187.70593, 12.39112, 1953854728243268183), (12.3, 89.5, 288211890960699060),
    (266.41683, -29.00781, 2028740913184699884), (359.999, -0.001, 1224979098558506967),
    (201.365063, -43.019113, 3044352322598060879), (300.0, -89.5, 3170547164958792694), (0.0, 90.0, 288230376151711743),
])
def test_the_deepest_cells_are_those_of_another_implementation(ra, dec, deepest):
    # As astropy-healpix 2.0.1 has them.
    (cell,) = cells_of([(ra, dec)], 1)
    assert sky_keys(np.array([ra]), np.array([dec])).tolist() == [deepest]
    assert cell.name == f"o0p{deepest >> 58}"


def test_right_ascensions_on_either_side_of_zero():
    cells = cells_of([(359.99, 0.3), (0.01, 0.3), (0.0, 0.3)], 3)
    assert sorted(len(cell.rows) for cell in cells) in ([1, 2], [3])


def test_no_rows():
    assert cells_of([], 5) == []
    assert groups(np.array([], dtype=int)) == []


def test_groups():
    assert [rows.tolist() for rows in groups(np.array([3, 1, 3, 1, 2]))] == [[1, 3], [4], [0, 2]]


def test_identifiers_come_in_natural_order():
    ids = ["10", "9", "b", "a", "010", "B", "0", "é", "123456789012345678", "1234567890123456789", "-1", "", "9\n"]
    ordered = [name for _, name in sorted(zip(natural_rank(text_array(ids)), ids, strict=True))]
    assert ordered == ["0", "9", "010", "10", "123456789012345678", "", "-1", "1234567890123456789", "9\n", "B", "a",
                       "b", "é"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.one_of(texts, st.integers(0, 10**20).map(str)), unique=True))
def test_the_natural_order_is_that_of_numbers_and_code_points(ids):
    def key(text):
        whole = text.isascii() and text.isdigit() and len(text) < 19
        return (0, int(text), text) if whole else (1, 0, text)

    rank = natural_rank(text_array(ids))
    assert [ids[row] for row in np.argsort(rank)] == sorted(ids, key=key)
