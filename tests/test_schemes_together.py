"""Classifiers with label schemes of their own in one catalog: one question each, or a scheme beside another."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

QUESTIONS = """\
[classifiers.edge]
checkpoint = "edge.safetensors"
scheme = "des-edge-on"
batch = 16

[classifiers.bars]
checkpoint = "bar.safetensors"
scheme = "des-bar"
views = ["F160W"]
batch = 16
"""


@pytest.fixture
def questions(survey):
    """The tiny survey with two networks more, each with a question of its own."""
    for name, scheme in (("edge", "des-edge-on"), ("bar", "des-bar")):
        made = survey("models", "create", "clash-inception-narrow", "-r", "tiny.toml", "-o", f"{name}.safetensors",
                      "--set", f"scheme={scheme}")
        assert made.status == 0, made.err
    survey.edit("[release]", f"{QUESTIONS}\n[release]")
    survey.edit('name = "Tiny"', 'name = "Tiny"\nformats = ["csv", "parquet"]\nprobability = '
                '"{view}_{classifier}_{class}"\nquantity = "{view}_{classifier}_{quantity}"')
    return survey


def test_each_classifier_answers_in_its_scheme(questions):
    done = questions("run", "tiny.toml")
    assert done.status == 0, done.err
    table = pd.read_csv(questions.run / "release" / "Tiny.csv")
    assert [name for name in table if name.startswith("F160W")] == [
        *(f"F160W_net_{name}" for name in ("spheroid", "disk", "irregular", "point_source", "unclassifiable")),
        "F160W_edge_edge_on", "F160W_bars_bar",
    ]
    assert [name for name in table if name.startswith("F435W")][-1] == "F435W_edge_edge_on"
    seen = table["F160W_bars_bar"].notna()
    assert seen.any()
    assert table.loc[seen, "F160W_bars_bar"].between(0, 1).all()
    full = pq.read_table(questions.run / "release" / "Tiny.parquet")
    assert full.schema.metadata[b"scheme"] == b"clash, des-edge-on, des-bar"
    assert set(full["F160W_bars_class"].to_pylist()) <= {"bar", "", None}


def test_the_summary_counts_each_scheme(questions):
    questions("run", "tiny.toml")
    release = questions.run / "release"
    values = json.loads((release / "summary.json").read_text())
    assert values["classes"][-2:] == ["edge_on", "bar"]
    assert values["classifiers"]["bars"]["scheme"] == "des-bar"
    by_label = {one["label"]: one for one in values["views"]}
    assert list(by_label["F160W (bars)"]["classes"]) == ["bar"]
    assert "merger" not in by_label["F160W (bars)"]
    assert "merger" in by_label["F160W (net)"]
    for one in values["fields"]:
        whole, parts = one["stamps"], one["views"]
        assert whole["counted"] == sum(part["counted"] for part in parts)
        for name in values["classes"]:
            counts = [part["classes"][name]["most_probable"] for part in parts if name in part["classes"]]
            assert whole["classes"][name]["most_probable"] == sum(counts)
    rows = [line for line in (release / "summary.md").read_text().splitlines() if line.startswith("|")]
    header = next(row for row in rows if "bar: most probable" in row)
    assert {row.count("|") for row in rows[rows.index(header):][:4]} == {header.count("|")}


def test_a_checkpoint_of_another_scheme_is_refused(questions):
    questions.edit('scheme = "des-bar"', 'scheme = "des-disk"')
    done = questions("check", "-r", "tiny.toml")
    assert done.status == 2
    assert "bar.safetensors: does not fit the recipe: scheme is des-bar in the checkpoint, des-disk in the recipe" in (
        done.out + done.err)


def test_an_unknown_scheme_is_refused(questions):
    questions.edit('scheme = "des-bar"', 'scheme = "des-barr"')
    done = questions("check", "-r", "tiny.toml")
    assert done.status == 2
    assert "unknown label scheme 'des-barr'; did you mean 'des-bar'" in done.out + done.err


def test_the_gallery_shows_each_classifiers_view(questions, tmp_path):
    questions("run", "tiny.toml")
    done = questions("gallery", "-r", "tiny.toml", "--band", "F160W", "--output", tmp_path / "a.png")
    assert done.status == 0, done.err
