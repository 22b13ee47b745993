"""Label tables with classes, of folded schemes, chosen by agreement, by position, and labels of the sources."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from catmorph.cli import cli
from catmorph.errors import CatalogError, CatmorphError, UsageError
from catmorph.labels import read_labels
from catmorph.labels.gather import label_tables, labelled_stamps
from catmorph.labels.joined import stamp_labels
from catmorph.pipeline.ingest import run_ingest
from catmorph.recipe import LabelsSection, load_recipe
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

PHANGS, PERSEUS, GZ2 = load_scheme("phangs"), load_scheme("perseus"), load_scheme("gz2-tree")


def section(**options):
    return LabelsSection(**options)


def report(*arguments):
    result = CliRunner().invoke(cli, ["labels", "report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def table_of(tmp_path, text, scheme=PHANGS, name="labels.csv", **options):
    path = tmp_path / name
    path.write_text(text)
    return read_labels(path, scheme, section(**options))


def left_out(table):
    return {one.reason: (one.count, one.first) for one in table.left_out}


# A class a row


def test_a_class_may_be_given_by_name_code_label_or_title(tmp_path):
    text = "ID,type\na,symmetric\nb,2\nc, Compact  ASSOCIATION\nd,4.0\ne,0\nf,\n"
    table = table_of(tmp_path, text, class_column="type")
    assert table.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(table.fractions, np.eye(4))
    assert left_out(table) == {"only entries that are no class": (1, ("e",)), "no class given": (1, ("f",))}
    assert table.report() == ["1 rows of the labels left out, no class given: f",
                              "1 rows of the labels left out, only entries that are no class: e"]  # fmt: skip
    assert table.votes is None


def test_answers_name_classes_and_what_is_left_out(tmp_path):
    answers = {"round": "symmetric", "9": "not_cluster", "meh": ""}
    table = table_of(tmp_path, "ID,c\na,Round\nb,9\nc,meh\n", class_column=2, answers=answers)
    assert table.fractions.argmax(axis=1).tolist() == [0, 3]
    assert left_out(table) == {"only entries that are no class": (1, ("c",))}
    with pytest.raises(UsageError, match=r"^labels.answers: answer 'x' is given to 'symetric', which is no class of "
                                         r"scheme 'phangs'; did you mean 'symmetric'\?"):
        table_of(tmp_path, "ID,c\na,1\n", class_column="c", answers={"x": "symetric"})


@pytest.mark.parametrize(("text", "options", "message"), [
    ("ID,c\na,1\nb,7\nc,7\n", {"class_column": "c"},
     r"column 'c' holds '7', or such entries, which are no class of scheme 'phangs' \(valid: symmetric, .* in 2 "
     "of 3 rows: row 2, 3; correct these rows, or leave them out$"),
    ("ID,c\na,0\nb,\n", {"class_column": "c"},
     "none of 2 rows is a label: 1 no class given; 1 only entries that are no class; check labels.class_column"),
    ("ID,c\na,1\n", {"class_column": "d"}, "has no column 'd'"),
    ("ID,c,c\na,1,1\n", {"class_column": "c"}, "has 2 columns 'c'"),
    ("ID,c\na,1\n", {"class_column": 3}, "no column number 3 for labels.class_column, there are 2"),
    ("ID,c\na,1\na,1\n", {"class_column": "c"}, "column 'ID' repeats a name in 1 of 2 rows: row 2"),
    ("ID,c\na,1\n", {"class_column": "c", "minimum_agreement": 0.7, "votes_column": "c"},
     "none of 1 rows is a label: 1 fewer than 5 votes"),
])  # fmt: skip
def test_bad_class_tables_say_where(tmp_path, text, options, message):
    with pytest.raises(CatalogError, match=message):
        table_of(tmp_path, text, **options)


def test_a_tree_is_not_answered_by_a_class(tmp_path):
    with pytest.raises(CatalogError, match="a column of classes cannot answer scheme 'gz2-tree'"):
        table_of(tmp_path, "ID,c\na,smooth\n", GZ2, class_column="c")


# Several experts

EXPERTS = "ID,e1,e2,e3\na,1,1,2\nb,1,2,3\nc,0,3,3\nd,0,0,4\ne,0,,0\nf,1,2,0\n"


def test_the_mean_of_experts_is_a_fraction_of_votes(tmp_path):
    table = table_of(tmp_path, EXPERTS, class_column=["e1", "e2", "e3"])
    assert table.names == ("a", "b", "c", "d", "f")
    np.testing.assert_allclose(table.fractions[0], [2 / 3, 1 / 3, 0, 0], atol=1e-7)
    np.testing.assert_allclose(table.fractions[4], [1 / 2, 1 / 2, 0, 0])
    assert table.votes.tolist() == [3, 3, 2, 1, 2]


def test_the_mode_of_experts_is_refused_where_it_is_tied(tmp_path):
    table = table_of(tmp_path, EXPERTS, class_column=["e1", "e2", "e3"], votes="mode")
    assert dict(zip(table.names, table.fractions.argmax(axis=1), strict=True)) == {"a": 0, "c": 2, "d": 3}
    assert set(table.fractions.ravel()) == {0, 1}
    assert left_out(table) == {"tied for most votes": (2, ("b", "f")),
                               "only entries that are no class": (1, ("e",))}  # fmt: skip
    first = table_of(tmp_path, EXPERTS, class_column=["e1", "e2", "e3"], votes="mode", ties="first")
    assert first.names == ("a", "b", "c", "d", "f")
    assert first.fractions.argmax(axis=1).tolist() == [0, 0, 2, 3, 0]
    one = table_of(tmp_path, EXPERTS, class_column="e2", votes="mode")
    assert dict(zip(one.names, one.fractions.argmax(axis=1), strict=True)) == {"a": 0, "b": 1, "c": 2, "f": 1}


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=20))
def test_every_row_is_a_label_or_left_out_with_a_reason(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "experts.csv"
    rows[0] = [2, 2, 0]
    pd.DataFrame(rows, columns=["x", "y", "z"]).rename_axis("ID").to_csv(path)
    table = read_labels(path, PHANGS, section(class_column=["x", "y", "z"], votes="mode"))
    assert len(table) + sum(one.count for one in table.left_out) == len(rows)
    for name, label in zip(table.names, table.fractions, strict=True):
        votes = np.bincount(rows[int(name)], minlength=5)[1:]
        assert votes[label.argmax()] == votes.max() > np.sort(votes)[-2]


# Folded schemes


def test_a_folded_scheme_reads_classes_of_the_one_it_folds(tmp_path):
    table = table_of(tmp_path, "ID,c\n" + "".join(f"g{k},{k}\n" for k in range(7)), PERSEUS, class_column="c")
    assert table.names == ("g0", "g1", "g2", "g3", "g5", "g6")
    assert table.fractions[:, 1].tolist() == [0, 0, 0, 1, 1, 0]
    assert left_out(table) == {"most votes for a class that scheme 'perseus' keeps apart": (1, ("g4",))}
    named = table_of(tmp_path, "ID,c\na,member\nb,Edge-on disk\nc,yes\n", PERSEUS, class_column="c",
                     answers={"yes": "likely_dwarf"})  # fmt: skip
    assert named.fractions[:, 1].tolist() == [1, 0, 1]


def test_a_folded_scheme_reads_fractions_of_the_one_it_folds(tmp_path):
    header = ",".join(["ID", *(one.label for one in load_scheme("perseus-visual").classes)])
    rows = "a,.1,.1,.1,.3,.2,.1,.1\nb,0,0,0,.2,.6,.2,0\nc,0,0,0,0,.5,.5,0\n"
    table = table_of(tmp_path, f"{header}\n{rows}", PERSEUS)
    assert table.names == ("a", "c")
    np.testing.assert_allclose(table.fractions, [[0.5, 0.5], [0, 1]], atol=1e-6)
    own = table_of(tmp_path, "ID,background,member\na,.25,.75\n", PERSEUS)
    np.testing.assert_allclose(own.fractions, [[0.25, 0.75]])
    with pytest.raises(CatalogError, match=r"has no column 'background_early_type'"):
        table_of(tmp_path, "ID,late_type\na,1\n", PERSEUS)


# Robust labels


def test_labels_of_agreement_and_votes(tmp_path):
    bar = load_scheme("des-bar")
    text = "ID,bar,n\na,.9,10\nb,.7,10\nc,.71,10\nd,.31,10\ne,.29,10\nf,1,4\n"
    robust = {"minimum_agreement": 0.7, "minimum_votes": 5, "votes_column": "n"}
    table = table_of(tmp_path, text, bar, **robust)
    assert table.names == ("a", "c", "e")
    assert left_out(table) == {"no agreement above 0.7": (2, ("b", "d")), "fewer than 5 votes": (1, ("f",))}
    np.testing.assert_allclose(table.fractions[:, 0], [0.9, 0.71, 0.29])
    assert table_of(tmp_path, text, bar, votes="mode", **robust).fractions[:, 0].tolist() == [1, 1, 0]
    # Without it the number of votes leaves nothing out.
    assert len(table_of(tmp_path, text, bar, votes_column="n")) == 6


def test_modes_of_fractions(tmp_path):
    table = table_of(tmp_path, "ID,symmetric,asymmetric,association,not_cluster\na,.4,.3,.2,.1\nb,.3,.3,.2,.2\n",
                     votes="mode")  # fmt: skip
    assert table.fractions.tolist() == [[1, 0, 0, 0]]
    assert left_out(table) == {"tied for most votes": (1, ("b",))}


def test_the_mode_of_a_tree_is_the_way_down(real_data):
    path = real_data / "galaxyzoo" / "kaggle_label_rows.csv"
    table = read_labels(path, GZ2, section(id_column="GalaxyID", votes="mode"))
    assert set(table.fractions.ravel()) == {0, 1}
    np.testing.assert_array_equal(GZ2.tree.sums(table.fractions), GZ2.tree.expected_sums(table.fractions))


# Reports


def test_the_real_clusters_have_the_counts_of_pandas(real_data):
    (path,) = (real_data / "legus").glob("*.tab")
    frame = pd.read_csv(path, sep=r"\s+", header=None)
    # Columns 34 and 36 count from 1: pandas counts from 0. Another human's class is in the second.
    for number in (34, 36):
        counts = frame[number - 1].value_counts()
        columns = ("--id-column", 1, "--class-column", number, "--stamp", "{id}")
        found = json.loads(report(path, "--scheme", "phangs", *columns, "--json").stdout)
        assert [one["majority"] for one in found["classes"].values()] == [counts[k] for k in (1, 2, 3, 4)]
        assert found["left_out"] == [{"reason": "only entries that are no class", "rows": counts[0],
                                      "first": frame[0][frame[number - 1] == 0].astype(str).tolist()[:5]}]
        assert found["stamps"] == len(frame) - counts[0]
    assert (frame[33].value_counts()[[0, 1, 2, 3, 4]] == [301, 477, 404, 692, 878]).all()


def test_the_real_clusters_are_labelled_by_their_own_catalog(real_data, tmp_path):
    (path,) = (real_data / "legus").glob("*.tab")
    (tmp_path / "p.toml").write_text(f"""
