"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, label: str, shown: bool = True) -> Generator[T, None, None]:
    """Yield `items`, with a bar on stderr when `shown` and stderr is a terminal."""
    quiet = not (shown and sys.stderr.isatty())
    yield from tqdm(items, total=total, desc=label, disable=quiet, leave=False, dynamic_ncols=True)
