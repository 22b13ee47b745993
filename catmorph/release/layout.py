"""Which columns a release has: names, types, units, descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import pyarrow as pa

from catmorph.errors import CatmorphError, ProblemsError, RecipeError, suggest
from catmorph.quality import FLAGS
from catmorph.recipe import Recipe, ReleaseColumn
from catmorph.schemes import Scheme, load_scheme
from catmorph.templates import fill

Role = Literal["source", "probability", "spread", "class", "entropy", "mutual_information", "flags"]

FIXED_SOURCES = ("field", "id", "ra", "dec", "size_arcsec", "magnitude")
"""Columns that every sources.parquet has and a leading column may show."""

NULLS = {"int64": -(2**63), "int32": -(2**31)}
"""Type of a column -> the integer that stands for a missing one in formats without missing integers."""

_UNITS = {"ra": "deg", "dec": "deg", "size_arcsec": "arcsec", "magnitude": "mag"}
_UCDS = {
    "field": "meta.id;obs.field",
    "id": "meta.id;meta.main",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "size_arcsec": "phys.angSize",
    "magnitude": "phot.mag",
}
_DESCRIPTIONS = {
    "field": "field of the survey",
    "id": "identifier, unique within its field",
    "ra": "right ascension, ICRS",
    "dec": "declination, ICRS",
    "size_arcsec": "radius that sets the side of the stamp",
    "magnitude": "magnitude",
}


class Key(NamedTuple):
    """A view as one classifier sees it."""

    classifier: str
    view: str


@dataclass(frozen=True)
class OutputColumn:
    """A column of the release.

    Attributes
    ----------
    name : str
        Its name in the released table.
    role : str
        ``source``, ``probability``, ``spread``, ``class``, ``entropy``, ``mutual_information`` or ``flags``.
    source : str
        Column of sources.parquet, or class of the label scheme, that it shows.
    type : pyarrow.DataType
        string, bool, int64, int32, float64 or float32.
    decimals : int or None
        Decimals in CSV; None writes the shortest text that reads back as the same number.
    key : Key or None
        Classifier and view, for what comes from a network.
    scheme : str
        Label scheme of that classifier.
    width : int
        Characters of the longest text, in ASCII with escapes; only text columns of a counted release have it.
    """

    name: str
    role: Role
    source: str
    type: pa.DataType
    decimals: int | None = None
    unit: str | None = None
    ucd: str | None = None
    description: str = ""
    key: Key | None = None
    scheme: str = ""
    width: int = 0

    @property
    def kind(self) -> Literal["text", "bool", "int", "float"]:
        """The kind of values it holds."""
        if pa.types.is_string(self.type):
            return "text"
        if pa.types.is_boolean(self.type):
            return "bool"
        return "int" if pa.types.is_integer(self.type) else "float"


@dataclass(frozen=True)
class Layout:
    """The columns of a release in order, and what is said about the table as a whole."""

    name: str
    title: str
    reference: str
    scheme: str
    columns: tuple[OutputColumn, ...]

    @property
    def plain(self) -> tuple[OutputColumn, ...]:
        """The columns of CSV: the leading ones and the probabilities."""
        return tuple(column for column in self.columns if column.role in ("source", "probability"))

    @property
    def schema(self) -> pa.Schema:
        """The schema of the batches; every column may hold nulls."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    @property
    def flag_meanings(self) -> dict[str, str]:
        """Bit value -> name and meaning of the bits of the flags columns."""
        return {str(int(info.flag)): f"{info.flag.name} ({info.severity}): {info.meaning}" for info in FLAGS}


def release_keys(recipe: Recipe) -> tuple[Key, ...]:
    """Return every (classifier, view) of the release: views in their order, classifiers within a view."""
    return tuple(
        Key(classifier, view)
        for view in recipe.all_views
        for classifier in recipe.classifiers
        if view in recipe.classifier_views(classifier)
    )


def build_layout(recipe: Recipe, sources: pa.Schema | None) -> Layout:
    """Return the layout of the release.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    sources : pyarrow.Schema or None
        Schema of sources.parquet, for types and units of kept columns; without it they are text.

    Raises
    ------
    RecipeError, ProblemsError
        Naming every column at once that is not there, has no name, or that of another.
    CatmorphError
        When the sources were read in before the recipe kept a column.
    """
    if not release_keys(recipe):
        raise RecipeError("the recipe names no classifier to release", where="classifiers")
    _check_sources(recipe, sources)
    columns = [_leading(column, sources) for column in recipe.release.columns]
    for key in release_keys(recipe):
        scheme = load_scheme(recipe.classifier_scheme(key.classifier))
        columns += [replace(column, scheme=scheme.name) for column in _answers(recipe, scheme, key)]
    _refuse_duplicates(columns, len(recipe.classifiers) > 1)
    return Layout(recipe.release.name, recipe.title, recipe.reference, _schemes(recipe), tuple(columns))


def _schemes(recipe: Recipe) -> str:
    """Return the label schemes that the release's classifiers answer in, each once, joined by commas."""
    used = [recipe.classifier_scheme(key.classifier) for key in release_keys(recipe)]
    return ", ".join(dict.fromkeys(used))


def _check_sources(recipe: Recipe, sources: pa.Schema | None) -> None:
    valid = [*FIXED_SOURCES, *recipe.catalog.carried]
    problems = [
        f"release.columns: {column.name!r} shows {column.source!r}, which is no column of the sources; "
        f"{suggest(column.source, valid)} (other columns go into catalog.keep)"
        for column in recipe.release.columns
        if column.source not in valid
    ]
    problems += [
        "release.columns: a column has an empty name" for c in recipe.release.columns if not c.name.strip()
    ]
    if problems:
        raise ProblemsError(problems)
    stored = valid if sources is None else sources.names
    absent = [column.source for column in recipe.release.columns if column.source not in stored]
    if absent:
        raise CatmorphError(f"sources.parquet has no column {absent[0]!r} yet", hint="run `catmorph ingest`")


