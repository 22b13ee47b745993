"""Simulated voters: from what is visible to the chance of each answer, and from that to votes and label tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from catmorph.simulate.images.galaxies import Galaxy
from catmorph.simulate.images.questions import ANSWERS, QUESTIONS
from catmorph.simulate.images.render import Seen
from catmorph.simulate.images.spec import ImageSpec, LabelFile
from catmorph.simulate.streams import stream


def _step(value: float, half: float, width: float) -> float:
    """Return a smooth step from 0 to 1, 1/2 at `half`."""
    return float(1.0 / (1.0 + np.exp(-np.clip((value - half) / width, -40, 40))))


def _nearest(value: float, centres: tuple[float, ...], width: float) -> list[float]:
    """Return how well `value` fits each of `centres`, as chances of sum 1."""
    fits = np.exp(-0.5 * ((value - np.array(centres)) / width) ** 2) + 1e-3
    return list(fits / fits.sum())


def visible_parts(galaxy: Galaxy, seen: Seen, fwhm_arcsec: float) -> dict[str, float]:
    """Return for each part its contrast, as far as it stands out of the noise and is larger than the seeing.

    Half at a signal to noise of 25, and where the half-light radius is that of the seeing.
    """
    sharp = _step(np.log10(max(galaxy.r50_arcsec, 0.01) / (0.8 * fwhm_arcsec)), 0.0, 0.12)
    return {
        name: sharp * _step(np.log10(max(seen.snr[name], 1e-3) / 25.0), 0.0, 0.12) * contrast
        for name, contrast in seen.contrast.items()
    }


def answer_chances(galaxy: Galaxy, seen: Seen, fwhm_arcsec: float) -> dict[str, float]:
    """Return the chance of each answer of the questionnaire among those asked; each question's sum to 1.

    A deterministic function of the source and of what is visible of it.
    """
    parts = dict.fromkeys(("arms", "bar", "ring", "clumps", "tails", "companion", "arc", "bulge", "disk"), 0.0)
    parts |= visible_parts(galaxy, seen, fwhm_arcsec)
    q = galaxy.axis_ratio
    features = _step(_featured(galaxy, parts), 0.0, 1.0)
    artifact = {"star": 0.93, "artifact": 0.9}.get(galaxy.kind, 0.015)
    edge_on = _step(0.29 - q, 0.0, 0.035) if galaxy.is_disk else 0.6 * _step(0.27 - q, 0.0, 0.04)
    face_on = _step(q, 0.33, 0.06)
    bar = _step(parts["bar"] * face_on, 0.07, 0.022)
    spiral = _step(parts["arms"] * (0.4 + 0.6 * face_on), 0.10, 0.025)
    bulge = galaxy.bulge_fraction if galaxy.is_disk else 0.75
    odd = _odd(galaxy, parts)
    boxy = 0.75 * _step(galaxy.boxiness, 3.0, 0.3)
    rounded = _step(bulge, 0.12, 0.03)
    unsure = 0.15 + 0.5 * (1.0 - _step(parts["arms"], 0.15, 0.04))
    arms = np.array(_nearest(float(galaxy.arms), (1.0, 2.0, 3.0, 4.0, 6.0), 0.4))
    per_question = {
        "shape": ((1 - artifact) * (1 - features), (1 - artifact) * features, artifact),
        "edge_on": (edge_on, 1 - edge_on),
        "bar": (bar, 1 - bar),
        "spiral": (spiral, 1 - spiral),
        "bulge": _nearest(bulge, (0.0, 0.16, 0.38, 0.7), 0.085),
        "odd": (1 - np.prod([1 - one for one in odd.values()]), np.prod([1 - one for one in odd.values()])),
        "round": _nearest(q, (0.96, 0.66, 0.28), 0.11),
        "odd_kind": np.array(list(odd.values())) / sum(odd.values()),
        "edge_bulge": (rounded * (1 - boxy), rounded * boxy, 1 - rounded),
        "winding": _nearest(galaxy.pitch_deg or 18.0, (10.0, 19.0, 32.0), 4.0),
        "arms": [*((1 - unsure) * arms), unsure],
    }
    return {
        answer: float(chance)
        for question in QUESTIONS
        for answer, chance in zip(question.answers, per_question[question.name], strict=True)
    }


def _featured(galaxy: Galaxy, parts: dict[str, float]) -> float:
    """Score a source for features or a disk; 0 divides the voters in halves."""
    flat = max(0.5 - galaxy.axis_ratio, 0.0)
    return (
        -2.4 + 18.0 * min(parts["arms"], 0.3) + 12.0 * parts["bar"] + 12.0 * parts["ring"] + 6.0 * parts["clumps"]
        + 8.0 * parts["tails"] + 5.0 * parts["arc"] + (9.0 if galaxy.is_disk else 3.0) * flat
        + (2.2 * (1.0 - galaxy.bulge_fraction) if galaxy.is_disk else 0.0)
    )  # fmt: skip


def _odd(galaxy: Galaxy, parts: dict[str, float]) -> dict[str, float]:
    """Return the chance that a voter notices each odd thing, in the order of the answers of `odd_kind`."""
    pair = _step(parts["companion"], 0.14, 0.04)
    torn = _step(parts["tails"], 0.07, 0.02)
    return {
        "ring": 0.9 * _step(parts["ring"], 0.09, 0.025),
        "lens": 0.85 * _step(parts["arc"], 0.06, 0.02),
        "disturbed": 0.8 * torn * (1 - pair) + 0.15 * torn * pair,
        "irregular": 0.85 * _step(parts["clumps"], 0.22, 0.05),
        "other": 0.04,
        "merger": pair * (0.55 + 0.4 * torn),
        "dust_lane": 0.85 * _step(galaxy.dust_depth, 0.7, 0.1),
    }


def cumulative(chances: dict[str, float]) -> dict[str, float]:
    """Multiply the chances of answers down the tree, so that each question's sum is its parent answer's."""
    found: dict[str, float] = {}
    for question in QUESTIONS:
        asked = 1.0 if question.parent is None else found[question.parent]
        found |= {answer: asked * chances[answer] for answer in question.answers}
    return found


def count_votes(chances: dict[str, float], number: int, rng: np.random.Generator) -> dict[str, int]:
    """Let `number` voters walk down the tree; return how many gave each answer."""
    votes: dict[str, int] = {}
    for question in QUESTIONS:
        asked = number if question.parent is None else votes[question.parent]
        shares = np.array([chances[answer] for answer in question.answers])
        given = rng.multinomial(asked, shares / shares.sum())
        votes |= {answer: int(count) for answer, count in zip(question.answers, given, strict=True)}
    return votes


def vote_on(galaxy: Galaxy, chances: dict[str, float], survey: str, spec: ImageSpec) -> dict[str, int]:
    """Return the votes of the voters who saw the source's image in `survey`."""
    rng = stream(spec.seed, galaxy.number, survey, "votes")
    return count_votes(chances, int(rng.integers(spec.voters[0], spec.voters[1] + 1)), rng)


def label_table(truth: pd.DataFrame, wanted: LabelFile) -> pd.DataFrame:
    """Turn the counted votes of a survey's truth table (columns ``n_<answer>``) into a label table.

    Columns ID, those of `wanted.answers` and votes: how many answered the question, or voted at all. The fractions
    within a question leave out the sources on which nobody was asked.
    """
    fractions, asked = {}, {}
    for column, answer in wanted.answers.items():
        asked[column] = _asked(truth, ANSWERS[answer])
        fractions[column] = truth[f"n_{answer}"] / asked[column].where(asked[column] > 0)
        if wanted.fraction == "cumulative":
            # Everyone who votes is asked the two first questions, so this is the product down the tree.
            fractions[column] = truth[f"n_{answer}"] / _asked(truth, "shape")
    table = pd.DataFrame({"ID": truth["id"], **fractions})
    table["votes"] = _asked(truth, "shape") if wanted.fraction == "cumulative" else next(iter(asked.values()))
    return table.dropna(ignore_index=True)


def _asked(truth: pd.DataFrame, name: str) -> pd.Series:
    answers = next(one.answers for one in QUESTIONS if one.name == name)
    return truth[[f"n_{answer}" for answer in answers]].sum(axis=1)
