"""A safe evaluator of cuts such as ``r < 19.4 and flag == 0`` on named columns.

Only comparisons, boolean and arithmetic operators, numbers, strings, column names, ``in`` with a list of
constants and a few functions are understood; nothing else of Python can be reached. A comparison with a missing value is false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from catmorph.errors import RecipeError, suggest

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs, "log10": np.log10, "sqrt": np.sqrt, "floor": np.floor,
}
_MAX_LENGTH = 2000


class Expression:
    """A parsed cut.

    Parameters
    ----------
    text : str
        The expression. Columns whose names are no Python names are written ``col("R.A.")``;
        ``missing(name)`` tells where a value is missing.

    Raises
    ------
    RecipeError
        When it is not an expression of the small language above.
    """

    def __init__(self, text: str):
        self.text = text
        if len(text) > _MAX_LENGTH:
            raise RecipeError(f"cut is longer than {_MAX_LENGTH} characters")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RecipeError(f"cut {text!r} is not an expression: {error}") from None
        self.names = _column_names(self._tree, text)

    def evaluate(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Return where the cut holds, as booleans (row,); false where a value it needs is missing.

        Parameters
        ----------
        columns : mapping of str to array (row,)
            Numeric or text columns; NaN, None or a mask mean missing.
        """
        for name in self.names:
            if name not in columns:
                raise RecipeError(f"cut {self.text!r} names unknown column {name!r}", hint=suggest(name, columns))
        try:
            with np.errstate(all="ignore"):
                result = _value(self._tree, columns)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"cut {self.text!r} does not fit the columns: {error}") from None
        if getattr(result, "dtype", None) != np.dtype(bool):
            raise RecipeError(f"cut {self.text!r} is not true or false", hint="compare with something")
        return np.asarray(np.ma.filled(result, False), dtype=bool)


def _column_names(tree: ast.AST, text: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node, text)
            if node.func.id == "col":  # type: ignore[attr-defined]
                names.add(node.args[0].value)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Name) and node.id not in (*_FUNCTIONS, "col", "missing"):
            names.add(node.id)
        elif not isinstance(node, _ALLOWED):
            raise RecipeError(f"cut {text!r}: {ast.unparse(node)!r} is not allowed in a cut")
    return frozenset(names)


_ALLOWED = (
    ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple,
    ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.Invert, ast.In, ast.NotIn, *_BINARY, *_COMPARE,
)


def _check_call(node: ast.Call, text: str) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    valid = [*_FUNCTIONS, "col", "missing"]
    if name not in valid or len(node.args) != 1 or node.keywords:
        raise RecipeError(f"cut {text!r}: no function {name!r} of one argument", hint=suggest(name, valid))
    argument = node.args[0]
    if name == "col" and not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
        raise RecipeError(f'cut {text!r}: col takes a column name in quotes, as in col("R.A.")')


def _value(node: ast.AST, columns: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _masked(columns[node.id])
    if isinstance(node, ast.BoolOp):
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return reduce(join, [np.ma.filled(_value(value, columns), False) for value in node.values])
    if isinstance(node, ast.UnaryOp):
        return _unary(node, columns)
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, columns), _value(node.right, columns))
    if isinstance(node, ast.Compare):
        return _comparison(node, columns)
    if isinstance(node, ast.Call):
        return _call(node, columns)
    return [_value(item, columns) for item in node.elts]  # type: ignore[attr-defined]


def _unary(node: ast.UnaryOp, columns: Mapping[str, Any]) -> Any:
    value = _value(node.operand, columns)
    if isinstance(node.op, ast.USub):
        return -value
    # Of a comparison with a missing value the opposite is not true either.
    return value if isinstance(node.op, ast.UAdd) else ~value


def _comparison(node: ast.Compare, columns: Mapping[str, Any]) -> Any:
    results = []
    left = _value(node.left, columns)
    for kind, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, columns)
        if isinstance(kind, ast.In | ast.NotIn):
            inside = np.ma.array(np.isin(np.ma.getdata(left), right), mask=np.ma.getmaskarray(left))
            results.append(inside if isinstance(kind, ast.In) else ~inside)
        else:
            results.append(_COMPARE[type(kind)](left, right))
        left = right
    return reduce(operator.and_, results)


def _call(node: ast.Call, columns: Mapping[str, Any]) -> Any:
    name = node.func.id  # type: ignore[attr-defined]
    if name == "col":
        return _masked(columns[node.args[0].value])  # type: ignore[attr-defined]
    value = _value(node.args[0], columns)
    if name == "missing":
        return np.ma.getmaskarray(value)
    return _FUNCTIONS[name](value)


def _masked(values: Any) -> np.ma.MaskedArray:
    array = np.ma.array(np.asarray(np.ma.getdata(values)), mask=np.ma.getmaskarray(np.ma.asarray(values)))
    if array.dtype.kind == "f":
        return np.ma.masked_invalid(array, copy=True)
    if array.dtype.kind == "O":
        text = np.ma.getdata(array)
        return np.ma.array(["" if v is None else str(v) for v in text],
                           mask=np.ma.getmaskarray(array) | np.array([v is None for v in text], dtype=bool))
    if array.dtype.kind == "S":
        return np.ma.array(np.char.decode(np.ma.getdata(array), "utf-8", "replace"), mask=np.ma.getmaskarray(array))
    return array
