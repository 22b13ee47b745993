"""The evaluation of a checkpoint on labelled stamps: metrics, figures, pages, predictions, calibration, card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catmorph.errors import CatalogError, CatmorphError, UsageError, listed
from catmorph.evaluation.calibration import fit_temperature
from catmorph.evaluation.folds import folded
from catmorph.evaluation.groups import groupings, survey_columns
from catmorph.evaluation.mergers import merger_tests
from catmorph.evaluation.numbers import metrics_of
from catmorph.evaluation.writing import Subset, described_labels, stamp_names, write_all
from catmorph.files import digest
from catmorph.labels import LabelledStamps, Split
from catmorph.labels.split import OtherLabelsError, read_split, split_path
from catmorph.models.card import Card, check_fits
from catmorph.models.header import load_card
from catmorph.models.identity import read_network_digest
from catmorph.progress import progress
from catmorph.recipe import Recipe
from catmorph.schemes import Scheme, load_scheme
from catmorph.sources.regions import check_columns

FORMAT = 1
"""Version of metrics.json."""
CHOICES = ("test", "validation", "training", "all")
"""Subsets that can be evaluated."""

_STAMPS_AT_ONCE = 256
_COMPARED = ("rmse", "rmse_authors", "cross_entropy", "ece")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found and wrote.

    `metrics` is the content of metrics.json; `files` lists what was written, in order; `warnings` are lines for
    the user; `card` is the checkpoint's card as it is now or, with ``update_card=False``, as it would be.
    """

    metrics: dict[str, Any]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    card: Card


def evaluate(
    checkpoint: Path,
    data: LabelledStamps,
    recipe: Recipe,
    *,
    subset: str | None = None,
    calibrate: bool = False,
    out: Path | None = None,
    update_card: bool = True,
    device: str = "auto",
    shown: bool = False,
) -> Evaluation:
    """Compare what a checkpoint predicts for labelled stamps with the votes, and write the evidence.

    Parameters
    ----------
    checkpoint : path
        A trained checkpoint; the file ``<stem>.split.csv`` beside it says what it was trained on.
    data : LabelledStamps
        Of any subset, from `catmorph.labels.labelled_stamps`.
    recipe : Recipe
        Its [evaluation] section says how to count; its stamps and scheme must be those of the checkpoint.
    subset : {"test", "validation", "training", "all"}, optional
        Default: test where the split file fits the data, else all.
    calibrate : bool
        Fit a temperature on the validation subset and tell its effect on the test subset.
    out : path, optional
        Folder for metrics.json, evaluation.md, evaluation.html, predictions.csv and figures/; default:
        ``<stem>.evaluation`` beside the checkpoint.
    update_card : bool
        Put the key numbers, and the temperature, into the checkpoint's card; its weights stay as they are.
    device : {"auto", "cpu", "cuda"}
        Where the network runs, always in float32.
    shown : bool
        Show a progress bar, where stderr is a terminal.

    Raises
    ------
    UsageError
        When a subset is asked for that there is not, or nothing can be calibrated.
    CheckpointError
        When the checkpoint cannot be opened or does not fit the recipe.
    CatmorphError
        When the network's output is not finite for a stamp, or a file cannot be written.
    """
    checkpoint = Path(checkpoint)
    card, scheme = load_card(checkpoint), load_scheme(recipe.scheme)
    check_fits(card, recipe, data.view_names, where=checkpoint)
    chosen = choose_subset(checkpoint, data, subset)
    fitting = _validation(checkpoint, chosen) if calibrate else np.empty(0, np.int64)
    for name in recipe.evaluation.prototypes:
        scheme.index(name)
    if recipe.evaluation.needs_columns:
        check_columns(recipe.evaluation, survey_columns(data))
    logits = _logits(checkpoint, data, np.union1d(chosen.rows, fitting), device, shown)
    document = _document(checkpoint, card, data, recipe, chosen)
    document |= _measured(data.take(chosen.rows), scheme.probabilities(logits[chosen.rows]), recipe, scheme)
    temperature = card.temperature
    if calibrate:
        fitted = (logits[fitting], data.fractions[fitting])
        temperature = fit_temperature(*fitted, scheme.form, where=checkpoint)
        document["calibration"] = _calibrated(data, logits, chosen.rows, fitting, temperature, recipe, scheme)
    document["merger"] = merger_tests(recipe, scheme, data.fractions[chosen.rows], logits[chosen.rows], temperature)
    document["labels_described"] = described_labels(data, chosen, scheme)
    new_card = _with_results(card, document, chosen)
    folder = evaluation_folder(checkpoint, out)
    files = write_all(folder, document, data, chosen, logits, recipe)
    if update_card:
        _update_card(checkpoint, new_card, card)
    return Evaluation(document, files, chosen.warnings, new_card)


