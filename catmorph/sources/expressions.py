"""A safe evaluator of cuts such as ``r < 19.4 and flag == 0`` on named columns.

Only comparisons, boolean and arithmetic operators, numbers, strings, column names, ``in`` with a list of
constants and a few functions are understood; nothing else of Python can be reached. Logic is three-valued:
what depends on a missing value is itself missing, its opposite too, and a row passes only where the whole is true.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from catmorph.errors import RecipeError, suggest
from catmorph.sources.columns import masked, numbers

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_BITS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {ast.BitAnd: operator.and_, ast.BitOr: operator.or_}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs, "log10": np.log10, "sqrt": np.sqrt, "floor": np.floor,
}
_CALLS = (*_FUNCTIONS, "col", "missing")
_MAX_LENGTH = 2000
_MAX_DEPTH = 60


class _Values(NamedTuple):
    """Values (row,) or a constant (no axis), and where they are missing."""

    data: np.ndarray
    missing: np.ndarray

    @property
    def kind(self) -> str:
        """What they are: number, text or condition."""
        return {"b": "condition", "O": "text"}.get(self.data.dtype.kind, "number")


class Expression:
    """A parsed cut.

    Parameters
    ----------
    text : str
        The expression. ``col("R.A.")`` is the table's own column of that name, whatever the name;
        ``missing(name)`` tells where a value is missing.

    Raises
    ------
    RecipeError
        When it is not an expression of the small language above.
    """

    def __init__(self, text: str):
        self.text = text
        if len(text) > _MAX_LENGTH:
            raise RecipeError(f"cut is longer than {_MAX_LENGTH} characters: {text[:40]!r}...")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RecipeError(f"cut {text!r} is not an expression: {error}") from None
        self.names: set[str] = set()
        self.quoted: set[str] = set()
        self._check(self._tree, 0)

    def evaluate(self, columns: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return where the cut holds, as booleans (row,); false where a value it needs is missing.

        Parameters
        ----------
        columns : mapping of str to array (row,)
            Numeric, boolean or text columns; NaN, infinity, None, empty text or a mask mean missing.
        own : mapping of str to array (row,), optional
            What ``col("...")`` looks at; default: `columns`.
        """
        own = columns if own is None else own
        for names, known in ((self.names, columns), (self.quoted, own)):
            for name in sorted(names):
                if name not in known:
                    raise RecipeError(f"cut {self.text!r} names unknown column {name!r}", hint=suggest(name, known))
        try:
            with np.errstate(all="ignore"):
                result = _Evaluator(columns, own).value(self._tree)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"cut {self.text!r} does not fit the columns: {error}") from None
        if result.kind != "condition" or not result.data.ndim:
            raise RecipeError(f"cut {self.text!r} is not true or false", hint="compare a column with something")
        return result.data & ~result.missing

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise RecipeError(f"cut {self.text!r} is nested too deeply")
        if isinstance(node, ast.Call):
            children = self._check_call(node)
        elif isinstance(node, ast.Compare):
            children = self._check_comparison(node)
        elif isinstance(node, ast.BinOp) and type(node.op) in {**_ARITHMETIC, **_BITS}:
            children = [node.left, node.right]
        elif isinstance(node, ast.BoolOp):
            children = node.values
        elif isinstance(node, ast.UnaryOp):
            children = [node.operand]
        elif isinstance(node, ast.Name):
            self.names.add(node.id)
            return
        else:
            self._check_constant(node)
            return
        for child in children:
            self._check(child, depth + 1)

    def _check_call(self, node: ast.Call) -> list[ast.expr]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _CALLS or len(node.args) != 1 or node.keywords:
            raise RecipeError(f"cut {self.text!r}: only these functions of one argument may be called",
                              hint=", ".join(_CALLS))
        if name != "col":
            return node.args
        argument = node.args[0]
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise RecipeError(f'cut {self.text!r}: col takes a column name in quotes, as in col("R.A.")')
        self.quoted.add(argument.value)
        return []

    def _check_comparison(self, node: ast.Compare) -> list[ast.expr]:
        children = [node.left]
        for kind, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(kind, ast.In | ast.NotIn):
                if not isinstance(right, ast.List | ast.Tuple):
                    raise RecipeError(f"cut {self.text!r}: `in` takes a list of constants, as in x in [1, 2]")
                children += right.elts
            elif type(kind) in _COMPARE:
                children.append(right)
            else:
                raise RecipeError(f"cut {self.text!r}: `is` is not allowed in a cut", hint="use == or missing(x)")
        return children

    def _check_constant(self, node: ast.AST) -> None:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, bool | int | float | str):
            what = type(node.value if isinstance(node, ast.Constant) else node).__name__
            raise RecipeError(f"cut {self.text!r}: {what} is not allowed in a cut")
        try:
            finite = isinstance(node.value, str) or math.isfinite(node.value)
        except OverflowError:
            finite = False
        if not finite:
            raise RecipeError(f"cut {self.text!r} holds a number that is too large")


