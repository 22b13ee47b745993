"""Cuts: what they mean, and what they cannot do."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Column, MaskedColumn
from hypothesis import given
from hypothesis import strategies as st

from catmorph.errors import RecipeError
from catmorph.sources.expressions import Expression

NUMBERS = pd.DataFrame({
    "x": pd.array([1.5, -2.0, None, 0.0, 3.25, None], dtype="Float64"),
    "y": pd.array([2.0, 2.0, 1.0, None, -1.0, None], dtype="Float64"),
    "n": pd.array([0, 1, 2, 3, 4, 5], dtype="Int64"),
})
COLUMNS = {name: NUMBERS[name].to_numpy(dtype=float, na_value=np.nan) for name in NUMBERS}


def holds(text, **columns):
    return Expression(text).evaluate({name: np.asarray(values) for name, values in columns.items()}).tolist()


def join(template):
    return lambda parts: template.format(*parts)


values = st.recursive(
    st.sampled_from(["x", "y", "n", "(n * 0 - 2)", "(1.5 + x)", "(3 - n)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(join("({} {} {})")),
        inner.map("(-{})".format), inner.map("abs({})".format),
    ),
    max_leaves=6,
)
comparisons = st.tuples(values, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), values).map(join("({} {} {})"))
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "&", "|"]), inner).map(join("({} {} {})")),
        inner.map("(not {})".format), inner.map("(~ {})".format),
    ),
    max_leaves=6,
)


def by_pandas(text):
    """Evaluate with pandas' nullable types, whose logic is three-valued."""
    text = text.replace(" and ", " & ").replace(" or ", " | ").replace("not ", "~ ")
    names = {name: NUMBERS[name].astype("Float64") for name in NUMBERS}
    return eval(text, {"__builtins__": {}, "abs": abs}, names).fillna(False).tolist()


@given(conditions)
def test_conditions_equal_those_of_pandas(text):
    assert Expression(text).evaluate(COLUMNS).tolist() == by_pandas(text)


@given(values, st.sampled_from(["<", ">="]), st.floats(-5, 5))
def test_arithmetic_equals_that_of_numpy(value, sign, limit):
    with np.errstate(all="ignore"):
        expected = eval(f"({value}) + 0 * n {sign} {limit!r}", {"__builtins__": {}, "abs": np.abs}, dict(COLUMNS))
    assert Expression(f"{value} + 0 * n {sign} {limit!r}").evaluate(COLUMNS).tolist() == expected.tolist()


@pytest.mark.parametrize(("text", "expected"), [
    ("x > 1", [True, False, False]),
    ("x != 2", [False, False, False]),
    ("not (x > 1)", [False, True, False]),
    ("not (x > 1 and f == 0)", [False, True, False]),
    ("not (x > 1 or f == 1)", [False, True, False]),
    ("x > 1 or f == 0", [True, True, True]),
    ("~(x > 1)", [False, True, False]),
    ("x not in [1, 5]", [False, False, False]),
    ("missing(x)", [False, False, True]),
    ("not missing(x) and x < 3", [True, True, False]),
    ("missing(x + f)", [False, False, True]),
    ("1 < x < 3", [True, False, False]),
    ("x * 0 == 0", [True, True, False]),
])
def test_missing_values(text, expected):
    x = [2.0, 1.0, np.nan] if "x != 2" not in text else [2.0, 2.0, np.nan]
    if "not in" in text:
        x = [1.0, 5.0, np.nan]
    assert holds(text, x=x, f=[0, 0, 0]) == expected


def test_values_that_are_not_finite_are_missing():
    assert holds("a / b > 0", a=[1.0, 1.0], b=[0.0, 2.0]) == [False, True]
    assert holds("not (log10(a) > 5)", a=[-1.0, 100.0]) == [False, True]
    assert holds("missing(a % b)", a=[1, 5], b=[0, 2]) == [True, False]
    assert holds("sqrt(floor(a)) == 2", a=[4.9, np.inf]) == [True, False]


def test_masks_of_every_sort_of_column():
    columns = {
        "f": MaskedColumn([1.0, 2.0], mask=[True, False]), "i": MaskedColumn([1, 2], mask=[True, False]),
        "t": MaskedColumn(["a", "b"], mask=[True, False]), "b": MaskedColumn([True, True], mask=[True, False]),
        "s": Column([b"a", b"b"]), "o": np.array([None, "b"], dtype=object),
    }
    for text in ("f > 0", "i > 0", "t != 'c'", "b", "b == True", "o != 'c'", "not missing(t)"):
        assert Expression(text).evaluate(columns).tolist() == [False, True], text
    assert Expression("not b").evaluate(columns).tolist() == [False, False]
    assert Expression("s == 'a'").evaluate(columns).tolist() == [True, False]


