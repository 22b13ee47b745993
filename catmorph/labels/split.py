"""Division of labelled stamps into training, validation and test subsets, and the file that keeps it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from catmorph.errors import CatalogError, UsageError, listed
from catmorph.files import write_bytes
from catmorph.labels.stamps import LabelledStamps
from catmorph.recipe import TrainingSection
from catmorph.release.cells import guarded

SUBSETS = ("training", "validation", "test")
UNUSED = "unused"
_COLUMNS = ["stamp", "field", "id", "view", "subset"]


class OtherLabelsError(CatalogError):
    """A sound split file that belongs to other labels."""


@dataclass(frozen=True)
class Split:
    """Row numbers of the three subsets, each sorted; a stamp may be in none."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return the number of stamps in each subset."""
        return {name: len(getattr(self, name)) for name in SUBSETS}


def split_sources(data: LabelledStamps, section: TrainingSection) -> Split:
    """Divide `data` so that no galaxy is in two subsets, through different views or under another id.

    Sources within ``section.duplicates_arcsec`` of one another, in one field or in two, count as one galaxy.
    The test subset is all galaxies of ``section.test_fields`` where given, else a share; the validation subset
    is a share of the galaxies that are not of test fields; with ``section.fold`` it is another share of those
    that are not tested. Of the rest, ``section.size`` stamps are used; a
    larger size holds those of a smaller one. Stamps of the views ``section.leave_out`` are in the test subset or
    in none. The division depends on ``section.division_seed`` and on which stamps there are, not on their order.

    Raises
    ------
    UsageError
        When a test field or a view to leave out does not occur, a subset would be empty, or there are fewer
        stamps than ``section.size`` asks for.
    """
    galaxy = _galaxies(data, section.duplicates_arcsec)
    fields = np.asarray(data.fields).astype(str)
    missing = sorted(set(section.test_fields) - set(fields))
    if missing:
        raise UsageError(f"training.test_fields: no labelled stamp is in field {', '.join(missing)}")
    held = np.unique(galaxy[np.isin(fields, section.test_fields)])
    free = np.setdiff1d(np.arange(galaxy.max(initial=-1) + 1), held)
    free = np.random.default_rng(section.division_seed).permutation(free)
    stamps = np.bincount(galaxy, minlength=len(free) + len(held))[free]
    n_validation = _share(section.validation, stamps)
    n_test = 0 if section.test_fields else _share(section.test, stamps[n_validation:], len(free))
    parts = np.split(free, [n_validation, n_validation + n_test])
    validation, training = _fold(parts[0], parts[2], section.fold)
    members = {"validation": validation, "test": np.union1d(held, parts[1]), "training": training}
    rows = {name: np.flatnonzero(np.isin(galaxy, chosen)) for name, chosen in members.items()}
    _leave_out(rows, data, section.leave_out)
    for name, found in rows.items():
        if not len(found):
            raise UsageError(
                f"the {name} subset would be empty: {len(data)} labelled stamps of {len(free) + len(held)} sources",
                hint="label more stamps or change training.validation, training.test and training.test_fields",
            )
    rows["training"] = _some(data, rows["training"], section)
    return Split(**rows)


