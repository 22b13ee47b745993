"""Images that cannot be used, told by the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from catmorph.errors import printable


def by_reason(faults: Mapping[str, Sequence[str]], most: int) -> Iterator[tuple[str, str]]:
    """Yield, for each of the `most` commonest reasons, the first image and how many others, and the reason.

    Parameters
    ----------
    faults : mapping
        Why images cannot be used -> the images.
    """
    ordered = sorted(faults.items(), key=lambda item: (-len(set(item[1])), item[0]))
    for reason, names in ordered[:most]:
        others = len(set(names)) - 1
        first = f"{min(names)} and {others:,} other image{'s' if others > 1 else ''}" if others else min(names)
        yield printable(first), reason
    if len(ordered) > most:
        yield "images", f"cannot be used for {len(ordered) - most} other reasons"
