"""What a release was made from: producer, recipe, versions, and the networks with their logits."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from catmorph.files import digest, digest_json, read_json
from catmorph.inference.members import Member, member_logits, members, network_of
from catmorph.recipe import Recipe
from catmorph.recipe.paths import change_paths
from catmorph.release.formats import producer
from catmorph.release.results import Temperatures
from catmorph.workspace import RunFolder

PROVENANCE = "provenance.json"
_KEYS = ("name", "title", "reference", "scheme")
_SECTIONS = ("catalog", "bands", "views", "mosaics", "images", "stamp", "normalise", "classifiers", "release")
"""What of a recipe decides what is in a released catalog."""

PACKAGES = ("catmorph", "astropy", "numpy", "pyarrow", "scipy", "torch")
"""Packages whose versions decide the bytes of a release."""


def facts_of(run: RunFolder, used: Temperatures) -> dict[str, Any]:
    """Return what a release is made from, apart from its sources; `used` are the temperatures."""
    return {
        "producer": producer(),
        "recipe": recipe_without_paths(run.recipe),
        "versions": package_versions(),
        "classifiers": {name: _classifier(run, name, used[name]) for name in run.recipe.classifiers},
    }


def decisive(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the released catalog, of `facts_of` it or of a provenance.json: the recipe cut to that."""
    recipe = facts.get("recipe")
    known = recipe if isinstance(recipe, dict) else {}
    return {**facts, "recipe": {name: known.get(name) for name in (*_KEYS, *_SECTIONS)}}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what is decisive and has changed since the provenance `before`, but for the sources."""
    then, new = decisive(before), decisive(now)
    changed = [name if name in _KEYS else f"[{name}]" for name in new["recipe"]
               if then["recipe"][name] != new["recipe"][name]]
    parts = {"classifiers": "networks or logits", "versions": "package versions", "producer": "package versions"}
    changed = changed or [text for name, text in parts.items() if then.get(name) != new[name]]
    return list(dict.fromkeys(changed))


def read_provenance(run: RunFolder) -> dict[str, Any] | None:
    """Return what provenance.json of the release says, None where there is none that can be read."""
    found = read_json(run.release_folder() / PROVENANCE)
    return found if isinstance(found, dict) else None


def recipe_without_paths(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values, with every path cut to its last component."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    change_paths(values, lambda text, mark: Path(text).name)
    return values


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
