"""Columns that a recipe names are looked for in it and in the headers of its tables, before any work."""

from __future__ import annotations

import pytest
from astropy.table import Table
from catalogs import new_run, section
from tiny_survey import Survey

from catmorph.preflight import Findings, quick_findings
from catmorph.sources.header import column_names
from catmorph.sources.names import check_names

COLUMNS = ["ID", "RA", "DEC", "g", "z"]


def table(rows=3):
    return Table([list(range(rows)), *([float(row) for row in range(rows)] for _ in COLUMNS[1:])], names=COLUMNS)


@pytest.mark.parametrize("name", ["cat.fits", "cat.csv", "cat.ecsv", "cat.parquet", "cat.txt"])
def test_the_header_tells_the_columns(tmp_path, name):
    path = tmp_path / name
    formats = {"cat.txt": "ascii.commented_header"}
    if name.endswith("parquet"):
        table().to_pandas().to_parquet(path)
    else:
        table().write(path, format=formats.get(name))
    assert column_names(path, section(files=str(path)), ["ID"]) == COLUMNS
    assert column_names(path, section(files=str(path)), ["ID", "not there"]) == COLUMNS


def test_rows_are_not_read_for_that(tmp_path):
    text, fits = tmp_path / "cat.csv", tmp_path / "cat.fits"
    table(150).write(text)
    with open(text, "a") as file:
        file.write("1,2,3,4,5,6\n")  # too many cells: the whole cannot be read
    assert column_names(text, section(), COLUMNS) == COLUMNS
    assert column_names(text, section(), ["not there"]) is None  # the whole would have to tell
    table(2000).write(fits)
    fits.write_bytes(fits.read_bytes()[: 3 * 2880])
    assert column_names(fits, section(), ["not there"]) == COLUMNS


def test_columns_of_a_table_without_header_have_numbers(tmp_path):
    path = tmp_path / "cat.csv"
    path.write_text("1,2.0,3.0\n2,2.0,3.0\n")
    assert column_names(path, section(id=1, ra=2, dec=3), ["col4"]) == ["col1", "col2", "col3"]


def problems(folder, *overrides, **catalog):
    table().write(folder / "cat.csv", overwrite=True)
    run = new_run(folder, *overrides, **catalog)
    found = Findings()
    found.attempt(check_names, run.recipe)
    assert set(found.problems) <= set(quick_findings(run).problems)
    return found.problems


def test_a_recipe_whose_columns_are_there(tmp_path):
    assert problems(tmp_path, 'evaluation.groups={red="g - z > 1 and size > 2"}', 'evaluation.pairs=["g", "id"]',
                    keep=["g", "z"], cuts=['g > 1 and col("RA") > 1 and ra > 2']) == []  # fmt: skip


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ('evaluation.groups={red="g - z > 1"}', "evaluation.groups.red: cut 'g - z > 1' names unknown column 'z'; "
         "valid: field, id, ra, dec, magnitude, size, g; add z of the survey table to catalog.keep"),
        ('evaluation.colour_magnitude={x="g", y="gg - u"}', "evaluation.colour_magnitude.y: cut 'gg - u' names unknown "
         "columns 'gg', 'u'; valid: field, id, ra, dec, magnitude, size, g; columns of the survey table go into "
         "catalog.keep"),
        ('evaluation.pairs=["g", "log10(sise)"]', "evaluation.pairs: cut 'log10(sise)' names unknown column 'sise'; "
         "did you mean 'size'?; columns of the survey table go into catalog.keep"),
        ('labels.rules={disk="u > 1"}', "labels.rules.disk: cut 'u > 1' names unknown column 'u'; valid: field, id, "
         "ra, dec, magnitude, size, g; columns of the survey table go into catalog.keep"),
        ('labels.class_column="z"', "labels.class_column names unknown column 'z'; valid: field, id, ra, dec, "
         "magnitude, size, g; add z of the survey table to catalog.keep"),
    ],
)  # fmt: skip
def test_columns_that_the_sources_will_not_have(tmp_path, override, wanted):
    assert problems(tmp_path, override, keep=["g"]) == [wanted]


def test_columns_that_the_tables_do_not_have(tmp_path):
    table().write(tmp_path / "other.csv")
    match = [{"files": "other.csv", "ra": "RA", "dec": "DE", "columns": ["Z"], "prefix": "o_", "radius_arcsec": 1.0}]
    found = problems(tmp_path, dec="DECL", keep=["mag"], cuts=["FLAG == 0 and o_Z > 1"], match=match)
    assert [one.removeprefix(f"{tmp_path}/") for one in found] == [
        "cat.csv: no column 'DECL' for catalog.dec; did you mean 'DEC'?",
        "cat.csv: no column 'mag' for catalog.keep; valid: ID, RA, DEC, g, z",
        "cut 'FLAG == 0 and o_Z > 1' names unknown column 'FLAG'; valid: ID, RA, DEC, g, z, id, field, ra, dec, o_Z, "
        "o_separation_arcsec",
        "other.csv: no column 'DE' for catalog.match.dec; did you mean 'DEC'?",
        "other.csv: no column 'Z' for catalog.match.columns; did you mean 'z'?",
    ]


def test_run_and_evaluate_stop_before_any_work(pristine_survey: Survey, tmp_path):
    survey = pristine_survey.copy(tmp_path / "copy")
    wrong = ("--set", 'evaluation.pairs=["magnitude", "FLAG"]')
    told = "evaluation.pairs: cut 'FLAG' names unknown column 'FLAG'; valid: field, id, ra, dec, magnitude, size; add"
    for command in (("run", "tiny.toml"), ("check", "-r", "tiny.toml"),
                    ("evaluate", "untrained.safetensors", "labels.csv", "-r", "tiny.toml")):  # fmt: skip
        done = survey(*command, *wrong)
        assert done.status == 2, done.err
        assert told in done.err
        assert not list(survey.folder.glob("runs/*/sources.parquet"))
