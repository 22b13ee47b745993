"""What `catmorph labels report` says of label tables, the real ones among them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from catmorph.cli import cli
from catmorph.errors import UsageError
from catmorph.evaluation.label_report import read_names, rename_columns
from catmorph.schemes import load_scheme

ROOT = Path(__file__).resolve().parents[1]
HEADER = "ID,p_smooth,p_features,p_irregular,p_point_source,p_unclassifiable"


def run(*arguments):
    done = CliRunner().invoke(cli, ["labels", "report", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def found(*arguments):
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


# --- the public tables of Perez-Carrasco et al. (2019) ----------------------------------------------------


def test_the_candels_table(real_data):
    table = real_data / "clash" / "CANDELS_labels.csv"
    report = found(table, "--scheme", "clash", "--stamp", "GDS_{field}_{id}", "--votes", 5)
    assert (report["stamps"], report["sources"], report["views"]) == (7567, 7567, {})
    assert round(report["mean_label_rmse"], 4) == 0.2352
    assert round(report["mean_label_rmse_authors"], 4) == 0.2125
    # With the five votes that are the least there can be.
    assert (round(report["vote_noise_rmse"], 3), round(report["vote_noise_rmse_authors"], 3)) == (0.139, 0.124)


def test_the_clash_table(real_data):
    table = real_data / "clash" / "CLASH_labels.csv"
    report = found(table, "-r", ROOT / "configs" / "clash.toml", "--votes", 7)
    assert (report["stamps"], report["sources"], len(report["fields"])) == (1600, 912, 25)
    assert list(report["views"].items())[:3] == [("F225W", 101), ("F275W", 99), ("F336W", 100)]
    assert (len(report["views"]), sum(report["views"].values()), report["names_not_read"]) == (16, 1600, 0)
    assert round(report["mean_label_rmse"], 4) == 0.2958
    assert round(report["mean_label_rmse_authors"], 4) == 0.2772
    assert (round(report["vote_noise_rmse"], 3), round(report["vote_noise_rmse_authors"], 3)) == (0.098, 0.080)
    for votes, floor in ((5, 0.120), (9, 0.085)):
        again = found(table, "--scheme", "clash", "--votes", votes)
        assert round(again["vote_noise_rmse"], 3) == floor
        assert again["sources"] == 912


# --- small tables -----------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(f"{HEADER},votes\na1_f1w_1,1,0,0,0,0,4\na1_f2w_1,0.5,0.5,0,0,0,6\nb_f1w_7,0.2,0.8,0,0,0,5\n")
    return path


def test_a_report(table):
    report = found(table, "--scheme", "clash")
    assert (report["stamps"], report["sources"]) == (3, 2)
    assert report["classes"]["spheroid"] == {"mean": pytest.approx(1.7 / 3), "majority": 1, "unanimous": 1}
    assert report["classes"]["disk"] == {"mean": pytest.approx(1.3 / 3), "majority": 1, "unanimous": 0}
    assert (report["tied"], report["unanimous_share"]) == (1, pytest.approx(1 / 3))
    assert report["votes"] == {"total": 15, "least": 4, "median": 5, "most": 6}
    spread = np.array([0, 0.25 / 5, 0.16 / 4])
    assert report["vote_noise_rmse"] == pytest.approx(np.sqrt(2 * spread.mean() / 5), rel=1e-6)
    assert report["vote_noise_rmse_authors"] == pytest.approx(np.sqrt(2 * spread / 5).mean(), rel=1e-6)
    status, out, _ = run(table, "--scheme", "clash")
    assert (status, out.splitlines()[0]) == (0, "3 stamps of 2 sources, 2 fields, 2 views")
    assert out.splitlines()[-1] == "votes: 15, 4 to 6 a stamp, median 5"


def test_columns_of_other_names(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("name,E,S,p_irregular,p_point_source,p_unclassifiable,n\nx/1,0.75,0.25,0,0,0,8\n")
    renamed = ["--id-column", "name", "--column", "spheroid=E", "--column", "disk=S", "--votes-column", "n"]
    report = found(path, "--scheme", "clash", *renamed, "--stamp", "{field}/{id}")
    assert (report["classes"]["spheroid"]["mean"], report["votes"]["total"]) == (0.75, 8)
    assert (report["fields"], report["views"], report["sources"]) == ({"x": 1}, {}, 1)
    wrong = run(path, "--scheme", "clash", *renamed, "--column", "irregular=I")[2]
    assert wrong == f"catmorph: error: {path}: has no column 'I'; valid: name, E, S, p_irregular, " \
                    "p_point_source, p_unclassifiable, n\n"


def test_without_votes_the_floor_is_not_told(table):
    table.write_text(f"{HEADER}\nx,0.5,0.5,0,0,0\ny_f1_2,1,0,0,0,0\n")
    report = found(table, "--scheme", "clash")
    assert (report["votes"], report["votes_assumed"], report["vote_noise_rmse"]) == (None, None, None)
    assert (report["names_not_read"], report["names_not_read_first"]) == (1, ["x"])
    out = run(table, "--scheme", "clash")[1]
    assert "1 names do not follow the pattern: x\n" in out
    assert out.endswith("votes: not in the table; --votes N gives the noise of N votes a stamp\n")
    assert found(table, "--scheme", "clash", "--votes", 6)["vote_noise_rmse"] == pytest.approx(np.sqrt(0.05 * 2 / 10))


@pytest.mark.parametrize(("arguments", "message"), [
    (["--votes", 5], "the table has its own votes, in column 'votes'; leave --votes out"),
    (["--column", "disc=S"], "scheme 'clash' has no class 'disc'; did you mean 'disk'?"),
    (["--column", "disk=p_smooth"], "column 'p_smooth' is that of several classes"),
    (["--column", "disk"], "--column 'disk' is not of the form CLASS=NAME"),
    (["--stamp", "{cluster}_{id}"], "pattern '{cluster}_{id}' uses {cluster}"),
    (["--set", "a.b=1"], "--scheme is for work without a recipe"),
])  # fmt: skip
def test_errors_of_report(table, arguments, message):
    status, _, err = run(table, "--scheme", "clash", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.parametrize(("text", "message"), [
    (f"{HEADER},p_disk,p_smooth\nx,1,0,0,0,0,0,0.5\n", "has 2 columns 'p_smooth'"),
    (f"ID,{HEADER}\ny,x,1,0,0,0,0\n", "has 2 columns 'ID'"),
    (f"{HEADER}\nx,1,0,0,0,0,\n", "the first row has more cells than the header; name every column"),
    (f"{HEADER},votes\nx,1,0,0,0,0,1e308\n",
     "column 'votes' is no number of 0 or more, at most 1e+09 in 1 of 1 rows: row 1; correct these rows, or leave them "
     "out"),
])  # fmt: skip
def test_tables_that_could_be_read_in_two_ways_are_refused(table, text, message):
    table.write_text(text)
    status, _, err = run(table, "--scheme", "clash")
    assert (status, err) == (2, f"catmorph: error: {table}: {message}\n")


def test_an_empty_table_and_hostile_names(table):
    table.write_text(HEADER + "\n")
    assert "labels.csv: holds no labels" in run(table, "--scheme", "clash")[2]
    table.write_text(f"{HEADER}\n\x1b[31mred,1,0,0,0,0\n")
    assert "\x1b" not in run(table, "--scheme", "clash")[1]


def test_names_with_the_separator_in_the_field():
    views = ("F1W", "F2W")
    names = read_names(["abell_2744_f1w_3", "abell_2744_f2w_3", "abell_f3w_3"], "{field}_{view|lower}_{id}", views)
    assert (names.sources, names.fields, names.views) == (1, {"abell_2744": 2}, {"F1W": 1, "F2W": 1})
    assert names.unread == ("abell_f3w_3",)
    assert read_names(["x_1"], "{field}_1").sources is None
    with pytest.raises(UsageError, match="column 'p_features' is that of several classes"):
        rename_columns(load_scheme("clash"), {"spheroid": "p_features"})
