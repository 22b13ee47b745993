"""The `ingest` stage: survey table -> sources.parquet + rejected.parquet + the chunk plan.

Every row of the survey table ends in exactly one of the two files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from catmorph.errors import CatalogError, CatmorphError
from catmorph.files import atomic
from catmorph.ledger import Parts, State
from catmorph.recipe import CatalogSection, Recipe
from catmorph.sources import columns as cells_to
from catmorph.sources.cells import natural_key, split
from catmorph.sources.expressions import Expression
from catmorph.sources.tables import as_text, catalog_files, column, read_table
from catmorph.templates import matcher
from catmorph.workspace import RunFolder

CODE_VERSION = 1
"""Raised when this stage's results change; part of its fingerprint."""

CANONICAL = ("field", "id", "cell", "file", "row", "ra", "dec", "size_arcsec", "magnitude")
REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("field", pa.string()),
     ("kind", pa.string()), ("reason", pa.string())]
)


@dataclass
class _Part:
    """The rows of one file: `frame` has the canonical columns, `kind` and `reason` (None for good rows)."""

    frame: pd.DataFrame
    units: dict[str, str]


def ingest_parts(run: RunFolder) -> Parts:
    """Return the inputs that decide the sources: catalog files, catalog section, chunk size."""
    section = run.recipe.catalog
    files = {f"catalog {path.name}": run.identities.of(path) for path in catalog_files(section)}
    settings = section.model_dump(mode="json", exclude={"files"})
    return Parts({**files, "[catalog]": settings, "run.chunk_rows": run.recipe.run.chunk_rows, "code": CODE_VERSION})


def ingest_state(run: RunFolder) -> State:
    """Return whether the sources are there and still valid."""
    parts = ingest_parts(run)
    for product in (run.plan_path(), run.rejected_path()):
        if not product.exists():
            run.ledger.forget(run.sources_path())
    return run.ledger.state(run.sources_path(), parts)


def ingest(run: RunFolder) -> dict[str, int]:
    """Read the survey table into the run folder and return the counts read, rejected, sources.

    Raises
    ------
    CatalogError
        When a file or column is missing, ids are duplicate where the recipe refuses them, no row is left,
        or every row is bad.
    """
    parts = ingest_parts(run)
    rows = map_catalog(run.recipe)
    sources, rejected, units = _divide(rows, run.recipe.catalog)
    chunks = _write_sources(run, sources, units)
    _write_table(run.rejected_path(), pa.Table.from_pandas(rejected, schema=REJECTED, preserve_index=False))
    _write_table(run.plan_path(), pa.table(chunks))
    counts = {"read": len(rows.frame), "rejected": len(rejected), "sources": len(sources)}
    by_kind = {kind: int(count) for kind, count in sorted(Counter(rejected["kind"]).items())}
    run.ledger.write(run.sources_path(), parts, counts=counts, rejected_by_kind=by_kind)
    run.identities.save()
    return counts


def map_catalog(recipe: Recipe) -> _Part:
    """Read and map all catalog files of `recipe`; each row has its canonical columns, kind and reason."""
    mapped = [_map_file(path, recipe) for path in catalog_files(recipe.catalog)]
    frame = pd.concat([part.frame for part in mapped], ignore_index=True)
    units = {name: unit for part in mapped for name, unit in part.units.items()}
    if not len(frame) and not recipe.catalog.allow_empty:
        raise CatalogError("the catalog has no rows", where=", ".join(recipe.catalog.files))
    bad = frame[frame["kind"] == "bad_cell"]
    if len(frame) and len(bad) == len(frame):
        first = bad.iloc[0]
        raise CatalogError(f"every row is bad, row {first['row']}: {first['reason']}", where=first["file"],
                           hint="check the columns and units in [catalog]")
    return _Part(frame, units)


