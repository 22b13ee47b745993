"""Sources of the kinds that a spec describes: drawn, composed, and classified by simulated experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from catmorph.simulate.spec_base import Range
from catmorph.simulate.spec_kinds import Experts, Kind, Part
from catmorph.simulate.streams import stream


@dataclass(frozen=True)
class DrawnPart:
    """A part as drawn: `shift_arcsec` (x, y) from the centre, `share` of the source's flux in the reference band."""

    profile: str
    index: float
    r50_arcsec: float
    axis_ratio: float
    angle: float
    shift_arcsec: tuple[float, float]
    share: float
    colour: str

    @property
    def reach_arcsec(self) -> float:
        """How far its half-light radius reaches from the centre of the source."""
        return float(np.hypot(*self.shift_arcsec)) + (self.r50_arcsec if self.profile == "sersic" else 0.0)


def draw_parts(kind: Kind, rng: np.random.Generator) -> tuple[DrawnPart, ...]:
    """Draw the parts of a source; their shares sum to 1."""
    drawn = [one for part in kind.parts for one in _copies(part, rng)]
    total = sum(one.share for one in drawn)
    return tuple(DrawnPart(**{**vars(one), "share": one.share / total}) for one in drawn)


def _copies(part: Part, rng: np.random.Generator) -> list[DrawnPart]:
    number = int(rng.integers(part.number[0], part.number[1] + 1))
    shares = uniform(part.share, rng) * rng.dirichlet(np.full(number, 3.0))
    spread = uniform(part.spread_arcsec, rng)
    colour = part.colours[int(rng.integers(len(part.colours)))]
    return [
        DrawnPart(
            part.profile, part.index, uniform(part.r50_arcsec, rng), uniform(part.axis_ratio, rng),
            float(rng.uniform(0, np.pi)), (float(spread * rng.normal()), float(spread * rng.normal())),
            float(share), colour,
        )
        for share in shares
    ]


def uniform(ends: Range, rng: np.random.Generator) -> float:
    """Draw a number between two ends."""
    return float(rng.uniform(*ends))


def classify_by_experts(truth: pd.DataFrame, answers: dict[str, str], experts: Experts, seed: int) -> pd.DataFrame:
    """Let experts classify the listed sources of `truth`, one row a source: columns ID, expert_1 ... expert_N.

    Parameters
    ----------
    truth : DataFrame
        With the columns field, id, kind, snr, listed, covered and dirty of the reference band.
    answers : dict
        Kind -> what people call it, empty for kinds that nobody labels.
    """
    classes = sorted({answer for answer in answers.values() if answer})
    shown = truth[truth["listed"] & truth["covered"] & ~truth["dirty"] & truth["kind"].map(answers).astype(bool)]
    rows = []
    for field, number, kind, snr in zip(*(shown[name] for name in ("field", "id", "kind", "snr")), strict=True):
        sure = experts.agreement / (1 + (experts.half_snr / max(snr, 1e-6)) ** 2)
        rng = stream(seed, field, number, "experts")
        given = [
            answers[kind] if rng.uniform() < sure else classes[int(rng.integers(len(classes)))]
            for _ in range(experts.number)
        ]
        rows.append([f"{field}_{number}", *given])
    return pd.DataFrame(rows, columns=["ID", *(f"expert_{number + 1}" for number in range(experts.number))])


def draw_redshifts(
    kinds: list[tuple[int, Kind]], experts: Experts, generator: Callable[[int], np.random.Generator]
) -> list[float]:
    """Draw the spectroscopic redshift of each (id, kind), NaN without one; `generator` gives each its stream."""
    redshifts = []
    for number, kind in kinds:
        rng = generator(number)
        measured = rng.uniform() < experts.spectra and kind.redshift is not None
        redshifts.append(uniform(kind.redshift, rng) if measured and kind.redshift else float("nan"))
    return redshifts
