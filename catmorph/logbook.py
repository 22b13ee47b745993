"""The log of a run folder: one JSON object a line, rotated; timings and hosts live here, never in a release."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_BYTES = 5_000_000
KEPT_FILES = 5


class _Handler(logging.handlers.RotatingFileHandler):
    """A log that cannot be written (a full disk) must not stop the work it tells of."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line."""


class Logbook:
    """Appends events to ``logs/catmorph.jsonl`` in a run folder.

    Parameters
    ----------
    folder : Path
        The run folder.

    Notes
    -----
    Each line has ``time`` (UTC, ISO 8601), ``pid``, ``host``, ``event`` and the event's own keys. Above 5 MB the
    file is renamed to ``catmorph.jsonl.1`` and so on; five are kept.
    """

    def __init__(self, folder: Path):
        self.path = folder / "logs" / "catmorph.jsonl"
        self._handler: _Handler | None = None

    def note(self, event: str, **facts: Any) -> None:
        """Append one event; what JSON has no type for is written as text."""
        line = {"time": now(), "pid": os.getpid(), "host": socket.gethostname(), "event": event, **facts}
        text = json.dumps(line, default=str, ensure_ascii=False)
        self._open().emit(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    @contextmanager
    def timed(self, event: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Note an event when the block ends, with its ``seconds``, its ``error`` if any, and what the block adds."""
        start = time.monotonic()
        try:
            yield facts
        except BaseException as error:
            facts["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            # A monotonic clock: the wall clock may be set back while the block runs.
            facts["seconds"] = round(time.monotonic() - start, 3)
            self.note(event, **facts)

    def close(self) -> None:
        """Close the file; the next note opens it again."""
        if self._handler:
            # On a full disk it tries once more to write the lines that it could not write.
            with suppress(OSError):
                self._handler.close()
            self._handler = None

    def _open(self) -> logging.Handler:
        if self._handler is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handler = _Handler(self.path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
            except OSError:
                return logging.NullHandler()
        return self._handler


def logged_events(folder: Path, event: str) -> Iterator[dict[str, Any]]:
    """Yield what the log of a run folder tells of an event, in its order; lines that are damaged are left out.

    Of several files the last two are read.
    """
    path = folder / "logs" / "catmorph.jsonl"
    for part in (path.with_name(f"{path.name}.1"), path):
        with suppress(OSError), open(part, encoding="utf-8", errors="replace") as file:
            for line in file:
                if event in line:
                    with suppress(ValueError, RecursionError):
                        found = json.loads(line)
                        if isinstance(found, dict) and found.get("event") == event:
                            yield found


def now() -> str:
    """Return the time as ISO 8601 text in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
