"""Which mosaics belong to a field and band."""

from __future__ import annotations

from pathlib import Path

import pytest

from catmorph.errors import CatmorphError
from catmorph.recipe import load_recipe
from catmorph.stamps.mosaics import find_mosaics

RECIPE = """\
name = "fields"
scheme = "clash"

[catalog]
files = "a.cat"
field = { value = "a" }
id = "ID"
ra = "RA"
dec = "DEC"

[bands]
names = ["B", "I"]
files = { B = ["f438w", "f435w"] }

[mosaics]
pattern = "{field}_{band}_*.fits"
weight = "{field}_{band}_*.wht"

[stamp]
side = "50 pixels"
"""


@pytest.fixture
def found(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.toml")

    def names(field: str, band: str, *files: str) -> list[tuple[str, str]]:
        for file in files:
            (tmp_path / file).touch()
        return [(Path(one.image).name, Path(one.weight).name) for one in find_mosaics(recipe, field, band)]

    return names


def test_a_field_takes_the_first_filter_that_it_has(found):
    both = ("a_f435w_1.fits", "a_f435w_1.wht", "a_f438w_1.fits", "a_f438w_1.wht")
    assert found("a", "B", *both) == [("a_f438w_1.fits", "a_f438w_1.wht")]
    assert found("b", "B", "b_f435w_1.fits", "b_f435w_1.wht") == [("b_f435w_1.fits", "b_f435w_1.wht")]
    assert found("c", "B") == []


def test_filters_are_not_mixed(found):
    with pytest.raises(CatmorphError, match="0 weight maps for 1 mosaics of field 'a', band 'f438w'"):
        found("a", "B", "a_f438w_1.fits", "a_f435w_1.wht")


def test_a_band_without_other_names_is_called_by_its_own(found):
    assert found("a", "I", "a_I_1.fits", "a_I_1.wht") == [("a_I_1.fits", "a_I_1.wht")]


def test_no_name_at_all_is_refused(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace('["f438w", "f435w"]', "[]"))
    with pytest.raises(CatmorphError, match=r"bands\.files\.B must be a name, or several different ones"):
        load_recipe(tmp_path / "recipe.toml")
