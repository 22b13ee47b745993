"""What `export` and `summarize` remember of their work, so that neither does it again while nothing has changed.

Two sealed files in the ledger, ``export.json`` (the checksums of what was written, and its account) and ``counts.json``
(the counts of the sources and stamps), each with the fingerprint of everything that decides them. Only who has compared
the logits with the ledger may use them: the fingerprint rests on what the markers say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catmorph.files import checksum, digest_json, read_sealed, write_sealed
from catmorph.release.provenance import facts_of
from catmorph.release.results import Temperatures
from catmorph.schemes import load_scheme
from catmorph.workspace import RunFolder

CODE_VERSION = 1
"""Raised when the same logits give another release or other counts; part of the fingerprint."""


@dataclass(frozen=True)
class Basis:
    """What a release is made from: `facts` for its provenance, and the `fingerprint` of all of it."""

    facts: Mapping[str, Any]
    fingerprint: str

    @classmethod
    def of(cls, run: RunFolder, used: Temperatures) -> Basis:
        """Take it from the recipe, the ledger and the temperatures."""
        facts = facts_of(run, used)
        ingested = run.ledger.read(run.sources_path()) or {}
        schemes = {run.recipe.classifier_scheme(name) for name in run.recipe.classifiers}
        whole = {
            "facts": facts,
            "sources": {key: ingested.get(key) for key in ("checksum", "counts")},
            "schemes": [load_scheme(name).model_dump(mode="json") for name in sorted(schemes)],
            "code": CODE_VERSION,
        }
        return cls(facts, digest_json(whole))


def keep_export(run: RunFolder, basis: Basis, paths: Iterable[Path], account: Mapping[str, Any]) -> None:
    """Remember that `paths` are all that belongs to the release of this basis, and whole."""
    files = {_name(run, path): checksum(path) for path in paths}
    write_sealed(_export_path(run), {"fingerprint": basis.fingerprint, "files": files, "account": account})


def kept_export(run: RunFolder, basis: Basis, paths: Iterable[Path]) -> Mapping[str, Any] | None:
    """Return the account that was remembered of this basis, None unless `paths` and all of it are whole."""
    kept = _kept(_export_path(run), basis)
    if kept is None or not {_name(run, path) for path in paths} <= kept["files"].keys():
        return None
    return kept["account"] if all(_is_whole(run, kept["files"], run.path / name) for name in kept["files"]) else None


def forget_export(run: RunFolder) -> None:
    """Remember nothing of the release: its logits were not compared with the ledger."""
    _export_path(run).unlink(missing_ok=True)


def keep_counts(run: RunFolder, basis: Basis, counts: Mapping[str, Any]) -> None:
    """Remember the counts of a basis, as plain values."""
    write_sealed(_counts_path(run), {"fingerprint": basis.fingerprint, "counts": counts})


def kept_counts(run: RunFolder, basis: Basis) -> Mapping[str, Any] | None:
    """Return the counts that were remembered of this basis, None where there are none."""
    kept = _kept(_counts_path(run), basis)
    return None if kept is None else kept["counts"]


def _kept(path: Path, basis: Basis) -> dict[str, Any] | None:
    kept = read_sealed(path)
    return kept if kept is not None and kept.get("fingerprint") == basis.fingerprint else None


def _is_whole(run: RunFolder, files: Mapping[str, str], path: Path) -> bool:
    return path.is_file() and files.get(_name(run, path)) == checksum(path)


def _name(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def _export_path(run: RunFolder) -> Path:
    return run.path / "ledger" / "export.json"


def _counts_path(run: RunFolder) -> Path:
    return run.path / "ledger" / "counts.json"