def evaluation_folder(checkpoint: Path, out: Path | None = None) -> Path:
    """Return the folder that an evaluation of `checkpoint` is written to."""
    return Path(out) if out is not None else checkpoint.with_suffix(".evaluation")


def choose_subset(checkpoint: Path, data: LabelledStamps, wanted: str | None) -> Subset:
    """Return the rows of subset `wanted` by the split file beside `checkpoint`.

    Raises
    ------
    UsageError
        When there is no such subset, no split file to tell it, or no stamp in it.
    CatalogError
        When the split file is damaged, or is asked for and does not fit `data`; with `wanted` "all" neither matters.
    """
    path = split_path(checkpoint)
    split, why = None, f"there is no {path.name} beside the checkpoint"
    if path.exists():
        try:
            split = read_split(path, data)
        except CatalogError as error:
            # Where it is damaged, nobody can tell which stamps the checkpoint was trained on.
            if wanted != "all" and not (wanted is None and isinstance(error, OtherLabelsError)):
                raise
            why = f"{path.name} does not fit these labels ({error.message})"
    name = wanted or ("all" if split is None else "test")
    if name not in CHOICES:
        raise UsageError(f"unknown subset {name!r}", hint=f"valid: {', '.join(CHOICES)}")
    if name == "all":
        return _everything(data, split, why)
    if split is None:
        raise UsageError(f"the {name} subset is not known: {why}", where=checkpoint,
                         hint="use --subset all, or `catmorph train`, which writes that file")
    rows = getattr(split, name)
    if not len(rows):
        raise UsageError(f"no labelled stamp of this run is in the {name} subset", where=path,
                         hint="add the bands and fields that it names, or choose another --subset")
    warning = {
        "training": "these are the stamps the checkpoint was trained on: the numbers say nothing of others",
        "validation": "the checkpoint was chosen by these stamps: the numbers are better than for others",
    }.get(name)
    return Subset(name, rows, f"the {name} subset of {path.name}", split, (warning,) if warning else (), bool(warning))


def _everything(data: LabelledStamps, split: Split | None, why: str) -> Subset:
    rows = np.arange(len(data))
    if split is None:
        warning = f"all labelled stamps are evaluated, and the checkpoint may have been trained on them: {why}"
        return Subset("all", rows, f"all labelled stamps; {why}", None, (warning,))
    seen = len(split.training) + len(split.validation)
    if not seen:
        return Subset("all", rows, "all labelled stamps; none is of the training subset", split)
    warning = (f"{seen} of the {len(data)} stamps are of the training and validation subsets: the numbers are better "
               "than for others")
    return Subset("all", rows, f"all labelled stamps, {seen} of them of the training and validation subsets", split,
                  (warning,), seen=True)


def _validation(checkpoint: Path, chosen: Subset) -> np.ndarray:
    if chosen.name != "test":
        reason = chosen.note if chosen.split is None else f"the subset is {chosen.name}"
        raise UsageError(f"--calibrate fits on the validation subset and tells its effect on the test subset; {reason}",
                         where=checkpoint, hint="leave --subset out, and keep the split file beside the checkpoint")
    assert chosen.split is not None
    if not len(chosen.split.validation):
        raise UsageError("there is no validation subset to calibrate on", where=split_path(checkpoint),
                         hint="add the bands and fields that it names")
    return chosen.split.validation


