"""What lies in a tar or zip archive, and where: members are read in place and never unpacked to disk."""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from catmorph.errors import CatalogError

STORED, STREAM, DEFLATED, UNKNOWN = 0, 1, 8, -2
"""How the bytes of a member lie in its archive: as they are, within a gzip stream, deflated, or in another way."""

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
OTHER_ENDINGS = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")

_MOST_HEADER_BYTES = 1 << 24
"""The names and attributes of one tar member; a real one has some hundred bytes."""

_AFTER_END = 1 << 16
"""Bytes after the end mark of a tar that must be zero: it is filled up to a multiple of 10 kB."""

_READ_ERRORS = (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError, NotImplementedError,
                OverflowError, RuntimeError)
_LOCAL_HEADER = 30


class Member(NamedTuple):
    """A regular file of an archive.

    `offset` is that of its bytes (of a zip: of its local header), `packed` their number as they lie there, `size`
    their number when unpacked, `check` their CRC-32 (-1 where the archive has none).
    """

    name: str
    offset: int
    packed: int
    size: int
    method: int
    check: int


@dataclass(frozen=True)
class Contents:
    """The regular files of an archive, by name, and how many members were refused, by reason."""

    members: list[Member]
    refused: Counter[str]


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an archive, by its name.

    Raises
    ------
    CatalogError
        For an archive that cannot be read in place.
    """
    name = os.fspath(path).lower()
    if name.endswith(OTHER_ENDINGS):
        raise CatalogError("is an archive of a kind that is not read in place", where=path,
                           hint="pack the images as .tar, .tar.gz or .zip")
    return name.endswith(ENDINGS)


def scan(path: str | os.PathLike[str]) -> Contents:
    """Read the list of an archive's members.

    Refused, and counted, are links, devices and other members that are no regular files, names that are absolute,
    lead out of the archive (``..``) or hold backslashes or what cannot be printed, encrypted members, and all members
    of one name.

    Raises
    ------
    CatalogError
        When the archive is missing, damaged or cut short.
    """
    refused: Counter[str] = Counter()
    found: dict[str, Member] = {}
    uses: Counter[str] = Counter()
    try:
        members = _zip_members(path) if os.fspath(path).lower().endswith(".zip") else _tar_members(path)
        for member, problem in members:
            problem = problem or _name_problem(member.name)
            if problem:
                refused[problem] += 1
                continue
            name = _plain(member.name)
            uses[name] += 1
            found[name] = member._replace(name=name)
    except _READ_ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CatalogError(f"cannot be read as an archive: {getattr(error, 'strerror', None) or text}", where=path,
                           hint="download or pack it again") from error
    shared = {name: count for name, count in uses.items() if count > 1}
    if shared:
        refused["shares its name with another member"] = sum(shared.values())
    return Contents(sorted(found[name] for name in found.keys() - shared.keys()), refused)


def _plain(name: str) -> str:
    # tar's own way of naming: ./folder//a.jpg
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _name_problem(name: str) -> str | None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if ".." in name.split("/"):
        return "has a name that leads out of the archive (..)"
    if not name.isprintable() or "\\" in name:
        return "has a name with characters that names of files do not have"
    return None if _plain(name) else "has no name"


class _Bounded:
    """A file whose `read` refuses to bring much into memory at once (headers that claim to be huge), and keeps the
    last that it read."""

    def __init__(self, file: IO[bytes]):
        self._file, self.last = file, b""
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self._file.read(size)
        return self.last


def _tar_members(path: str | os.PathLike[str]) -> Iterator[tuple[Member, str | None]]:
    """Yield every member but folders, and why it is refused."""
    with open(path, "rb") as start:
        packed = start.read(2) == b"\x1f\x8b"
    method = STREAM if packed else STORED
    with gzip.open(path, "rb") if packed else open(path, "rb") as file:
        bounded: Any = _Bounded(file)  # type: ignore[arg-type]
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            while (info := archive.next()) is not None:
                # tarfile keeps every member it has seen: 60,000 of them would be 60 MB.
                archive.members.clear()  # type: ignore[attr-defined]
                if not info.isdir():
                    yield (Member(info.name, info.offset_data, info.size, info.size, method, -1),
                           None if info.isreg() and not info.issparse() else _kind(info))
        # tarfile takes a header that is damaged or not whole for the end.
        if len(bounded.last) < tarfile.BLOCKSIZE or any(bounded.last):
            raise tarfile.ReadError("it is damaged, or ends before its end mark")
        if any(file.read(_AFTER_END)):
            raise tarfile.ReadError("it goes on after its end mark; was it put together from several?")


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "is a link"
    return "is a device" if info.isdev() else "is no regular file"


def _zip_members(path: str | os.PathLike[str]) -> Iterator[tuple[Member, str | None]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            method = info.compress_type if info.compress_type in (STORED, DEFLATED) else UNKNOWN
            member = Member(info.filename, info.header_offset, info.compress_size, info.file_size, method, info.CRC)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if stat.S_ISLNK(kind):
                yield member, "is a link"
            elif kind and not stat.S_ISREG(kind):
                yield member, "is no regular file"
            else:
                yield member, "is encrypted" if info.flag_bits & 1 else None


class Archive:
    """An archive whose members are read in place.

    Members of a ``.tar.gz`` are best read by rising offset: what lies before one has to be unpacked.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = Path(path)
        self._file: Any = None

    def read(self, member: Member) -> bytes:
        """Return the bytes of `member`.

        Raises
        ------
        OSError, EOFError, zlib.error, ValueError
            When they cannot be read, are damaged, or are not what the archive says of them.
        """
        if self._file is None:
            # A member within a gzip stream lies where it would in the unpacked tar.
            opened = gzip.open if member.method == STREAM else open
            self._file = opened(self._path, "rb")
        if member.check < 0:
            self._file.seek(member.offset)
            data = self._file.read(member.size)
        else:
            data = self._unzipped(member)
        if len(data) != member.size:
            raise EOFError("is not as long as its archive says")
        if member.check >= 0 and zlib.crc32(data) != member.check:
            raise ValueError("its checksum is wrong")
        return data

    def _unzipped(self, member: Member) -> bytes:
        if member.method == UNKNOWN:
            raise ValueError("is packed in a way that is not known (neither stored nor deflated)")
        self._file.seek(member.offset)
        header = self._file.read(_LOCAL_HEADER)
        if len(header) != _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
            raise ValueError("its place in the archive holds something else")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        self._file.seek(member.offset + _LOCAL_HEADER + names)
        packed = self._file.read(member.packed)
        if member.method == STORED:
            return packed
        # One byte more than it should have tells a bomb from an image.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
