"""A file for HDF5 to write to, which never tells it of an error.

When HDF5 itself meets a full disk, the process ends in a segmentation fault some time after the error. So the first
error is kept here, to be raised once HDF5 is done, and what comes after it is dropped. The same goes for an interrupt
that is raised while HDF5 calls: it may be lost or end the process, so that `lifetime.undisturbed` holds it back.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_LARGE = 1 << 16
"""Bytes from which the disk begins at once: a process that cuts waited a tenth of its time for it at the end."""


class Sink(io.RawIOBase):
    """A new file at `path`, for `h5py.File`; read back what was written, seek and truncate work as in any file."""

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        self._place = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error that was met."""
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of `data` at the place of the file."""
        left = memoryview(data).cast("B")
        size, place = len(left), self._place
        while left and not self._error:
            try:
                count = os.pwrite(self._descriptor, left, place)
            except OSError as error:
                self._error = error
                break
            left, place = left[count:], place + count
        if size >= _LARGE and not self._error:
            self._begin_writing(self._place, size)
        self._place += size
        return size

    def _begin_writing(self, place: int, size: int) -> None:
        """Let the system write what is in memory to the disk now: it does that first where it is told to forget it."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, place, size, os.POSIX_FADV_DONTNEED)

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is, zeros where an error has left nothing."""
        view = memoryview(buffer).cast("B")
        try:
            count = os.preadv(self._descriptor, [view], self._place)
        except OSError as error:
            self._note(error)
            count = 0
        if self._error:
            view[count:] = bytes(len(view) - count)
            count = len(view)
        self._place += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place of the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size()}[whence]
        self._place = start + offset
        return self._place

    def _size(self) -> int:
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            self._note(error)
            return self._place

    def _note(self, error: OSError) -> None:
        self._error = self._error or error

    def tell(self) -> int:
        """Return the place of the file."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Make the file `size` bytes long."""
        size = self._place if size is None else size
        if not self._error:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self._error = error
        return size

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def writable(self) -> bool:
        """Whether it can be written: yes."""
        return True

    def seekable(self) -> bool:
        """Whether its place can be moved: yes."""
        return True

    def close(self) -> None:
        """Close the file, once."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
