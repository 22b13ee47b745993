"""Stamps from images of one source each, through the very stages of mosaics."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from picture_survey import encoded, pack, pictures, pixels, pristine_pictures
from PIL import Image

from catmorph.quality import describe

__all__ = ["pictures", "pristine_pictures"]


def flags_of(survey, view="rgb"):
    return {name: describe(flags) for name, (flags, _) in survey.shard_of(view).items()}


def warnings_of(outcome):
    return [line.removeprefix("catmorph: warning: ") for line in outcome.lines if "warning: " in line]


def only(survey, array):
    for path in survey.images.iterdir():
        path.unlink()
    (survey.images / "one.png").write_bytes(encoded(array))
    return array


def cut(survey, *overrides):
    """Ingest and cut; return the warnings."""
    options = [part for text in overrides for part in ("--set", text)]
    found = []
    for command in ("ingest", "cutouts"):
        done = survey(command, "-r", survey.recipe.name, *options)
        assert done.status == 0, done.err
        found += warnings_of(done)
    return found


def release(survey):
    return pd.read_csv(survey.run / "release" / "catalog.csv", dtype={"id": str})


def test_images_are_the_catalog(pictures):
    done = pictures("run", pictures.recipe.name)
    assert done.status == 0
    assert warnings_of(done) == []
    table = release(pictures)
    assert list(table.columns[:5]) == ["field", "id", "ra", "dec", "rgb_spheroid"]
    assert list(table["id"]) == [f"{number:03d}" for number in range(12)]
    assert set(table["field"]) == {"pictures"}
    assert table["ra"].isna().all()
    assert table["rgb_disk"].between(0, 1).all()
    sources = pq.read_table(pictures.run / "sources.parquet").to_pandas()
    assert set(sources["cell"]) == {"h0p0"}
    assert sorted(sources["file"]) == [f"images/{number:03d}.png" for number in range(12)]
    again = pictures("run", pictures.recipe.name)
    assert again.status == 0
    assert "cutouts: 12 (source, view)s, 12 stamps; 0 made, 1 up to date" in again.err


def test_tar_zip_and_folder_give_the_same_stamps(pictures):
    (pictures.images / "deep").mkdir()
    (pictures.images / "003.png").rename(pictures.images / "deep" / "003.png")
    assert pictures("run", pictures.recipe.name).status == 0
    expected = pictures.shard_of()
    for archive in ("packed.tar", "packed.tar.gz", "packed.zip"):
        pack(pictures.images, pictures.folder / archive)
        done = pictures("run", pictures.recipe.name, "-w", "runs/pictures", "--set", f'images.files=["{archive}"]')
        assert done.status == 0
        assert warnings_of(done) == []
        found = pictures.shard_of()
        assert found.keys() == expected.keys()
        for name, (flags, stamp) in expected.items():
            assert flags == found[name][0]
            np.testing.assert_array_equal(stamp, found[name][1])


@pytest.mark.parametrize("side", ["24 pixels", "15 pixels", "1 image", "0.5 image", "20.5 pixels"])
@pytest.mark.parametrize("shape", [(32, 32), (33, 41)])
def test_crop_and_resize_are_those_of_pillow(pictures, side, shape):
    """Pillow resizes floats plane by plane; 0.01 of 255 is what its own rounding of weights leaves."""
    array = only(pictures, pixels(99, *shape))
    assert cut(pictures, f"stamp.side={side}", "stamp.pixels=13") == []
    value, unit = side.split()
    length = float(value) * (min(shape) if unit == "image" else 1)
    left, top = (shape[1] - length) / 2, (shape[0] - length) / 2
    stamp = pictures.shard_of()["one"][1]
    for plane in range(3):
        expected = Image.fromarray(array[..., plane].astype(np.float32)).resize(
            (13, 13), Image.Resampling.BILINEAR, box=(left, top, left + length, top + length))
        np.testing.assert_allclose(stamp[plane], np.asarray(expected), atol=0.01, rtol=0)


def test_areas_are_means_of_the_pixels_under_them(pictures):
    array = only(pictures, pixels(5, 32, 32))
    assert cut(pictures, "stamp.pixels=8", "stamp.resample=area") == []
    blocks = array[4:28, 4:28].reshape(8, 3, 8, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(pictures.shard_of()["one"][1], blocks.transpose(2, 0, 1), atol=1e-4)
