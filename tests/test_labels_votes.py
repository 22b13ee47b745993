"""From votes to labels: exports and tables of votes, fractions, agreement, what is left out and who disagreed."""

from __future__ import annotations

import csv
import json
import random

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from catmorph.cli import cli
from catmorph.errors import CatalogError, UsageError
from catmorph.labels import read_labels
from catmorph.labels.aggregate import account, agreement, count_votes, output_files, write_labels
from catmorph.labels.cells import plain_cell, read_rows, text_cell, write_table
from catmorph.labels.votes import read_votes
from catmorph.labels.zooniverse import ExportOptions
from catmorph.schemes import load_scheme

SCHEME = load_scheme("clash")
TITLES = [one.title for one in SCHEME.classes]
EXPORT = [
    "classification_id", "user_name", "user_id", "user_ip", "workflow_id", "workflow_name", "workflow_version",
    "created_at", "gold_standard", "expert", "metadata", "annotations", "subject_data", "subject_ids",
]  # fmt: skip


def export_row(number, user, answer, stamp="a611_f475w_860", *, workflow="12", task="T0", time=None, **cells):
    """One row as Panoptes writes it (zooniverse/panoptes, lib/formatter/csv/classification.rb)."""
    annotation = {"task": task, "task_label": "What is the shape?", "value": answer}
    subject = {"901": {"retired": None, "Filename": f"{stamp}.png", "#stamp": stamp}}
    time = f"2019-03-01 10:{number // 60:02d}:{number % 60:02d} UTC" if time is None else time
    row = [number, user, number, "0f9a", workflow, "Shapes", "3.1", time, "", "", '{"source":"api"}',
           json.dumps([annotation]), json.dumps(subject), "901"]  # fmt: skip
    return [cells.get(name, value) for name, value in zip(EXPORT, row, strict=True)]


def write_export(path, rows, header=EXPORT):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def counted(path, answers=None, options=None, **choices):
    votes = read_votes(path, SCHEME, answers or {}, options or ExportOptions())
    return count_votes(votes, SCHEME, **{"minimum_votes": 1, **choices})


def run(*arguments):
    return CliRunner().invoke(cli, ["labels", *map(str, arguments)])


def said(tmp_path, scheme, *answers, known=None):
    """The class, or the reason that there is none, of each of some answers in a table of votes."""
    path = tmp_path / "votes.csv"
    path.write_text("stamp,user,answer\n" + "".join(f"s,{number},{text}\n" for number, text in enumerate(answers)))
    votes = read_votes(path, load_scheme(scheme), known or {}, ExportOptions())
    return [one[1] for one in sorted([*((vote.row, vote.label) for vote in votes.used),
                                      *((one.row, one.reason) for one in votes.left_out)])]  # fmt: skip


def test_answers_are_understood_as_columns_of_classes_are(tmp_path):
    assert said(tmp_path, "phangs", "1", "2.0", "symmetric", "0", "9") == [
        0, 1, 0, "answer that is left out", "answer is no class"]
    own = {"blue": "late_type", "red": "member", "odd": "merging", "Blue ": "late_type"}
    assert said(tmp_path, "perseus", "edge_on_disk", "possible_dwarf", "blue", "RED", "odd", "merging", known=own) == [
        0, 1, 0, 1, *["answer is a class that the scheme keeps apart"] * 2]
    with pytest.raises(UsageError, match="answer 'Blue' is given to two classes"):
        said(tmp_path, "perseus", "0", known={"blue": "late_type", "Blue": "member"})


# --- exports ----------------------------------------------------------------------------------------------


