"""Groups of sources by an expression on their columns, such as regions of a colour-magnitude diagram."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catmorph.errors import RecipeError
from catmorph.recipe import EvaluationSection
from catmorph.sources.expressions import Expression

Columns = Mapping[str, np.ndarray]
"""Columns of sources by name, each (row,): numbers with NaN, booleans, or text with None."""

_KEEP = "columns of the survey table go into catalog.keep"
_AXES = ("first_axis", "second_axis")


def source_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of a table of sources, ``size_arcsec`` also as ``size``, as in the cuts of a recipe."""
    columns = {name: _values(table[name]) for name in table.column_names}
    if "size_arcsec" in columns:
        columns.setdefault("size", columns["size_arcsec"])
    return columns


def _values(cells: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_integer(cells.type) and cells.null_count:
        cells = cells.cast(pa.float64(), safe=False)
    array = cells.to_numpy()
    if array.dtype.kind == "O":
        return np.array([None if cell is None else cell if isinstance(cell, bool) else str(cell) for cell in array],
                        dtype=object)
    return array


class Regions:
    """The groups that a recipe names.

    Parameters
    ----------
    texts : mapping of str to str
        Name -> expression, true for the sources of the group.
    where : str
        The recipe's section, for messages.

    Raises
    ------
    RecipeError
        Naming the group whose expression is none.
    """

    def __init__(self, texts: Mapping[str, str], where: str = "evaluation.groups"):
        self._where = where
        self.texts = dict(texts)
        self._expressions = {name: _told(f"{where}.{name}", Expression, text) for name, text in texts.items()}

    def masks(self, columns: Columns) -> dict[str, np.ndarray]:
        """Return which rows are in each group, as booleans (row,); a source may be in several, or in none.

        What depends on a missing value is neither true nor false: such a source is not in the group.

        Raises
        ------
        RecipeError
            When an expression names a column that there is not, or does not fit it.
        """
        return {name: _told(f"{self._where}.{name}", expression.evaluate, columns)
                for name, expression in self._expressions.items()}

    def on_axes(self, x: str, y: str, grid: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """Return where in a plane each group is, for those that depend on its two axes alone.

        Parameters
        ----------
        x, y : str
            The expressions on the axes, such as ``r`` and ``g - z``. Where they occur in a group's expression as they
            are written here, they are replaced.
        grid : tuple of ndarray, shape (ny, nx) each
            Values of the two.

        Returns
        -------
        dict of ndarray of bool, shape (ny, nx)
            Without the groups that name another column, or one of these in another way.
        """
        found = {}
        flat = dict(zip(_AXES, (values.ravel() for values in grid), strict=True))
        for name, text in self.texts.items():
            replaced = Expression(_replaced(text, (x, y)))
            if replaced.names <= set(_AXES) and not replaced.quoted:
                found[name] = replaced.evaluate(flat).reshape(grid[0].shape)
        return found


def quantities(texts: Sequence[str], columns: Columns, where: str) -> dict[str, np.ndarray]:
    """Return what each of `texts`, such as ``g - z``, comes to: float64 (row,), NaN where a value is missing.

    Raises
    ------
    RecipeError
        When one is no expression, names a column that there is not, or does not fit it.
    """
    return {text: _told(where, Expression(text).numbers, columns) for text in texts}


def check_expressions(section: EvaluationSection) -> None:
    """Check that every expression of a recipe's [evaluation] can be read, without looking at columns.

    Raises
    ------
    RecipeError
        Naming the first that cannot.
    """
    Regions(section.groups)
    for text in section.pairs:
        _told("evaluation.pairs", Expression, text)
    for key in ("x", "y") if section.colour_magnitude else ():
        _told(f"evaluation.colour_magnitude.{key}", Expression, getattr(section.colour_magnitude, key))


def check_columns(section: EvaluationSection, columns: Columns) -> None:
    """Check that every expression of a recipe's [evaluation] fits `columns`.

    Raises
    ------
    RecipeError
        Naming the first that names a column that there is not, or does not fit it.
    """
    Regions(section.groups).masks(columns)
    quantities(section.pairs, columns, "evaluation.pairs")
    if section.colour_magnitude:
        quantities((section.colour_magnitude.x, section.colour_magnitude.y), columns, "evaluation.colour_magnitude")


def _told(where: str, function: Any, argument: Any) -> Any:
    try:
        return function(argument)
    except RecipeError as error:
        hint = "; ".join(filter(None, (error.hint, _KEEP if "unknown column" in error.message else "")))
        raise RecipeError(f"{where}: {error.message}", hint=hint or None) from None


def _replaced(text: str, axes: Sequence[str]) -> str:
    """Return `text` with each of `axes`, wherever it occurs as it is written, replaced by its name in `_AXES`."""
    names = dict(zip((ast.dump(ast.parse(one.strip(), mode="eval").body) for one in axes), _AXES, strict=True))

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            name = names.get(ast.dump(node))
            return ast.Name(id=name, ctx=ast.Load()) if name else self.generic_visit(node)

    return ast.unparse(Replace().visit(ast.parse(text.strip(), mode="eval")))
