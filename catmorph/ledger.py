"""What has been made, from what: one marker a product, holding the fingerprint of its inputs.

A product is done when its marker names the same fingerprint and the file is there with the stored size
(and, when asked, checksum). The product is written first, its marker after, both whole or not at all, so
that an interruption leaves at worst a product without marker, which is made again.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catmorph.files import checksum, digest_json, write_sealed
from catmorph.patience import patiently
from catmorph.places import LEDGER

DAMAGED = "damaged"
"""How the reason begins where a product or its marker is not what was written."""

_BAD_MARKER = f"{DAMAGED}: its marker is not what was written"


@dataclass(frozen=True)
class Parts:
    """The named inputs of a product, each as a digest or plain value; together they are its fingerprint."""

    values: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The sha256 of all parts."""
        return digest_json(dict(self.values))


@dataclass(frozen=True)
class State:
    """Whether a product is ``done``, ``stale`` or ``missing``, and why."""

    name: str
    why: str = ""
    marker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether nothing needs to be done."""
        return self.name == "done"


class Ledger:
    """The markers of a run folder.

    Parameters
    ----------
    folder : Path
        The run folder; markers lie in ``ledger/`` below it, one JSON file a product.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # Of thousands of products the same is asked again and again: text is faster than paths.
        self._inside, self._markers = f"{folder}{os.sep}", f"{folder}{os.sep}{LEDGER}{os.sep}"
        self._remembered: dict[str, dict[str, Any] | None] | None = None
        self._shared: dict[str, Any] = {}
        self._passed: set[str] = set()

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Read each marker once: for work that asks again and again, while no other process writes any.

        Inside another such block nothing changes: what that one remembers is used.
        """
        if self._remembered is not None:
            yield
            return
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None
            self._shared.clear()
            self._passed.clear()

    def once(self, check: Callable[[], None], name: str) -> None:
        """Call `check`, which raises where something is wrong, unless it has passed since markers are `remembered`."""
        if name in self._passed:
            return
        check()
        if self._remembered is not None:
            self._passed.add(name)

    def marker_path(self, product: Path) -> Path:
        """Return the marker file of `product` (a path inside the run folder)."""
        return Path(self._marker_of(self._name_of(str(product))))

    def _name_of(self, product: str) -> str:
        if not product.startswith(self._inside):
            raise ValueError(f"{product!r} is not in the run folder {str(self.folder)!r}")
        return product[len(self._inside):]

    def _marker_of(self, name: str) -> str:
        return f"{self._markers}{name}.json"

    def write(self, product: Path, parts: Parts, **facts: Any) -> None:
        """Record that `product` was made from `parts`; call it after the product is in place."""
        self._mark(product, parts, {"size": product.stat().st_size, "checksum": checksum(product), **facts})

    def note(self, product: Path, parts: Parts, **facts: Any) -> None:
        """Record what came of making `product` from `parts` where the product itself is not kept."""
        self._mark(product, parts, {"kept": False, **facts})

    def _mark(self, product: Path, parts: Parts, facts: Mapping[str, Any]) -> None:
        self._drop(product)
        write_sealed(self.marker_path(product),
                     {"fingerprint": parts.fingerprint, "parts": dict(parts.values), **facts})

    def read(self, product: Path) -> dict[str, Any] | None:
        """Return the marker of `product`; None where there is none, or it is damaged or not what a marker holds."""
        name = self._name_of(str(product))
        if self._remembered is None:
            return _believed(self._marker_of(name), name)
        if name not in self._remembered:
            marker = self._remembered[name] = _believed(self._marker_of(name), name)
            self._share(marker["parts"] if marker else {})
        return self._remembered[name]

    def _share(self, parts: dict[str, Any]) -> None:
        """Let equal parts of the markers that are remembered, such as settings, be the same objects."""
        for key, value in parts.items():
            if isinstance(value, dict | list):
                parts[key] = self._shared.setdefault(repr(value), value)

    def recorded(self, product: Path, parts: Parts) -> State:
        """Compare what `product` was made from with what it should be made from; it need not be there itself."""
        marker = self.read(product)
        if marker is None:
            if self.marker_path(product).exists():
                return State("stale", _BAD_MARKER)
            return State("missing", "not made yet")
        fingerprint = parts.fingerprint
        if marker["fingerprint"] != fingerprint:
            return State("stale", _difference(marker["parts"], parts.values), marker)
        # To compare is faster than to hash; what came back from JSON may differ and yet be the same.
        if marker["parts"] != parts.values and digest_json(marker["parts"]) != fingerprint:
            return State("stale", _BAD_MARKER)
        return State("done", "", marker)

    def state(self, product: Path, parts: Parts, *, deep: bool = False) -> State:
        """Compare `product` with the inputs it should be made from; `deep` rehashes the file."""
        size = _size(product)
        if size is None:
            marker = self.read(product)
            return State("missing", "not made yet") if not marker or is_kept(marker) else State(
                "missing", "not kept", marker)
        state = self.recorded(product, parts)
        if not state.done:
            return state
        if size != state.marker.get("size"):
            return State("stale", f"{DAMAGED}: its size is not what was written", state.marker)
        if deep and checksum(product) != state.marker.get("checksum"):
            return State("stale", f"{DAMAGED}: its bytes are not what was written", state.marker)
        return state

    def damaged(self) -> list[Path]:
        """Hash every recorded product again; return those whose bytes are not what was written."""
        markers = sorted(Path(self._markers).rglob("*.json"))
        products = [self.folder / path.relative_to(self._markers).with_suffix("") for path in markers]
        return [product for product in products
                if product.is_file() and (marker := self.read(product)) and checksum(product) != marker.get("checksum")]

    def forget(self, product: Path) -> None:
        """Remove the marker of `product`, so that it is made again."""
        self._drop(product)
        self.marker_path(product).unlink(missing_ok=True)

    def _drop(self, product: Path) -> None:
        self._passed.clear()
        if self._remembered is not None:
            self._remembered.pop(self._name_of(str(product)), None)


def _size(path: Path) -> int | None:
    """Return the size of a file, None where there is none."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def is_kept(marker: Mapping[str, Any]) -> bool:
    """Return whether the product of a marker was written, see `Ledger.note`."""
    return bool(marker.get("kept", True))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    changed = [key for key in new if key in old and old[key] != new[key]]
    added = [key for key in new if key not in old]
    removed = [key for key in old if key not in new]
    texts = [f"{', '.join(sorted(keys))} {verb}" for keys, verb in
             ((changed, "changed"), (added, "added"), (removed, "removed")) if keys]
    return "; ".join(texts) or "inputs changed"


