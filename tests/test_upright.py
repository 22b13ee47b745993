"""The top of an image is on top in whatever is drawn or exported, and red is red: told by its bytes alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.image import imread
from picture_survey import encoded, pictures, pristine_pictures
from PIL import Image

from catmorph.evaluation.examples import draw_examples
from catmorph.evaluation.writing import _examples
from catmorph.experiments.transfer import DENSE
from catmorph.experiments.transfer_figures import draw_false_positives
from catmorph.experiments.transfer_table import Tested as Network
from catmorph.labels.gather import labelled_stamps
from catmorph.recipe import load_recipe
from catmorph.schemes import load_scheme
from catmorph.stamps.store import open_shard
from catmorph.workspace import RunFolder

__all__ = ["pictures", "pristine_pictures"]

SIDE = 32
BANDS = ("red", "green", "blue")
TOML = '["red", "green", "blue"]'


def scene():
    """A red bar at the top and half a blue one at the bottom of a dark sky, uint8 (y, x, plane), top row first."""
    image = np.random.default_rng(1).integers(8, 13, (SIDE, SIDE, 3)).astype(np.uint8)
    image[3:8, 4:28, 0] = 200
    image[24:29, 4:16, 2] = 200
    return image


def jpeg():
    return encoded(scene(), "JPEG", quality=95, subsampling=0)


def write(path, kind, order=(0, 1, 2)):
    """Write the scene; a FITS cut-out is a fifth as bright, its bottom row first, and has its planes in `order`."""
    if kind == "fits":
        cube = np.moveaxis(scene()[::-1, :, order], 2, 0).astype("f4") * 0.2
        with open(path, "wb") as file:
            fits.PrimaryHDU(cube).writeto(file)
    else:
        path.write_bytes(jpeg() if kind == "jpeg" else encoded(scene()))


@pytest.fixture
def survey(pictures):
    """A survey without images, whose stamps are whole images."""
    for path in pictures.images.iterdir():
        path.unlink()
    pictures.edit('side = "24 pixels"\npixels = 80', f'side = "{SIDE} pixels"\npixels = {SIDE}')
    pictures.edit(f"names = {TOML}", f"names = {TOML}\ncolour = {TOML}")
    return pictures


def ok(survey, *arguments):
    done = survey(*arguments)
    assert done.status == 0, done.err
    return done


def cut(survey, *more):
    ok(survey, "ingest", "-r", survey.recipe.name)
    return ok(survey, "cutouts", "-r", survey.recipe.name, *more)


def mef_of(survey, name):
    """Return the planes (band, y, x) of a FITS file made of a stamp; y goes up."""
    (path,) = survey.run.glob(f"stamps-mef/rgb/*/{name}.fits")
    with fits.open(path) as hdus:
        return np.stack([hdus[band].data for band in BANDS])


def assert_upright(planes):
    """A red bar above and a blue one below, in planes whose y goes up."""
    assert planes[0, -8:].mean() > 3 * planes[0, :8].mean()
    assert planes[2, :8].mean() > 3 * planes[2, -8:].mean()


def assert_red_over_blue(image):
    """The same in a picture (y, x, colour) of values 0..1, whatever else is drawn in it."""
    red, green, blue = np.moveaxis(image[..., :3], -1, 0)
    reds, blues = ((one > 0.5) & (np.maximum(other, green) < 0.6 * one) for one, other in ((red, blue), (blue, red)))
    # Turned over and with other colours, the bars would be of these colours again, but not of these lengths.
    assert reds.sum() > 1.6 * blues.sum() > 30
    assert np.nonzero(reds)[0].mean() < np.nonzero(blues)[0].mean()


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "1.image"), ("png", "1.image"), ("jpeg", "1.fits"),
                                            ("fits", "1.image"), ("fits", "1.jpg")])  # fmt: skip
def test_names_do_not_say_which_row_is_the_top(survey, kind, name):
    write(survey.images / name, kind)
    survey.edit('files = ["images"]', f'files = ["images/{name}"]')
    cut(survey, "--format", "mef")
    assert_upright(mef_of(survey, "1"))
    ok(survey, "labels", "sample", "-r", survey.recipe.name, "-o", "sample.csv")
    ok(survey, "labels", "subjects", "-r", survey.recipe.name, "sample.csv", "--out", "subjects")
    (path,) = (survey.folder / "subjects").glob("*.png")
    with Image.open(path) as image:
        red = np.asarray(image.convert("L"), float)[:400, :400]
    assert red[:100].mean() > 2 * red[300:].mean()


def test_files_of_both_kinds_in_a_shard(survey):
    for name, kind in (("1.jpg", "jpeg"), ("2.fits", "fits"), ("3.png", "png")):
        write(survey.images / name, kind)
    cut(survey, "--format", "mef")
    for name in "123":
        assert_upright(mef_of(survey, name))
    data = labelled(survey, *"123")
    assert {name: data.top_of(row) for row, name in enumerate(data.ids)} == {
        "1": (True,) * 3, "2": (False,) * 3, "3": (True,) * 3}  # fmt: skip
    assert data.take(np.array([1, 0])).top_first.tolist() == data.top_first[[1, 0]].tolist()


def test_bands_of_both_kinds_in_a_source(survey):
    for plane, band in enumerate(BANDS):
        for identifier in ("1", "2"):
            if band == "red" and identifier == "1":
                fits.writeto(survey.images / f"{identifier}-{band}.fits", scene()[::-1, :, plane].astype("f4"))
            elif band != "green" or identifier == "1":
                (survey.images / f"{identifier}-{band}.png").write_bytes(encoded(scene()[:, :, plane]))
    survey.edit('files = ["images"]', 'files = ["images"]\nname = "{id}-{band}"')
    survey.edit("min_side_pixels = 4", 'min_side_pixels = 4\nmissing = "zero"')
    cut(survey, "--format", "mef")
    for name in ("1", "2"):
        assert_upright(mef_of(survey, name))
    (path,) = (survey.run / "stamps" / "rgb").glob("*.h5")
    with open_shard(path) as shard:
        tops = {name: shard.top_first[shard.rows[row]].tolist() for row, name in enumerate(shard.ids)}
    assert tops == {"1": [False, True, True], "2": [True, True, True]}, "a band that is missing is as the others"
    assert "images: 1 sources have bands of both kinds" in survey("check", "-r", survey.recipe.name).err


def test_a_shard_of_one_kind_says_so_once(survey):
    write(survey.images / "1.jpg", "jpeg")
    cut(survey)
    (path,) = (survey.run / "stamps" / "rgb").glob("*.h5")
    with open_shard(path) as shard:
        assert shard.attributes["top_first"] is True
        assert shard.top_first.tolist() == [[True] * 3]


# Pictures


@pytest.mark.parametrize("kind", ["fits", "jpeg"])
def test_faint_cutouts_are_no_pictures_in_the_gallery(survey, kind):
    """All pixels of the FITS file lie within 0..255, as those of a JPEG."""
    write(survey.images / "1.image", kind)
    survey.edit('files = ["images"]', 'files = ["images/1.image"]')
    survey.edit('method = "range"', 'method = "minmax"')
    survey.edit(f"\npixels = {SIDE}", "\npixels = 80")
    survey.edit("untrained.safetensors", "other.safetensors")
    ok(survey, "models", "create", "clash-inception-narrow", "-r", survey.recipe.name, "--output", "other.safetensors")
    ok(survey, "run", survey.recipe.name)
    ok(survey, "gallery", "-r", survey.recipe.name, "-o", "sheet.png", "--per-row", "1", "--per-page", "1")
    assert_red_over_blue(imread(survey.folder / "sheet.png")[22 : 22 + 120, 6:126])


def labelled(survey, *names):
    """Return the labelled stamps of the survey, all of the first class."""
    labels = [one.label for one in load_scheme("clash").classes]
    rows = [",".join([name, "1", *"0" * (len(labels) - 1)]) for name in names]
    (survey.folder / "labels.csv").write_text("\n".join([",".join(["name", *labels]), *rows]) + "\n")
    survey.edit("[run]", '[labels]\ntable = "labels.csv"\nstamp = "{id}"\nid_column = "name"\n\n[evaluation]\n'
                f'prototypes = ["{load_scheme("clash").class_names[0]}"]\n\n[run]')  # fmt: skip
    data, _ = labelled_stamps(RunFolder(survey.run, load_recipe(survey.recipe)))
    return data


@pytest.fixture(params=[("jpeg", "range"), ("jpeg", "minmax"), ("fits", "minmax"), ("fits", "range")], ids="-".join)
def stamps(request, survey):
    """One labelled stamp with a red bar above a blue one, and its recipe."""
    kind, method = request.param
    if kind == "fits":
        # By wavelength, as surveys have their bands: red is the last of them, said or not.
        for line in ("names", "rgb"):
            survey.edit(f"{line} = {TOML}", f'{line} = ["blue", "green", "red"]')
    if (kind, method) != ("fits", "range"):
        survey.edit(f"colour = {TOML}\n", "")
    write(survey.images / ("1.fits" if kind == "fits" else "1.jpg"), kind, (2, 1, 0))
    survey.edit('method = "range"', f'method = "{method}"\nhigh_value = {50.0 if kind == "fits" else 255.0}')
    cut(survey)
    return labelled(survey, "1"), load_recipe(survey.recipe)


def test_false_positives_of_a_transfer(stamps, tmp_path):
    data, recipe = stamps
    asked = SimpleNamespace(question=SimpleNamespace(source=recipe, target=recipe, title="?", describe=lambda _: "net"))
    one = Network(asked, DENSE, data, np.array([0]), np.array([0.9]), np.array([False]), {})
    assert_red_over_blue(imread(draw_false_positives([one], tmp_path / "fp.png")))


def test_prototypes(stamps, tmp_path):
    data, recipe = stamps
    examples = _examples(data, data.fractions, recipe, load_scheme("clash"))
    (drawn,) = draw_examples(examples, recipe.evaluation)
    (tmp_path / "prototypes.png").write_bytes(drawn.png)
    image = imread(tmp_path / "prototypes.png")
    assert_red_over_blue(image[: len(image) // 2])  # the row "by people"; below it the same stamp again