def _fold(validation: np.ndarray, training: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Let other galaxies validate: the share of them that comes `fold` shares later."""
    size = len(validation)
    if fold and (fold + 1) * size > size + len(training):
        raise UsageError(f"{size + len(training)} sources that are not tested have no {fold + 1} shares of {size} for "
                         "validation", where="training.fold", hint="choose a smaller fold, or a smaller validation")
    rolled = np.roll(np.concatenate([validation, training]), -fold * size)
    return rolled[:size], rolled[size:]


def _leave_out(rows: dict[str, np.ndarray], data: LabelledStamps, views: Sequence[str]) -> None:
    """Take the stamps of `views` out of the training and validation rows."""
    missing = sorted(set(views) - set(data.view_names))
    if missing:
        raise UsageError(f"training.leave_out: no labelled stamp is of view {', '.join(missing)}")
    left_out = np.isin(np.asarray(data.views).astype(str), views)
    for name in ("training", "validation"):
        rows[name] = rows[name][~left_out[rows[name]]]


def _share(wanted: float, stamps: np.ndarray, total: int | None = None) -> int:
    """Return how many galaxies make up a fraction (below 1) of all galaxies, or a number of stamps."""
    if wanted < 1:
        return round(wanted * (len(stamps) if total is None else total))
    return int(np.searchsorted(np.cumsum(stamps), wanted)) + 1


def _some(data: LabelledStamps, rows: np.ndarray, section: TrainingSection) -> np.ndarray:
    if section.size is None:
        return rows
    if section.size > len(rows):
        raise UsageError(f"training.size is {section.size}, the training subset has {len(rows)} stamps",
                         hint="lower training.size, training.validation or training.test")
    keys = _keys(data)
    in_order = np.array(sorted(rows, key=keys.__getitem__))
    generator = np.random.default_rng([section.division_seed, len("size")])
    return np.sort(generator.permutation(in_order)[: section.size])


def _keys(data: LabelledStamps) -> list[tuple[str, str, str]]:
    return [(str(a), str(b), str(c)) for a, b, c in zip(data.fields, data.ids, data.views, strict=True)]


def _galaxies(data: LabelledStamps, separation_arcsec: float) -> np.ndarray:
    """Return the number of each stamp's galaxy, shape (n,): sources that lie together are one."""
    source = data.sources
    if not separation_arcsec or data.ra is None or data.dec is None or not len(data):
        return source
    _, first = np.unique(source, return_index=True)
    ra, dec = np.asarray(data.ra)[first], np.asarray(data.dec)[first]
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(placed) < 2:
        return source
    sky = SkyCoord(ra[placed] * u.deg, dec[placed] * u.deg)
    one, other, _, _ = search_around_sky(sky, sky, separation_arcsec * u.arcsec)
    links = coo_array((np.ones(len(one), bool), (placed[one], placed[other])), shape=(len(first), len(first)))
    _, group = connected_components(links, directed=False)
    return np.unique(group, return_inverse=True)[1][source]


def split_path(checkpoint: str | os.PathLike[str]) -> Path:
    """Return the file beside `checkpoint` that says which stamps it was trained on."""
    return Path(checkpoint).with_suffix(".split.csv")


def write_split(path: Path, data: LabelledStamps, split: Split) -> None:
    """Write which subset each stamp of `data` is in: columns stamp, field, id, view, subset.

    Text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    subset = np.full(len(data), UNUSED, dtype=object)
    for name in SUBSETS:
        subset[getattr(split, name)] = name
    texts = [[guarded(str(value)) for value in column] for column in (data.called, data.fields, data.ids, data.views)]
    table = pd.DataFrame(dict(zip(_COLUMNS, (*texts, subset), strict=True)))
    table = table.sort_values(["field", "id", "view"], kind="stable")
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_split(path: Path, data: LabelledStamps) -> Split:
    """Return the rows of `data` that are in each subset of the file that `write_split` wrote.

    Stamps are found by field, id and view; those that the file does not name are in no subset.

    Raises
    ------
    CatalogError
        When the file is missing, damaged, or has a source in two subsets.
    OtherLabelsError
        When it names no stamp of `data`.
    """
    table = _read(path)
    unknown = sorted(set(table["subset"]) - {*SUBSETS, UNUSED})
    if unknown:
        raise CatalogError(f"has subset {unknown[0]!r}; subsets are {', '.join((*SUBSETS, UNUSED))}", where=path)
    subset = dict(zip(zip(table["field"], table["id"], table["view"], strict=True), table["subset"], strict=True))
    if len(subset) != len(table):
        raise CatalogError("names a stamp twice", where=path)
    used = table[table["subset"] != UNUSED].groupby(["field", "id"])["subset"].nunique()
    torn = used[used > 1].index
    if len(torn):
        first = listed(map(" ".join, torn))
        raise CatalogError(f"has {len(torn)} sources in two subsets: {first}", where=path,
                           hint="train again: such a test says nothing")
    found = np.array([subset.get((guarded(a), guarded(b), guarded(c)), "") for a, b, c in _keys(data)])
    if not (found != "").any():
        raise OtherLabelsError("names none of the labelled stamps", where=path,
                               hint="it belongs to other labels; move it away to go without")
    return Split(**{name: np.flatnonzero(found == name) for name in SUBSETS})


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise CatalogError("no such split file", where=path) from None
    except (OSError, ValueError) as error:
        raise CatalogError(f"cannot be read as CSV: {error}", where=path) from error
    lacking = [name for name in _COLUMNS if name not in table.columns]
    if lacking:
        raise CatalogError(f"has no column {lacking[0]!r}", where=path)
    return table
