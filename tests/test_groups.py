"""Groups of sources by expression, colour-magnitude diagrams and pair plots, folded schemes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from catalogs import read_in
from release_run import clash, galaxies, given, write_run

from catmorph.errors import RecipeError, UsageError
from catmorph.evaluation.folds import folded, folds_of
from catmorph.evaluation.groups import by_expression, groupings
from catmorph.labels import LabelledStamps
from catmorph.preflight import quick_findings
from catmorph.recipe.evaluation import EvaluationSection
from catmorph.release.summary import summarize
from catmorph.report.colours import MOST_POINTS, Points, classes_of, draw_colours
from catmorph.report.release_figures import draw_release
from catmorph.schemes import load_scheme
from catmorph.sources.regions import Regions, check_columns, check_expressions, quantities, source_columns

RED = "g - z > 1.2 - 0.03*(r - 15)"
SECTION = EvaluationSection(
    groups={"red": RED, "blue": f"not ({RED})", "bright": "r < 15.5"}, colour_magnitude={"x": "r", "y": "g - z"},
    pairs=["g - z", "r"], resamples=100,
)  # fmt: skip


def survey(*, colour=(1.3, 1.0, np.nan, 1.25), r=(15.0, 16.0, 15.0, 17.0)):
    z = np.full(len(r), 14.0)
    return {"r": np.array(r), "g": z + np.array(colour), "z": z}


def test_a_source_may_be_in_several_groups_or_in_none():
    masks = Regions(SECTION.groups).masks(survey())
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "red": [True, False, False, True], "blue": [False, True, False, False], "bright": [True, False, True, False],
    }  # fmt: skip


def test_columns_of_sources():
    table = pa.table({"id": ["1", None], "size_arcsec": [1.0, None], "class": pa.array([3, None], pa.int64()),
                      "flag": [True, False], "kind": pa.array(["a", "b"]).dictionary_encode()})  # fmt: skip
    columns = source_columns(table)
    assert columns["size"] is columns["size_arcsec"]
    expressions = {"a": "size > 0.5", "b": "missing(id)", "c": "flag", "d": 'kind == "b"', "e": "not missing(class_)"}
    expressions["e"] = 'col("class") == 3'
    found = Regions(expressions).masks(columns)
    assert [mask.tolist() for mask in found.values()] == [
        [True, False], [False, True], [True, False], [False, True], [True, False]]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({"red": "u - g > 1"}, r"^evaluation\.groups\.red: cut 'u - g > 1' names unknown column 'u'; .*catalog\.keep"),
        ({"red": "g -"}, r"^evaluation\.groups\.red: cut 'g -' is not an expression"),
        ({"red": "g - z"}, r"^evaluation\.groups\.red: cut 'g - z' is not true or false"),
        ({"red": "__import__('os').system('true')"}, r"^evaluation\.groups\.red: .*may be called"),
    ],
)
def test_expressions_that_do_not_fit(texts, wanted):
    with pytest.raises(RecipeError, match=wanted):
        Regions(texts).masks(survey())


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"pairs": ["g - z", "u"]}, r"^evaluation\.pairs: cut 'u' names unknown column"),
        ({"pairs": ["g - z", "r > 1"]}, r"^evaluation\.pairs: 'r > 1' is not a number"),
        ({"pairs": ["g - z", "1"]}, r"^evaluation\.pairs: '1' names no column"),
        ({"colour_magnitude": {"x": "rr", "y": "g"}}, r"^evaluation\.colour_magnitude: .*unknown column 'rr'; did you"),
    ],
)
def test_quantities_that_do_not_fit(changes, wanted):
    with pytest.raises(RecipeError, match=wanted):
        check_columns(EvaluationSection(**changes), survey())


def test_what_cannot_be_read_is_told_before_any_work(tmp_path):
    section = EvaluationSection(colour_magnitude={"x": "r", "y": "g ="})
    with pytest.raises(RecipeError, match=r"^evaluation\.colour_magnitude\.y: "):
        check_expressions(section)
    recipe = clash('evaluation.groups={red="g >"}', 'bands.names=["F160W"]')
    run = write_run(tmp_path, recipe, [galaxies(2)], given([0, 0], np.full((2, 5), 0.2)))
    assert any(one.startswith("evaluation.groups.red: ") for one in quick_findings(run).problems)
    with pytest.raises(ValueError, match="two to six different"):
        EvaluationSection(pairs=["r"])
    with pytest.raises(ValueError, match="pattern"):
        EvaluationSection(groups={"../x": "r > 1"})


def test_boundaries_are_found_where_a_group_depends_on_the_axes_alone():
    x, y = np.meshgrid([14.0, 19.0], [1.0, 1.21, 1.3])
    groups = {"red": RED, "box": "r < 15 and (g - z) < 1.1", "other": "u > 1", "written": "g > z + 1"}
    found = Regions(groups).on_axes("r", "g - z", (x, y))
    assert list(found) == ["red", "box"]
    np.testing.assert_array_equal(found["red"], y > 1.2 - 0.03 * (x - 15))
    np.testing.assert_array_equal(found["box"], (x < 15) & (y < 1.1))


def test_quantities_are_nan_where_a_value_is_missing():
    found = quantities(["g - z", "log10(r - 15)"], survey(), "here")
    np.testing.assert_allclose(found["g - z"], [1.3, 1.0, np.nan, 1.25])
    np.testing.assert_allclose(found["log10(r - 15)"], [np.nan, 0, np.nan, np.log10(2)])


# Evaluation


def stamps(columns=None):
    fractions = np.full((4, 5), 0.2, np.float32)
    return LabelledStamps(np.zeros((4, 1, 4, 4), np.float32), fractions, np.full(4, "a"), np.arange(4).astype(str),
                          np.full(4, "v"), survey=columns)  # fmt: skip


def test_stamps_are_grouped_with_their_columns():
    data = stamps(survey())
    found = by_expression(data, SECTION)
    assert [(one.name, one.rows.tolist()) for one in found.groups] == [
        ("red", [0, 3]), ("blue", [1]), ("bright", [0, 2])]  # fmt: skip
    assert (found.left_out, found.overlapping) == (0, 1)
    later = by_expression(data.take(np.array([3, 1])), SECTION)
    assert [one.rows.tolist() for one in later.groups] == [[0], [1], []]
    assert (later.left_out, later.overlapping) == (0, 0)
    assert [one.key for one in groupings(data, EvaluationSection())] == ["by_band", "by_magnitude", "by_size"]
    with pytest.raises(UsageError, match=r"which is not read in; run `catmorph ingest`, or"):
        by_expression(stamps(), SECTION)


# Figures


def png(content):
    return content.startswith(b"\x89PNG")


def test_diagrams_are_drawn():
    generator = np.random.default_rng(0)
    count = 40
    columns = survey(colour=generator.uniform(0.5, 1.5, count), r=generator.uniform(14, 20, count))
    columns["g"][:3] = np.nan
    classes = generator.integers(-1, 9, count)
    points = Points(columns, classes, tuple(f"$class {i}" for i in range(9)), classes[::-1])
    first = list(draw_colours(points, SECTION, "-x"))
    assert [one.key for one in first] == ["colour-magnitude-x", "pairs-x"]
    assert all(png(one.png) and one.pdf.startswith(b"%PDF") for one in first)
    assert "Dashed: boundaries of red, blue, bright. 3 have no value." in first[0].caption
    assert "Marks: class by people." in first[0].caption
    again = next(draw_colours(points, SECTION, "-x"))
    assert (again.png, again.pdf) == (first[0].png, first[0].pdf)


@pytest.mark.parametrize("count", [0, 1])
def test_diagrams_of_hardly_anything(count):
    columns = {name: np.full(count, np.nan) for name in ("r", "g", "z")}
    points = Points(columns, np.full(count, -1), ("a", "b"), np.full(count, -1))
    assert all(png(one.png) for one in draw_colours(points, SECTION))


def test_many_points_are_thinned():
    count = 3 * MOST_POINTS
    points = Points({"r": np.arange(count, dtype=float)}, np.zeros(count, int), ("a",), np.zeros(count, int))
    few = points.thinned()
    assert len(few.predicted) == len(few.human) == len(few.columns["r"]) == MOST_POINTS
    assert (few.columns["r"][0], few.columns["r"][-1]) == (0, count - 1)


def test_one_class_of_each_kind_of_scheme():
    nan = np.full(5, np.nan)
    found, titles = classes_of(load_scheme("clash"), np.array([[0, 0.7, 0.3, 0, 0], nan]))
    assert (found.tolist(), titles[1]) == ([1, -1], "disk")
    found, titles = classes_of(load_scheme("des-bar"), np.array([[0.2], [0.6], [np.nan]]), 0.6)
    assert (found.tolist(), titles) == ([0, 1, -1], ("no: bar", "yes: bar"))
    tree = load_scheme("gz2")
    values = np.zeros((1, 37))
    values[0, [2, 10]] = 0.4, 0.9
    found, titles = classes_of(tree, values)
    assert titles[found[0]] == "star or artifact"


# The summary and its figures


def release(folder, **columns):
    recipe = clash('bands.names=["F160W"]', 'catalog.keep=["r", "g", "z"]', "evaluation.colour_magnitude.x=r",
                   "evaluation.colour_magnitude.y=g - z",
                   f'evaluation.groups={{red="{RED}", bright="r < 15.5"}}')  # fmt: skip
    chances = [[0.9, 0.1, 0, 0, 0], [0.2, 0.3, 0.5, 0, 0], [0.4, 0.3, 0.3, 0, 0], [0, 0, 0, 1, 0]]
    return write_run(folder, recipe, [galaxies(4, **(columns or survey()))], given([0, 0, 64, 0], chances))


def test_the_summary_counts_by_group(tmp_path):
    summary = summarize(release(tmp_path))
    found = summary.values["grouped"]
    assert (found["none"], found["overlapping"]) == (1, 1)
    red, bright = found["groups"]
    assert (red["group"], red["expression"], red["sources"]) == ("red", RED, 2)
    assert {name: one["most_probable"] for name, one in red["views"][0]["classes"].items()} == {
        "spheroid": 1, "disk": 0, "irregular": 0, "point_source": 1, "unclassifiable": 0}  # fmt: skip
    assert bright["views"][0]["sources"] == 2
    assert red["views"][0]["merger"]["wilson"][0] == 0
    text = summary.markdown()
    assert "## Group red\n\nWhere g - z &gt; 1.2 - 0.03\\*(r - 15): 2 sources, 2 released." in text
    assert "1 sources are in none of the groups, 1 in several." in summary.text()
    json.dumps(summary.values, allow_nan=False)


def test_a_column_that_was_not_kept_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"evaluation\.groups\.red: .*unknown column 'g'; .*catalog\.keep"):
        summarize(release(tmp_path, r=np.ones(4)))


def test_the_release_is_drawn(tmp_path):
    run = release(tmp_path)
    files = draw_release(run)
    assert [one.name for one in files] == ["colour-magnitude.png", "colour-magnitude.pdf"]
    assert all(one.parent == run.release_folder() / "figures" for one in files)
    assert png(files[0].read_bytes())
    summary = summarize(run, [one.name for one in files])
    assert summary.values["figures"] == ["colour-magnitude.png", "colour-magnitude.pdf"]
    assert summary.markdown().count("](figures/colour-magnitude.png)") == 1


def test_colour_regions_of_a_real_catalog(real_data, tmp_path):
    path = real_data / "virgo" / "evcc.fits"
    sources, _, _ = read_in(tmp_path, files=str(path), id="id_evcc", ra="ra", dec="dec", field={"value": "virgo"},
                            keep=["u", "g", "r", "i", "z", "mem_evcc"])  # fmt: skip
    found = Regions({"red": RED, "blue": f"not ({RED})"}).masks(source_columns(pa.Table.from_pandas(sources)))
    table = Table.read(path)
    g, r, z = (np.ma.filled(table[name].astype(float), np.nan) for name in "grz")
    red = (g - z > 1.2 - 0.03 * (r - 15))[sources["row"].to_numpy() - 1]
    known = np.isfinite(g + r + z)[sources["row"].to_numpy() - 1]
    np.testing.assert_array_equal(found["red"], red & known)
    np.testing.assert_array_equal(found["blue"], ~red & known)
    assert 100 < found["red"].sum() < found["blue"].sum()


# Folds


def test_numbers_in_the_folded_scheme():
    visual = load_scheme("perseus-visual")
    assert [one.name for one in folds_of(visual)] == ["perseus"]
    assert folds_of(load_scheme("clash")) == []
    names = ["late_type", "likely_dwarf", "possible_dwarf", "merging", "edge_on_disk"]
    human = np.eye(7)[[visual.index(name) for name in names]]
    # Two kinds of dwarf are one class; where the class kept apart is most probable, the others decide.
    model = np.eye(7)[[visual.index(name) for name in ("edge_on_disk", "possible_dwarf", "merging", "merging",
                                                       "likely_dwarf")]] * 0.9  # fmt: skip
    model[2, visual.index("likely_dwarf")] = 0.1
    one = folded(visual, model, human, 0.95)["perseus"]
    assert one["left_out"] == 1
    assert one["confusion"] == {"classes": ["background", "member"], "stamps": 4, "counts": [[1, 1], [0, 2]]}
    assert one["report"]["classes"]["member"]["precision"]["count"] == 2
    empty = folded(visual, model[:0], human[:0], 0.95)["perseus"]
    assert (empty["confusion"]["counts"], empty["report"]["accuracy"]["value"]) == (None, None)


def test_the_command_draws_what_the_recipe_asks_for(finished):
    done = finished("summarize", "-r", "tiny.toml", "--json", "--set", 'evaluation.pairs=["ra", "dec"]',
                           "--set", 'evaluation.groups={north="dec > 0"}')  # fmt: skip
    assert done.status == 0, done.err
    values = json.loads(done.out)
    files = sorted(one.name for one in (finished.run / "release" / "figures").iterdir())
    assert files == sorted(values["figures"])
    assert any(name.startswith("pairs") and name.endswith(".png") for name in files)
    assert [one["group"] for one in values["grouped"]["groups"]] == ["north"]
    again = finished("summarize", "-r", "tiny.toml")
    assert again.status == 0, again.err
    assert not (finished.run / "release" / "figures").exists()
    wrong = finished("summarize", "-r", "tiny.toml", "--set", 'evaluation.groups={north="deck > 0"}')
    assert wrong.status == 2
    assert wrong.lines[-1].startswith("catmorph: error: evaluation.groups.north: cut 'deck > 0' names unknown column")