def _logits(checkpoint: Path, data: LabelledStamps, rows: np.ndarray, device: str, shown: bool) -> np.ndarray:
    """Return the logits of `rows` in an array of all rows, shape (n, class); the others are NaN."""
    # Torch takes seconds to import: what only looks at numbers does without.
    from catmorph.inference.predict import Predictor
    from catmorph.models.checkpoint import load_checkpoint

    predictor = Predictor(load_checkpoint(checkpoint), device=device, precision="float32")
    logits = np.full((len(data), len(predictor.classes)), np.nan)
    blocks = np.array_split(rows, max(1, -(-len(rows) // _STAMPS_AT_ONCE)))

    def inputs() -> Iterator[tuple[int, np.ndarray]]:
        yield from ((number, data.inputs[block]) for number, block in enumerate(blocks))

    for number, found in progress(predictor.stream(inputs()), total=len(blocks), label="predicting", shown=shown):
        logits[blocks[number]] = found
    bad = rows[~np.isfinite(logits[rows]).all(axis=1)]
    if len(bad):
        names = listed(np.asarray(stamp_names(data))[bad])
        raise CatmorphError(f"the network's output is not finite for {len(bad)} of {len(rows)} stamps: {names}",
                            where=checkpoint, hint="the weights or the stamps hold NaN; train it again")
    return logits


def _document(
    checkpoint: Path, card: Card, data: LabelledStamps, recipe: Recipe, chosen: Subset
) -> dict[str, Any]:
    table = recipe.labels.table
    return {
        "format": FORMAT,
        "checkpoint": {"file": checkpoint.name, "title": card.title, "model": card.model, "trained": card.trained,
                       "network": read_network_digest(checkpoint)},
        "recipe": recipe.name,
        "scheme": recipe.scheme,
        "labels": {"file": Path(table).name, "sha256": digest(Path(table))} if table else None,
        "views": list(data.take(chosen.rows).view_names),
        "subset": {"name": chosen.name, "note": chosen.note,
                   "counts": None if chosen.split is None else chosen.split.counts()},
        "settings": recipe.evaluation.model_dump(mode="json"),
        "calibration": None,
    }


def _measured(data: LabelledStamps, probabilities: np.ndarray, recipe: Recipe, scheme: Scheme) -> dict[str, Any]:
    """Return the numbers of all stamps and of each group."""

    def numbers(rows: np.ndarray) -> dict[str, Any]:
        return _metrics(data, probabilities, rows, recipe, scheme)

    groups = [
        {
            "key": grouping.key, "title": grouping.title, "left_out": grouping.left_out, "reason": grouping.reason,
            "overlapping": grouping.overlapping,
            "groups": [
                {"name": group.name, "low": group.low, "high": group.high, "stamps": len(group.rows),
                 "metrics": numbers(group.rows) if len(group.rows) else None,
                 "reason": "" if len(group.rows) else "no stamps"}
                for group in grouping.groups
            ],
        }
        for grouping in groupings(data, recipe.evaluation)
    ]
    return {"overall": numbers(np.arange(len(data))), "groups": groups}


def _metrics(
    data: LabelledStamps, probabilities: np.ndarray, rows: np.ndarray, recipe: Recipe, scheme: Scheme
) -> dict[str, Any]:
    found = metrics_of(
        probabilities[rows], data.fractions[rows], scheme.class_names,
        None if data.votes is None else data.votes[rows],
        sources=data.sources[rows], section=recipe.evaluation, kind=scheme.form,
    )
    coarser = folded(scheme, probabilities[rows], data.fractions[rows], recipe.evaluation.confidence)
    return found | ({"folded": coarser} if coarser else {})


def _calibrated(
    data: LabelledStamps, logits: np.ndarray, rows: np.ndarray, fitting: np.ndarray, temperature: float,
    recipe: Recipe, scheme: Scheme,
) -> dict[str, Any]:
    """Return what the temperature does: on the subset it was fitted on, and on the test subset."""
    before, after = scheme.probabilities(logits), scheme.probabilities(logits / temperature)
    fitted = [_metrics(data, p, fitting, recipe, scheme) for p in (before, after)]
    tested = [_metrics(data, p, rows, recipe, scheme) for p in (before, after)]
    return {
        "temperature": temperature,
        "validation": {
            "stamps": len(fitting), "sources": fitted[0]["sources"],
            **{when: {name: one[name] for name in _COMPARED}
               for when, one in zip(("before", "after"), fitted, strict=True)},
        },
        "before": {name: tested[0][name] for name in _COMPARED},
        "after": {name: tested[1][name] for name in (*_COMPARED, "reliability")},
    }


def _with_results(card: Card, document: dict[str, Any], chosen: Subset) -> Card:
    """Return `card` with the key numbers of `document`; a calibration of before stays with its temperature.

    So does the test of mergers, by which merger fractions are corrected, where the network has seen some of the stamps.
    """
    overall = document["overall"]
    found: dict[str, Any] = {
        "labels": document["labels"], "views": document["views"], "subset": document["subset"]["name"],
        "note": document["subset"]["note"], "stamps": overall["stamps"], "sources": overall["sources"],
        "confidence": document["settings"]["confidence"],
        **{name: overall[name] for name in (*_COMPARED, "accuracy", "macro_f1", "mean_label", "vote_noise")},
        "completeness": {name: one["completeness"]["value"] for name, one in overall["classes"].items()},
        "purity": {name: one["purity"]["value"] for name, one in overall["classes"].items()},
    }
    if chosen.seen and "merger" in card.evaluation:
        found["merger"] = card.evaluation["merger"]
    elif document["merger"]:
        found["merger"] = {**document["merger"], "subset": chosen.name}
    calibration = document["calibration"]
    if calibration is None:
        kept = card.evaluation.get("calibrated")
        return card.model_copy(update={"evaluation": found | ({"calibrated": kept} if kept else {})})
    found["calibrated"] = {
        "temperature": calibration["temperature"], "validation_stamps": calibration["validation"]["stamps"],
        **{name: calibration["after"][name] for name in _COMPARED},
    }
    return card.model_copy(update={"evaluation": found, "temperature": calibration["temperature"]})


def _update_card(checkpoint: Path, card: Card, before: Card) -> None:
    from catmorph.models.checkpoint import rewrite_card

    if card != before:
        rewrite_card(checkpoint, card)
