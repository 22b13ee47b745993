"""The folder that a simulation fills, and the bar that shows how far it is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from catmorph.errors import UsageError
from catmorph.files import cannot_write

Item = TypeVar("Item")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that becomes `out` on success and goes away on failure.

    Raises
    ------
    UsageError
        When `out` is there and not empty.
    CatmorphError
        When no folder can be made beside it.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError("the output folder is not empty", where=out, hint="give a new one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield folder
        folder.chmod(0o755)
        os.replace(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def watched(items: Iterable[Item], total: int, what: str, progress: bool) -> Iterable[Item]:
    """Show a bar on standard error while `items` come, where it is a terminal and `progress` is asked for."""
    hidden = not (progress and sys.stderr.isatty())
    return tqdm(items, total=total, desc=what, unit=what.removesuffix("s"), disable=hidden)
