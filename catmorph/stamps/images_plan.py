"""Which image shows which source, and the identities of the images of a chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from catmorph.errors import CatalogError, UsageError
from catmorph.recipe import Recipe
from catmorph.sources.images import ImageList
from catmorph.sources.inputs import listed_images
from catmorph.stamps.images_block import ImagePlan
from catmorph.stamps.settings import StampSettings
from catmorph.workspace import Chunk, RunFolder


class ImageIndex:
    """Finds the image of a source and band.

    Rows of a survey table find it by field and id, or by id alone where the names of images have no field. Where the
    images are the catalog themselves, a source is its own image, with a file a band those of its folder.

    Raises
    ------
    CatalogError
        When a survey table's source has several images, and ``catalog.duplicates`` is "refuse".
    """

    def __init__(self, images: ImageList, recipe: Recipe):
        assert recipe.images is not None
        self.images, self.recipe, self.section = images, recipe, recipe.images
        self.listed = not recipe.catalog.files
        self._keys = self._of(images.frame["field"], images.frame["id"], images.frame["file"])
        self._indexes = {band: self._index(band) for band in self._bands}

    @property
    def _bands(self) -> tuple[str, ...]:
        return self.recipe.bands.names if self.section.has_band else ("",)

    def _of(self, fields: pd.Series | str, ids: pd.Series, files: pd.Series) -> pd.Series:
        """Return what tells sources apart (row,); missing for images whose name did not fit."""
        if self.listed and not self.section.has_band:
            return files.where(ids.notna())
        if self.listed:
            return fields + "\0" + ids + "\0" + files.str.rpartition("/")[0]
        return fields + "\0" + ids if self.section.has_field else ids

    def _index(self, band: str) -> pd.Series:
        """Return key -> row of the list of images, for those of a band."""
        keys = self._keys[self.images.frame["band"] == band].dropna()
        repeated = keys[keys.duplicated()]
        if len(repeated) and self.recipe.catalog.duplicates == "refuse":
            first = repeated.iloc[0]
            names = self.images.frame["file"][keys.index[keys == first]].tolist()
            raise CatalogError(f"{len(repeated)} images show a source that another shows: {', '.join(names[:3])}",
                               where="images.files", hint="set catalog.duplicates = 'first' to take the first of each")
        keys = keys.drop_duplicates()
        return pd.Series(keys.index.to_numpy(), index=pd.Index(keys.to_numpy(), dtype=object))

    def rows(self, field: str, names: pa.Table) -> np.ndarray:
        """Return the row of the list of images (file, source) for sources of a field, -1 where there is none."""
        frame = names.to_pandas()
        keys = self._of(field, frame["id"].astype(object), frame["file"].astype(object))
        found = [index.reindex(keys).fillna(-1).to_numpy(np.int64) for index in self._indexes.values()]
        return np.stack(found)


class ChunkImages:
    """The images of the chunks of a run, looked up once for all views."""

    def __init__(self, run: RunFolder, chunks: Sequence[Chunk]):
        self._run = run
        self.images = listed_images(run)
        self.index = ImageIndex(self.images, run.recipe)
        self._names = {chunk: chunk.planned for chunk in chunks if chunk.planned is not None}
        if len(self._names) < len(chunks):
            self._names.update(zip(run.chunks(), run.read_names(), strict=True))
        self._rows: dict[Chunk, np.ndarray] = {}
        self._identities: dict[str, str] = {}

    def rows(self, chunk: Chunk) -> np.ndarray:
        """Return the row of the list of images (file, source) for the sources of a chunk, -1 where there is none."""
        if chunk not in self._rows:
            self._rows[chunk] = self.index.rows(chunk.field, self._names[chunk])
        return self._rows[chunk]

    def warnings(self) -> list[str]:
        """Say what of the images that the recipe names is not used.

        Raises
        ------
        UsageError
            When none of them shows a source of the chunks.
        """
        used = np.zeros(len(self.images), dtype=bool)
        for chunk in self._names:
            rows = self.rows(chunk)
            used[rows[rows >= 0]] = True
        unused = self.images.frame["file"][~used]
        if not used.any() and any(chunk.count for chunk in self._names):
            raise UsageError(f"none of {len(unused):,} images shows a source of the catalog, such as {unused.iloc[0]}",
                             where="images.files", hint="check images.name against the identifiers of the catalog")
        warnings = list(self.images.warnings)
        if len(unused) and self._run.recipe.catalog.files:
            warnings.append(f"{len(unused):,} images show no source of the catalog, such as {unused.iloc[0]}")
        return warnings

    def whole_plan(self, chunk: Chunk) -> ImagePlan:
        """Return what the stamps of a chunk are cut from in all bands at once, each from its own plane."""
        return self._plan(chunk, self._run.recipe.bands.names)

    def plan(self, view: str, chunk: Chunk) -> ImagePlan:
        """Return what the stamps of a view and chunk are cut from."""
        return self._plan(chunk, self._run.recipe.all_views[view])

    def _plan(self, chunk: Chunk, bands: Sequence[str]) -> ImagePlan:
        recipe, rows = self._run.recipe, self.rows(chunk)
        section = self.index.section
        numbers = [recipe.bands.names.index(band) for band in bands]
        if section.has_band:
            rows, planes, count = rows[numbers], [0] * len(numbers), 1
        elif section.planes:
            planes, count = [section.planes[band] - 1 for band in bands], None
        else:
            planes, count = numbers, len(recipe.bands.names)
        used, index = np.unique(rows, return_inverse=True)
        index = index.reshape(rows.shape) - int(used[:1].tolist() == [-1])
        files = self.images.frame.iloc[used[used >= 0]].reset_index(drop=True)
        return ImagePlan(files, index, tuple(planes), count, section, StampSettings.of(recipe.stamp))

    def digest(self, plan: ImagePlan) -> str:
        """Return the sha256 of the images of a plan: of the bytes of files, and of archives with the members' names."""
        names = [f"{self._identity(path)} {member}" for path, member
                 in zip(plan.files["path"], plan.files["member"], strict=True)]
        state = hashlib.sha256("\0".join(names).encode())
        state.update(np.ascontiguousarray(plan.index, dtype="<i8").tobytes())
        return state.hexdigest()

    def _identity(self, path: str) -> str:
        if path not in self._identities:
            self._identities[path] = self._run.identities.of(path)
        return self._identities[path]
