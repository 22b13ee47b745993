"""Quality flags: one place defines bit, name, severity and meaning.

A flag that *blocks* says why a (source, view) has no probabilities; one that *warns* travels with them.
A blocking flag is a *fault* when something is wrong with the input (as opposed to the sky simply not
being covered there); only faults count against the recipe's ``tolerance``.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

import numpy as np


class Flag(IntFlag):
    """Bits of the ``flags`` column (uint32)."""

    OFF_IMAGE = 1 << 0
    NO_MOSAIC = 1 << 1
    NO_DATA = 1 << 2
    UNREADABLE = 1 << 3
    BAD_SIZE = 1 << 4
    BAD_PIXELS = 1 << 5
    FLAT = 1 << 6
    NOT_FINITE = 1 << 7
    BAD_IMAGE = 1 << 8
    EDGE = 1 << 16
    SOME_BAD_PIXELS = 1 << 17
    LOW_SIGNAL = 1 << 18
    MISSING_BAND = 1 << 19


class FlagInfo(NamedTuple):
    """What a flag means."""

    flag: Flag
    severity: str
    fault: bool
    meaning: str


FLAGS: tuple[FlagInfo, ...] = (
    FlagInfo(Flag.OFF_IMAGE, "blocks", False, "the source's centre is outside every mosaic of the band"),
    FlagInfo(Flag.NO_MOSAIC, "blocks", False, "there is no mosaic of this field and band, or no image of the source"),
    FlagInfo(Flag.NO_DATA, "blocks", False,
             "the mosaic was not observed at the source's centre, nor in most of the stamp"),
    FlagInfo(Flag.UNREADABLE, "blocks", True,
             "the mosaic, or its weight or flag map, or the image of the source could not be read"),
    FlagInfo(Flag.BAD_SIZE, "blocks", True, "the stamp's side is missing, not positive or beyond the limits"),
    FlagInfo(Flag.BAD_PIXELS, "blocks", False, "more invalid pixels than stamp.max_bad_fraction"),
    FlagInfo(Flag.FLAT, "blocks", True, "all valid pixels of the stamp have the same value"),
    FlagInfo(Flag.NOT_FINITE, "blocks", True, "the network's output is not finite"),
    FlagInfo(Flag.BAD_IMAGE, "blocks", True,
             "the image of the source is of another kind, size or number of planes than the recipe says"),
    FlagInfo(Flag.EDGE, "warns", False, "part of the stamp lies outside the mosaic"),
    FlagInfo(Flag.SOME_BAD_PIXELS, "warns", False, "some pixels of the stamp are invalid"),
    FlagInfo(Flag.LOW_SIGNAL, "warns", False, "the signal-to-noise ratio is below stamp.min_signal"),
    FlagInfo(Flag.MISSING_BAND, "warns", False, "one or more bands of the view are missing; the network sees zeros"),
)

BLOCKING: int = int(sum(int(info.flag) for info in FLAGS if info.severity == "blocks"))
FAULTS: int = int(sum(int(info.flag) for info in FLAGS if info.fault))


def blocked(flags: np.ndarray) -> np.ndarray:
    """Return where `flags` (any shape, integer) hold a blocking bit, as booleans of the same shape."""
    return (np.asarray(flags, dtype=np.uint32) & np.uint32(BLOCKING)) != 0


def describe(value: int) -> str:
    """Return the names of the bits set in `value`, joined by ``|`` (empty for none)."""
    return "|".join(info.flag.name or "" for info in FLAGS if value & info.flag)


def count_flags(flags: np.ndarray) -> dict[str, int]:
    """Count, for each flag that occurs in `flags`, the rows that carry it."""
    flags = np.asarray(flags, dtype=np.uint32)
    counts = {info.flag.name or "": int(np.count_nonzero(flags & np.uint32(info.flag))) for info in FLAGS}
    return {name: count for name, count in counts.items() if count}


def flags_markdown() -> str:
    """Return the table of flags in docs/flags.md."""
    lines = ["| bit | value | name | severity | fault | meaning |", "|---:|---:|---|---|---|---|"]
    for info in FLAGS:
        bit = int(info.flag).bit_length() - 1
        fault = "yes" if info.fault else "no"
        lines.append(f"| {bit} | {int(info.flag)} | `{info.flag.name}` | {info.severity} | {fault} | {info.meaning} |")
    return "\n".join(lines) + "\n"
