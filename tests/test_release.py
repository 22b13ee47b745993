"""The release: its layout, the account of rows, and the bytes of the files."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as given_that
from hypothesis import settings
from hypothesis import strategies as st
from release_run import TWO_BANDS, clash, galaxies, given, scattered, wide_batches, write_run

from catmorph.api import open_release
from catmorph.errors import CatmorphError, ProblemsError, RecipeError, UsageError
from catmorph.quality import Flag
from catmorph.recipe import Recipe
from catmorph.release.assemble import release_layout
from catmorph.release.bundle import check_release, export
from catmorph.release.layout import build_layout
from catmorph.release.results import answer_names, answers, entropy_bits
from catmorph.schemes import LabelClass, Scheme, load_scheme
from catmorph.sources.ingest import ingest
from catmorph.workspace import RunFolder

FILTERS = [
    "F225w", "F275w", "F336w", "F390w", "F435w", "F475w", "F606w", "F625w",
    "F775w", "F814w", "F850lp", "F105w", "F110w", "F125w", "F140w", "F160w",
]  # fmt: skip
PAPER_ROW = [0.0, 0.01, 0.77, 0.22, 0.0]


def _csv(result):
    with open(result.files["csv"], newline="") as file:
        return list(csv.reader(file))


def test_clash_csv_has_exactly_the_columns_of_the_paper(tmp_path):
    run = write_run(tmp_path, clash(), [galaxies(3)], scattered())
    header = _csv(export(run))[0]
    expected = [f"{name}_P{code}" for name in FILTERS for code in ("SP", "D", "I", "PS", "UN")]
    assert header == ["Cluster", "ID", "R.A.", "DECL.", *expected]
    assert len(header) == 4 + 16 * 5


def test_clash_csv_prints_rows_as_the_paper_with_blanks_where_not_observed(tmp_path):
    source = galaxies(1, "ms2137", id=["287"], ra=[325.0698], dec=[-23.6508])

    def one_band_blocked(key, index, count):
        flags, logits = given([0], [PAPER_ROW])(key, index, count)
        return (np.array([int(Flag.OFF_IMAGE)]) if key.view == "F435W" else flags), logits

    run = write_run(tmp_path, clash(*TWO_BANDS), [source], one_band_blocked)
    result = export(run)
    assert result.files["csv"].name == "Deep-CLASH.csv"
    assert result.files["csv"].read_text().splitlines()[1] == (
        "ms2137,287,325.0698,-23.6508,,,,,,0.00,0.01,0.77,0.22,0.00"
    )


def test_probabilities_are_the_softmax_of_logits_over_temperature(tmp_path):
    logits = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]], dtype=np.float32)
    recipe = clash(*TWO_BANDS, "classifiers.inception.temperature=2.5", "release.decimals=12")
    run = write_run(tmp_path, recipe, [galaxies(1)], lambda key, index, count: (np.zeros(1, int), logits))
    row = [float(cell) for cell in _csv(export(run))[1][4:9]]
    powers = np.exp(logits[0].astype(float) / 2.5)
    np.testing.assert_allclose(row, powers / powers.sum(), rtol=1e-7)


def test_class_and_entropy_columns(tmp_path):
    chances = [[0.5, 0.25, 0.25, 0, 0], [0.2] * 5, [0, 0, 0, 1, 0]]
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], given([0, 0, int(Flag.EDGE)], chances))
    table = pa.Table.from_batches(wide_batches(run, release_layout(run)))
    assert table["F435w_class"].to_pylist() == ["spheroid", "spheroid", "point_source"]
    np.testing.assert_allclose(table["F850lp_entropy"].to_numpy(), [1.5, np.log2(5), 0], atol=1e-6)
    assert table["F435w_flags"].to_pylist() == [0, 0, int(Flag.EDGE)]


def test_answers_of_a_sigmoid_scheme_are_the_questions_answered_yes():
    names = ("disc", "edge_on", "bar")
    scheme = Scheme(name="q", title="q", reference="q", kind="sigmoid",
                    classes=tuple(LabelClass(name=n, code=n, label=n, title=n) for n in names))  # fmt: skip
    probabilities = np.array([[0.5, 0.1, 0.9], [0.1, 0.2, 0.3], [np.nan] * 3], dtype=np.float32)
    assert answers(scheme, probabilities).tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert answer_names(scheme, probabilities).to_pylist() == ["disc|bar", "", None]
    half = np.array([[0.5, 0.5, 0.5]], dtype=np.float32)
    assert entropy_bits(scheme, half).tolist() == [3.0]
    assert answers(load_scheme("clash"), np.full((1, 5), np.nan)).tolist() == [[False] * 5]


@pytest.mark.parametrize(("require", "released"), [("any", ["1", "2", "3"]), ("all", ["1"]), ("none", list("1234"))])
def test_require_decides_what_is_omitted_and_why_is_written(tmp_path, require, released):
    off, unreadable = int(Flag.OFF_IMAGE), int(Flag.UNREADABLE)
    flags = {"F435W": [0, 0, off, off], "F850LP": [int(Flag.EDGE), unreadable, 0, off | unreadable]}
    recipe = clash(*TWO_BANDS, f'release.require="{require}"')
    run = write_run(
        tmp_path, recipe, [galaxies(4)], lambda key, i, n: given(flags[key.view], [[0.2] * 5] * 4)(key, i, n)
    )
    result = export(run)
    assert [row[1] for row in _csv(result)[1:]] == released
    omitted = pq.read_table(run.omitted_path()).to_pylist()
    assert result.account.counts() == {"read": 4, "rejected": 0, "omitted": len(omitted), "released": len(released)}
    assert [row["id"] for row in omitted] == [text for text in "1234" if text not in released]
    if omitted:
        reason = {"any": "no classified stamp in any view", "all": "no classified stamp in some view"}[require]
        assert omitted[-1] == {
            "file": "a611.cat", "row": 4, "field": "a611", "id": "4", "reason": reason,
            "flags": "F435W: OFF_IMAGE; F850LP: OFF_IMAGE|UNREADABLE",
        }  # fmt: skip


@settings(max_examples=10)
@given_that(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    rejected=st.lists(st.sampled_from(["cut", "bad_cell", "duplicate"]), max_size=5),
    lost=st.floats(0, 1),
    require=st.sampled_from(["any", "all", "none"]),
)
def test_every_row_that_was_read_ends_in_exactly_one_place(sizes, rejected, lost, require):
    chunks = [galaxies(size, f"f{number}") for number, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder:
        recipe = clash(*TWO_BANDS, f'release.require="{require}"')
        run = write_run(Path(folder), recipe, chunks, scattered(2, lost), [(kind, "because") for kind in rejected])
        result = export(run)
        released = {(row[0], row[1]) for row in _csv(result)[1:]}
        omitted = {(row["field"], row["id"]) for row in pq.read_table(run.omitted_path()).to_pylist()}
        everything = {(chunk["field"][0], identifier) for chunk in chunks for identifier in chunk["id"]}
        assert released | omitted == everything
        assert not released & omitted
        counts = result.account.counts()
        assert counts["read"] == counts["rejected"] + counts["omitted"] + counts["released"]
        assert (counts["omitted"], counts["released"]) == (len(omitted), len(released))


def test_a_csv_is_opened_with_the_identifiers_of_the_survey(tmp_path):
    """The file guards them from spreadsheets with an apostrophe; the Parquet file need not."""
    names = ["+12d04", "-J0123", "-12.5", "'quoted'", "plain"]
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(5, id=names)], scattered())
    export(run, ["csv"])
    assert b"'-J0123" in (run.release_folder() / "Deep-CLASH.csv").read_bytes()
    column = next(one.name for one in run.recipe.release.columns if one.source == "id")
    from_csv = open_release(run)[column].tolist()
    assert sorted(from_csv) == sorted(names)
    export(run, ["parquet"])
    assert open_release(run)[column].tolist() == from_csv


def test_a_lost_row_is_an_error_and_nothing_is_released(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered(), [("cut", "faint"), ("cut", "faint")])
    table = pq.read_table(run.rejected_path())
    pq.write_table(table.slice(1), run.rejected_path())
    with pytest.raises(CatmorphError, match="rows are lost: ingest counted 5 read = 2 rejected . 3 sources, the files "
                       r"hold 1 \+ 3"):  # fmt: skip
        export(run)
    assert not run.release_folder().exists()
    assert not run.omitted_path().exists()


def test_a_missing_logits_file_names_the_file_and_what_to_run(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered())
    path = run.logits_path("inception", "F850LP", run.chunks()[0])
    path.unlink()
    with pytest.raises(CatmorphError) as caught:
        export(run)
    assert str(caught.value) == f"{path}: this logits file is missing; run `catmorph classify`"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path, table: pq.write_table(table.slice(0, 2), path),
            "holds other sources than field 'a611', cell o0p0",
        ),
        (lambda path, table: pq.write_table(table.take([1, 0, 2]), path), "holds other sources than field 'a611'"),
        (lambda path, table: pq.write_table(table.drop(["disk"]), path), "has no column 'disk'"),
        (lambda path, table: path.write_bytes(b"<html>"), "is damaged"),
        (
            lambda path, table: pq.write_table(
                table.set_column(2, "spheroid", pa.array([None, 1.0, 1.0], pa.float32())), path
            ),
            "row 1 has no finite logits and no flag that says why",
        ),
    ],
)
def test_a_logits_file_that_does_not_fit_is_refused(tmp_path, damage, message):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered(lost=0))
    path = run.logits_path("inception", "F435W", run.chunks()[0])
    damage(path, pq.read_table(path))
    with pytest.raises(CatmorphError, match=message) as caught:
        export(run)
    assert str(path) in str(caught.value)
    assert "catmorph classify" in str(caught.value)


def test_the_same_inputs_give_the_same_bytes_in_another_folder(tmp_path):
    def files(folder):
        run = write_run(
            folder, clash(*TWO_BANDS), [galaxies(50), galaxies(9, "ms2137")], scattered(), [("cut", "faint")]
        )
        export(run, ["csv", "fits", "ecsv", "votable", "parquet"])
        return {path.name: path.read_bytes() for path in [*run.release_folder().iterdir(), run.omitted_path()]}

    first, second = files(tmp_path / "one"), files(tmp_path / "deeper" / "two")
    assert first == second
    assert sorted(first) == [
        "Deep-CLASH.csv", "Deep-CLASH.ecsv", "Deep-CLASH.fits", "Deep-CLASH.parquet", "Deep-CLASH.vot",
        "columns.md", "omitted.parquet", "provenance.json",
    ]  # fmt: skip


def test_the_release_does_not_depend_on_the_chunks(tmp_path):
    whole = galaxies(30)
    halves = [{name: values[part] for name, values in whole.items()} for part in (slice(0, 11), slice(11, 30))]
    halves[1]["cell"] = ["o1p1"] * 19
    chances = np.random.default_rng(5).dirichlet(np.ones(5), 30)
    starts = {30: 0, 11: 0, 19: 11}

    def answer(key, index, count):
        start = starts[count]
        return given(np.zeros(count, int), chances[start : start + count])(key, index, count)

    results = [
        export(write_run(tmp_path / str(len(chunks)), clash(*TWO_BANDS), chunks, answer), ["csv", "fits", "parquet"])
        for chunks in ([whole], halves)
    ]
    for name in ("csv", "fits", "parquet"):
        assert results[0].files[name].read_bytes() == results[1].files[name].read_bytes()


def test_provenance_has_counts_digests_and_no_path(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered(lost=0))
    export(run, ["csv"])
    export(run, ["fits"])
    text = (run.release_folder() / "provenance.json").read_text()
    facts = json.loads(text)
    assert facts["counts"] == {"read": 3, "rejected": 0, "omitted": 0, "released": 3}
    assert sorted(facts["files"]) == ["Deep-CLASH.csv", "Deep-CLASH.fits"]
    assert facts["recipe"]["classifiers"]["inception"]["checkpoint"] == "clash-inception.safetensors"
    assert facts["recipe"]["catalog"]["files"] == ["*.cat"]
    assert facts["versions"]["catmorph"]
    assert str(tmp_path) not in text
    assert "/" not in json.dumps(facts["recipe"]["mosaics"])


def test_provenance_forgets_files_of_another_release(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered(lost=0))
    export(run, ["fits"])
    export(write_run(tmp_path, clash(*TWO_BANDS), [galaxies(4)], scattered(lost=0)), ["csv"])
    assert list(json.loads((run.release_folder() / "provenance.json").read_text())["files"]) == ["Deep-CLASH.csv"]


def test_columns_md_describes_every_column(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered())
    layout = export(run).layout
    text = (run.release_folder() / "columns.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    names = [line.split(" | ")[0].removeprefix("| ").replace("\\_", "_") for line in lines]
    assert [column.name for column in layout.columns] == names[1 : 1 + len(layout.columns)]
    assert "| R.A. | yes | double | deg | 4 | pos.eq.ra;meta.main | right ascension, ICRS |" in text


def test_two_classifiers_need_their_name_in_the_columns():
    two = (*TWO_BANDS, 'classifiers.second.checkpoint="b.safetensors"')
    with pytest.raises(RecipeError, match=r"column names twice, such as 'F435w_PD'; use .*and {classifier}"):
        build_layout(clash(*two), None)
    names = ('release.probability="{classifier}_{view}_P{code}"', 'release.quantity="{classifier}_{view}_{quantity}"')
    build_layout(clash(*two, *names), None)


def test_a_classifier_of_some_views_has_columns_in_those_alone(tmp_path):
    recipe = clash(*TWO_BANDS, 'classifiers.inception.views=["F850LP"]')
    run = write_run(tmp_path, recipe, [galaxies(2)], scattered(lost=0))
    assert [name for name in pd.read_csv(export(run).files["csv"]).columns if name.startswith("F435")] == []


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (['release.columns=[{name="a", source="redshft"}]', 'catalog.keep=["redshift"]'], ProblemsError,
         "'a' shows 'redshft', which is no column of the sources; did you mean 'redshift'"),
        (['release.columns=[{name=" ", source="id"}]'], ProblemsError, "a column has an empty name"),
        (['release.columns=[{name="F435w_PI", source="id"}]'], RecipeError, "1 column names twice, such as 'F435w_PI'"),
        (['release.probability="{band}_{class}"'], RecipeError, "uses {band}; .*view"),
        (['release.probability="{view}"'], RecipeError, "column names twice, such as 'F435W'"),
        (['release.formats=["cvs"]'], UsageError, "unknown format 'cvs'; did you mean 'csv'"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_work_is_refused_before_any_work(overrides, error, message):
    with pytest.raises(error, match=message):
        check_release(clash(*TWO_BANDS, *overrides))


def test_a_column_kept_since_ingest_says_what_to_run(tmp_path):
    write_run(tmp_path, clash(*TWO_BANDS), [galaxies(2)], scattered())
    later = clash(*TWO_BANDS, 'catalog.keep=["z"]', 'release.columns=[{name="z", source="z"}]')
    with pytest.raises(CatmorphError, match=r"sources\.parquet has no column 'z' yet; run `catmorph ingest`"):
        export(RunFolder(tmp_path, later))


def test_a_recipe_without_classifier_has_no_release():
    recipe = clash(*TWO_BANDS).model_copy(update={"classifiers": {}})
    with pytest.raises(RecipeError, match="names no classifier to release"):
        build_layout(recipe, None)


@pytest.mark.parametrize(("sorted_rows", "task_rows"), [(100_000, 8192), (100_000, 7), (25, 7), (10, 8192)])
def test_rows_do_not_depend_on_the_chunks(tmp_path, monkeypatch, sorted_rows, task_rows):
    """Fields that are released by id, at once or from disk, and those that are released by place on the sky."""
    monkeypatch.setattr("catmorph.release.assemble.SORTED_ROWS", sorted_rows)
    for module in ("assemble", "reading"):
        monkeypatch.setattr(f"catmorph.release.{module}.SOURCES_A_TASK", task_rows)
    numbers = np.random.default_rng(4).permutation(60)
    catalog = pd.DataFrame({
        "id": numbers, "field": np.where(numbers % 3, "a611", "ms2137"),
        "ra": 10 + np.sin(numbers) / 50, "dec": np.cos(7 * numbers) / 50,
    })  # fmt: skip
    catalog.to_csv(tmp_path / "catalog.csv", index=False)
    released = []
    for chunk_rows in (5, 17, 2048):
        recipe = Recipe.model_validate({
            "name": "sky", "scheme": "clash", "bands": {"names": ["F160W"]}, "mosaics": {"pattern": "none"},
            "stamp": {"side": "1 arcsec"}, "run": {"chunk_rows": chunk_rows},
            "classifiers": {"net": {"checkpoint": "none"}}, "release": {"require": "none"},
            "catalog": {"files": str(tmp_path / "catalog.csv"), "id": "id", "ra": "ra", "dec": "dec",
                        "field": {"column": "field"}},
        })  # fmt: skip
        run = RunFolder(tmp_path / str(chunk_rows), recipe)
        ingest(run)
        for chunk in run.chunks():
            ids = run.read_sources(chunk)["id"].to_pylist()
            path = run.logits_path("net", "F160W", chunk)
            path.parent.mkdir(parents=True, exist_ok=True)
            logits = {name: np.float32([(i + 1) * int(text) % 7 for text in ids])
                      for i, name in enumerate(load_scheme("clash").class_names)}  # fmt: skip
            pq.write_table(pa.table({"id": ids, "flags": np.zeros(len(ids), "u4"), **logits}), path)
        assert len(run.chunks()) >= 60 // chunk_rows
        released.append([export(run, [form]).files[form].read_bytes() for form in ("csv", "fits")])
        assert not list(run.path.rglob(".partial-*"))
    assert released[0] == released[1] == released[2]
    ids = pd.read_csv(tmp_path / "5" / "release" / "catalog.csv")["id"]
    assert sorted(ids) == list(range(60))
    assert ids[:40].is_monotonic_increasing == (sorted_rows == 100_000)
    assert ids[40:].is_monotonic_increasing == (sorted_rows > 20)
