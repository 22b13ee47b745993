"""Labelled stamps from FITS files, one a stamp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from click.testing import CliRunner
from PIL import Image as PillowImage

from catmorph.cli import cli
from catmorph.errors import CatalogError, CatmorphError, UsageError
from catmorph.evaluation.groups import by_expression
from catmorph.labels import LabelledStamps, labelled_stamps
from catmorph.labels.surveyed import with_survey
from catmorph.models.create import create_untrained
from catmorph.recipe import Recipe, write_recipe
from catmorph.sources.ingest import ingest
from catmorph.stamps.normalise import normalise
from catmorph.workspace import RunFolder


def recipe(folder: Path, **labels) -> Recipe:
    section = {"table": str(folder / "labels.csv"), "stamp_files": str(folder / "*.fits*"), **labels}
    return Recipe.model_validate({
        "name": "stamps", "scheme": "clash",
        "catalog": {"files": "none.csv", "field": {"value": "x"}, "id": "ID", "ra": "RA", "dec": "DEC"},
        "bands": {"names": ["F475W", "F850LP"]}, "mosaics": {"pattern": "none_{field}_{band}.fits"},
        "stamp": {"side": "4 arcsec", "pixels": 80}, "normalise": {"method": "minmax"}, "labels": section,
    })  # fmt: skip


def write(folder: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    fits.writeto(folder / name, pixels)
    return pixels


def write_labels(folder: Path, names: list[str], columns: list[str]) -> None:
    table = pd.DataFrame({"ID": names, **{column: float(i == 1) for i, column in enumerate(columns)}})
    table.to_csv(folder / "labels.csv", index=False)


@pytest.fixture
def columns() -> list[str]:
    from catmorph.schemes import load_scheme

    return [one.label for one in load_scheme("clash").classes]


def gather(made: Recipe, folder: Path):
    return labelled_stamps(RunFolder(folder / "run", made))


def with_columns(folder, columns, rows, **labels):
    """Return a recipe with groups, three stamp files and a survey table of `rows`."""
    for name in ("a_f475w_1", "a_f475w_2", "b_f475w_1"):
        write(folder, f"{name}.fits", np.random.default_rng(1).normal(size=(80, 80)))
    write_labels(folder, ["a_f475w_1", "a_f475w_2", "b_f475w_1"], columns)
    pd.DataFrame(rows, columns=["field", "ID", "RA", "DEC", "mag", "g"]).to_csv(folder / "cat.csv", index=False)
    made = recipe(folder, **labels).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    made["catalog"] = {"files": str(folder / "cat.csv"), "field": {"column": "field"}, "id": "ID", "ra": "RA",
                       "dec": "DEC", "magnitude": "mag", "keep": ["g"]}  # fmt: skip
    made["evaluation"] = {"groups": {"red": "g > 1", "blue": "g <= 1"}}
    return Recipe.model_validate(made)


ROWS = [("a", 2, 1.0, 2.0, 20.5, 2.0), ("a", 1, 1.0, 2.0, 19.5, 0.5), ("c", 1, 1.0, 2.0, 18.0, 3.0)]


def test_stamp_files_have_the_columns_of_their_sources(tmp_path, columns):
    made = with_columns(tmp_path, columns, ROWS)
    before, _ = gather(made, tmp_path)
    with pytest.raises(UsageError, match=r"the survey table, which is not read in; run `catmorph ingest`"):
        by_expression(before, made.evaluation)
    ingest(RunFolder(tmp_path / "run", made))
    data, left_over = gather(made, tmp_path)
    assert left_over == ["1 stamp files are of no source of the survey table: b_f475w_1"]
    np.testing.assert_array_equal(data.magnitude, [19.5, 20.5, np.nan])
    found = by_expression(data, made.evaluation)
    assert {one.name: data.names[one.rows].tolist() for one in found.groups} == {
        "red": ["a_f475w_2"], "blue": ["a_f475w_1"]}  # fmt: skip
    assert found.left_out == 1


def test_evaluate_reads_the_survey_table_for_stamp_files(tmp_path, columns, monkeypatch):
    monkeypatch.setattr("catmorph.evaluation.figures.draw_all", lambda shown: iter(()))  # seconds each
    made = with_columns(tmp_path, columns, ROWS)
    create_untrained("clash-inception-narrow", made, tmp_path / "net.safetensors")
    (tmp_path / "r.toml").write_text(write_recipe(made))

    def evaluate(*more):
        command = ["evaluate", tmp_path / "net.safetensors", "-r", tmp_path / "r.toml", "-w", tmp_path / "run", *more]
        return CliRunner().invoke(cli, [str(one) for one in command], prog_name="catmorph")

    done = evaluate("--json", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert "1 stamp files are of no source of the survey table: b_f475w_1" in done.stderr
    groups = json.loads(done.stdout)["groups"][-1]
    assert [(one["name"], one["stamps"]) for one in groups["groups"]] == [("red", 1), ("blue", 1)]
    (tmp_path / "cat.csv").unlink()
    done = evaluate()
    assert done.exit_code == 2
    told = "evaluation.groups, colour_magnitude and pairs need the survey table: no such catalog file; give it in"
    assert done.stderr == f"catmorph: error: {tmp_path}/cat.csv: {told} [catalog], or leave them out of the recipe\n"


def test_without_a_field_in_their_names_the_id_tells_the_source(tmp_path, columns):
    made = with_columns(tmp_path, columns, ROWS, stamp="{id}")
    data = LabelledStamps(np.zeros((3, 1, 4, 4), np.float32), np.full((3, 5), 0.2, np.float32), np.full(3, ""),
                          np.array(["1", "2", "7"]), np.full(3, "F475W"))  # fmt: skip
    run = RunFolder(tmp_path / "run", made)
    ingest(run)
    found, left_over = with_survey(run, data)
    # Two fields have an id 1.
    np.testing.assert_array_equal(found.survey["g"], [np.nan, 2.0, np.nan])
    assert left_over == ["2 stamp files are of no source of the survey table: _F475W_1, _F475W_7"]
    with pytest.raises(UsageError, match=r"is of a source of the survey table: files say '_F475W_7', the table a/1"):
        with_survey(run, data.take(np.array([2])))


def test_whole_images_become_stamps(tmp_path, columns):
    rng = np.random.default_rng(0)
    big = write(tmp_path, "macs_j0416_f475w_12.fits", rng.normal(size=(160, 160)).astype(np.float32))
    small = write(tmp_path, "a611_f850lp_7.fits.gz", rng.normal(size=(48, 48)))
    write(tmp_path, "a611_f850lp_8.fits", rng.normal(size=(48, 48)))
    write_labels(tmp_path, ["a611_f850lp_7", "macs_j0416_f475w_12", "a611_f475w_99"], columns)
    data, left_over = gather(recipe(tmp_path), tmp_path)
    assert left_over == ["1 labels have no stamp: a611_f475w_99", "1 stamp files have no label: a611_f850lp_8"]
    assert list(zip(data.fields, data.ids, data.views, data.names, strict=True)) == [
        ("a611", "7", "F850LP", "a611_f850lp_7"), ("macs_j0416", "12", "F475W", "macs_j0416_f475w_12"),
    ]
    assert (data.fractions[:, 1] == 1).all()
    # PIL's bilinear resize is the same triangle filter.
    for stamp, pixels in zip(data.inputs[:, 0], (small, big), strict=True):
        resized = PillowImage.fromarray(pixels.astype(np.float32)).resize((80, 80), PillowImage.Resampling.BILINEAR)
        expected = normalise(np.asarray(resized)[None, None], recipe(tmp_path).normalise)[0, 0]
        np.testing.assert_allclose(stamp, expected, atol=2e-5)


def test_flux_of_a_stamp_pixel(tmp_path, columns):
    write(tmp_path, "a_f475w_1.fits", np.full((40, 40), 3.0))
    write_labels(tmp_path, ["a_f475w_1"], columns)
    flux = recipe(tmp_path)
    flux = flux.model_copy(update={
        "stamp": flux.stamp.model_copy(update={"values": "flux"}),
        "normalise": flux.normalise.model_copy(update={"method": "none"}),
    })  # fmt: skip
    data, _ = gather(flux, tmp_path)
    np.testing.assert_allclose(data.inputs, 3.0 / 4, rtol=1e-6)


def test_files_that_cannot_be_used_are_counted(tmp_path, columns):
    write(tmp_path, "a_f475w_1.fits", np.eye(20))
    write(tmp_path, "a_f475w_2.fits", np.ones((20, 30)))
    (tmp_path / "a_f475w_3.fits").write_text("<html>not found</html>")
    write(tmp_path, "a_f475w_4.fits", np.where(np.arange(400).reshape(20, 20) < 390, np.nan, 1.0))
    write_labels(tmp_path, [f"a_f475w_{i}" for i in range(1, 5)], columns)
    data, left_over = gather(recipe(tmp_path), tmp_path)
    assert list(data.names) == ["a_f475w_1"]
    assert left_over == [
        "1 stamp files left out (is not square): a_f475w_2.fits",
        "1 stamp files left out (is a web page saved under a FITS name): a_f475w_3.fits",
        "1 stamp files left out (more invalid pixels than stamp.max_bad_fraction): a_f475w_4.fits",
    ]


@pytest.mark.parametrize(("files", "labels", "message"), [
    ([], ["a_f475w_1"], "no file fits labels.stamp_files"),
    (["a_f475w_1.fits"], ["b_f475w_1"], "no label fits a stamp: labels are named like 'b_f475w_1'"),
    (["nonsense.fits"], ["nonsense"], "1 names do not follow the pattern '{field}_{view|lower}_{id}'"),
    (["a_f475w_1.fits", "a_f475w_1.fits.gz"], ["a_f475w_1"], "is another file of the stamp 'a_f475w_1'"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, columns, files, labels, message):
    for name in files:
        write(tmp_path, name, np.eye(20))
    write_labels(tmp_path, labels, columns)
    with pytest.raises(CatalogError if files else UsageError) as caught:
        gather(recipe(tmp_path), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_usable_file_and_views_of_several_bands_are_one_line(tmp_path, columns):
    write(tmp_path, "a_f475w_1.fits", np.ones((3, 4)))
    write_labels(tmp_path, ["a_f475w_1"], columns)
    with pytest.raises(CatmorphError, match="no stamp file can be used: 1 stamp files left out"):
        gather(recipe(tmp_path), tmp_path)
    colour = recipe(tmp_path).model_copy(update={"views": {"colour": ("F475W", "F850LP")}})
    with pytest.raises(UsageError, match="view 'colour' has several"):
        gather(colour, tmp_path)


def test_the_stamp_of_the_paper(real_data, tmp_path, columns):
    (tmp_path / "a611_f475w_860.fits").write_bytes((real_data / "clash" / "a611_f475w_860.fits").read_bytes())
    write_labels(tmp_path, ["a611_f475w_860"], columns)
    data, left_over = gather(recipe(tmp_path), tmp_path)
    assert not left_over
    assert data.inputs.shape == (1, 1, 80, 80)
    assert (data.fields[0], data.views[0], data.ids[0]) == ("a611", "F475W", "860")