_TICK_NANOSECONDS = 50_000_000
"""Times of files advance in steps: of 4 to 10 ms in Linux."""


_DERIVED = "derived"
"""Key of the cache that holds what was computed from files; all others are absolute paths."""


def stamp_of(path: str | os.PathLike[str]) -> list[int]:
    """Return what tells a changed file without reading it: size, time of change in nanoseconds, inode."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


class Identities:
    """The checksums of input files, remembered by path, size, modification time and inode.

    Parameters
    ----------
    cache : Path
        JSON file that keeps what was computed.
    """

    def __init__(self, cache: Path):
        self.cache = cache
        kept = _believed(cache, "identities.json") or {}
        self._derived: dict[str, str] = kept.pop(_DERIVED, {})
        self._known: dict[str, list[Any]] = kept
        self._changed = False
        self._seen: dict[str, list[int]] = {}

    def seen(self, path: str | os.PathLike[str]) -> list[int]:
        """Return size, time and inode of the file whose identity `of` gave; nothing where it could not be read."""
        return self._seen.get(str(path), [])

    def of(self, path: str | os.PathLike[str]) -> str:
        """Return the identity of `path`; ``unreadable: ...`` where it cannot be read."""
        try:
            return patiently(lambda: self._look_up(path))
        except OSError as error:
            return f"unreadable: {error.strerror}"

    def _look_up(self, path: str | os.PathLike[str]) -> str:
        stamp = self._seen[str(path)] = stamp_of(path)
        known = self._known.get(str(path))
        if known and known[:3] == stamp:
            return known[3]
        if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):  # a pipe is waited for, for ever
            raise OSError(errno.EINVAL, "no regular file", str(path))
        value = checksum(path)
        # A file that changed while it was read, or may change once more within the clock's tick, is read again
        # the next time.
        if stamp == stamp_of(path) and abs(time.time_ns() - stamp[1]) > _TICK_NANOSECONDS:
            self._known[str(path)] = [*stamp, value]
            self._changed = True
        return value

    def derived(self, path: Path, name: str, compute: Callable[[Path], str]) -> str:
        """Return what `compute` makes of the bytes of `path`, remembered as `name` of their checksum.

        ``unreadable: ...`` where the file cannot be read; what `compute` raises goes on its way.
        """
        whole = self.of(path)
        if whole.startswith("unreadable"):
            return whole
        key = f"{name} of {whole}"
        if key not in self._derived:
            value = compute(path)
            # Only what was made of the very bytes whose checksum is known may be remembered.
            if str(path) not in self._known or stamp_of(path) != self._known[str(path)][:3]:
                return value
            self._derived[key] = value
            self._changed = True
        return self._derived[key]

    def changed_unseen(self) -> list[str]:
        """Hash every remembered file again; return those of other bytes, but the same size, time and inode."""
        return [path for path, (*stamp, value) in self._known.items()
                if os.path.isfile(path) and stamp_of(Path(path)) == stamp and checksum(path) != value]

    def save(self) -> None:
        """Write what was learnt since the last time."""
        if self._changed:
            write_sealed(self.cache, {**self._known, _DERIVED: self._derived} if self._derived else self._known)
            self._changed = False


def _believed(path: str | os.PathLike[str], name: str) -> dict[str, Any] | None:
    # Worker processes only write markers, and so do without pydantic, a fifth of a second to import.
    from catmorph.markers import read_believed

    return read_believed(path, name)
