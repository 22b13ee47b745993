"""Simulated voters: from what is visible to class probabilities, and from those to vote fractions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from catmorph.schemes import load_scheme
from catmorph.simulate.spec import Votes
from catmorph.simulate.streams import stream

SCHEME = "clash"


def _rise(values: pd.Series, half: float, dex: float) -> np.ndarray:
    """Return a smooth step from 0 to 1 in log10(values): 1/2 at `half`, over `dex` decades."""
    logs = np.log10(np.maximum(values.to_numpy(dtype=np.float64), 1e-6) / half)
    return 1.0 / (1.0 + np.exp(-logs / dex))


def class_scores(seen: pd.DataFrame) -> np.ndarray:
    """Return the scores of spheroid, disk, irregular and point source; shape (row, 4).

    Parameters
    ----------
    seen : DataFrame
        The columns of :class:`catmorph.simulate.render.Appearance`.

    Notes
    -----
    Structure and asymmetry count as far as they stand out of the noise (half at a signal to noise of 8),
    shape and profile as far as the source is resolved.
    """
    resolved = _rise(seen["size_ratio"] - 1.0, 0.35, 0.10)
    structure = seen["structure"] * _rise(seen["structure_snr"], 8.0, 0.12)
    asymmetry = seen["asymmetry"] * _rise(seen["asymmetry_snr"], 8.0, 0.12)
    flat = np.clip(seen["elongation"] - 0.35, 0.0, None)
    disk = -2.0 + resolved * (13.0 * structure.clip(upper=0.6) + 9.0 * flat + 1.25 * seen["disk_fraction"])
    irregular = -3.0 + 22.0 * asymmetry.clip(upper=0.45)
    point = -5.0 + 10.0 * (1.0 - resolved)
    spheroid = np.full(len(seen), 1.0)
    return np.stack([spheroid, disk, irregular, point], axis=-1)


def unclassifiable(seen: pd.DataFrame, votes: Votes) -> np.ndarray:
    """Return the probability that a voter gives up; shape (row,).

    Too faint, crossed by an artefact as bright as the source, swamped by a neighbour, or cut off: each by
    itself is enough.
    """
    faint = 1.0 - _rise(seen["snr"], votes.half_snr, 0.12)
    crossed = _rise(seen["artefact"], 1.5, 0.15)
    swamped = _rise(seen["contamination"], 1.2, 0.10)
    cut_off = _rise(seen["uncovered"], 0.35, 0.05)
    return 1.0 - (1.0 - faint) * (1.0 - crossed) * (1.0 - swamped) * (1.0 - cut_off)


def class_probabilities(seen: pd.DataFrame, votes: Votes) -> np.ndarray:
    """Return the chance that one voter answers each class of the scheme; shape (row, 5), rows of sum 1.

    A deterministic and smooth function of what is visible; NaN where the band does not cover the source.
    """
    scores = (class_scores(seen) + np.array(votes.bias)) / votes.temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    lost = unclassifiable(seen, votes)[:, None]
    return np.where(seen["covered"].to_numpy()[:, None], np.hstack([(1 - lost) * shares, lost]), np.nan)


def probability_columns() -> list[str]:
    """Return the columns of the truth table: ``p_`` and the name of each class."""
    return [f"p_{name}" for name in load_scheme(SCHEME).class_names]


def label_columns() -> list[str]:
    """Return the columns of the label table, in the order of the scheme."""
    return [one.label for one in load_scheme(SCHEME).classes]


def draw_labels(truth: pd.DataFrame, votes: Votes, seed: int) -> pd.DataFrame:
    """Let the voters vote: columns ID, the labels (N_T / N_tot) and votes (N_tot), in the order of `truth`.

    A row of `truth` is labelled when it is covered and not dirty; of each band the same number at most.
    """
    chosen = truth[truth["covered"] & ~truth["dirty"]]
    if votes.labelled_per_band is not None:
        chosen = _choose(chosen, votes.labelled_per_band, seed)
    chances = np.asarray(votes.weights) / np.sum(votes.weights)
    rows = []
    for row in chosen[["field", "id", "band", *probability_columns()]].itertuples(index=False):
        rng = stream(seed, row[0], row[1], row[2], "votes")
        number = int(rng.choice(votes.numbers, p=chances))
        answers = rng.multinomial(number, np.asarray(row[3:]) / np.sum(row[3:]))
        rows.append([f"{row[0]}_{row[2].lower()}_{row[1]}", *(answers / number), number])
    return pd.DataFrame(rows, columns=["ID", *label_columns(), "votes"])


def _choose(rows: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """Keep `number` rows of each band, those with the smallest draw from their own stream."""
    keys = rows[["field", "id", "band"]].itertuples(index=False)
    draws = pd.Series([stream(seed, *key, "labelled").uniform() for key in keys], index=rows.index)
    kept = draws.groupby(rows["band"], sort=False).nsmallest(number).index.get_level_values(-1)
    return rows.loc[sorted(kept)]
