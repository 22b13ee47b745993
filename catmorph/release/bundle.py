"""Writing the release: its files, their provenance and their data dictionary."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from catmorph.files import atomic, digest, digest_json, read_json, write_bytes, write_json
from catmorph.inference.members import Member, all_temperatures, member_logits, members, network_of
from catmorph.recipe import Recipe
from catmorph.recipe.loading import PATH_KEYS
from catmorph.release.account import Account, account, counted
from catmorph.release.assemble import made_of_batches, release_layout
from catmorph.release.formats import FORMATS, Format, producer
from catmorph.release.layout import Layout, OutputColumn, build_layout
from catmorph.release.results import Result, Temperatures
from catmorph.release.text import markdown_table, markdown_text
from catmorph.workspace import RunFolder

PACKAGES = ("catmorph", "astropy", "numpy", "pyarrow", "scipy", "torch")
"""Packages whose versions decide the bytes of a release."""


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote: format -> file, the account of rows, and the columns."""

    files: dict[str, Path]
    account: Account
    layout: Layout

    @property
    def paths(self) -> list[Path]:
        """The released files."""
        return list(self.files.values())


def export(
    run: RunFolder, formats: Sequence[str] = (), *, workers: int = 1, shown: bool = False
) -> ExportResult:
    """Write the release of `run`, omitted.parquet, provenance.json and columns.md; each whole or not at all.

    Parameters
    ----------
    run : RunFolder
        A run folder with sources and logits.
    formats : sequence of str
        Names in `FORMATS`; by default the recipe's.
    workers : int
        Processes that may read logits and encode rows.
    shown : bool
        Show a progress bar.

    Raises
    ------
    UsageError
        For an unknown format, or a layout that a format cannot hold; nothing is written then.
    CatmorphError
        When logits are missing or a row is lost.
    """
    writers = {name: FORMATS.get(name)() for name in dict.fromkeys(formats or run.recipe.release.formats)}
    layout = release_layout(run)
    for writer in writers.values():
        writer.check(layout)
    # Looked up once: a card may be written anew meanwhile.
    used = all_temperatures(run.recipe)
    rows = account(run, layout, workers=workers)
    layout = counted(layout, rows.widths)
    full = any(writer.full for writer in writers.values())
    widest = layout if full else replace(layout, columns=layout.plain)
    encode = partial(_encoded, list(writers.values()), widest)
    encoded = made_of_batches(run, widest, encode, used=used, workers=workers, label="export" if shown else "")
    files = _write(run.release_folder(), writers, layout, rows.released, encoded)
    write_bytes(run.release_folder() / "columns.md", column_dictionary(layout).encode())
    _write_provenance(run, rows, list(files.values()), used)
    return ExportResult(files, rows, layout)


def check_release(recipe: Recipe, formats: Sequence[str] = ()) -> None:
    """Check, before any work, that the release's formats exist and hold its columns.

    Raises
    ------
    UsageError
        Naming what does not exist or does not fit.
    """
    layout = build_layout(recipe, None)
    for name in formats or recipe.release.formats:
        FORMATS.get(name)().check(layout)


def column_dictionary(layout: Layout) -> str:
    """Return the data dictionary of the release as Markdown."""
    plain = set(layout.plain)
    rows = [_dictionary_row(column, column in plain) for column in layout.columns]
    lines = [
        f"# Columns of {markdown_text(layout.name)}",
        "",
        markdown_text(layout.title),
        "",
        "CSV has the columns marked so, with their decimals; the other formats have all, in full precision. "
        "A value is missing (blank, null, NaN) where a source has no classified stamp. In CSV, text that a "
        "spreadsheet would run as a formula has an apostrophe before it.",
        "",
        *markdown_table(["column", "CSV", "type", "unit", "decimals", "UCD", "meaning"], rows),
        "",
        "## Bits of the flags",
        "",
        *markdown_table(["value", "flag"], [[bit, text] for bit, text in layout.flag_meanings.items()]),
    ]
    return "\n".join(lines) + "\n"


def _dictionary_row(column: OutputColumn, plain: bool) -> list[str]:
    decimals = "" if column.decimals is None or not plain else str(column.decimals)
    return [
        column.name,
        "yes" if plain else "",
        str(column.type),
        column.unit or "",
        decimals,
        column.ucd or "",
        column.description,
    ]


