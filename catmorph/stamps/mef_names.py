"""File names for source identifiers: harmless, and no two alike on any file system."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_HARMLESS = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,99}")
_OTHER = re.compile(r"[^A-Za-z0-9_+.-]")
_KEPT = 60


def file_stem(identifier: str, *, marked: bool = False) -> str:
    """Return what the file of a source is called, without its ending.

    That is the identifier itself where it is made of up to 100 letters, digits and ``_ + . -`` and begins with none of
    the last two. Else, or where it is `marked`, what is left of it, a ``~`` and 20 digits of its sha256: ``~`` is in no
    identifier that keeps its name, so that none can be taken for another.
    """
    if not marked and _HARMLESS.fullmatch(identifier):
        return identifier
    kept = _OTHER.sub("_", identifier).lstrip(".-")[:_KEPT] or "_"
    return f"{kept}~{hashlib.sha256(identifier.encode()).hexdigest()[:20]}"


def clashing(identifiers: Iterable[str]) -> frozenset[str]:
    """Return the identifiers that keep their name but differ from another one in capitals alone.

    Some file systems take such names for the same: these files are `marked`.
    """
    first: dict[str, str] = {}
    clashes: set[str] = set()
    for identifier in identifiers:
        if _HARMLESS.fullmatch(identifier):
            other = first.setdefault(identifier.lower(), identifier)
            if other != identifier:
                clashes |= {other, identifier}
    return frozenset(clashes)
