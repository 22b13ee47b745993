"""What a stage reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catmorph.ledger import DAMAGED
from catmorph.stamps.reasons import by_reason

_MOST_REASONS = 10


@dataclass
class StageReport:
    """What a stage did.

    Attributes
    ----------
    made, kept : int
        Products made now, and found valid.
    counts : dict
        What the stage counts (rows, stamps ...), over products made and kept.
    flags : dict of str to int
        Flags of the (source, view)s, over products made and kept.
    failures : dict of str to str
        Mosaic or image -> why it could not be read, but may be another time.
    bad_images : dict of str to list of str
        Why images cannot be used as they are -> the images.
    why : dict of str to int
        Why products were made, with their number.
    warnings : list of str
        What a user should look at.
    worked : int
        (source, view)s of the products made now; of an ensemble, those of each member.
    passes : int
        How many stamps the networks have seen for that: more than `worked` with test-time augmentation.
    damaged : list of str
        Products whose bytes are not those that were written, and what is wrong with them.
    """

    stage: str
    made: int = 0
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    bad_images: dict[str, list[str]] = field(default_factory=dict)
    why: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    worked: int = 0
    passes: int = 0
    damaged: list[str] = field(default_factory=list)

    def note_why(self, product: Path, why: str) -> None:
        """Count why a product is made."""
        self.why[why] += 1
        if why.startswith(DAMAGED):
            self.damaged.append(f"{product}: {why}")

    def warn_of_damage(self, what: str = "made again") -> None:
        """Warn of the damaged products noted since the last time, by the first of them, and say `what` is done."""
        if self.damaged:
            others = f" (and {len(self.damaged) - 1} more)" if len(self.damaged) > 1 else ""
            self.warnings.append(f"{self.damaged[0]}{others}; {what}")
            self.damaged.clear()

    def note_bad_images(self, images: Iterable[tuple[str, str]]) -> None:
        """Note images and why each cannot be used."""
        for image, reason in images:
            self.bad_images.setdefault(reason, []).append(image)

    def warn_of_bad_images(self) -> None:
        """Warn of the images noted, by the first of each reason and how many there are."""
        found = by_reason(self.bad_images, _MOST_REASONS)
        self.warnings += [f"{images}: {reason}; flagged, see failures.parquet" for images, reason in found]

    def facts(self) -> dict[str, Any]:
        """Return the report as plain values, for the log and run.json."""
        return {
            "made": self.made, "kept": self.kept, "worked": self.worked, "passes": self.passes,
            "counts": dict(self.counts),
            "flags": dict(self.flags), "failures": dict(self.failures), "why": dict(self.why),
            **({"bad_images": {reason: len(set(images)) for reason, images in sorted(self.bad_images.items())}}
               if self.bad_images else {}),
            "warnings": list(self.warnings),
        }

    def line(self) -> str:
        """Return the report as one line for people."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        flags = ", ".join(f"{count:,} {name}" for name, count in sorted(self.flags.items()))
        text = f"{self.stage}: {counts}; {self.made} made, {self.kept} up to date"
        return f"{text}; flags: {flags}" if flags else text