def _map_file(path: Path, recipe: Recipe) -> _Part:
    section = recipe.catalog
    table = read_table(path, section)
    count = len(table)
    reasons = cells_to.Reasons(count)
    identifiers = as_text(column(table, section.id.column, key="catalog.id", where=path))
    reasons.add(np.array([text is None for text in identifiers], dtype=bool), "id is missing")
    fields = _fields(table, section, path, count)
    reasons.add(np.array([text is None for text in fields], dtype=bool), "field is missing")
    ra, dec = _positions(table, section, path, reasons)
    frame = pd.DataFrame({
        "field": pd.array(fields, dtype=object), "id": pd.array(identifiers, dtype=object),
        "file": path.name, "row": np.arange(1, count + 1, dtype=np.int64), "ra": ra, "dec": dec,
        "size_arcsec": _size(table, section, path, reasons),
        "magnitude": _magnitude(table, section, path, reasons),
    })
    kept, units = _kept(table, section, path)
    for name, values in kept.items():
        frame[name] = values
    frame["kind"] = np.where(reasons.bad, "bad_cell", None)
    frame["reason"] = pd.array(reasons.texts, dtype=object)
    _apply_cuts(frame, table, section)
    return _Part(frame, units)


def _fields(table: Any, section: CatalogSection, path: Path, count: int) -> list[str | None]:
    rule = section.field
    if rule.value is not None:
        return [rule.value] * count
    if rule.column is not None:
        return as_text(column(table, rule.column, key="catalog.field", where=path))
    match = matcher(rule.pattern or "").match(path.name)
    if match is None:
        raise CatalogError(f"the file name does not match catalog.field.pattern {rule.pattern!r}", where=path)
    return [match["field"]] * count


