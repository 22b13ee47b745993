"""Stamps from images of one source each, through the very stages of mosaics."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from picture_survey import encoded, pack, pictures, pixels, pristine_pictures, warnings_of
from PIL import Image

from catmorph.labels.gather import labelled_stamps
from catmorph.quality import describe
from catmorph.recipe import load_recipe
from catmorph.schemes import load_scheme
from catmorph.stamps.store import open_shard
from catmorph.workspace import RunFolder

__all__ = ["pictures", "pristine_pictures"]


def flags_of(survey, view="rgb"):
    return {name: describe(flags) for name, (flags, _) in survey.shard_of(view).items()}


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
    assert cut(pictures) == []
    expected = pictures.shard_of()
    for archive in ("packed.tar", "packed.tar.gz", "packed.zip"):
        pack(pictures.images, pictures.folder / archive)
        assert cut(pictures, f'images.files="{archive}"') == []
        assert (pictures.run / "sources.parquet").exists()
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


def changed(survey):
    """Return the chunks that `cutouts` made, and what `status` said before of why."""
    before = json.loads(survey("status", "-r", survey.recipe.name, "--json").out)
    assert survey("ingest", "-r", survey.recipe.name).status == 0
    stale = json.loads(survey("status", "-r", survey.recipe.name, "--json").out)
    done = survey("cutouts", "-r", survey.recipe.name)
    assert done.status == 0, done.err
    made = int(done.lines[0].split("; ")[1].split()[0])
    why = [list(stage["why"]) for status in (before, stale) for stage in status["stages"]
           if stage["stage"] in ("ingest", "cutouts")]
    return made, why


@pytest.mark.parametrize("harm", ["cut short", "another table"])
def test_status_tells_of_sources_that_cannot_be_read(pictures, harm):
    """The names of the images are in them."""
    cut(pictures)
    path = pictures.run / "sources.parquet"
    data = path.read_bytes()[:-9] if harm == "cut short" else (pictures.run / "plan.parquet").read_bytes()
    path.write_bytes(data)
    told = pictures("status", "-r", pictures.recipe.name)
    assert told.status == 0, told.err
    assert told.out.splitlines()[2:] == [
        f"{'ingest':<27}      0      1        0  sources.parquet is damaged: its size is not what was written; "
        "`catmorph run` makes it again (1)"
    ]
    assert pictures("ingest", "-r", pictures.recipe.name).status == 0
    assert changed(pictures) == (0, [[], [], [], []])


def test_one_image_makes_one_chunk_anew(pictures):
    pictures.edit("[run]", "[run]\nchunk_rows = 3")
    cut(pictures)
    cells = {path.name for path in (pictures.run / "stamps" / "rgb").iterdir()}
    assert len(cells) >= 4
    assert all(name.startswith("pictures-h") for name in cells)
    assert changed(pictures) == (0, [[], [], [], []])
    (pictures.images / "003.png").write_bytes(encoded(pixels(77)))
    assert changed(pictures) == (1, [[], ["images changed"], [], ["images changed"]])
    (pictures.images / "new.png").write_bytes(encoded(pixels(78)))
    made, why = changed(pictures)
    assert made in (1, 2, 3, 4)  # the cell of the new one, and where it grew too large its children
    assert why[0] == ["list of images changed"]
    (pictures.images / "new.png").unlink()
    assert changed(pictures)[0] <= made
    expected = pictures.shard_of()
    assert expected.keys() == {f"{number:03d}" for number in range(12)}
    pictures("clean", "-r", pictures.recipe.name)
    fresh = pictures("run", pictures.recipe.name, "-w", "runs/fresh")
    assert fresh.status == 0
    assert pictures("run", pictures.recipe.name).status == 0
    for name in ("release/catalog.csv", "sources.parquet", "rejected.parquet"):
        assert (pictures.run / name).read_bytes() == (pictures.folder / "runs" / "fresh" / name).read_bytes()


def test_the_release_does_not_depend_on_the_size_of_chunks(pictures):
    found = []
    for rows in (2, 100):
        done = pictures("run", pictures.recipe.name, "-w", f"runs/{rows}", "--set", f"run.chunk_rows={rows}",
                        "--set", 'release.formats=["csv", "parquet"]')
        assert done.status == 0, done.err
        folder = pictures.folder / "runs" / str(rows)
        sources = pq.read_table(folder / "sources.parquet").to_pandas().drop(columns="cell")
        found.append(((folder / "release" / "catalog.csv").read_bytes(),
                      (folder / "release" / "catalog.parquet").read_bytes(), sources.to_csv()))
    assert found[0] == found[1]


def with_catalog(survey, text, **keys):
    (survey.folder / "list.csv").write_text(text)
    lines = {"files": '"list.csv"', "field": '{ value = "sky" }', "id": '"name"', **keys}
    survey.edit("[bands]", "[catalog]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()) + "\n[bands]")


def test_rows_of_a_catalog_find_their_images(pictures):
    with_catalog(pictures, "name,mag\n003,18.5\n007,19\nx,20\n011,21\n", magnitude='"mag"', cuts='"magnitude < 21"')
    done = pictures("run", pictures.recipe.name)
    assert done.status == 0, done.err
    assert warnings_of(done) == ["10 images show no source of the catalog, such as images/000.png"]
    assert flags_of(pictures) == {"003": "", "007": "", "x": "NO_MOSAIC"}
    assert list(release(pictures)["id"]) == ["003", "007"]
    assert list(pq.read_table(pictures.run / "omitted.parquet")["id"].to_pylist()) == ["x"]
    check = pictures("check", "-r", pictures.recipe.name)
    assert check.status == 0, check.err
    assert "images: 1 of 3 sources have none, or not in every band" in check.err


def test_positions_are_kept_where_a_catalog_has_them(pictures):
    with_catalog(pictures, "name,ra,dec\n003,10.5,-2\n007,190,40\n", ra='"ra"', dec='"dec"')
    assert pictures("run", pictures.recipe.name).status == 0
    assert list(release(pictures)["ra"]) == [10.5, 190.0]
    cells = pq.read_table(pictures.run / "plan.parquet")["cell"].to_pylist()
    assert [cell[:3] for cell in cells] == ["o0p", "o0p"]


def test_a_catalog_without_any_image_is_refused(pictures):
    with_catalog(pictures, "name\na\nb\n")
    done = pictures("run", pictures.recipe.name)
    assert done.status == 2
    assert "none of 12 images shows a source of the catalog, such as images/000.png; check images" in done.lines[-1]
    assert "none of 12 images shows a source" in pictures("check", "-r", pictures.recipe.name).lines[-1]


def test_fields_and_bands_in_names(pictures):
    for path in pictures.images.iterdir():
        path.unlink()
    for field, number, bands in (("a", "1", "grz"), ("a", "2", "gr"), ("b", "1", "grz"), ("b", "3", "grzu")):
        for band in bands:
            array = pixels(int(number) + ord(band), planes=1)
            (pictures.images / f"{field}_{number}-{band}.png").write_bytes(encoded(array))
    (pictures.images / "a_4-g.png").write_bytes(encoded(pixels(9, planes=1)))
    (pictures.images / "a_4-r.png").write_bytes(encoded(pixels(9, 20, planes=1)))
    (pictures.images / "a_4-z.png").write_bytes(encoded(pixels(9, planes=1)))
    (pictures.images / "strange.png").write_bytes(encoded(pixels(9, planes=1)))
    pictures.edit('files = ["images"]', 'files = ["images"]\nname = "{field}_{id}-{band|lower}"')
    pictures.edit('["red", "green", "blue"]', '["G", "R", "Z"]')
    assert pictures("ingest", "-r", pictures.recipe.name).status == 0
    done = pictures("cutouts", "-r", pictures.recipe.name)
    assert done.status == 0, done.err
    sources = pq.read_table(pictures.run / "sources.parquet").to_pandas()
    assert sorted(zip(sources["field"], sources["id"], strict=True)) == [
        ("a", "1"), ("a", "2"), ("a", "4"), ("b", "1"), ("b", "3")]
    rejected = pq.read_table(pictures.run / "rejected.parquet").to_pylist()
    assert [(row["file"], row["kind"]) for row in rejected] == [("images/strange.png", "bad_cell")]
    assert rejected[0]["reason"] == "its name does not fit images.name '{field}_{id}-{band|lower}'"
    flags = {(path.name[0], name): describe(int(flag)) for path in (pictures.run / "stamps" / "rgb").iterdir()
             for name, flag in columns_of(path)}
    assert flags == {("a", "1"): "", ("a", "2"): "NO_MOSAIC", ("a", "4"): "BAD_IMAGE", ("b", "1"): "", ("b", "3"): ""}
    assert "images/a_4-r.png: has 32 x 20 pixels, another band 32 x 32" in done.err
    check = pictures("check", "-r", pictures.recipe.name)
    assert "images: 1 are of other bands than G, R, Z" in check.err
    pictures("cutouts", "-r", pictures.recipe.name, "--set", "stamp.missing=zero")
    flags = {(path.name[0], name): describe(int(flag)) for path in (pictures.run / "stamps" / "rgb").iterdir()
             for name, flag in columns_of(path)}
    assert flags["a", "2"] == "MISSING_BAND"


def columns_of(path):
    with open_shard(path) as shard:
        return list(zip(shard.ids, shard.flags, strict=True))


def test_one_id_twice(pictures):
    (pictures.images / "more").mkdir()
    (pictures.images / "more" / "003.png").write_bytes(encoded(pixels(50)))
    done = pictures("run", pictures.recipe.name)
    assert done.status == 2
    assert done.lines[-1].endswith("1 duplicate ids: pictures 003 (row 1); set catalog.duplicates to 'first' or "
                                   "'brightest' to keep one of each")
    pictures.edit("[bands]", '[catalog]\nduplicates = "first"\nkeep = "folder"\n\n[bands]')
    assert cut(pictures) == []
    kept = pictures.shard_of()["003"][1]
    assert pq.read_table(pictures.run / "rejected.parquet")["file"].to_pylist() == ["images/more/003.png"]
    pictures.edit('duplicates = "first"', "cuts = \"not (id == '003' and folder == 'images')\"")
    assert cut(pictures) == []
    other = pictures.shard_of()["003"][1]
    assert not np.array_equal(kept, other)


def test_two_images_of_a_row_of_a_catalog(pictures):
    (pictures.images / "003.jpg").write_bytes(encoded(pixels(50), "JPEG"))
    with_catalog(pictures, "name\n003\n007\n")
    done = pictures("run", pictures.recipe.name)
    assert done.status == 2
    assert "1 images show a source that another shows: images/003.jpg, images/003.png" in done.lines[-1]
    assert pictures("run", pictures.recipe.name, "--set", "catalog.duplicates=first").status == 0


def test_planes_of_fits_cubes(pictures):
    for path in pictures.images.iterdir():
        path.unlink()
    data = np.stack([pixels(seed, planes=1) for seed in range(5)]).astype("f4") * 1e-3
    data[3, 16, 16] = np.nan
    fits.writeto(pictures.images / "a.fits", data)
    pictures.edit('files = ["images"]', 'files = ["images"]\nplanes = { red = 4, green = 2, blue = 1 }')
    assert cut(pictures, "stamp.side=8 pixels", "stamp.pixels=8") == []
    flags, stamp = pictures.shard_of()["a"]
    assert describe(flags) == "SOME_BAD_PIXELS"
    np.testing.assert_allclose(stamp[1:], data[[1, 0], 12:20, 12:20], rtol=1e-6)
    assert np.isnan(stamp[0]).sum() == 1


def test_sides_on_the_sky_need_the_scale_of_a_pixel(pictures):
    only(pictures, pixels(5))
    refused = pictures("cutouts", "-r", pictures.recipe.name, "--set", "stamp.side=6 arcsec")
    assert refused.status == 2
    assert "stamp.side is in arcsec: images.pixel_scale (arcsec a pixel) must be given" in refused.err
    cut(pictures, "stamp.side=6 arcsec", "images.pixel_scale=0.25")
    first = pictures.shard_of()["one"][1]
    cut(pictures, "stamp.side=24 pixels")
    np.testing.assert_array_equal(first, pictures.shard_of()["one"][1])
    with_catalog(pictures, "name,r\none,3\ntwo,\n", size='{ column = "r", unit = "arcsec" }')
    cut(pictures, "stamp.side=2 radii", "images.pixel_scale=0.25")
    np.testing.assert_array_equal(first, pictures.shard_of()["one"][1])


@pytest.mark.parametrize(("overrides", "message"), [
    (["images.name={name}"], "images.name: pattern '{name}' uses {name}"),
    (["images.name=x_{field}"], "must hold {id}, and no folder"),
    (["images.name={id|lower}"], "only {band} can have a filter"),
    (["images.size=[424]"], "images.size"),
    (["images.planes={red=1}"], "images.planes: must name every band and no other: red, green, blue"),
    (["images.planes={red=0, green=1, blue=2}"], "images.planes.red: Input should be greater than or equal to 1"),
    (["stamp.orientation=north"], "stamp.orientation: images are not turned north"),
    (["bands.reference=red"], "bands.reference: means nothing with [images]"),
    (["mosaics.pattern=x.fits"], "mosaics, images: stamps are cut from one of the two"),
    (["catalog.ra=RA"], "catalog.dec: missing; ra and dec go together"),
    (["catalog.magnitude=mag"], "catalog.magnitude: means nothing without catalog.files"),
    (["catalog.files=a.csv"], "catalog.field: missing; where the field of a row comes from: { value = 'NAME' }, "
     "{ column = 'NAME' } or { pattern = '{field}.cat' }"),
    (["images.files=[]"], "images.files"),
    (["images.files="], "images.files: a name is empty"),
    (["images.files=none/*.jpg"], "no such images; check images.files in the recipe"),
    (["images.file=x"], "images.file: unknown key, did you mean 'files'?"),
    (["images.field=a/b"], "images.field: must be letters"),
])
def test_recipes_that_are_refused(pictures, overrides, message):
    options = [part for text in overrides for part in ("--set", text)]
    done = pictures("run", pictures.recipe.name, *options)
    assert done.status == 2
    assert any(message in line for line in done.lines), done.err
    assert not pictures.run.exists()


def test_a_dry_run_knows_what_will_be_cut(pictures):
    plan = json.loads(pictures("run", pictures.recipe.name, "--dry-run", "--json", "--set", "run.chunk_rows=4").out)
    assert [(stage["stage"], stage["make"] > 0) for stage in plan] == [
        ("ingest", True), ("cutouts", True), ("classify", True), ("export", True)]
    assert plan[1]["work"] == 12
    assert not (pictures.run / "sources.parquet").exists()
    assert pictures("run", pictures.recipe.name, "--set", "run.chunk_rows=4").status == 0
    (pictures.images / "003.png").write_bytes(encoded(pixels(77)))
    again = json.loads(pictures("run", pictures.recipe.name, "--dry-run", "--json", "--set", "run.chunk_rows=4").out)
    assert (again[0]["make"], again[1]["make"], again[1]["why"]) == (0, 1, {"images changed": 1})


def test_the_resolved_recipe_says_the_same(pictures):
    assert pictures("run", pictures.recipe.name).status == 0
    again = pictures("run", str(pictures.run / "recipe.toml"), "-w", str(pictures.run))
    assert again.status == 0
    assert "cutouts: 12 (source, view)s, 12 stamps; 0 made, 1 up to date" in again.err
    provenance = (pictures.run / "release" / "provenance.json").read_text()
    assert str(pictures.folder) not in provenance


def test_pictures_are_shown_with_their_top_on_top(pictures):
    array = np.zeros((32, 32, 3), np.uint8)
    array[:16] = 200
    array[0, 0] = 90  # else the stamp's halves are too even to be drawn
    only(pictures, array)
    assert pictures("run", pictures.recipe.name).status == 0
    drawn = pictures("gallery", "-r", pictures.recipe.name, "-o", "sheet.png", "--per-row", "1", "--per-page", "1")
    assert drawn.status == 0, drawn.err
    sheet = np.asarray(Image.open(pictures.folder / "sheet.png").convert("L"), float)
    stamp = sheet[22 : 22 + 120, 6:126]
    assert stamp[20:50].mean() > stamp[70:100].mean() + 50


@pytest.mark.parametrize("kind", ["png", "fits"])
def test_fits_stamps_are_upright(pictures, kind):
    """Row 1 of a FITS image is its bottom, as ds9 draws it, the first row of a PNG its top."""
    array = only(pictures, pixels(1))
    array[:8] //= 4  # neither half is the other turned over
    if kind == "png":
        only(pictures, array)
    else:
        (pictures.images / "one.png").unlink()
        fits.writeto(pictures.images / "one.fits", np.moveaxis(array, 2, 0).astype("f4"))
    whole = ("--set", "stamp.side=32 pixels", "--set", "stamp.pixels=32")
    for command in (("ingest",), ("cutouts", "--format", "mef")):
        assert pictures(*command, "-r", pictures.recipe.name, *whole).status == 0
    (path,) = pictures.run.glob("stamps-mef/rgb/*/one.fits")
    with fits.open(path) as hdus:
        found = np.stack([hdus[band].data for band in ("red", "green", "blue")], axis=2)
    np.testing.assert_array_equal(found, array[::-1] if kind == "png" else array)


def test_every_stage_after_takes_sources_without_positions(pictures):
    done = pictures("run", pictures.recipe.name, "--set", 'release.formats=["csv","fits","ecsv","votable","parquet"]')
    assert done.status == 0, done.err
    assert len(Table.read(pictures.run / "release" / "catalog.fits")) == 12
    assert np.ma.getmaskarray(Table.read(pictures.run / "release" / "catalog.ecsv")["ra"]).all()
    assert pictures("cutouts", "-r", pictures.recipe.name, "--format", "mef").status == 0
    assert len(list(pictures.run.rglob("*.fits"))) == 13
    assert pictures("labels", "sample", "-r", pictures.recipe.name, "-o", "sample.csv", "--per-view", "5").status == 0
    assert len(pd.read_csv(pictures.folder / "sample.csv")) == 5
    assert pictures("labels", "subjects", "-r", pictures.recipe.name, "sample.csv", "--out", "subjects").status == 0


def test_labels_find_stamps_of_images(pictures):
    assert pictures("run", pictures.recipe.name).status == 0
    names = [one.label for one in load_scheme("clash").classes]
    rows = [",".join([f"{number:03d}", *("1" if place == number % 5 else "0" for place in range(5))])
            for number in range(12)]
    (pictures.folder / "labels.csv").write_text("\n".join(["name," + ",".join(names), *rows]) + "\n")
    pictures.edit("[run]", '[labels]\ntable = "labels.csv"\nstamp = "{id}"\nid_column = "name"\n\n[run]')
    recipe = load_recipe(pictures.recipe)
    data, left = labelled_stamps(RunFolder(pictures.run, recipe))
    assert (len(data), left) == (12, [])
    assert data.inputs.shape == (12, 3, 80, 80)
    assert np.isnan(data.ra).all()
    stamp = pictures.shard_of()["007"][1]
    place = list(data.ids).index("007")
    np.testing.assert_allclose(data.inputs[place], stamp / 255, atol=1e-6)


def test_real_jpegs(pictures, real_data):
    folder = real_data / "galaxyzoo" / "odd_spirals"
    names = sorted(folder.glob("*.jpg"))[:20]
    for path in pictures.images.iterdir():
        path.unlink()
    for path in names:
        (pictures.images / path.name).write_bytes(path.read_bytes())
    pictures.edit('files = ["images"]', 'files = ["images"]\nsize = [424, 424]')
    assert cut(pictures, "stamp.side=240 pixels", "stamp.pixels=64") == []
    found = pictures.shard_of()
    assert len(found) == len(names) == 20
    for path in names:
        array = np.asarray(Image.open(path)).astype(np.float32)
        flags, stamp = found[path.stem]
        assert flags == 0
        for plane in range(3):
            expected = Image.fromarray(array[92:332, 92:332, plane]).resize((64, 64), Image.Resampling.BILINEAR)
            # Cropped first, Pillow does not see beyond the edge: the outermost pixels differ.
            np.testing.assert_allclose(stamp[plane][1:-1, 1:-1], np.asarray(expected)[1:-1, 1:-1], atol=0.01)
