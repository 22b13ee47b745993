"""What `export` and `summarize` remember of their work, so that neither does it again while nothing has changed.

Two sealed files in the ledger, ``export.json`` (sizes and checksums of what was written, and its account) and
``counts.json`` (the counts of the sources and stamps), each with the fingerprint of everything that decides them.
Only who has compared the logits with the ledger may use them: the fingerprint rests on what the markers say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.errors import listed
from catmorph.files import checksum, digest_json, write_sealed
from catmorph.inference.members import all_temperatures
from catmorph.ledger import State
from catmorph.markers import read_believed
from catmorph.places import COUNTS, EXPORT, LEDGER
from catmorph.release.provenance import decisive, differences, facts_of, read_provenance
from catmorph.release.results import Temperatures
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

CODE_VERSION = 2
"""Raised when the same logits give another release or other counts; part of the fingerprint."""


@dataclass(frozen=True)
class Basis:
    """What a release is made from.

    Attributes
    ----------
    facts : dict
        For its provenance.
    sources : str or None
        Checksum of the sources.
    catalog : str
        Fingerprint of all that decides the catalog.
    counts : str
        Fingerprint of all that decides the counts: of the whole recipe, that is.
    """

    facts: Mapping[str, Any]
    sources: str | None
    catalog: str
    counts: str

    @classmethod
    def of(cls, run: RunFolder, used: Temperatures) -> Basis:
        """Take it from the recipe, the ledger and the temperatures."""
        facts = facts_of(run, used)
        ingested = run.ledger.read(run.sources_path()) or {}
        schemes = {run.recipe.classifier_scheme(name) for name in run.recipe.classifiers}
        rest = {
            "sources": {key: ingested.get(key) for key in ("checksum", "counts")},
            "schemes": [load_scheme(name).model_dump(mode="json") for name in sorted(schemes)],
            "code": CODE_VERSION,
        }
        return cls(facts, ingested.get("checksum"), digest_json({"facts": decisive(facts), **rest}),
                   digest_json({"facts": facts, **rest}))


def release_state(run: RunFolder) -> State:
    """Return whether the catalog in the release folder is what `export` would write now, all of it there.

    Files are looked at, not read.
    """
    if read_provenance(run) is None:
        return State("missing", "not exported")
    basis = Basis.of(run, all_temperatures(run.recipe))
    if changed := _changed(run, basis):
        return State("stale", f"exported before a change of {', '.join(changed)}")
    kept = _kept(_export_path(run), basis.catalog)
    if kept is None:
        return State("stale", "not known of what it was exported")
    lost = [name for name in kept["files"] if not _is_there(run, kept["files"], name)]
    if lost:
        return State("stale", f"missing or cut off: {listed(lost)}")
    more = [name for name in run.recipe.release.formats if name not in kept["formats"]]
    return State("stale", f"not exported as {listed(more)}") if more else State("done")


def changed_since_export(run: RunFolder) -> list[str]:
    """Return in words what has changed since the catalog in the release folder was made; nothing without one."""
    return _changed(run, Basis.of(run, all_temperatures(run.recipe)))


def _changed(run: RunFolder, basis: Basis) -> list[str]:
    before, exported = read_provenance(run), _read(_export_path(run))
    if before is None:
        return []
    others = exported is not None and exported.get("sources") != basis.sources
    return differences(before, basis.facts) or (["the sources"] if others else [])


def keep_export(
    run: RunFolder, basis: Basis, formats: Mapping[str, Path], paths: Iterable[Path], account: Mapping[str, Any]
) -> None:
    """Remember that `paths` are all that belongs to the release of this basis, and whole; `formats` was written now."""
    earlier = _kept(_export_path(run), basis.catalog) or {"formats": {}}
    files = {_name(run, path): {"bytes": path.stat().st_size, "checksum": checksum(path)} for path in paths}
    named = {**earlier["formats"], **{name: _name(run, path) for name, path in formats.items()}}
    write_sealed(_export_path(run), {
        "fingerprint": basis.catalog, "sources": basis.sources, "files": files, "account": account,
        "formats": {name: path for name, path in named.items() if path in files},
    })


@dataclass(frozen=True)
class KeptExport:
    """What is remembered of an export: the account of its rows, and all files of its release."""

    account: Mapping[str, Any]
    paths: list[Path]


def kept_export(run: RunFolder, basis: Basis, paths: Iterable[Path]) -> KeptExport | None:
    """Return what is remembered of an export of this basis, None unless `paths` are part of it and all of it whole."""
    kept = _kept(_export_path(run), basis.catalog)
    if kept is None or not {_name(run, path) for path in paths} <= kept["files"].keys():
        return None
    if not all(_is_whole(run, kept["files"], name) for name in kept["files"]):
        return None
    return KeptExport(kept["account"], [run.path / name for name in kept["files"]])


def forget_export(run: RunFolder) -> None:
    """Remember nothing of the release: its logits were not compared with the ledger."""
    _export_path(run).unlink(missing_ok=True)


def keep_counts(run: RunFolder, basis: Basis, counts: Mapping[str, Any]) -> None:
    """Remember the counts of a basis, as plain values."""
    write_sealed(_counts_path(run), {"fingerprint": basis.counts, "counts": counts})


def kept_counts(run: RunFolder, basis: Basis) -> Mapping[str, Any] | None:
    """Return the counts that were remembered of this basis, None where there are none."""
    kept = _kept(_counts_path(run), basis.counts)
    return None if kept is None else kept["counts"]


def _kept(path: Path, fingerprint: str) -> dict[str, Any] | None:
    kept = _read(path)
    return kept if kept is not None and kept["fingerprint"] == fingerprint else None


def _read(path: Path) -> dict[str, Any] | None:
    return read_believed(path, path.name)


def _is_there(run: RunFolder, files: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    path = run.path / name
    return name in files and path.is_file() and path.stat().st_size == files[name]["bytes"]


def _is_whole(run: RunFolder, files: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    return _is_there(run, files, name) and checksum(run.path / name) == files[name]["checksum"]


def _name(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def _export_path(run: RunFolder) -> Path:
    return run.path / LEDGER / EXPORT


def _counts_path(run: RunFolder) -> Path:
    return run.path / LEDGER / COUNTS
