"""The summary: counts, intervals, the account, and text that hostile names cannot break."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from astropy.stats import binom_conf_interval
from hypothesis import given as given_that
from hypothesis import strategies as st
from release_run import TWO_BANDS, clash, galaxies, given, scattered, write_run
from scipy.stats import binomtest

from catmorph.errors import CatmorphError, UsageError
from catmorph.quality import Flag
from catmorph.release.bundle import export
from catmorph.release.intervals import exact, wilson
from catmorph.release.summary import summarize
from catmorph.release.summary_text import _notes
from catmorph.release.tally import all_rules
from catmorph.release.text import markdown_text, plain_text, text_table

ONE_BAND = ('bands.names=["F160W"]',)
CHANCES = [[0.9, 0.1, 0, 0, 0], [0.2, 0.3, 0.5, 0, 0], [0.4, 0.3, 0.3, 0, 0], [0, 0, 0, 1, 0]]


@pytest.mark.parametrize(
    ("count", "total", "score", "binomial"),
    [
        # Wilson's formula in 40 digits; the roots of the binomial tails, found with scipy.optimize.brentq.
        (2110, 79975, (0.0252950041, 0.0275169819), (0.0252834161, 0.0275176086)),
        (0, 10, (0.0, 0.27753279), (0.0, 0.30849711)),
        (10, 10, (0.72246721, 1.0), (0.69150289, 1.0)),
        (1, 2, (0.09453121, 0.90546879), (0.01257912, 0.98742088)),
    ],
)
def test_intervals_have_known_values(count, total, score, binomial):
    assert wilson(count, total) == pytest.approx(score, abs=2e-8)
    assert exact(count, total) == pytest.approx(binomial, abs=2e-8)


@given_that(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_wilson_interval_is_that_of_astropy(pair, confidence):
    expected = binom_conf_interval(*pair, confidence_level=confidence, interval="wilson")
    assert wilson(*pair, confidence) == pytest.approx(tuple(expected), rel=1e-13, abs=1e-15)


def test_intervals_of_nothing_are_none():
    assert wilson(0, 0) is None
    assert exact(0, 0) is None


@given_that(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_exact_interval_inverts_the_binomial_test(pair, confidence):
    count, total = pair
    expected = binomtest(count, total).proportion_ci(confidence, method="exact")
    assert exact(count, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_counts_by_view(tmp_path):
    run = write_run(tmp_path, clash(*ONE_BAND), [galaxies(5)],
                    given([0, 0, int(Flag.EDGE), 0, int(Flag.OFF_IMAGE)], [*CHANCES, [0.2] * 5]))  # fmt: skip
    view = summarize(run).values["views"][0]
    assert {name: view[name] for name in ("sources", "classified", "blocked", "kept", "kept_fraction")} == {
        "sources": 5, "classified": 4, "blocked": 1, "kept": 2, "kept_fraction": 0.5,
    }  # fmt: skip
    assert (view["blocked_by_flag"], view["warnings_by_flag"]) == ({"OFF_IMAGE": 1}, {"EDGE": 1})
    assert {name: one["most_probable"] for name, one in view["classes"].items()} == {
        "spheroid": 2, "disk": 0, "irregular": 1, "point_source": 1, "unclassifiable": 0,
    }  # fmt: skip
    assert [one["above_threshold"] for one in view["classes"].values()] == [1, 0, 0, 1, 0]
    np.testing.assert_allclose([one["sum"] for one in view["classes"].values()], [1.5, 0.7, 0.8, 1, 0], atol=1e-6)
    merger = view["merger"]
    # 0.3 as a softmax of float32 logits is 0.3000000119: it counts as 0.30 or more.
    assert (merger["label"], merger["count"], merger["of"], merger["fraction"]) == (
        "irregular (merger proxy)",
        2,
        4,
        0.5,
    )
    assert (merger["wilson"], merger["exact"]) == (wilson(2, 4), exact(2, 4))


def test_every_output_says_that_irregular_is_a_proxy(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(4)], scattered())
    summary = summarize(run)
    for text in (summary.text(), summary.markdown(), json.dumps(summary.to_json())):
        assert "irregular (merger proxy)" in text
        assert "merger" not in text.replace("irregular (merger proxy)", "").replace('"merger":', "")


def test_without_a_merger_class_there_is_no_merger_fraction(tmp_path):
    recipe = clash(*TWO_BANDS)
    recipe = recipe.model_copy(update={"summary": recipe.summary.model_copy(update={"merger_class": None})})
    summary = summarize(write_run(tmp_path, recipe, [galaxies(4)], scattered()))
    assert summary.values["merger"] is None
    assert "merger" not in summary.text()
    assert "merger" not in summary.markdown()


def test_an_unknown_merger_class_is_refused():
    recipe = clash(*TWO_BANDS)
    wrong = recipe.summary.model_copy(update={"merger_class": "iregular"})
    with pytest.raises(UsageError, match="no class 'iregular'; did you mean 'irregular'"):
        all_rules(recipe.model_copy(update={"summary": wrong}))


def test_the_account_agrees_with_the_release(tmp_path):
    rejected = [("cut", "magnitude < 24.5")] * 3 + [
        ("bad_cell", "ra is not a number: 'x'"),
        ("duplicate", "kept the first"),
    ]
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(40), galaxies(20, "ms2137")], scattered(lost=0.5), rejected)
    account = summarize(run).values["account"]
    assert {name: account[name] for name in ("read", "rejected", "omitted", "released")} == export(run).account.counts()
    assert account["rejected_by_kind"] == {"bad_cell": 1, "cut": 3, "duplicate": 1}
    assert account["rejected_by_reason"][0] == {"kind": "cut", "reason": "magnitude < 24.5", "rows": 3}
    assert account["omitted_by_reason"] == {"no classified stamp in any view": account["omitted"]}
    assert account["read"] == account["rejected"] + account["omitted"] + account["released"]


@pytest.mark.parametrize(
    ("flag", "rejected", "tolerance", "rows", "exceeds"),
    [
        (Flag.OFF_IMAGE, [], 0.0, 0, False),
        (Flag.UNREADABLE, [], 0.2, 1, False),
        (Flag.UNREADABLE, [], 0.19, 1, True),
        (Flag.UNREADABLE, [("duplicate", "x")] * 2 + [("cut", "x")] * 3, 0.2, 3, True),
        (Flag.EDGE, [("bad_cell", "x")], 0.1, 1, True),
    ],
)
def test_faults_are_rows_with_a_bad_cell_a_duplicate_or_a_faulty_view(
    tmp_path, flag, rejected, tolerance, rows, exceeds
):
    # The fault is in both views of one source: it is one row.
    flags = [int(flag), 0, 0, 0, 0]
    recipe = clash(*TWO_BANDS, f"run.tolerance={tolerance}")
    summary = summarize(write_run(tmp_path, recipe, [galaxies(5)], given(flags, [[0.2] * 5] * 5), rejected))
    faults = summary.values["faults"]
    assert faults["rows"] == rows
    assert faults["stamps_by_flag"] == ({flag.name: 2} if flag == Flag.UNREADABLE else {})
    assert faults["rejected_by_kind"] == {
        kind: count for kind, count in Counter(kind for kind, _ in rejected).items() if kind != "cut"}
    told = ": 2 rejected (duplicate); 1 sources with UNREADABLE in 2 stamps" in summary.text()
    assert told == (rows == 3)
    assert summary.fault_fraction == rows / (5 + len(rejected))
    assert summary.exceeds_tolerance == exceeds


def test_fields_add_up_to_the_views(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(40), galaxies(20, "ms2137")], scattered())
    values = summarize(run).values
    for index, view in enumerate(values["views"]):
        parts = [one["views"][index] for one in values["fields"]]
        for name in ("sources", "classified", "blocked", "kept"):
            assert sum(part[name] for part in parts) == view[name]
        for name, one in view["classes"].items():
            # The sums are of whole multiples of 2**-40: exact in any order.
            assert sum(part["classes"][name]["sum"] for part in parts) == one["sum"]
            assert sum(part["classes"][name]["most_probable"] for part in parts) == one["most_probable"]


def test_with_require_all_classes_are_counted_over_released_sources(tmp_path):
    def answer(key, index, count):
        return given([0, int(Flag.OFF_IMAGE) if key.view == "F435W" else 0], [[1, 0, 0, 0, 0]] * 2)(key, index, count)

    run = write_run(tmp_path, clash(*TWO_BANDS, 'release.require="all"'), [galaxies(2)], answer)
    view = summarize(run).values["views"][1]
    assert (view["classified"], view["counted"], view["classes"]["spheroid"]["most_probable"]) == (2, 1, 1)


def test_summaries_are_the_same_bytes_again(tmp_path):
    def files(folder):
        run = write_run(folder, clash(*TWO_BANDS), [galaxies(40), galaxies(20, "ms2137")], scattered())
        summarize(run)
        return [(run.release_folder() / f"summary.{ending}").read_bytes() for ending in ("json", "md")]

    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_summary_json_holds_what_summarize_returns_without_nan(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(4)], scattered(lost=1.1))
    values = summarize(run).values

    def refuse(text):
        raise AssertionError(text)

    read = json.loads((run.release_folder() / "summary.json").read_text(), parse_constant=refuse)
    assert read == json.loads(json.dumps(values))
    assert read["views"][0]["merger"]["wilson"] is None
    assert read["views"][0]["kept_fraction"] is None


def test_hostile_names_stay_text(tmp_path):
    hostile = "x|y\n# heading <script>alert(1)</script> [a](http://b) `c` \x1b[31mred"
    reason = "ra is not a number: '|<b>\x1b[2J'"
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3, hostile)], scattered(), [("bad_cell", reason)])
    summary = summarize(run)
    markdown, text = summary.markdown(), summary.text()
    assert "<script>" not in markdown
    assert "<b>" not in markdown
    assert "\n# heading" not in markdown
    assert "\x1b" not in markdown + text
    rows = [line for line in markdown.splitlines() if "rejected: bad" in line]
    assert rows == ["| rejected: bad\\_cell | ra is not a number: '\\|&lt;b&gt;?\\[2J' | 1 |"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", "a\\_b"), ("# x", "\\# x"), ("a#b", "a#b"), ("&lt;", "&amp;lt;"), ("http://a", "http\\://a"),
        ("$x$", "\\$x\\$"), ("-1.5", "\\-1.5"), ("F850LP", "F850LP"), ("a\tb", "a?b"),
    ],
)  # fmt: skip
def test_markdown_escapes(text, expected):
    assert markdown_text(text) == expected


def test_plain_text_is_bounded():
    assert len(plain_text("x" * 1000)) == 200


@pytest.mark.parametrize(("scheme", "says"), [
    ("clash", "Classes are counted where most probable; kept: a probability of 0.6 or more."),
    ("gz2", "Yes/no questions are counted from a probability of 0.5 on; kept: any of 0.6 or more."),
    ("gz2-tree", "Of a tree the most probable answer to each question that is asked is counted; kept: any answer of a "
                 "probability of 0.6 or more."),
])  # fmt: skip
def test_how_classes_are_counted_is_told_by_their_scheme(scheme, says):
    one = {"scheme": scheme, "networks": 1, "temperatures": [1.0], "test_time": "none", "remarks": []}
    values = {"classifiers": {"net": one}, "threshold": 0.6, "merger": None}
    assert says in _notes(values)
    once = "Where views are taken together a stamp counts once for each classifier that looks at it."
    assert once not in _notes(values)
    values["classifiers"]["other"] = one
    assert once in _notes(values)


def test_text_table_aligns_its_columns():
    assert text_table(["view", "n"], [["a", 5], ["longer", 12]]) == ["view     n", "a        5", "longer  12"]


def test_missing_logits_are_an_error(tmp_path):
    run = write_run(tmp_path, clash(*TWO_BANDS), [galaxies(3)], scattered())
    run.logits_path("inception", "F435W", run.chunks()[0]).unlink()
    with pytest.raises(CatmorphError, match=r"logits file is missing; run `catmorph classify`"):
        summarize(run)
