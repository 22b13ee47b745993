"""Recipes: presets, extending, overriding, and what is refused."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from catalogs import recipe_text

import catmorph.recipe
from catmorph.errors import ProblemsError, RecipeError, UsageError
from catmorph.recipe import load_recipe, preset_names, preset_path, write_recipe
from catmorph.recipe.paths import PATH_KEYS
from catmorph.recipe.reference import MINIMAL, reference_markdown
from catmorph.release.provenance import recipe_without_paths
from catmorph.templates import fill, matcher, names_in, pattern_problem


def changed(path, **changes):
    """Write the minimal recipe with `section__key=value` changes (None removes) and return its path."""
    table = tomllib.loads(MINIMAL)
    for name, value in changes.items():
        *sections, key = name.split("__")
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
        if value is None:
            del inner[key]
        else:
            inner[key] = value
    path.write_text(tomli_w.dumps(table))
    return path


def problems(path, *overrides):
    with pytest.raises(ProblemsError) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.problems


@pytest.mark.parametrize("name", preset_names())
def test_presets_load(name):
    recipe = load_recipe(preset_path(name))
    assert recipe.all_views
    assert all(Path(file).is_absolute() for file in recipe.catalog.files)


@pytest.mark.parametrize("name", preset_names())
def test_a_resolved_recipe_loads_as_the_same(tmp_path, name):
    recipe = load_recipe(preset_path(name))
    (tmp_path / "recipe.toml").write_text(write_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.toml") == recipe
    assert write_recipe(load_recipe(tmp_path / "recipe.toml")) == write_recipe(recipe)


def test_an_unknown_preset():
    with pytest.raises(RecipeError, match="unknown preset 'clahs'; did you mean 'clash'"):
        preset_path("clahs")
    with pytest.raises(RecipeError, match="unknown preset"):
        preset_path("../pyproject")


def test_paths_are_relative_to_the_file_that_gives_them(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "child").mkdir()
    changed(tmp_path / "base" / "base.toml")
    child = tmp_path / "child" / "child.toml"
    child.write_text(
        'extend = "../base/base.toml"\nname = "child"\n[mosaics]\npattern = ["a_{field}.fits", "~/b.fits"]\n'
    )
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("child/child.toml", ["classifiers.mine.checkpoint=here.safetensors"])
    assert recipe.catalog.files == (f"{tmp_path}/base/evcc.fits",)
    assert recipe.mosaics.pattern == (f"{tmp_path}/child/a_{{field}}.fits", os.path.expanduser("~/b.fits"))
    assert recipe.classifiers["mine"].checkpoint == f"{tmp_path}/here.safetensors"


NETWORKS = """
[experiments]
start = "nets/start.safetensors"
[experiments.networks.mine]
model = "resnet18"
start = "nets/other.safetensors"
teachers = ["nets/a.safetensors", "~/b.safetensors"]
[experiments.networks.pretrained]
backbone = "imagenet"
teachers = "nets/a.safetensors"
"""


def test_paths_of_the_networks_of_a_comparison_are_those_of_trainings(tmp_path):
    (tmp_path / "r.toml").write_text(MINIMAL + NETWORKS)
    recipe = load_recipe(tmp_path / "r.toml", ["experiments.networks.other.teachers=a.safetensors"])
    networks = recipe.experiments.networks
    first = f"{tmp_path}/nets/a.safetensors"
    assert networks["mine"]["teachers"] == [first, os.path.expanduser("~/b.safetensors")]
    assert networks["mine"]["start"] == f"{tmp_path}/nets/other.safetensors"
    assert networks["pretrained"] == {"backbone": "imagenet", "teachers": first}
    assert networks["other"]["teachers"] == f"{Path.cwd()}/a.safetensors"
    cut = recipe_without_paths(recipe)["experiments"]
    assert cut["start"] == "start.safetensors"
    assert cut["networks"]["mine"]["teachers"] == ["a.safetensors", "b.safetensors"]
    assert cut["networks"]["pretrained"] == {"backbone": "imagenet", "teachers": "a.safetensors"}


def test_what_is_no_path_where_one_belongs_is_left_alone(tmp_path):
    """Values of networks are looked at when they are compared."""
    (tmp_path / "r.toml").write_text(MINIMAL + '[experiments.networks.a]\nstart = 5\nteachers = [1, "a.safetensors"]')
    recipe = load_recipe(tmp_path / "r.toml")
    assert recipe.experiments.networks["a"] == {"start": 5, "teachers": [1, f"{tmp_path}/a.safetensors"]}
    cut = recipe_without_paths(recipe)["experiments"]["networks"]
    assert cut["a"] == {"start": 5, "teachers": [1, "a.safetensors"]}


def test_the_keys_that_hold_paths():
    assert {".".join(keys) for keys in PATH_KEYS} == {
        "catalog.files", "catalog.match.*.files", "images.files", "mosaics.pattern", "mosaics.weight", "mosaics.flag",
        "classifiers.*.checkpoint", "labels.table", "labels.stamp_files", "training.output", "training.start",
        "training.backbone", "training.teachers", "experiments.folder", "experiments.start", "experiments.source",
        "experiments.networks.*.start", "experiments.networks.*.backbone", "experiments.networks.*.teachers",
    }  # fmt: skip


def test_extending(tmp_path):
    changed(tmp_path / "a.toml", stamp__pixels=32, catalog__ra={"column": "ra", "unit": "rad"})
    (tmp_path / "b.toml").write_text('extend = "a.toml"\n[stamp]\nside = "3 radii"\n[views]\ncolour = ["g", "r"]\n')
    (tmp_path / "c.toml").write_text(
        'extend = "b.toml"\nname = "c"\n[catalog]\nra = "RAJ2000"\nfield = { pattern = "{field}.cat" }\n'
        '[classifiers.other]\ncheckpoint = "o.safetensors"\n[views]\nred = ["r"]\n'
    )
    recipe = load_recipe(tmp_path / "c.toml")
    assert (recipe.name, recipe.stamp.pixels, recipe.stamp.side) == ("c", 32, "3 radii")
    assert (recipe.catalog.ra.column, recipe.catalog.ra.unit) == ("RAJ2000", None)
    assert (recipe.catalog.field.pattern, recipe.catalog.field.value) == ("{field}.cat", None)
    assert recipe.all_views == {"red": ("r",)}
    assert list(recipe.classifiers) == ["mine", "other"]


def test_leaving_out_keys_of_the_base(tmp_path):
    changed(tmp_path / "a.toml", stamp__pixels=32, stamp__side="3 arcsec")
    (tmp_path / "b.toml").write_text('extend = "a.toml"\nwithout = ["stamp.pixels", "classifiers.mine"]\n')
    recipe = load_recipe(tmp_path / "b.toml")
    assert (recipe.stamp.pixels, recipe.stamp.side, recipe.classifiers) == (80, "3 arcsec", {})


@pytest.mark.parametrize(("text", "message"), [
    ('without = ["stamp.pixel"]',
     "without: 'stamp.pixel' is no key of the recipe that is extended; did you mean 'pixels'"),
    ('without = ["name.a"]', "without: 'name.a' is no key"), ("without = 3", "`without` must be a list of keys"),
    ('without = [""]', "without: '' is no key"),
])
def test_leaving_out_what_is_not_there(tmp_path, text, message):
    changed(tmp_path / "a.toml", stamp__pixels=32)
    (tmp_path / "b.toml").write_text(f'extend = "a.toml"\n{text}\n')
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "b.toml")
    (tmp_path / "c.toml").write_text('without = ["stamp"]\nname = "c"\n')
    with pytest.raises(RecipeError, match="`without` is for recipes that `extend` another"):
        load_recipe(tmp_path / "c.toml")


def test_extending_a_preset_by_name(tmp_path):
    (tmp_path / "mine.toml").write_text('extend = "clash"\nname = "mine"\n')
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.name == "mine"
    assert recipe.bands == load_recipe(preset_path("clash")).bands


@pytest.mark.parametrize(("text", "message"), [
    ('extend = "a.toml"', "the recipe extends itself"), ('extend = "b.toml"', "the recipe extends itself"),
    ("extend = 1", "`extend` must be the path or preset name of one recipe"),
    ('extend = ["clash"]', "`extend` must be"), ('extend = "clsh"', "unknown preset 'clsh'; did you mean 'clash'"),
    ("name = ", "is not valid TOML"), ('name = "a"\nname = "b"', "is not valid TOML"),
])
def test_recipes_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text('extend = "a.toml"')
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "a.toml")


def test_no_such_recipe_or_not_text(tmp_path):
    with pytest.raises(RecipeError, match=r"x\.toml: no such recipe; `catmorph init PRESET` writes one"):
        load_recipe(tmp_path / "x.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match=r"is not text in UTF-8|cannot be read"):
        load_recipe(tmp_path / "b.toml")


def test_overrides_have_toml_types_or_are_text(tmp_path):
    path = changed(tmp_path / "a.toml")
    recipe = load_recipe(path, [
        "run.chunk_rows=512", "catalog.cuts=r < 19.4 and mem == 'M'", 'bands.names=["g"]', "catalog.allow_empty=true",
        "catalog.ra.unit=rad", "catalog.size.column=r_kron", "catalog.null=-99", "stamp.min_signal = 3.5",
        "views.v=g", "name=other",
    ])
    assert recipe.run.chunk_rows == 512
    assert recipe.catalog.cuts == ("r < 19.4 and mem == 'M'",)
    assert recipe.bands.names == ("g",)
    assert recipe.catalog.allow_empty is True
    assert (recipe.catalog.ra.column, recipe.catalog.ra.unit) == ("ra", "rad")
    assert (recipe.catalog.size.column, recipe.catalog.size.unit) == ("r_kron", "arcsec")
    assert recipe.catalog.null == (-99.0,)
    assert recipe.stamp.min_signal == 3.5
    assert recipe.views == {"v": ("g",)}
    assert recipe.name == "other"


@pytest.mark.parametrize("text", ["run.chunk_rows", "=3", "run.=3", ".x=3", ""])
def test_overrides_that_are_none(tmp_path, text):
    with pytest.raises(RecipeError, match=r"must be section\.key=value"):
        load_recipe(changed(tmp_path / "a.toml"), [text])


@pytest.mark.parametrize(("override", "message"), [
    ('training.output="a\\u0000b"', "training.output: is not text in UTF-8 without zero bytes"),
    ("title=\udce9", "title: is not text in UTF-8 without zero bytes (got '\\udce9')"),
    ("catalogg.files=x", "catalogg: unknown key, did you mean 'catalog'?"),
    ("catalog.magnitud=x", "catalog.magnitud: unknown key, did you mean 'magnitude'?"),
    ("catalog.ra.units=deg", "catalog.ra.units: unknown key, did you mean 'unit'?"),
    ("catalog.field.patern=x", "catalog.field.patern: unknown key, did you mean 'pattern'?"),
    ("classifiers.mine.chekpoint=x", "classifiers.mine.chekpoint: unknown key, did you mean 'checkpoint'?"),
    ("stamp.pixel=3", "stamp.pixel: unknown key, did you mean 'pixels'?"),
    ('release.columns=[{name="a", source="id", decimal=1}]', "did you mean 'decimals'?"),
    ("zzz=1", "zzz: unknown key, valid: name, title, reference, obtain, scheme"),
    ("scheme=clsh", "unknown label scheme 'clsh'; did you mean 'clash'?"),
    ("stamp.pixels=many", "stamp.pixels: Input should be a valid integer"),
    ("stamp.pixels=2", "stamp.pixels: Input should be greater than or equal to 4 (got 2)"),
    ("stamp.side=four radii", "stamp.side: must be a positive number and a unit: '4 radii', '10 arcsec'"),
    ("stamp.side=4", "stamp.side: must be a positive number and a unit: '4 radii', '10 arcsec'"),
    *((f"stamp.side={number} arcsec", "stamp.side: must be a positive number and a unit")
      for number in ("0", "-4", "1e999", "1e", "1.2.3", "nan", "\u0664")),
    ("stamp.resample=bilinaer", "Input should be 'bilinear' or 'area' (got 'bilinaer'); did you mean 'bilinear'?"),
    ("stamp.resample=bicubic", "stamp.resample: Input should be 'bilinear' or 'area' (got 'bicubic')"),
    ("catalog.ra.column=[1]", "catalog.ra.column: must be text or a number"),
    ("catalog.null=[[1]]", "catalog.null.0: must be text or a number"),
    ("catalog.ra.unit=degres", "catalog.ra.unit: unknown unit 'degres', did you mean 'deg'?"),
    ("catalog.size.unit=kpc", "catalog.size.unit: unknown unit 'kpc', valid: arcsec, arcmin"),
    ("catalog.id.unit=deg", "catalog.id.unit: id takes no unit"),
    ("catalog.size.unit=pixels", "catalog.pixel_scale: sizes are in pixels, so it (arcsec a pixel) must be given"),
    ("catalog.frame=b1950", "catalog.frame: Input should be 'icrs', 'fk5', 'fk4' or 'galactic'"),
    ("catalog.field.column=x", "catalog.field: give exactly one of value, column and pattern"),
    ('catalog.field={value="../x"}', "catalog.field: field '../x' must be letters"),
    ('catalog.field={value=""}', "catalog.field: field '' must be letters"),
    ("catalog.duplicates=brightest", "catalog.duplicates = 'brightest' needs catalog.magnitude"),
    ('bands.names=["g", "g"]', "bands: a band is named twice"),
    ("bands.names=[]", "bands.names: List should have at least 1 item"),
    ('bands.names=["g/r"]', "bands: band name 'g/r' must be letters"),
    ('bands.names=["g\\n"]', "bands: band name"),
    ("bands.reference=z", "bands: unknown band 'z'; bands are g, r"),
    ('views.v=["g", "rr"]', "view 'v' names unknown band 'rr', did you mean 'r'?"),
    ("views.v=[]", "view 'v' has no band"),
    ("classifiers.mine.views=gg", "classifier 'mine' names unknown view 'gg', did you mean 'g'?"),
    ("mosaics.pattern={fild}_{band}.fits", "uses {fild}, did you mean 'field'?"),
    ("mosaics.pattern={Field}.fits", "uses {Field}, did you mean 'field'?"),
    ("mosaics.weight={band|lowr}.fits", "uses |lowr, did you mean 'lower'?"),
    ("normalise.low=99.9", "normalise.low must be below normalise.high"),
    ("stamp.min_side_pixels=5000", "stamp.min_side_pixels must be below stamp.max_side_pixels"),
    ("run.tolerance=1.5", "run.tolerance: Input should be less than or equal to 1 (got 1.5)"),
    ("stamp.max_bad_fraction=nan", "stamp.max_bad_fraction: Input should be a finite number"),
    ("name=a b", "name: must be letters, digits, '.'"),
    ("name=true", "name: Input should be a valid string (got True)"),
    ("catalog=5", "catalog: Input should be a"),
    ("classifiers=[1]", "classifiers: Input should be a table [classifiers.NAME]"),
    ("classifiers=5", "classifiers: Input should be a table [classifiers.NAME] (got 5)"),
    ("catalog.match=[1]", "catalog.match.0: Input should be a table [[catalog.match]] (got 1)"),
    ("catalog.match.files=a.cat", "catalog.match: Input should be a list of tables [[catalog.match]]"),
    ("release.columns=[1]", "release.columns.0: Input should be a table [[release.columns]] (got 1)"),
    ("views=[1]", "views: Input should be a table [views]"),
    ("experiments.networks=x", "experiments.networks: Input should be a table [experiments.networks.NAME] (got 'x')"),
    ("experiments.networks.a=1", "experiments.networks.a: Input should be a table [experiments.networks.a] (got 1)"),
    (f"run.chunk_rows={'9' * 5000}", "run.chunk_rows: Unable to parse input string as an integer"),
])
def test_what_is_refused(tmp_path, override, message):
    found = problems(changed(tmp_path / "a.toml"), override)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize("override", [
    "scheme={}", "stamp.{}=1", "stamp.resample={}", "stamp.pixels={}", "{}=1", "views.v=[\"{}\"]", "views.{}=[\"q\"]",
    "mosaics.pattern={{band|{}}}", "mosaics.pattern={{{}}}", "classifiers.mine.views={}", "title=\0{}",
    "bands.reference={}", "classifiers.{}.checkpoint=5", "catalog.ra.unit={}",
])
@pytest.mark.parametrize("text", ["x" * 100000, "x'\"y " * 20000], ids=["plain", "quotes"])
def test_long_texts_are_shown_shortened(tmp_path, override, text):
    for problem in problems(changed(tmp_path / "a.toml"), override.format(text)):
        assert len(problem) < 1000
        assert "..." in problem
        assert text[:40].strip() in problem.replace("\\", "")


@pytest.mark.parametrize(("text", "override"), [
    (f'extend = "{"x" * 100000}"', ()), (f"[{'x' * 100000}]\n" * 2, ()), (MINIMAL, "x" * 100000),
    (f'extend = "samples/clash"\nwithout = ["{"x" * 100000}"]', ()), ("a = " + "9" * 5000, ()),
    (f"[run]\nchunk_rows = -{'9' * 4000}", ()),
], ids=["extend", "twice", "set", "without", "digits", "number"])
def test_long_texts_of_recipes_that_cannot_be_read(tmp_path, text, override):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "a.toml", [override] if override else ())
    assert len(str(caught.value)) < 1000


def test_each_type_that_a_value_may_have_is_told(tmp_path):
    found = problems(changed(tmp_path / "a.toml"), "training.class_weights=5")
    assert "training.class_weights: Input should be 'none' or 'balanced' (got 5)" in found
    assert "training.class_weights: Input should be a table [training.class_weights] (got 5)" in found


def test_classifiers_of_a_base_that_are_no_tables(tmp_path):
    changed(tmp_path / "base.toml", classifiers=[1])
    (tmp_path / "a.toml").write_text('extend = "base.toml"\n[classifiers.mine]\ncheckpoint = "c.safetensors"\n')
    assert load_recipe(tmp_path / "a.toml").classifiers.keys() == {"mine"}


def test_all_problems_at_once(tmp_path):
    path = changed(tmp_path / "a.toml", scheme="clsh", catalog__files=None, stamp__pixels=1, bands__nmes=3)
    assert problems(path) == [
        "catalog.files: missing; table files or globs, relative to the recipe",
        "bands.nmes: unknown key, did you mean 'names'?",
        "stamp.pixels: Input should be greater than or equal to 4 (got 1)",
        "unknown label scheme 'clsh'; did you mean 'clash'?",
    ]
    path = changed(tmp_path / "b.toml", catalog__size=None, catalog__duplicates="brightest", views={"a": ["z"]})
    assert [text.split(" ")[0] for text in problems(path)] == ["view", "stamp.side", "catalog.duplicates"]
    with pytest.raises(UsageError, match="3 problems: view 'a' names unknown band 'z'"):
        load_recipe(path)


def test_a_recipe_with_a_missing_section(tmp_path):
    (tmp_path / "a.toml").write_text('name = "a"\n')
    assert [text.split(":")[0] for text in problems(tmp_path / "a.toml")] == ["catalog", "mosaics", "scheme", "bands"]


def test_the_recipe_of_the_tests_is_complete(tmp_path):
    (tmp_path / "small.toml").write_text(recipe_text())
    assert load_recipe(tmp_path / "small.toml").name == "small"


def test_the_example_of_the_reference_loads_and_is_minimal(tmp_path):
    (tmp_path / "a.toml").write_text(MINIMAL)
    assert load_recipe(tmp_path / "a.toml").all_views == {"g": ("g",), "r": ("r",)}
    assert f"```toml\n{MINIMAL}```" in reference_markdown()
    assert "typing" not in reference_markdown()
    for key in ("name", "scheme", "catalog__files", "catalog__field", "catalog__id", "catalog__size", "bands__names"):
        assert problems(changed(tmp_path / "b.toml", **{key: None}))


def test_the_reference_is_current():
    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    assert page.read_text() == reference_markdown(), (
        "write it again: python -c 'from catmorph.recipe.reference import *; print(reference_markdown(), end=\"\")'"
    )


def test_templates():
    values = {"field": "{band}", "band": "F850LP"}
    assert fill("{field}_{band|lower}_{band|capital}", values) == "{band}_f850lp_F850lp"
    with pytest.raises(RecipeError, match=r"uses \{bnd\}; did you mean 'band'\?"):
        fill("{bnd}", values)
    assert names_in("{a}_{b|upper}") == {"a", "b"}
    assert matcher("{field}_(1).cat").match("a_b_(1).cat")["field"] == "a_b"
    assert matcher("{field}.cat").match("a.cat.gz") is None
    assert pattern_problem("a/{field}*[0-9].fits", ("field", "band")) is None


def test_a_folder_with_brackets_is_no_glob(tmp_path):
    from catmorph.sources.inputs import catalog_files
    from catmorph.stamps.mosaics import find_mosaics

    folder = tmp_path / "night[1]"
    (folder / "mosaics").mkdir(parents=True)
    (folder / "catalogs").mkdir()
    (folder / "catalogs" / "a.cat").write_text("ID RA DEC\n")
    (folder / "mosaics" / "a_f160w.fits").write_bytes(b"")
    text = preset_path("clash").read_text()
    (folder / "r.toml").write_text(text)
    recipe = load_recipe(folder / "r.toml")
    assert [path.name for path in catalog_files(recipe.catalog)] == ["a.cat"]
    assert [tile.name for tile in find_mosaics(recipe, "a", "F160W")] == ["a_f160w.fits"]


def test_recipes_that_no_reader_can_take(tmp_path):
    with pytest.raises(RecipeError, match="a user who is not there"):
        load_recipe("~nobody-of-this-name/a.toml")
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 5000)
    with pytest.raises(RecipeError, match="nested too deeply"):
        load_recipe(deep)


def test_names_of_the_package_are_imported_when_they_are_asked_for():
    assert sorted(catmorph.recipe._PLACES) == sorted(catmorph.recipe.__all__)
    assert all(callable(getattr(catmorph.recipe, name)) for name in catmorph.recipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = catmorph.recipe.nothing
    code = "import sys, catmorph.stamps.normalise; " \
           "print(sorted(name for name in sys.modules if name.startswith('catmorph.recipe.')))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['catmorph.recipe.base', 'catmorph.recipe.pixels']\n"
