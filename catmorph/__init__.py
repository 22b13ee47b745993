"""catmorph: from survey catalogs and mosaics to released catalogs of morphology.

The functions of the command line for notebooks and scripts::

    run = catmorph.open_run("clash.toml")
    with catmorph.open_stamps(run, "F160W") as stamps:
        stamps.ids, stamps[0:10]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catmorph.api import classify, open_release, open_run, open_stamps

__all__ = ["classify", "open_release", "open_run", "open_stamps"]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__name__"]


def __getattr__(name: str) -> Any:
    # Nothing heavy is imported before it is needed: `catmorph --help` imports this module too.
    if name in __all__:
        return getattr(import_module("catmorph.api"), name)
    raise AttributeError(f"module 'catmorph' has no attribute {name!r}")
