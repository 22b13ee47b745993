"""Values that may be missing, and the three-valued logic of cuts on them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
BITS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {ast.BitAnd: operator.and_, ast.BitOr: operator.or_}
COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs, "log10": np.log10, "sqrt": np.sqrt, "floor": np.floor,
}


class Values(NamedTuple):
    """Values (row,) or a constant (no axis), and where they are missing."""

    data: np.ndarray
    missing: np.ndarray

    @property
    def kind(self) -> str:
        """What they are: number, text or condition."""
        return {"b": "condition", "O": "text"}.get(self.data.dtype.kind, "number")


def constant(value: bool | int | float | str) -> Values:
    """Return a constant of the expression."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        value = float(value)
    data = np.array(value, dtype=object if isinstance(value, str) else None)
    return Values(data, np.zeros((), bool))


def cells(values: Any) -> Values:
    """Return the cells of a column."""
    # Arrow, a tenth of a second to import, which an expression that is only read does without; so below.
    from catmorph.sources.columns import masked

    array = masked(values)
    missing = np.ma.getmaskarray(array)
    # Python cannot order None and text.
    data = np.where(missing, "", array.data) if array.dtype.kind == "O" else array.data
    return Values(data, missing)


def finite(data: Any, missing: np.ndarray) -> Values:
    """Return numbers; what has no finite value, such as x / 0 or log10(-1), is missing."""
    return Values(np.asarray(data), np.asarray(missing | ~np.isfinite(data)))


def condition(value: Values) -> Values:
    """Return `value`, which must be a condition."""
    if value.kind != "condition":
        raise TypeError(f"`and`, `or` and `not` join conditions, not {value.kind}s; compare it with something")
    return value


def number(value: Values) -> Values:
    """Return `value` as float64; text that holds numbers is one."""
    if value.kind == "number":
        return value._replace(data=value.data.astype(np.float64))
    if value.kind == "condition":
        raise TypeError("a condition is not a number; are parentheses missing?")
    return _parsed(value)


def _parsed(value: Values) -> Values:
    """Return a text column as numbers, where all its cells are."""
    if not value.data.ndim:
        raise TypeError(f"{value.data.item()!r} is text, not a number")
    from catmorph.sources.columns import numbers

    data, wrong = numbers(value.data)
    wrong &= ~value.missing
    if wrong.any():
        raise TypeError(f"a text column is used as numbers, but holds {value.data[wrong][0]!r}")
    return finite(data, value.missing)


def both(left: Values, right: Values) -> Values:
    """Return `left and right`: false where one is false, else missing where one is missing."""
    false = (~left.data & ~left.missing) | (~right.data & ~right.missing)
    return Values(left.data & right.data, (left.missing | right.missing) & ~false)


def either(left: Values, right: Values) -> Values:
    """Return `left or right`: true where one is true, else missing where one is missing."""
    true = (left.data & ~left.missing) | (right.data & ~right.missing)
    return Values(np.asarray(left.data | right.data), (left.missing | right.missing) & ~true)


def unary(kind: ast.unaryop, value: Values) -> Values:
    """Apply a sign, `not` or `~`."""
    if isinstance(kind, ast.Not | ast.Invert):
        return value._replace(data=~condition(value).data)
    value = number(value)
    return value if isinstance(kind, ast.UAdd) else value._replace(data=-value.data)


def binary(kind: ast.operator, left: Values, right: Values) -> Values:
    """Apply an operator of arithmetic, or & and |, on conditions or on the bits of integers."""
    if type(kind) in ARITHMETIC:
        left, right = number(left), number(right)
        return finite(ARITHMETIC[type(kind)](left.data, right.data), left.missing | right.missing)
    if left.kind == right.kind == "condition":
        return both(left, right) if isinstance(kind, ast.BitAnd) else either(left, right)
    left, right = _whole(left), _whole(right)
    return Values(np.asarray(BITS[type(kind)](left.data, right.data)), left.missing | right.missing)


def _whole(value: Values) -> Values:
    if value.kind == "condition":
        raise TypeError("& and | join two conditions or two integers; are parentheses missing?")
    data = value.data if value.data.dtype.kind in "iu" else np.where(value.missing, 0, number(value).data)
    if (data != np.floor(data)).any():
        raise TypeError("& and | need integers")
    return value._replace(data=data.astype(np.int64))


def compare(relation: Callable[[Any, Any], Any], left: Values, right: Values) -> Values:
    """Compare two numbers, conditions or texts; text that holds numbers compares with numbers."""
    if {left.kind, right.kind} == {"number", "text"}:
        left, right = (_parsed(one) if one.kind == "text" else one for one in (left, right))
    elif "condition" in (left.kind, right.kind) and "text" in (left.kind, right.kind):
        raise TypeError("a condition is compared with text")
    return Values(np.asarray(relation(left.data, right.data), dtype=bool), np.asarray(left.missing | right.missing))