def test_an_export_becomes_a_label_table_that_is_read_back(tmp_path):
    answers = ["Spheroid", "spheroid ", "Disk", "Point source", "Spheroid", "Spheroid", "Spheroid"]
    rows = [export_row(n, f"user{n}", answer) for n, answer in enumerate(answers)]
    rows += [export_row(20 + n, f"user{n}", "Irregular", "few_f475w_1") for n in range(4)]
    path = write_export(tmp_path / "classifications.csv", rows)
    done = run("aggregate", path, "-o", tmp_path / "labels.csv", "--scheme", "clash")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'labels.csv'}\n")
    assert done.stderr.splitlines() == [
        "11 rows read = 7 votes used + 4 left out",
        "4 left out, its stamp is refused: fewer than 5 votes: row 8, 9, 10, 11 ('irregular' 4)",
        "1 stamps refused: few_f475w_1",
        "1 stamps labelled",
    ]
    table = read_labels(tmp_path / "labels.csv", SCHEME, votes_column="votes")
    assert table.names == ("a611_f475w_860",)
    np.testing.assert_allclose(table.fractions, [[5 / 7, 1 / 7, 0, 1 / 7, 0]], atol=1e-7)
    assert table.votes.tolist() == [7]
    row = pd.read_csv(tmp_path / "labels.csv").iloc[0]
    assert (row["disagree"], row["majority"], bool(row["tied"])) == (2, "spheroid", False)
    votes = pd.read_csv(tmp_path / "labels.votes.csv")
    others = votes[~votes["agrees"]][["user", "class", "row"]]
    assert others.values.tolist() == [["user2", "disk", 3], ["user3", "point_source", 4]]
    refused = pd.read_csv(tmp_path / "labels.refused.csv").iloc[0]
    assert refused[["ID", "votes", "reason", "irregular"]].tolist() == ["few_f475w_1", 4, "fewer than 5 votes", 4]


def test_every_faulty_row_is_left_out_with_its_reason_and_number(tmp_path):
    rows = [
        export_row(1, "ann", "Disk"),
        export_row(2, "bob", "Disk", annotations='[{"task":'),
        export_row(3, "cid", "Disk", annotations='{"task": "T0"}'),
        export_row(4, "dan", "Disk", subject_data="not json"),
        export_row(5, "eve", "Disk", subject_data='{"901": {"Filename": "x.png"}}'),
        export_row(6, "fay", "Disk", subject_data='{"901": {"#stamp": "a"}, "902": {"#stamp": "b"}}'),
        export_row(7, "gus", "unknown answer label"),
        export_row(8, "hal", None),
        export_row(9, "ida", ["Disk", "Spheroid"]),
        export_row(10, "", "Disk", user_ip=""),
        export_row(11, "ann", "Spheroid"),
        [*export_row(12, "jim", "Disk"), "one cell too many"],
        export_row(13, "kay", "Disk", annotations="[]"),
        export_row(14, "lea", "Skip it"),
        export_row(15, "moe", "Disk", annotations="[" * 100000),
    ]
    labels = counted(write_export(tmp_path / "c.csv", rows), {"skip it": ""})
    assert [(one.row, one.reason) for one in labels.left_out] == [
        (2, "broken JSON in annotations"), (3, "broken JSON in annotations"), (4, "broken JSON in subject_data"),
        (5, "subject has no '#stamp'"), (6, "several subjects"), (7, "answer is no class"), (8, "no answer"),
        (9, "several answers"), (10, "no user"), (11, "another vote of the same user on the same stamp"),
        (12, "another number of cells than the header"), (13, "the task was not answered"),
        (14, "answer that is left out"), (15, "broken JSON in annotations"),
    ]  # fmt: skip
    assert [(vote.user, vote.row) for vote in labels.votes] == [("ann", 1)]
    assert labels.rows == 15
    assert account(labels)[0] == "15 rows read = 1 votes used + 14 left out"