def _leading(column: ReleaseColumn, sources: pa.Schema | None) -> OutputColumn:
    known = column.source in FIXED_SOURCES
    stored: Mapping[str, str] = {}
    if sources is not None:
        metadata = sources.field(column.source).metadata or {}
        stored = {key.decode(): value.decode() for key, value in metadata.items()}
    return OutputColumn(
        name=column.name,
        role="source",
        source=column.source,
        type=_released_type(column.source, sources),
        decimals=column.decimals,
        unit=_UNITS.get(column.source) if known else stored.get("unit") or None,
        ucd=column.ucd or _UCDS.get(column.source) or stored.get("ucd"),
        description=column.description or _DESCRIPTIONS.get(column.source) or stored.get("description", ""),
    )


def _released_type(source: str, sources: pa.Schema | None) -> pa.DataType:
    if source in ("ra", "dec", "size_arcsec", "magnitude"):
        return pa.float64()
    if source in ("field", "id") or sources is None:
        return pa.string()
    stored = sources.field(source).type
    if pa.types.is_boolean(stored):
        return pa.bool_()
    if pa.types.is_integer(stored):
        return pa.int64()
    if pa.types.is_floating(stored):
        return pa.float64() if stored.bit_width == 64 else pa.float32()
    return pa.string()


def _answers(recipe: Recipe, scheme: Scheme, key: Key) -> list[OutputColumn]:
    columns = [_probability(recipe, scheme, key, name) for name in scheme.class_names]
    ensemble = len(recipe.classifiers[key.classifier].checkpoints) > 1
    if ensemble:
        columns += [_spread(recipe, scheme, key, column) for column in columns]
    which = {"softmax": "most probable class", "sigmoid": "questions answered yes (P >= 0.5)",
             "tree": "most probable answers, question by question down the tree"}[scheme.kind]
    band = _seen(recipe, key)
    columns.append(_extra(recipe, key, "class", pa.string(), "src.morph.type", f"{which} {band}"))
    columns.append(
        _extra(
            recipe,
            key,
            "entropy",
            pa.float32(),
            "stat.value;src.morph.type",
            f"Shannon entropy of the probabilities {band}",
            unit="bit",
        )
    )
    if ensemble:
        columns.append(
            _extra(
                recipe,
                key,
                "mutual_information",
                pa.float32(),
                "stat.value;src.morph.type",
                f"entropy of the mean less the mean of the networks' entropies {band}",
                unit="bit",
            )
        )
    columns.append(
        _extra(recipe, key, "flags", pa.int32(), "meta.code.qual", f"quality flags, a bit each, {band}")
    )
    return columns


def _probability(recipe: Recipe, scheme: Scheme, key: Key, class_name: str) -> OutputColumn:
    one = scheme.classes[scheme.index(class_name)]
    several = len(recipe.classifiers[key.classifier].checkpoints)
    mean = f", mean of {several} networks" if several > 1 else ""
    return OutputColumn(
        name=fill(recipe.release.probability, _class_values(scheme, key, class_name)),
        role="probability",
        source=one.name,
        type=pa.float32(),
        decimals=recipe.release.decimals,
        ucd="stat.probability;src.morph.type",
        description=f"probability of {one.title} {_seen(recipe, key)}{mean}",
        key=key,
    )


def _spread(recipe: Recipe, scheme: Scheme, key: Key, probability: OutputColumn) -> OutputColumn:
    values = {**_class_values(scheme, key, probability.source), "probability": probability.name}
    return OutputColumn(
        name=fill(recipe.release.spread, values),
        role="spread",
        source=probability.source,
        type=pa.float32(),
        ucd="stat.stdev;stat.probability",
        description=f"standard deviation of {probability.name} among the networks",
        key=key,
    )


def _class_values(scheme: Scheme, key: Key, class_name: str) -> dict[str, str]:
    """Return what the names of a class's columns may be made of."""
    one = scheme.classes[scheme.index(class_name)]
    return {"classifier": key.classifier, "view": key.view, "class": one.name, "code": one.code}


def _extra(
    recipe: Recipe,
    key: Key,
    quantity: Role,
    of_type: pa.DataType,
    ucd: str,
    description: str,
    unit: str | None = None,
) -> OutputColumn:
    values = {"classifier": key.classifier, "view": key.view, "quantity": quantity}
    return OutputColumn(
        name=fill(recipe.release.quantity, values),
        role=quantity,
        source=quantity,
        type=of_type,
        unit=unit,
        ucd=ucd,
        description=description,
        key=key,
    )


def _seen(recipe: Recipe, key: Key) -> str:
    return f"in {key.view}" + (f" by {key.classifier}" if len(recipe.classifiers) > 1 else "")


def _refuse_duplicates(columns: Sequence[OutputColumn], several: bool) -> None:
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        parts = "{view}, {class} or {code}" + (", and {classifier}" if several else "")
        spread = any(column.role == "spread" for column in columns)
        raise RecipeError(
            f"the release would have {len(twice)} column names twice, such as {twice[0]!r}",
            where="release",
            hint=f"use {parts} in release.probability, {{view}} and {{quantity}} in release.quantity"
            + (", {probability} in release.spread" if spread else ""),
        )
