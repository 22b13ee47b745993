"""Registries of named things that live one to a file: models, release formats, experiments.

A registry imports the modules of its package when it is asked, so that adding a file adds the thing and nothing else
needs to change; a name given twice is refused. A thing in a module of its own name, hyphens as underscores, is found
without the others.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from catmorph.errors import UsageError, shortened, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names -> things of one kind.

    Parameters
    ----------
    kind : str
        What the things are called in error messages, for example ``"model"``.
    package : str
        Dotted name of the package whose modules register them.
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._things: dict[str, T] = {}
        self._families: list[Callable[[str], T | None]] = []
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers a thing as `name`; a second one of that name is refused."""

        def add(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.kind} {name!r} is registered twice, in {self.package}")
            self._things[name] = thing
            return thing

        return add

    def family(self, make: Callable[[str], T | None]) -> Callable[[str], T | None]:
        """Register a function that makes the things whose names follow a pattern; it returns None for others.

        `names` does not list them.
        """
        self._families.append(make)
        return make

    def get(self, name: str) -> T:
        """Return the thing called `name`.

        Raises
        ------
        UsageError
            When there is none; the message names the nearest or lists the valid ones.
        """
        self._load_module(name)
        if name in self._things:
            return self._things[name]
        things = self._load()
        if name in things:
            return things[name]
        for make in self._families:
            found = make(name)
            if found is not None:
                return found
        raise UsageError(f"unknown {self.kind} {shortened(name)!r}", hint=suggest(name, sorted(things)))

    def registered(self, name: str) -> T:
        """Return the thing that was registered as `name` so far, for modules of the package itself."""
        return self._things[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._load())

    def _load_module(self, name: str) -> None:
        package = importlib.import_module(self.package)
        module = name.replace("-", "_")
        if module in {one.name for one in pkgutil.iter_modules(package.__path__)}:
            importlib.import_module(f"{self.package}.{module}")

    def _load(self) -> dict[str, T]:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True
        return self._things