def test_a_user_counts_once_for_a_stamp_and_the_first_vote_counts(tmp_path):
    rows = [
        export_row(5, "ann", "Disk", time="2019-03-01 10:00:05 UTC"),
        export_row(2, "ann", "Spheroid", time="2019-03-01 10:00:01 UTC"),
        export_row(6, "ann", "Disk", "other_f475w_1"),
        export_row(7, "not-logged-in-0f9a", "Disk"),
        export_row(8, "not-logged-in-77bc", "Disk"),
        export_row(9, "not-logged-in-77bc", "Disk"),
        export_row(10, "", "Disk", user_ip="77bc"),
    ]
    labels = counted(write_export(tmp_path / "c.csv", rows))
    assert labels.names == ["a611_f475w_860", "other_f475w_1"]
    assert labels.counts.tolist() == [[1, 2, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert [one.row for one in labels.left_out] == [1, 6, 7]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["T0", "Disk", "#stamp", "x", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["task", "value", "label", "9", "#stamp", "select_label"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(cells=st.lists(st.tuples(JSON, JSON), min_size=1, max_size=6))
def test_any_json_is_a_vote_or_left_out(cells, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    rows = [export_row(0, "ann", "Disk")]
    rows += [export_row(n, f"u{n}", "", annotations=json.dumps(one), subject_data=json.dumps(other))
             for n, (one, other) in enumerate(cells, start=1)]  # fmt: skip
    rows += [export_row(50 + n, f"u{n}", "", annotations=json.dumps([{"task": "T0", "value": one}]))
             for n, (one, _) in enumerate(cells, start=1)]  # fmt: skip
    labels = counted(write_export(path, rows), options=ExportOptions(task="T0"))
    assert sorted([*(vote.row for vote in labels.votes), *(one.row for one in labels.left_out)]) == [
        *range(1, len(rows) + 1)
    ]
    assert all(one.reason for one in labels.left_out)
    write_labels(path.with_name("any-labels.csv"), labels, SCHEME)


def test_byte_order_marks_and_other_encodings(tmp_path):
    path = write_export(tmp_path / "c.csv", [export_row(1, "caf\u00e9", "Disk"), export_row(2, "ann", "Disk")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace("\u00e9".encode(), b"\xe9"))
    assert [vote.user for vote in counted(path).votes] == ["caf\ufffd", "ann"]


def test_workflow_and_task_are_chosen_where_there_are_several(tmp_path):
    rows = [export_row(n, f"u{n}", "Disk") for n in range(5)]
    rows += [export_row(10 + n, f"u{n}", "Spheroid", workflow="13") for n in range(5)]
    two = json.dumps([{"task": "T0", "value": "Disk"}, {"task": "T1", "value": "Yes"}])
    rows += [export_row(20, "u9", "", annotations=two)]
    path = write_export(tmp_path / "c.csv", rows)
    with pytest.raises(UsageError, match=r"has 2 workflows: '12' \(6 rows\), '13' \(5 rows\); choose one: --workflow"):
        counted(path)
    with pytest.raises(UsageError, match=r"has 2 tasks: 'T0' \(6 rows\), 'T1' \(1 rows\); choose one: --task"):
        counted(path, options=ExportOptions(workflow="12"))
    with pytest.raises(UsageError, match=r"no row has workflow '14'; did you mean '13'\?|no row has workflow '14'"):
        counted(path, options=ExportOptions(workflow="14"))
    labels = counted(path, options=ExportOptions(workflow="12", task="T0"))
    assert labels.counts.tolist() == [[0, 6, 0, 0, 0]]
    assert {one.reason for one in labels.left_out} == {"another workflow"}
    assert counted(path, options=ExportOptions(workflow="13")).counts.tolist() == [[5, 0, 0, 0, 0]]


@pytest.mark.parametrize("value", [
    "Disk", ["Disk"], [{"select_label": "Shape", "option": True, "value": "x1", "label": "Disk"}],
    [{"task": "T0", "value": "Disk"}, {"task": "T5", "value": "No"}],
])  # fmt: skip
def test_answers_of_questions_menus_and_combined_tasks(tmp_path, value):
    combined = isinstance(value[0], dict) and "task" in value[0]
    path = write_export(tmp_path / "c.csv", [export_row(1, "ann", value, task="T3" if combined else "T0")])
    assert counted(path, options=ExportOptions(task="T0")).counts.tolist() == [[0, 1, 0, 0, 0]]


def test_the_key_of_the_stamp_may_be_hidden_in_any_way(tmp_path):
    for name in ("#stamp", "!stamp", "//Stamp", "stamp", "%STAMP"):
        subject = json.dumps({"9": {"retired": None, name: "x_f1_2"}})
        path = write_export(tmp_path / "c.csv", [export_row(1, "ann", "Disk", subject_data=subject)])
        assert counted(path).names == ["x_f1_2"]


def test_answers_are_mapped_and_wrong_maps_refused(tmp_path):
    rows = [export_row(n, f"u{n}", text) for n, text in enumerate(["Smooth & round", "p_features", "POINT  SOURCE"])]
    path = write_export(tmp_path / "c.csv", rows)
    assert counted(path, {"smooth &  round": "spheroid"}).counts.tolist() == [[1, 1, 0, 1, 0]]
    with pytest.raises(UsageError, match=r"labels.answers: answer 'x' is given to 'disc', which is no class of scheme "
                                         r"'clash'; did you mean 'disk'\?"):  # fmt: skip
        counted(path, {"x": "disc"})
    with pytest.raises(UsageError, match="answer 'Y' is given to two classes"):
        counted(path, {"y": "disk", "Y": "spheroid"})


def test_an_unknown_answer_is_warned_of(tmp_path):
    path = write_export(tmp_path / "c.csv", [export_row(n, f"u{n}", "Disk" if n else "Blob") for n in range(7)])
    done = run("aggregate", path, "-o", tmp_path / "l.csv", "--scheme", "clash")
    assert "1 left out, answer is no class: row 1 ('Blob' 1)\n" in done.stderr
    assert "catmorph: warning: 1 answers are no class, the fractions are those of the other votes" in done.stderr
    done = run("aggregate", path, "-o", tmp_path / "l.csv", "--scheme", "clash", "--answer", "Blob=irregular", "--json")
    assert json.loads(done.stdout)["used"] == 7


# --- plain tables -----------------------------------------------------------------------------------------


def plain(path, rows, header=("stamp", "user", "answer")):
    write_table(path, header, [[text_cell(cell) for cell in row] for row in rows])
    return path


@given(data=st.data())
def test_votes_to_fractions_and_back(data, tmp_path_factory):
    """Fractions times votes are the counts, whatever the order of the rows; each vote is in the companion."""
    folder = tmp_path_factory.mktemp("votes")
    cells = data.draw(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz")),
                                      st.integers(0, 4), min_size=1))  # fmt: skip
    rows = [(stamp, user, TITLES[label]) for (stamp, user), label in cells.items()]
    random.Random(0).shuffle(rows)
    labels = counted(plain(folder / "v.csv", rows))
    write_labels(folder / "l.csv", labels, SCHEME)
    table = read_labels(folder / "l.csv", SCHEME, votes_column="votes")
    expected = {
        name: np.bincount([label for (stamp, _), label in cells.items() if stamp == name], minlength=5)
        for name in {stamp for stamp, _ in cells}
    }
    assert set(table.names) == set(expected)
    for name, fractions, votes in zip(table.names, table.fractions, table.votes, strict=True):
        np.testing.assert_allclose(fractions * votes, expected[name], atol=1e-5)
    # The companion is itself a table of votes.
    files = [(folder / name).read_bytes() for name in ("l.csv", "l.votes.csv")]
    (folder / "l.votes.csv").rename(folder / "again.csv")
    again = counted(folder / "again.csv")
    assert (again.names, again.counts.tolist()) == (labels.names, labels.counts.tolist())
    write_labels(folder / "l.csv", counted(plain(folder / "w.csv", sorted(rows))), SCHEME)
    assert (folder / "l.csv").read_bytes() == files[0]
    assert sorted(pd.read_csv(folder / "l.votes.csv")["user"]) == sorted(user for _, user in cells)


def test_faults_of_a_plain_table(tmp_path):
    path = plain(tmp_path / "v.csv", [("a", "u", "Disk"), ("", "u", "Disk"), ("a", "", "Disk"), ("a", "v", "")])
    with open(path, "a") as file:
        file.write("a,w\n\na,x,Disk\n")
    labels = counted(path)
    assert [(one.row, one.reason) for one in labels.left_out] == [
        (2, "no stamp"), (3, "no user"), (4, "no answer"), (5, "another number of cells than the header"),
    ]  # fmt: skip
    assert labels.counts.tolist() == [[0, 2, 0, 0, 0]]


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty, not a table of votes"),
    ("name,vote\n1,2\n", "is neither a Zooniverse classification export"),
    ("stamp,user,anser\n", r"has no column 'answer'; did you mean 'anser'\?"),
    ("stamp,user,user,answer\n", "has 2 columns 'user'"),
    ('stamp,user,answer\na,"u,Disk\n', r"is no whole CSV file: unexpected end of data \(line 2\); download or write"),
    (",".join(EXPORT).replace("user_name", "who"), "has no column 'user_name'"),
])  # fmt: skip
def test_a_file_that_is_no_table_of_votes_is_one_line(tmp_path, text, message):
    path = tmp_path / "v.csv"
    path.write_text(text)
    with pytest.raises(CatalogError, match=message):
        counted(path)


def test_no_file_and_no_stamp_with_enough_votes(tmp_path):
    done = run("aggregate", tmp_path / "none.csv", "-o", tmp_path / "l.csv", "--scheme", "clash")
    assert (done.exit_code, done.stderr) == (2, f"catmorph: error: {tmp_path}/none.csv: no such table of votes\n")
    path = plain(tmp_path / "v.csv", [("a", "u", "Disk")])
    done = run("aggregate", path, "-o", tmp_path / "l.csv", "--scheme", "clash")
    assert done.exit_code == 2
    assert "v.csv: no stamp has enough votes: 1 rows read = 0 votes used + 1 left out; " in done.stderr
    done = run("aggregate", path, "-o", tmp_path / "v.csv", "--scheme", "clash", "--minimum-votes", 1)
    assert "the votes would be overwritten" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["v.csv"]


def test_classes_that_do_not_exclude_each_other_are_refused(tmp_path):
    votes = read_votes(plain(tmp_path / "v.csv", [("a", "u", "Disk")]), SCHEME, {}, ExportOptions())
    with pytest.raises(UsageError, match="the classes of scheme 'clash' do not exclude each other"):
        count_votes(votes, SCHEME.model_copy(update={"kind": "sigmoid"}), minimum_votes=1)


# --- mode, ties, agreement --------------------------------------------------------------------------------


def test_mode_of_votes_and_ties(tmp_path):
    rows = [("a", "u", "Disk"), ("a", "v", "Disk"), ("a", "w", "Spheroid")]
    rows += [("b", "u", "Irregular"), ("b", "v", "Disk"), ("b", "w", "Point source")]
    path = plain(tmp_path / "v.csv", rows)
    common = ["aggregate", path, "-o", tmp_path / "l.csv", "--scheme", "clash", "--minimum-votes", 3, "--mode"]
    done = run(*common)
    assert done.stderr.splitlines()[-1] == "2 stamps labelled, 1 tied: the first of their classes is the majority"
    table = pd.read_csv(tmp_path / "l.csv")
    assert table[["p_smooth", "p_features", "p_irregular"]].values.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert table["tied"].tolist() == [False, True]
    assert table["disagree"].tolist() == [1, 2]
    np.testing.assert_array_equal(read_labels(tmp_path / "l.csv", SCHEME).fractions[:, 1], 1)
    done = run(*common, "--ties", "refuse", "--json")
    found = json.loads(done.stdout)
    assert (found["stamps"], found["refused"], found["tied"]) == (1, ["b"], 0)
    assert found["left_out"] == {"its stamp is refused: the most votes are tied": {"count": 3, "rows": [4, 5, 6]}}
    assert found["rows"] == found["used"] + 3 == 6


def test_agreement_of_dieleman_et_al():
    found = agreement(np.array([[7, 0, 0, 0, 0], [2, 2, 2, 2, 2], [3, 3, 0, 0, 0], [4, 1, 0, 0, 0]]))
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    np.testing.assert_allclose(found, [1, 0, 1 - np.log(2) / np.log(5), 1 - entropy / np.log(5)], atol=1e-12)


# --- hostile text -----------------------------------------------------------------------------------------

HOSTILE = ["=HYPERLINK(\"http://x\")", "@SUM(1)", "+1+cmd|' /C calc'!A0", "a\nb", 'quo"te', "comma,comma", "#comment",
           "../../etc/passwd", "\u202eevil", "-30_f160w_5", "'=quoted", "x\ud800"]  # fmt: skip


def test_hostile_users_answers_and_stamps_do_no_harm(tmp_path):
    subject = [json.dumps({"1": {"#stamp": text}}) for text in HOSTILE]
    rows = [export_row(n, user, "Disk", subject_data=one) for n, one in enumerate(subject)
            for user in [text for text in HOSTILE if text.isprintable()]]  # fmt: skip
    rows += [export_row(900, "x", text, subject_data=subject[0]) for text in HOSTILE]
    path = write_export(tmp_path / "c.csv", rows)
    done = run("aggregate", path, "-o", tmp_path / "l.csv", "--scheme", "clash")
    assert done.exit_code == 0
    assert all(one.isprintable() for one in done.stderr.splitlines())
    for file in output_files(tmp_path / "l.csv").values():
        cells = [cell for row in csv.reader(file.read_text().splitlines(keepends=True)) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "\t"))], file
    table = read_labels(tmp_path / "l.csv", SCHEME)
    assert {*HOSTILE[:8], HOSTILE[9]} <= set(table.names)
    assert set(tmp_path.iterdir()) == {path, *output_files(tmp_path / "l.csv").values()}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12))
@example("'=1")
@example("''=1")
def test_a_cell_is_read_back(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "cell.csv"
    write_table(path, ["a", "b"], [[text_cell(text), "1"]])
    _, row = read_rows(path, "table")
    # skipinitialspace: a space before a cell does not count.
    assert plain_cell(row[0]) == text.lstrip(" ")
    assert not row[0].startswith(("=", "@"))
