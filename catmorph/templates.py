"""Names made from patterns such as ``mosaics/{field}_{band|lower}_drz.fits``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from catmorph.errors import RecipeError, shortened, suggest

_PLACE = re.compile(r"\{([a-z_]+)(?:\|([a-z]+))?\}")
_FILTERS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "capital": str.capitalize,
}


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Replace ``{name}`` and ``{name|filter}`` in `pattern`; filters are lower, upper and capital.

    Raises
    ------
    RecipeError
        For a name or filter that does not exist.
    """

    def replace(match: re.Match[str]) -> str:
        name, filter_name = match.groups()
        if name not in values:
            raise RecipeError(f"pattern {pattern!r} uses {{{name}}}", hint=suggest(name, values))
        if filter_name is None:
            return values[name]
        if filter_name not in _FILTERS:
            raise RecipeError(f"pattern {pattern!r} uses |{filter_name}", hint=suggest(filter_name, _FILTERS))
        return _FILTERS[filter_name](values[name])

    return _PLACE.sub(replace, pattern)


def fill_some(pattern: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders of `pattern` that `values` names, as `fill` does; leave the others."""
    return _PLACE.sub(lambda match: fill(match.group(), values) if match.group(1) in values else match.group(), pattern)


def names_in(pattern: str) -> set[str]:
    """Return the placeholder names that `pattern` uses."""
    return {match.group(1) for match in _PLACE.finditer(pattern)}


def pattern_problem(pattern: str, names: Sequence[str]) -> str | None:
    """Return why `fill` would not replace all of `pattern`'s placeholders by `names`, or None."""
    for braces in re.findall(r"\{[^{}/]*\}", pattern):
        match = _PLACE.fullmatch(braces)
        if match is None or match.group(1) not in names:
            return f"pattern {pattern!r} uses {shortened(braces)}, {suggest(braces.strip('{}'), names)}"
        if match.group(2) is not None and match.group(2) not in _FILTERS:
            return f"pattern {pattern!r} uses |{shortened(match.group(2))}, {suggest(match.group(2), _FILTERS)}"
    return None


def matcher(pattern: str, *, wildcards: bool = False) -> re.Pattern[str]:
    """Return a regular expression that reads the placeholders back out of a filled `pattern`.

    With `wildcards`, a ``*`` in the pattern stands for any text.
    """
    parts, end, seen = [], 0, set()

    def literal(text: str) -> str:
        return ".*?".join(map(re.escape, text.split("*"))) if wildcards else re.escape(text)

    for match in _PLACE.finditer(pattern):
        name = match.group(1)
        parts.append(literal(pattern[end : match.start()]))
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>.+?)")
        seen.add(name)
        end = match.end()
    parts.append(literal(pattern[end:]))
    return re.compile("".join(parts) + r"\Z")
