"""The Python interface: the same functions as the command line's, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from catmorph.errors import CatmorphError, CheckpointError, UsageError
from catmorph.inference.combine import combine
from catmorph.recipe import load_recipe
from catmorph.release.cells import unguarded
from catmorph.schemes import load_scheme
from catmorph.stamps.normalise import normalise
from catmorph.stamps.store import open_shard
from catmorph.workspace import Chunk, RunFolder

if TYPE_CHECKING:
    from catmorph.models.checkpoint import Checkpoint


def open_run(
    recipe: str | os.PathLike[str], workdir: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()
) -> RunFolder:
    """Open the run folder of a recipe.

    Parameters
    ----------
    recipe : path
        Recipe file.
    workdir : path, optional
        Run folder; default ``runs/<recipe name>`` below the current folder.
    overrides : sequence of str
        ``section.key=value``, as ``--set``.
    """
    loaded = load_recipe(recipe, overrides)
    return RunFolder(workdir or Path("runs") / loaded.name, loaded)


class Stamps:
    """The stamps of one view across all shards, read on demand.

    ``stamps[i]`` and ``stamps[a:b]`` give pixels (channel, y, x) and (n, channel, y, x), float32 with NaN
    where invalid. Sources without a stamp are not in it; see `flags` of the shards for why.

    Attributes
    ----------
    ids, fields : list of str
        Source and field of each stamp.
    """

    def __init__(self, run: RunFolder, view: str):
        self._places: list[tuple[Path, int]] = []
        self._shape = (len(run.recipe.all_views[view]), run.recipe.stamp.pixels, run.recipe.stamp.pixels)
        self.ids: list[str] = []
        self.fields: list[str] = []
        for chunk in run.chunks():
            self._add(run, view, chunk)

    def __repr__(self) -> str:
        channels, *size = self._shape
        return f"<{len(self)} stamps, {channels} x {' x '.join(map(str, size))}>"

    def _add(self, run: RunFolder, view: str, chunk: Chunk) -> None:
        path = run.shard_path(view, chunk)
        with open_shard(path) as shard:
            for source in np.flatnonzero(shard.rows >= 0):
                self._places.append((path, int(shard.rows[source])))
                self.ids.append(shard.ids[source])
                self.fields.append(chunk.field)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            return self._read(self._places[index])
        return self._read([self._places[index]])[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def _read(self, places: list[tuple[Path, int]]) -> np.ndarray:
        stamps = np.empty((len(places), *self._shape), np.float32)
        for path in dict.fromkeys(path for path, _ in places):
            here = [i for i, (other, _) in enumerate(places) if other == path]
            with open_shard(path) as shard:
                stamps[here] = shard.read(np.array([places[i][1] for i in here]))
        return stamps


@contextmanager
def open_stamps(run: RunFolder, view: str) -> Iterator[Stamps]:
    """Open the stamps of `view`; a missing shard is an error, never a gap.

    They come in the order of the sky, the rows of a release by id, and sources without a stamp are not among them: join
    the two by ``stamps.fields`` and ``stamps.ids``.

    Raises
    ------
    CatmorphError
        When a shard is missing or damaged.
    UsageError
        When there is no such view.
    """
    (name,) = run.chosen_views([view])
    yield Stamps(run, name)


def classify(
    stamps: np.ndarray, checkpoint: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, device: str = "auto",
    precision: str = "auto", temperature: float | Literal["card"] = 1.0, test_time: str = "none",
) -> np.ndarray:
    """Return class probabilities of stamps.

    Parameters
    ----------
    stamps : array (n, channel, y, x)
        Pixels as cut, NaN where invalid; they are normalised as the checkpoint's card says.
    checkpoint : path or sequence of path
        Several are an ensemble: the mean of their probabilities is returned.
    device : {"auto", "cpu", "cuda", "openvino"}
        auto takes the GPU where there is one, else the processor; openvino is the processor, through OpenVINO.
    precision : {"auto", "float32", "bfloat16"}
        auto takes bfloat16 where the device computes in it.
    temperature : float or "card"
        What the logits are divided by; "card" takes that of each checkpoint's card.
    test_time : {"none", "d4"}
        Test-time augmentation, see `catmorph.inference.predict.Predictor`.

    Returns
    -------
    array (n, class)
        float64, classes in the order of the card's scheme.

    Raises
    ------
    CheckpointError
        When a checkpoint cannot be opened, has other classes than the first, or its card no temperature.
    UsageError
        When no checkpoint is given, or the device, precision or augmentation is unknown or cannot be had here.
    """
    from catmorph.models.checkpoint import load_checkpoint

    paths = [checkpoint] if isinstance(checkpoint, str | os.PathLike) else list(checkpoint)
    if not paths:
        raise UsageError("no checkpoint is given")
    opened = [load_checkpoint(path) for path in paths]
    first = opened[0].card
    for one in opened:
        if (one.card.scheme, one.card.classes) != (first.scheme, first.classes):
            raise CheckpointError(f"answers in scheme {one.card.scheme!r} with classes {', '.join(one.card.classes)}; "
                                  f"the first checkpoint in {first.scheme!r} with {', '.join(first.classes)}",
                                  where=one.path)
    used = [_temperature(one, temperature) for one in opened]
    pixels = np.asarray(stamps, dtype=np.float32)
    logits = [_logits(one, pixels, device, precision, test_time) for one in opened]
    return combine(load_scheme(first.scheme), logits, used).probabilities


def _temperature(checkpoint: Checkpoint, wanted: float | Literal["card"]) -> float:
    if wanted != "card":
        return wanted
    if checkpoint.card.temperature is None:
        raise CheckpointError("its card has no temperature", where=checkpoint.path,
                              hint="fit one with `catmorph evaluate --calibrate`, or give a number")
    return checkpoint.card.temperature


def _logits(checkpoint: Checkpoint, stamps: np.ndarray, device: str, precision: str, test_time: str) -> np.ndarray:
    from catmorph.inference.predict import Predictor

    predictor = Predictor(checkpoint, device=device, precision=precision, test_time=test_time)
    return predictor.logits(normalise(stamps, checkpoint.card.normalise))


def open_release(run: RunFolder) -> pd.DataFrame:
    """Return the released catalog as a pandas table, sorted by field and id (a field of over 100,000 sources by sky).

    Its columns are called as the recipe says; field and id are columns like the others, where the recipe has them, and
    no index. It is read from the Parquet file where one was exported, with all columns in full precision, else from the
    CSV file, whose columns and decimals are those that the recipe publishes. Texts are as in the survey table: without
    the apostrophe that keeps spreadsheets from taking them for formulas.

    Raises
    ------
    CatmorphError
        When neither has been written.
    """
    folder, name = run.release_folder(), run.recipe.release.name
    if (folder / f"{name}.parquet").exists():
        return pd.read_parquet(folder / f"{name}.parquet")
    if (folder / f"{name}.csv").exists():
        # Identifiers are text: 007 stays 007, and NA is a name.
        texts = {column.name: str for column in run.recipe.release.columns if column.source in ("id", "field")}
        table = pd.read_csv(folder / f"{name}.csv", dtype=texts, keep_default_na=False, na_values=[""])
        for column in table.columns[[not is_numeric_dtype(one) for one in table.dtypes]]:
            table[column] = table[column].map(unguarded, na_action="ignore")
        return table
    raise CatmorphError("there is no released catalog", where=folder, hint="run `catmorph export --format csv`")
