"""Writing the release: its files, their provenance and their data dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from catmorph.errors import CatmorphError
from catmorph.files import atomic, digest, read_json, remove_partial_files, write_bytes, write_json
from catmorph.inference.members import all_temperatures
from catmorph.recipe import Recipe
from catmorph.release.account import Account, account, counted
from catmorph.release.assemble import made_of_batches, release_layout
from catmorph.release.counts import Counts, no_counts
from catmorph.release.counts import counted as add_up
from catmorph.release.formats import FORMATS, Format
from catmorph.release.kept import Basis, forget_export, keep_counts, keep_export, kept_counts, kept_export
from catmorph.release.layout import Layout, OutputColumn, build_layout
from catmorph.release.provenance import PROVENANCE, decisive
from catmorph.release.results import Result
from catmorph.release.text import markdown_table, markdown_text
from catmorph.workspace import RunFolder


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote: format -> file, the account of rows, the columns.

    Of the files of an earlier release some were `removed`; others were changed since by somebody, and `left`.
    """

    files: dict[str, Path]
    account: Account
    layout: Layout
    removed: tuple[Path, ...] = ()
    left: tuple[Path, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The released files."""
        return list(self.files.values())


def export(
    run: RunFolder, formats: Sequence[str] = (), *, workers: int = 1, shown: bool = False, compared: bool = False
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
    compared : bool
        The logits are known to be those of the ledger. Then nothing is written where all is there and made of the same,
        and what can be counted on the way is kept for `summarize`; see `catmorph.release.kept`.

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
    basis = Basis.of(run, used)
    files = {name: run.release_folder() / f"{layout.name}.{writer.suffix}" for name, writer in writers.items()}
    kept = kept_export(run, basis, files.values()) if compared else None
    if kept is not None:
        if _renew_recipe(run.release_folder() / PROVENANCE, basis):
            keep_export(run, basis, files, kept.paths, kept.account)
        rows = Account(**kept.account)
        return ExportResult(files, rows, counted(layout, rows.widths))
    # Of an export that was killed: all its rows may be among them.
    remove_partial_files(run.release_folder())
    rows = account(run, layout, workers=workers)
    layout = counted(layout, rows.widths)
    counts = _to_be_counted(run, basis) if compared else None
    widest = _widest(layout, writers.values())
    encode, count = partial(_encoded, list(writers.values()), widest), partial(_counted, deepcopy(counts))
    label = "export" if shown else ""
    with closing(made_of_batches(run, widest, encode, count, used=used, workers=workers, label=label)) as parts:
        _write(files, writers, layout, rows.released, _adding(counts, parts))
    released, removed, left = _describe(run, basis, layout, rows, list(files.values()))
    if compared:
        keep_export(run, basis, files, released, vars(rows))
    else:
        forget_export(run)
    if counts is not None:
        keep_counts(run, basis, counts.plain())
    return ExportResult(files, rows, layout, removed, left)


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


def _widest(layout: Layout, writers: Iterable[Format]) -> Layout:
    """Return the columns that some format needs."""
    return layout if any(writer.full for writer in writers) else replace(layout, columns=layout.plain)


def _to_be_counted(run: RunFolder, basis: Basis) -> Counts | None:
    """Return counts of nothing, to be added to on the way; None where that is left to `summarize`.

    It is where the counts are known, where groups of sources are expressions yet to be tried, and where the recipe's
    merger class is none: an export does not fail for that.
    """
    if run.recipe.evaluation.groups or kept_counts(run, basis) is not None:
        return None
    try:
        return no_counts(run.recipe)
    except CatmorphError:
        return None


def _encoded(writers: Sequence[Format], layout: Layout, batch: pa.RecordBatch) -> list[Any]:
    """Return rows as each format takes them."""
    return [writer.encode(batch, layout) for writer in writers]


def _counted(nothing: Counts | None, result: Result) -> Counts | None:
    return None if nothing is None else add_up(nothing, [result])


def _adding(counts: Counts | None, parts: Iterable[tuple[list[Any] | None, Counts | None]]) -> Iterator[list[Any]]:
    """Yield the encoded rows, adding what comes with them to `counts`."""
    for rows, more in parts:
        if counts is not None and more is not None:
            counts += more
        if rows is not None:
            yield rows


def _write(
    files: Mapping[str, Path], writers: Mapping[str, Format], layout: Layout, total_rows: int,
    encoded: Iterable[Sequence[Any]],
) -> None:
    """Write all formats side by side, each file whole or not at all; `encoded` are the rows of each, in turn."""
    with ExitStack() as open_files:
        adds = []
        for name, writer in writers.items():
            temporary = open_files.enter_context(atomic(files[name]))
            adds.append(open_files.enter_context(writer.open(temporary, layout, total_rows)))
        for rows in encoded:
            for add, part in zip(adds, rows, strict=True):
                add(part)


def _describe(
    run: RunFolder, basis: Basis, layout: Layout, rows: Account, written: Sequence[Path]
) -> tuple[list[Path], tuple[Path, ...], tuple[Path, ...]]:
    """Write what tells of the released files; return all files of the release, those that were removed, and left."""
    folder = run.release_folder()
    columns, provenance = folder / "columns.md", folder / PROVENANCE
    write_bytes(columns, column_dictionary(layout).encode())
    names, removed, left = _write_provenance(run, provenance, basis, rows, written)
    released = [*(folder / name for name in names), columns, provenance, run.omitted_path()]
    return released, tuple(folder / name for name in removed), tuple(folder / name for name in left)


def _write_provenance(
    run: RunFolder, path: Path, basis: Basis, rows: Account, written: Sequence[Path]
) -> tuple[Iterable[str], list[str], list[str]]:
    """Write provenance.json and remove the files of the one before that are of another state of the survey.

    Returns
    -------
    names, removed, left : iterable of str
        The files of this state, those that were kept besides `written`; the files that were removed; and those that are
        not what an export wrote any more, which are nobody's to remove.
    """
    facts = {**basis.facts, "sources": digest(run.sources_path()), "counts": rows.counts()}
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter: 5 s a GB
        digests = pool.map(digest, written)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256}
             for file, sha256 in zip(written, digests, strict=True)}
    before, known = _before(path)
    known = {name: record for name, record in known.items() if name not in files}
    others = _whole(path.parent, known)
    same = decisive(before) == decisive(facts)
    files = {**(others if same else {}), **files}
    # They would be taken for this release. First the files, then the list of them: a kill in between loses none.
    removed = [] if same else sorted(others)
    for name in removed:
        (path.parent / name).unlink()
    write_json(path, {**facts, "files": files})
    return files, removed, sorted(known.keys() - others.keys())


def _renew_recipe(path: Path, basis: Basis) -> bool:
    """Write provenance.json with the recipe as it is now, where that has changed in what no catalog is made of."""
    found = read_json(path)
    if found["recipe"] == basis.facts["recipe"]:
        return False
    write_json(path, {**found, **basis.facts})
    return True


def _before(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the facts of an earlier provenance, and its files that are there, as far as it can be read."""
    found = read_json(path)
    facts = found if isinstance(found, dict) else {}
    files = facts.pop("files", None)
    listed = files if isinstance(files, dict) else {}
    there = {one.name for one in path.parent.iterdir() if one.is_file()}
    return facts, {name: record for name, record in listed.items() if name in there and isinstance(record, dict)}


def _whole(folder: Path, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the files of an earlier export that are as it wrote them."""
    return {name: record for name, record in known.items() if digest(folder / name) == record.get("sha256")}