name = "ngc1566"
scheme = "phangs"
[catalog]
files = "{path}"
field = {{ value = "ngc1566" }}
id = 1
ra = 4
dec = 5
magnitude = {{ column = 10, null = 99.999 }}
keep = ["col34"]
[labels]
class_column = 34
[bands]
names = ["V"]
[stamp]
side = "50 pixels"
[mosaics]
pattern = "{{field}}_{{band}}.fits"
""")
    run = RunFolder(tmp_path / "run", load_recipe(tmp_path / "p.toml"))
    assert run_ingest(run).counts["sources"] == 2752
    (table,) = label_tables(run, PHANGS)
    frame = pd.read_csv(path, sep=r"\s+", header=None)
    assert table.fractions.sum(axis=0).tolist() == frame[33].value_counts()[[1, 2, 3, 4]].tolist()
    assert table.left_out[0].count == (frame[33] == 0).sum() == 301
    one = dict(zip(table.names, table.fractions.argmax(axis=1), strict=True))
    assert all(one[f"ngc1566/{row[0]}"] == row[33] - 1 for row in frame.itertuples(index=False) if row[33])


@pytest.mark.parametrize(("text", "options", "message"), [
    ("SIMPLE", {"format": "fits"}, r"cannot be read as fits: .*; check the file, or set labels.format in the recipe"),
    ("ID c\na 1\n", {"format": "nonsense"}, r"cannot be read as nonsense: .*set labels.format in the recipe"),
    ("ID,c\na,1\n", {"hdu": 2, "format": "ascii.csv"}, "labels.hdu does not apply to the format ascii.csv"),
    ("<html>", {"format": "ascii"}, "is a web page, not a table"),
    ('ID,c\n"a,1\n', {}, r"cannot be read as CSV: .*set labels.format where it is another kind of table"),
    ("ra,dec,c\n12:30:01,+1:02:03,1\n", {"ra": "ra", "dec": "dec"},
     r"no label has a position, row 1: ra is not a number: '12:30:01' \(sexagesimal\? set labels.ra.unit\)"),
])  # fmt: skip
def test_broken_label_tables_speak_of_labels(sources, tmp_path, text, options, message):
    (tmp_path / "labels.dat").write_text(text)
    lines = {"table": "labels.dat", "class_column": "c"} | options
    with pytest.raises(CatalogError, match=message):
        sources("\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items()), "phangs")


def test_a_report_may_say_the_format(tmp_path):
    (tmp_path / "l.dat").write_text("ID type\na 1\nb 4\n")
    options = ("--scheme", "phangs", "--class-column", "type", "--stamp", "{id}", "--json")
    found = json.loads(report(tmp_path / "l.dat", "--format", "ascii", *options).stdout)
    assert [one["majority"] for one in found["classes"].values()] == [1, 0, 0, 1]
    assert "has no column 'ID'" in report(tmp_path / "l.dat", *options).stderr


def test_the_report_tells_which_rows_disobey_the_tree(real_data, tmp_path):
    path = real_data / "galaxyzoo" / "kaggle_label_rows.csv"
    columns = ("--id-column", "GalaxyID", "--stamp", "{id}")
    found = json.loads(report(path, "--scheme", "gz2", *columns, "--json").stdout)
    assert found["tree"]["disobey"] == {"cumulative": 0, "parent": 8}
    assert max(one["cumulative"]["largest"] for one in found["tree"]["questions"]) < 2e-6
    rows = pd.read_csv(path).iloc[:, :38]
    labels = rows.iloc[:, 1:].to_numpy()
    spread = np.sqrt(np.square(labels - labels.mean(axis=0)).mean())
    assert found["mean_label_rmse"] == pytest.approx(spread, rel=1e-5)
    rows.loc[2, "Class3.1"] += 0.05
    rows.to_csv(tmp_path / "off.csv", index=False)
    result = report(tmp_path / "off.csv", "--scheme", "gz2-tree", *columns)
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("bar ")]
    assert lines[-1] == ["bar", "edge_on_no", "1", "0.0500", "7", "0.8226"]
    assert "1 rows disobey the first somewhere, 8 the second" in result.stdout


def test_a_report_of_yes_no_questions_counts_each(tmp_path):
    (tmp_path / "l.csv").write_text("ID,bar\na_b_1,1\na_b_2,.5\na_b_3,.2\na_b_4,.7\n")
    found = json.loads(report(tmp_path / "l.csv", "--scheme", "des-bar", "--json").stdout)
    assert found["classes"]["bar"] == {"mean": pytest.approx(0.6), "majority": 2, "unanimous": 1}
    assert (found["tied"], found["unanimous_share"], found["tree"]) == (1, 0.25, None)


# Labels of the sources, by columns, rules and positions

CATALOG = """\
ID,ra,dec,r,z,expert1,expert2
1,10.0,1.0,15,0.02,3,5
2,10.1,1.0,16,0.05,0,0
3,10.2,1.0,17,,4,4
4,10.3,1.0,18,0.001,,1
5,10.4,1.0,19,0.015,5,0
"""
RECIPE = """\
name = "x"
scheme = "{scheme}"
[catalog]
files = "cat.csv"
field = {{ value = "core" }}
id = "ID"
ra = "ra"
dec = "dec"
magnitude = "r"
keep = ["z", "expert1", "expert2"]
[bands]
names = ["g", "r"]
[stamp]
side = "20 pixels"
[mosaics]
pattern = "{{field}}_{{band}}.fits"
[labels]
{labels}
"""


@pytest.fixture
def sources(tmp_path):
    def make(labels, scheme="perseus"):
        (tmp_path / "cat.csv").write_text(CATALOG)
        (tmp_path / "x.toml").write_text(RECIPE.format(scheme=scheme, labels=labels))
        run = RunFolder(tmp_path / "run", load_recipe(tmp_path / "x.toml"))
        run_ingest(run)
        return list(label_tables(run, load_scheme(scheme)))

    return make


def test_columns_of_the_sources_are_labels(sources):
    (table,) = sources('class_column = ["expert1", "expert2"]')
    assert dict(zip(table.names, table.fractions[:, 1].tolist(), strict=True)) == {
        "core/1": 1, "core/2": 0, "core/4": 0, "core/5": 0.5
    }  # fmt: skip
    assert table.votes.tolist() == [2, 2, 1, 2]
    assert left_out(table) == {"most votes for a class that scheme 'perseus' keeps apart": (1, ("core/3",))}
    with pytest.raises(CatalogError, match=r"the sources have no column 'expert3' for labels.class_column; did you "
                                           r"mean 'expert\d'\?; catalog.keep carries columns along"):
        sources('class_column = "expert3"')


SPECTRA = """\
[labels.rules]
member = "0.01 < z and z < 0.033"
background = "z > 0.033"
"""


def test_rules_are_labels(sources):
    (table,) = sources(SPECTRA)
    members = dict(zip(table.names, table.fractions[:, 1].tolist(), strict=True))
    assert members == {"core/1": 1, "core/2": 0, "core/5": 1}
    assert left_out(table) == {"no rule is true": (2, ("core/3", "core/4"))}
    (both,) = sources(SPECTRA.replace("z > 0.033", "z > 0.016"))
    assert left_out(both) == {"no rule is true": (2, ("core/3", "core/4")), "several rules are true": (1, ("core/1",))}


def test_where_labels_come_first_no_rule_need_be_true(sources):
    columns, rules = sources('class_column = ["expert1", "expert2"]\n' + SPECTRA.replace("z > 0.033", "z > 0.016"))
    assert len(columns.names) == 4
    assert left_out(rules) == {"several rules are true": (1, ("core/1",))}


def test_rules_of_questions_say_yes_and_no(sources):
    (table,) = sources('[labels.rules]\nbar = "z > 0.01 and magnitude < 18"', "des-bar")
    # A missing redshift does not matter where the magnitude decides.
    assert dict(zip(table.names, table.fractions[:, 0].tolist(), strict=True)) == {
        "core/1": 1, "core/2": 1, "core/4": 0, "core/5": 0
    }  # fmt: skip
    assert left_out(table) == {"a rule that depends on a missing value": (1, ("core/3",))}


@pytest.mark.parametrize(("rule", "scheme", "message"), [
    ('member = "zz > 0.01"', "perseus", r"labels.rules.member: rule 'zz > 0.01' names unknown column 'zz'; "),
    ('member = "z >"', "perseus", r"labels.rules.member: rule 'z >' is not an expression"),
    ('member = "z + 1"', "perseus", r"labels.rules.member: rule 'z \+ 1' is not true or false"),
    ('member = "__import__(\'os\')"', "perseus", r"labels.rules.member: rule .* only these functions"),
    ('star = "z < 0.01"', "perseus", r"labels.rules: scheme 'perseus' has no class 'star'; valid: background, "),
    ('smooth = "z < 0.01"', "gz2-tree", r"labels.rules: rules cannot answer the tree of scheme 'gz2-tree'"),
    ('smooth = "z < 0.01"', "gz2", r"labels.rules: scheme 'gz2' asks independent questions: 'features' needs"),
    ('member = "z > 5"', "perseus", r"none of 5 rows is a label: 5 no rule is true"),
])  # fmt: skip
def test_wrong_rules_say_what_is_wrong(sources, rule, scheme, message):
    with pytest.raises(CatmorphError, match=message):
        sources(f"[labels.rules]\n{rule}", scheme)


def test_rules_label_what_the_table_does_not(sources, tmp_path):
    (tmp_path / "seen.csv").write_text("ID,c\n1,2\n4,3\n9,3\n")
    tables = sources('table = "seen.csv"\nclass_column = "c"\nstamp = "{id}"\n' + SPECTRA)
    ids = ["1", "2", "3", "4", "5"]
    found = stamp_labels(tables, "{id}", ["core"] * 5, ids, ["g"] * 5)
    assert [ids[row] for row in found.stamps] == ["1", "2", "4", "5"]
    assert found.fractions[:, 1].tolist() == [0, 0, 1, 1]
    assert found.left_over == [
        "1 labels have no stamp: 9", "1 stamps have no label: core_g_3",
        "1 stamps have another label by rule than in the table, which counts: core_g_1",
    ]  # fmt: skip


def test_positions_join_labels_to_sources(sources, tmp_path):
    arcsec = 1 / 3600
    rows = [(10.0, 1 + 0.4 * arcsec, 3), (10.1, 1 - 0.3 * arcsec, 0), (10.1, 1 + 0.2 * arcsec, 5), (10.2, 1.01, 3),
            (np.nan, 1.0, 3), (10.4, 1.0, 4)]  # fmt: skip
    Table(rows=rows, names=["RA", "DE", "type"]).write(tmp_path / "labels.fits")
    labels = 'table = "labels.fits"\nra = "RA"\ndec = "DE"\nclass_column = "type"\nmatch_radius_arcsec = {}'
    (table,) = sources(labels.format(1.0))
    assert dict(zip(table.names, table.fractions[:, 1].tolist(), strict=True)) == {"core/1": 1, "core/2": 1}
    assert left_out(table) == {
        "no position": (1, ("row 5",)), "most votes for a class that scheme 'perseus' keeps apart": (1, ("row 6",)),
        "another label is nearer to its source": (1, ("row 2",)), "no source within 1 arcsec": (1, ("row 4",)),
    }  # fmt: skip
    assert table.notes == ("2 labels matched to sources by position, median separation 0.300 arcsec, largest 0.400",)
    assert table.pattern == "{field}/{id}"
    with pytest.raises(CatalogError, match=r"none of 4 labels has a source within 0.1 arcsec; check labels.ra"):
        sources(labels.format(0.1))
    with pytest.raises(UsageError, match=r"labels.ra and labels.dec: give both or none"):
        sources('table = "labels.fits"\nra = "RA"')


def test_stamps_get_the_labels_of_their_sources(survey):
    rule = 'labels.rules={spheroid="size > 0.5", disk="size <= 0.5"}'
    for stage in ("ingest", "cutouts"):
        done = survey(stage, "-r", "tiny.toml", "--set", 'bands.names=["F160W"]')
        assert done.status == 0, done.err
    run = RunFolder(survey.run, load_recipe(survey.recipe, ['bands.names=["F160W"]', rule]))
    data, left_over = labelled_stamps(run)
    assert len(data) > 5
    np.testing.assert_array_equal(data.fractions[:, 0] == 1, data.size_arcsec > 0.5)
    assert data.fractions.sum() == len(data)
    assert data.names[0] == f"{data.fields[0]}_f160w_{data.ids[0]}"
    assert not [line for line in left_over if "stamps have no label" in line]
    with pytest.raises(UsageError, match=r"^the recipe names no label table; set labels.table, or labels.cl"):
        labelled_stamps(RunFolder(survey.run, load_recipe(survey.recipe, ['bands.names=["F160W"]'])))