class _Evaluator:
    """Evaluates checked expressions on columns."""

    def __init__(self, columns: Mapping[str, Any], own: Mapping[str, Any]):
        self._columns, self._own = columns, own

    def value(self, node: ast.AST) -> _Values:
        """Return what `node` comes to."""
        if isinstance(node, ast.Constant):
            return _constant(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            return _column(self._columns[node.id])
        if isinstance(node, ast.BoolOp):
            join = _and if isinstance(node.op, ast.And) else _or
            return reduce(join, [_condition(self.value(value)) for value in node.values])
        if isinstance(node, ast.UnaryOp):
            return _unary(node.op, self.value(node.operand))
        if isinstance(node, ast.BinOp):
            return _binary(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        assert isinstance(node, ast.Call)
        return self._call(node)

    def _comparison(self, node: ast.Compare) -> _Values:
        results, left = [], self.value(node.left)
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(right_node, ast.List | ast.Tuple):
                equal = [_compare(operator.eq, left, self.value(item)) for item in right_node.elts]
                inside = reduce(_or, equal, _Values(np.zeros(left.data.shape, bool), left.missing))
                results.append(inside if isinstance(kind, ast.In) else _Values(~inside.data, inside.missing))
            else:
                right = self.value(right_node)
                results.append(_compare(_COMPARE[type(kind)], left, right))
                left = right
        return reduce(_and, results)

    def _call(self, node: ast.Call) -> _Values:
        name = node.func.id  # type: ignore[attr-defined]
        if name == "col":
            return _column(self._own[node.args[0].value])  # type: ignore[attr-defined]
        value = self.value(node.args[0])
        if name == "missing":
            return _Values(value.missing, np.zeros(value.missing.shape, bool))
        return _finite(_FUNCTIONS[name](_number(value).data), value.missing)


def _constant(value: bool | int | float | str) -> _Values:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        value = float(value)
    data = np.array(value, dtype=object if isinstance(value, str) else None)
    return _Values(data, np.zeros((), bool))


def _column(values: Any) -> _Values:
    cells = masked(values)
    missing = np.ma.getmaskarray(cells)
    # Python cannot order None and text.
    data = np.where(missing, "", cells.data) if cells.dtype.kind == "O" else cells.data
    return _Values(data, missing)


def _finite(data: Any, missing: np.ndarray) -> _Values:
    # What has no finite value, such as x / 0 or log10(-1), is missing.
    return _Values(np.asarray(data), np.asarray(missing | ~np.isfinite(data)))


def _condition(value: _Values) -> _Values:
    if value.kind != "condition":
        raise TypeError(f"`and`, `or` and `not` join conditions, not {value.kind}s; compare it with something")
    return value


def _number(value: _Values) -> _Values:
    if value.kind == "number":
        return value._replace(data=value.data.astype(np.float64))
    if value.kind == "condition":
        raise TypeError("a condition is not a number; are parentheses missing?")
    return _parsed(value)


def _parsed(value: _Values) -> _Values:
    """Return a text column as numbers, where all its cells are."""
    if not value.data.ndim:
        raise TypeError(f"{value.data.item()!r} is text, not a number")
    data, wrong = numbers(value.data)
    wrong &= ~value.missing
    if wrong.any():
        raise TypeError(f"a text column is used as numbers, but holds {value.data[wrong][0]!r}")
    return _finite(data, value.missing)


def _and(left: _Values, right: _Values) -> _Values:
    false = (~left.data & ~left.missing) | (~right.data & ~right.missing)
    return _Values(left.data & right.data, (left.missing | right.missing) & ~false)


def _or(left: _Values, right: _Values) -> _Values:
    true = (left.data & ~left.missing) | (right.data & ~right.missing)
    return _Values(np.asarray(left.data | right.data), (left.missing | right.missing) & ~true)


def _unary(kind: ast.unaryop, value: _Values) -> _Values:
    if isinstance(kind, ast.Not | ast.Invert):
        return value._replace(data=~_condition(value).data)
    number = _number(value)
    return number if isinstance(kind, ast.UAdd) else number._replace(data=-number.data)


def _binary(kind: ast.operator, left: _Values, right: _Values) -> _Values:
    if type(kind) in _ARITHMETIC:
        left, right = _number(left), _number(right)
        return _finite(_ARITHMETIC[type(kind)](left.data, right.data), left.missing | right.missing)
    if left.kind == right.kind == "condition":
        return _and(left, right) if isinstance(kind, ast.BitAnd) else _or(left, right)
    left, right = _whole(left), _whole(right)
    return _Values(np.asarray(_BITS[type(kind)](left.data, right.data)), left.missing | right.missing)


def _whole(value: _Values) -> _Values:
    if value.kind == "condition":
        raise TypeError("& and | join two conditions or two integers; are parentheses missing, as in (flag & 4) == 0?")
    data = value.data if value.data.dtype.kind in "iu" else np.where(value.missing, 0, _number(value).data)
    if (data != np.floor(data)).any():
        raise TypeError("& and | need integers")
    return value._replace(data=data.astype(np.int64))


def _compare(compare: Callable[[Any, Any], Any], left: _Values, right: _Values) -> _Values:
    if {left.kind, right.kind} == {"number", "text"}:
        left, right = (_parsed(one) if one.kind == "text" else one for one in (left, right))
    elif "condition" in (left.kind, right.kind) and "text" in (left.kind, right.kind):
        raise TypeError("a condition is compared with text")
    return _Values(np.asarray(compare(left.data, right.data), dtype=bool), np.asarray(left.missing | right.missing))
