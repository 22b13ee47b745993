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
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from catmorph.errors import RecipeError, suggest
from catmorph.sources import values

_CALLS = (*values.FUNCTIONS, "col", "missing")
_MAX_LENGTH = 2000
_MAX_DEPTH = 60


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
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise RecipeError(f"cut {text!r} is not an expression: {reason}") from None
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
        return self.judge(columns, own)[0]

    def judge(self, columns: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return where the cut holds, as `evaluate`, and where a value it needs is missing, as booleans (row,)."""
        result = self._result(columns, columns if own is None else own)
        if result.kind != "condition" or not result.data.ndim:
            raise RecipeError(f"cut {self.text!r} is not true or false", hint="compare a column with something")
        return result.data & ~result.missing, np.broadcast_to(result.missing, result.data.shape)

    def numbers(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Return what the expression comes to, a quantity such as ``g - z``, as float64 (row,); NaN where missing."""
        try:
            result = values.number(self._result(columns, columns))
        except TypeError as error:
            raise RecipeError(f"{self.text!r} is not a number: {error}") from None
        if not result.data.ndim:
            raise RecipeError(f"{self.text!r} names no column")
        return np.where(result.missing, np.nan, result.data)

    def _result(self, columns: Mapping[str, Any], own: Mapping[str, Any]) -> values.Values:
        for names, known in ((self.names, columns), (self.quoted, own)):
            for name in sorted(names):
                if name not in known:
                    raise RecipeError(f"cut {self.text!r} names unknown column {name!r}", hint=suggest(name, known))
        try:
            with np.errstate(all="ignore"):
                return _Evaluator(columns, own).value(self._tree)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"cut {self.text!r} does not fit the columns: {error}") from None

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise RecipeError(f"cut {self.text!r} is nested too deeply")
        if isinstance(node, ast.Call):
            children = self._check_call(node)
        elif isinstance(node, ast.Compare):
            children = self._check_comparison(node)
        elif isinstance(node, ast.BinOp) and type(node.op) in {**values.ARITHMETIC, **values.BITS}:
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
        if len(node.ops) > 1 and any(_joins_bits(operand) for operand in (node.left, *node.comparators)):
            # Python reads x > 1 & y < 3 as x > (1 & y) < 3.
            raise RecipeError(f"cut {self.text!r}: & and | bind tighter than comparisons; are parentheses missing?")
        for kind, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(kind, ast.In | ast.NotIn):
                if not isinstance(right, ast.List | ast.Tuple):
                    raise RecipeError(f"cut {self.text!r}: `in` takes a list of constants, as in x in [1, 2]")
                children += right.elts
            elif type(kind) in values.COMPARE:
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


def _joins_bits(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and type(node.op) in values.BITS


class _Evaluator:
    """Evaluates checked expressions on columns."""

    def __init__(self, columns: Mapping[str, Any], own: Mapping[str, Any]):
        self._columns, self._own = columns, own

    def value(self, node: ast.AST) -> values.Values:
        """Return what `node` comes to."""
        if isinstance(node, ast.Constant):
            return values.constant(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            return values.cells(self._columns[node.id])
        if isinstance(node, ast.BoolOp):
            join = values.both if isinstance(node.op, ast.And) else values.either
            return reduce(join, [values.condition(self.value(value)) for value in node.values])
        if isinstance(node, ast.UnaryOp):
            return values.unary(node.op, self.value(node.operand))
        if isinstance(node, ast.BinOp):
            return values.binary(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        assert isinstance(node, ast.Call)
        return self._call(node)

    def _comparison(self, node: ast.Compare) -> values.Values:
        results, left = [], self.value(node.left)
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(right_node, ast.List | ast.Tuple):
                equal = [values.compare(operator.eq, left, self.value(item)) for item in right_node.elts]
                inside = reduce(values.either, equal, values.Values(np.zeros(left.data.shape, bool), left.missing))
                results.append(inside if isinstance(kind, ast.In) else values.Values(~inside.data, inside.missing))
            else:
                right = self.value(right_node)
                results.append(values.compare(values.COMPARE[type(kind)], left, right))
                left = right
        return reduce(values.both, results)

    def _call(self, node: ast.Call) -> values.Values:
        name = node.func.id  # type: ignore[attr-defined]
        if name == "col":
            return values.cells(self._own[node.args[0].value])  # type: ignore[attr-defined]
        value = self.value(node.args[0])
        if name == "missing":
            return values.Values(value.missing, np.zeros(value.missing.shape, bool))
        return values.finite(values.FUNCTIONS[name](values.number(value).data), value.missing)