def _encoded(writers: Sequence[Format], layout: Layout, batch: pa.RecordBatch, _: Result) -> list[Any]:
    return [writer.encode(batch, layout) for writer in writers] if batch.num_rows else []


def _write(
    folder: Path, writers: Mapping[str, Format], layout: Layout, total_rows: int, encoded: Iterable[Sequence[Any]]
) -> dict[str, Path]:
    """Write all formats side by side, each file whole or not at all; `encoded` are the rows of each, in turn."""
    paths = {name: folder / f"{layout.name}.{writer.suffix}" for name, writer in writers.items()}
    with ExitStack() as files:
        adds = []
        for name, writer in writers.items():
            temporary = files.enter_context(atomic(paths[name]))
            adds.append(files.enter_context(writer.open(temporary, layout, total_rows)))
        for rows in encoded:
            for add, part in zip(adds, rows, strict=bool(rows)):
                add(part)
    return paths


def _write_provenance(run: RunFolder, rows: Account, written: Sequence[Path], used: Temperatures) -> None:
    """Write provenance.json and remove the files of the one before that are of another state of the survey."""
    path = run.release_folder() / "provenance.json"
    facts = {
        "producer": producer(),
        "recipe": recipe_without_paths(run.recipe),
        "versions": package_versions(),
        "classifiers": {name: _classifier(run, name, used[name]) for name in run.recipe.classifiers},
        "sources": digest(run.sources_path()),
        "counts": rows.counts(),
    }
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter: 5 s a GB
        digests = pool.map(digest, written)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256}
             for file, sha256 in zip(written, digests, strict=True)}
    before, known = _before(path)
    files = {**(_kept(path.parent, known) if before == facts else {}), **files}
    # They would be taken for this release. First the files, then the list of them: a kill in between loses none.
    for name in known.keys() - files.keys():
        (path.parent / name).unlink()
    write_json(path, {**facts, "files": files})


def _before(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the facts of an earlier provenance, and its files that are there, as far as it can be read."""
    found = read_json(path)
    facts = found if isinstance(found, dict) else {}
    files = facts.pop("files", None)
    listed = files if isinstance(files, dict) else {}
    there = {one.name for one in path.parent.iterdir() if one.is_file()}
    return facts, {name: record for name, record in listed.items() if name in there and isinstance(record, dict)}


def _kept(folder: Path, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the files that an earlier export of the very same release wrote in other formats."""
    return {name: record for name, record in known.items() if digest(folder / name) == record.get("sha256")}


def recipe_without_paths(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values, with every path cut to its last component."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    for keys in PATH_KEYS:
        _cut_paths(values, keys)
    return values


def _cut_paths(values: Any, keys: Sequence[str]) -> None:
    if keys[0] == "*" and isinstance(values, list):
        for one in values:
            _cut_paths(one, keys[1:])
        return
    for key in list(values) if keys[0] == "*" else [keys[0]]:
        if key not in values:
            continue
        if len(keys) > 1:
            _cut_paths(values[key], keys[1:])
        elif isinstance(values[key], str):
            values[key] = Path(values[key]).name
        else:
            values[key] = [Path(text).name for text in values[key]]


def _classifier(run: RunFolder, name: str, used: Sequence[float]) -> dict[str, Any]:
    """Return how the networks of a classifier become its probabilities, and what each of them is."""
    return {
        "test_time": run.recipe.classifiers[name].test_time,
        "members": [
            {**_member(run, member), "temperature": temperature}
            for member, temperature in zip(members(run.recipe, name), used, strict=True)
        ],
    }


def _member(run: RunFolder, member: Member) -> dict[str, Any]:
    """Return the digests of a checkpoint and its logits, and the fingerprints under which those were made."""
    identity = run.identities.derived(member.checkpoint, "sha256", digest)
    readable = not identity.startswith("unreadable")
    views, chunks = run.recipe.classifier_views(member.classifier), run.chunks()
    markers = [run.ledger.read(member_logits(run, member, view, chunk)) or {} for view in views for chunk in chunks]
    made_by = {marker.get("parts", {}).get("classifier") for marker in markers}
    return {
        "checkpoint": member.checkpoint.name,
        "checkpoint_sha256": identity if readable else None,
        "network_sha256": network_of(run, member) if readable else None,
        "fingerprints": sorted(one for one in made_by if one),
        "logits_digest": digest_json([marker.get("checksum") for marker in markers]),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the bytes of a release."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