def _positions(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> Any:
    degrees = []
    for key in ("ra", "dec"):
        spec = getattr(section, key)
        values = column(table, spec.column, key=f"catalog.{key}", where=path)
        degrees.append(cells_to.angle(values, spec.unit, spec.null, key=key, reasons=reasons))
    return cells_to.to_icrs(degrees[0], degrees[1], section.frame, reasons)


def _size(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    if section.size is None:
        return np.full(len(table), np.nan)
    values = column(table, section.size.column, key="catalog.size", where=path)
    null = (*section.null, *section.size.null)
    return cells_to.radius_arcsec(values, section.size.unit, null, section.pixel_scale, reasons)


def _magnitude(table: Any, section: CatalogSection, path: Path, reasons: cells_to.Reasons) -> np.ndarray:
    if section.magnitude is None:
        return np.full(len(table), np.nan)
    values = column(table, section.magnitude.column, key="catalog.magnitude", where=path)
    magnitude, wrong = cells_to.numbers(values, (*section.null, *section.magnitude.null))
    reasons.add(wrong, [f"magnitude is not a number: {cell!r}" for cell in map(str, np.ma.getdata(values))])
    return magnitude


def _kept(table: Any, section: CatalogSection, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    kept, units = {}, {}
    for name in section.keep:
        if name in CANONICAL or name in ("kind", "reason"):
            raise CatalogError(f"kept column {name!r} has the name of one of catmorph's own", where="catalog.keep")
        values = column(table, name, key="catalog.keep", where=path)
        if np.ma.getdata(values).dtype.kind in "fiub":
            kept[name] = cells_to.numbers(values, section.null)[0]
        else:
            kept[name] = pd.array(as_text(values), dtype=object)
        if getattr(values, "unit", None):
            units[name] = str(values.unit)
    return kept, units


def _apply_cuts(frame: pd.DataFrame, table: Any, section: CatalogSection) -> None:
    """Mark the good rows of `frame` that fail a cut, with the first cut they fail."""
    named = {name: table[name] for name in table.colnames}
    named |= {key: frame[source].to_numpy() for key, source in (
        ("id", "id"), ("field", "field"), ("ra", "ra"), ("dec", "dec"), ("size", "size_arcsec"),
        ("magnitude", "magnitude"))}
    for text in section.cuts:
        expression = Expression(text)
        masked = {name: _without_sentinels(named[name], section) for name in expression.names if name in named}
        passes = expression.evaluate(masked if len(masked) == len(expression.names) else named)
        failing = ~passes & frame["kind"].isna().to_numpy()
        frame.loc[failing, "kind"] = "cut"
        frame.loc[failing, "reason"] = f"cut: {text}"


def _without_sentinels(values: Any, section: CatalogSection) -> Any:
    data = np.ma.getdata(values)
    if data.dtype.kind not in "fiu" or not section.null:
        return values
    sentinel = np.isin(data, [v for v in section.null if not isinstance(v, str)])
    return np.ma.array(data, mask=np.ma.getmaskarray(np.ma.asarray(values)) | sentinel)


def _divide(rows: _Part, section: CatalogSection) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    frame = rows.frame
    _mark_duplicates(frame, section)
    good = frame["kind"].isna()
    sources = frame[good].drop(columns=["kind", "reason"])
    if not len(sources) and not section.allow_empty:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(frame["kind"]).items()))
        raise CatalogError(f"no row of the catalog is left ({counts})", where=", ".join(section.files),
                           hint="check catalog.cuts, or set catalog.allow_empty = true")
    return sources, frame.loc[~good, list(REJECTED.names)], rows.units


def _mark_duplicates(frame: pd.DataFrame, section: CatalogSection) -> None:
    good = frame[frame["kind"].isna()]
    if section.duplicates == "brightest":
        good = good.sort_values(["magnitude", "file", "row"], na_position="last", kind="stable")
    repeated = good[good.duplicated(["field", "id"], keep="first")]
    if not len(repeated):
        return
    if section.duplicates == "refuse":
        named = "; ".join(f"{r.field} {r.id} (row {r.row})" for r in repeated.head(5).itertuples())
        raise CatalogError(
            f"{len(repeated)} duplicate ids: {named}", where=repeated.iloc[0]["file"],
            hint="set catalog.duplicates to 'first' or 'brightest' to keep one of each",
        )
    frame.loc[repeated.index, "kind"] = "duplicate"
    frame.loc[repeated.index, "reason"] = f"duplicate id; kept the {section.duplicates}"


def _write_sources(run: RunFolder, sources: pd.DataFrame, units: dict[str, str]) -> dict[str, list[Any]]:
    """Write the sources, one row group a cell, and return the columns of the chunk plan."""
    plan: dict[str, list[Any]] = {"field": [], "cell": [], "count": [], "digest": []}
    sources = sources.assign(cell="")
    order = [name for name in CANONICAL if name in sources] + [c for c in sources if c not in CANONICAL]
    schema = _schema(sources[order], units)
    with atomic(run.sources_path()) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for name in sorted(sources["field"].unique()):
            rows = sources[sources["field"] == name]
            for cell in split(rows["ra"].to_numpy(), rows["dec"].to_numpy(), run.recipe.run.chunk_rows):
                part = rows.iloc[cell.rows].assign(cell=cell.name)
                part = part.iloc[sorted(range(len(part)), key=lambda i, p=part: natural_key(p["id"].iat[i]))]
                writer.write_table(
                    pa.Table.from_pandas(part[order], schema=schema, preserve_index=False), row_group_size=len(part)
                )
                plan["field"].append(name)
                plan["cell"].append(cell.name)
                plan["count"].append(len(part))
                plan["digest"].append(stamp_digest(part))
    return plan


def stamp_digest(rows: pd.DataFrame) -> str:
    """Return the sha256 of what the stamps of `rows` depend on: ids, positions and sizes, in order."""
    state = hashlib.sha256("\0".join(rows["id"]).encode())
    for name in ("ra", "dec", "size_arcsec"):
        state.update(np.ascontiguousarray(rows[name].to_numpy(dtype="<f8")).tobytes())
    return state.hexdigest()


def _schema(sources: pd.DataFrame, units: dict[str, str]) -> pa.Schema:
    own = {"field": pa.string(), "id": pa.string(), "cell": pa.string(), "file": pa.string(), "row": pa.int64(),
           "ra": pa.float64(), "dec": pa.float64(), "size_arcsec": pa.float64(), "magnitude": pa.float64()}
    known = {"ra": "deg", "dec": "deg", "size_arcsec": "arcsec", "magnitude": "mag", **units}
    fields = []
    for name in sources:
        kind = own.get(name) or (pa.float64() if sources[name].dtype.kind == "f" else pa.string())
        fields.append(pa.field(name, kind, metadata={"unit": known[name]} if name in known else None))
    return pa.schema(fields)


def _write_table(path: Path, table: pa.Table) -> None:
    try:
        with atomic(path) as temporary:
            pq.write_table(table, temporary)
    except pa.ArrowException as error:
        raise CatmorphError(f"cannot be written: {error}", where=path) from error