def test_text():
    morphology = np.array(["Sp", "E", "", "dE "], dtype=object)
    assert holds("m == 'E'", m=morphology) == [False, True, False, False]
    assert holds("m != 'E'", m=morphology) == [True, False, False, True]
    assert holds("m in ['E', 'dE']", m=morphology) == [False, True, False, True]
    assert holds("m not in ('E', 'dE')", m=morphology) == [True, False, False, False]
    assert holds("m < 'S'", m=morphology) == [False, True, False, False]


def test_text_that_holds_numbers_is_compared_as_numbers():
    assert holds("r < 19.4", r=np.array(["18", " 20.5", "", "1e1"], dtype=object)) == [True, False, False, True]
    with pytest.raises(RecipeError, match=r"a text column is used as numbers, but holds 'bright'"):
        holds("r < 19.4", r=np.array(["18", "bright"], dtype=object))
    with pytest.raises(RecipeError, match="'19' is text, not a number"):
        holds("r < '19'", r=[18.0])


def test_integers_are_compared_exactly_and_do_not_wrap():
    big = 2**53 + 1
    assert holds(f"i == {big}", i=np.array([big, big - 1])) == [True, False]
    assert holds("i - 3 < 0", i=np.array([1, 5], dtype="u1")) == [True, False]
    assert holds("i * 9999999999 > 0", i=np.array([2**40])) == [True]
    assert holds("i < 99999999999999999999999", i=np.array([2**62])) == [True]


def test_flag_bits():
    assert holds("(f & 4) == 0", f=[0, 4, 6, 3]) == [True, False, False, True]
    assert holds("(f & 4) == 0", f=[np.nan, 1.0]) == [False, True]
    assert holds("f & 4 == 0", f=[0, 4]) == [True, False]
    with pytest.raises(RecipeError, match=r"are parentheses missing\?"):
        holds("f > 1 & g < 3", f=[0], g=[0])
    with pytest.raises(RecipeError, match="are parentheses missing"):
        holds("f & (g < 3)", f=[0], g=[0])
    with pytest.raises(RecipeError, match=r"& and \| need integers"):
        holds("(f & 4) == 0", f=[0.5])


def test_names_that_python_has_other_uses_for():
    assert holds('col("R.A.") > 1 and abs > 0', **{"R.A.": [2.0], "abs": [1]}) == [True]
    own = {"ra": np.array([15.0])}
    assert Expression('col("ra") == 15 and ra == 225').evaluate({"ra": np.array([225.0])}, own).tolist() == [True]
    with pytest.raises(RecipeError, match=r"names unknown column 'R\.A'; did you mean 'R\.A\.'\?"):
        holds('col("R.A") > 1', **{"R.A.": [2.0]})


@pytest.mark.parametrize("text", [
    "x.__class__", "x.real > 0", "().__class__.__bases__[0]", "__import__('os').system('true')", "open('f')",
    "eval('1')", "abs(x, x)", "abs(x=x)", "abs(*[x])", "(lambda: x)()", "lambda: 1", "[y for y in x]", "{y for y in x}",
    "(y for y in x)", "x[0] > 1", "x[:]", "f'{x}' == 'a'", "9**9**9 > x", "x ** 2 > 1", "x << 99 > 1", "x // 2 > 1",
    "x @ x", "x ^ 1", "(y := x) > 1", "x if x else x", "x is None", "x == None", "x == ...", "x == b'a'", "x == 1j",
    "{'a': x}", "{1, 2}", "[1, 2]", "x in y", "'a' in x", "x in [[1]]", "x in {1}", "*x", "await x", "yield x", "x; x",
    "x = 1", "x > 1\nimport os", "import os", "del x", "", "   ", "x >", "x > 1)", "\0", "x > \\", "x < 1e999",
    "x < " + "9" * 1900, "col(x) > 1", "col('a', 'b')", "missing()", "print(x)", "x > 1 #" + "a" * 2000,
    "a" * 2001, "(" * 300 + "x" + ")" * 300 + " > 1", "-" * 1900 + "x > 1", "not " * 400 + "x",
    "x" + " + x" * 400 + " > 1",
])
def test_what_is_refused(text):
    with pytest.raises(RecipeError) as caught:
        Expression(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [
    "'a' * 1000000000 == 'a'", "x * 'a' == 1", "'a' + 'b' == x", "x", "x + 1", "1 < 2", "True", "not x", "x and x > 1",
    "-(x > 1)", "(x > 1) + 1 == 2", "abs(x > 1) > 0", "log10('a') > 1", "__class__ > 1", "__builtins__", "nan == 1",
    "x > 'b'", "(x > 1) == 'a'", "x in ['a']",
])
def test_what_does_not_fit_the_columns(text):
    with pytest.raises(RecipeError, match=r"^cut ") as caught:
        holds(text, x=[1.0, 2.0])
    assert "\n" not in str(caught.value)


def test_an_empty_table():
    assert holds("x > 1 and m == 'a'", x=np.array([]), m=np.array([], dtype=object)) == []
