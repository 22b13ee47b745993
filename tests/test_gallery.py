"""The sheet of stamps, and the commands export, summarize and gallery."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from release_run import TWO_BANDS, clash, galaxies, given, scattered, write_run

from catmorph.cli import release as commands
from catmorph.errors import CatmorphError, UsageError
from catmorph.quality import Flag
from catmorph.recipe import write_recipe
from catmorph.report.colour import GREY, Palette, picture
from catmorph.report.gallery import gallery
from catmorph.stamps.store import ShardContent, write_shard

SIDE = 16
MAGNITUDES = [21.0, 19.0, None, 20.0, 18.0]
CHANCES = [[0.9, 0.1, 0, 0, 0], [0, 0, 0, 1, 0], [0.6, 0.4, 0, 0, 0], [0, 0.8, 0.2, 0, 0], [0.2] * 5]
FLAGS = [0, 0, 0, int(Flag.EDGE), int(Flag.OFF_IMAGE)]


def _write_stamps(run, flags):
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    for view in run.recipe.all_views:
        for chunk in run.chunks():
            ids = run.read_sources(chunk)["id"].to_pylist()
            values = np.asarray(flags(view), dtype=np.uint32)
            has = values != int(Flag.OFF_IMAGE)
            rows = np.where(has, np.cumsum(has) - 1, -1).astype(np.int32)
            widths = 1.0 + np.arange(has.sum())[:, None, None, None]
            stamps = np.exp(-(x**2 + y**2) / widths).astype(np.float32)
            n = len(ids)
            content = ShardContent(
                ids, values, rows, np.zeros(n, "f4"), np.ones(n, "f4"), np.zeros((n, 1, 2)), np.ones((n, 1), "f4"),
                np.zeros((n, 1), "i2"), stamps, ["a.fits"],
            )  # fmt: skip
            write_shard(run.shard_path(view, chunk), content, {})


@pytest.fixture
def run(tmp_path):
    """Five sources in two bands; the fifth, the brightest, is off the image in F435W, all have a shard."""

    def flags(view):
        return FLAGS if view == "F435W" else [0] * 5

    made = write_run(tmp_path / "run", clash(*TWO_BANDS), [galaxies(5, magnitude=MAGNITUDES)],
                     lambda key, i, n: given(flags(key.view), CHANCES)(key, i, n))  # fmt: skip
    _write_stamps(made, flags)
    return made


def test_the_brightest_come_first_and_sources_without_stamp_are_left_out(run, tmp_path):
    result = gallery(run, ["F435W"], per_row=2, rows=2, path=tmp_path / "a.png")
    assert result.ids == ("2", "4", "1", "3")
    assert result.available == 4
    assert imread(result.path).shape[:2] == (22 + 2 * 152, 2 * 126 + 6)


def test_pages_follow_each_other(run, tmp_path):
    pages = [gallery(run, ["F435W"], 1, 2, tmp_path / f"{page}.png", page=page).ids for page in (1, 2)]
    assert pages == [("2", "4"), ("1", "3")]
    with pytest.raises(UsageError, match="page 3 holds no source: 4 have a stamp"):
        gallery(run, ["F435W"], 1, 2, tmp_path / "3.png", page=3)


def test_with_several_bands_a_row_is_a_source(run, tmp_path):
    result = gallery(run, [], per_row=10, rows=3, path=tmp_path / "a.png")
    assert result.ids == ("5", "2", "4")
    image = imread(result.path)
    assert image.shape[:2] == (22 + 3 * 152, 2 * 126 + 6)
    # Source 5 is off the image in F435W: its place there is of one colour, the one of missing pixels.
    assert len(np.unique(image[30:130, 20:120, :3].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(image[30:130, 140:240, :3].reshape(-1, 3), axis=0)) > 5


def test_by_class_the_surest_of_each_class_come_class_by_class(run, tmp_path):
    assert gallery(run, ["F435W"], 4, 1, tmp_path / "a.png", order="class").ids == ("1", "3", "4", "2")
    assert gallery(run, ["F435W"], 3, 1, tmp_path / "b.png", order="class").ids == ("1", "4", "2")


def test_the_same_sheet_is_the_same_bytes_whatever_matplotlib_is_set_to(run, tmp_path):
    import matplotlib as mpl

    first = gallery(run, [], 2, 5, tmp_path / "a.png").path.read_bytes()
    with mpl.rc_context({"font.size": 30, "savefig.facecolor": "red", "figure.facecolor": "red"}):
        assert gallery(run, [], 2, 5, tmp_path / "b.png").path.read_bytes() == first


def test_other_bands_may_be_without_logits(run, tmp_path):
    for chunk in run.chunks():
        run.logits_path("inception", "F850LP", chunk).unlink()
    assert gallery(run, ["F435W"], per_row=2, rows=2, path=tmp_path / "a.png").ids == ("2", "4", "1", "3")
    with pytest.raises(CatmorphError, match="this logits file is missing"):
        gallery(run, [], per_row=2, rows=2, path=tmp_path / "a.png")


def test_an_unknown_band_and_missing_stamps_are_errors(run, tmp_path):
    with pytest.raises(UsageError, match="unknown band or view 'F435'; did you mean 'F435W'"):
        gallery(run, ["F435"], 2, 2, tmp_path / "a.png")
    run.shard_path("F435W", run.chunks()[0]).unlink()
    with pytest.raises(CatmorphError, match="there are no stamps"):
        gallery(run, ["F435W"], 2, 2, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_stretch_shows_invalid_pixels_apart_and_keeps_colours():
    stamp = np.random.default_rng(1).normal(0, 1, (3, 8, 8)).astype(np.float32)
    stamp[:, 0, 0] = np.nan
    image = picture(stamp, Palette(((0,), (1,), (2,))))
    assert image.shape == (8, 8, 3)
    assert np.isfinite(image).all()
    assert image[0, 0].tolist() == [0.16, 0.18, 0.30]
    grey = picture(stamp[:2], GREY)
    assert (grey[1:, :, 0] == grey[1:, :, 2]).all()
    assert np.isfinite(picture(np.full((1, 4, 4), np.nan, "f4"), GREY)).all()
    assert np.isfinite(picture(np.ones((1, 4, 4), "f4"), GREY)).all()


@pytest.fixture(autouse=True)
def _made_up_logits_are_current(monkeypatch):
    """The run folders here have no ledger of logits, which the commands would refuse as outdated."""
    monkeypatch.setattr("catmorph.pipeline.release.refuse_outdated", lambda *_, **__: None, raising=False)


def _invoke(run, command, *arguments):
    recipe = run.path.parent / "recipe.toml"
    recipe.write_text(write_recipe(run.recipe))
    options = ["-r", str(recipe), "-w", str(run.path)]
    return CliRunner().invoke(command, [*arguments, *options], standalone_mode=False, catch_exceptions=False)


def test_export_command_writes_the_formats_and_says_where_the_rows_went(run):
    result = _invoke(run, commands.export, "--format", "csv", "--format", "fits")
    assert result.return_value == 0
    assert "5 rows read = 0 rejected + 0 omitted + 5 released" in result.stderr
    assert {path.name for path in run.release_folder().iterdir()} == {
        "Deep-CLASH.csv", "Deep-CLASH.fits", "columns.md", "provenance.json",
    }  # fmt: skip
    report = json.loads(_invoke(run, commands.export, "--json", "-q").stdout)
    assert report["released"] == 5
    assert list(report["files"]) == ["csv"]


def test_export_help_lists_the_formats():
    help_text = CliRunner().invoke(commands.export, ["--help"]).output
    assert "FITS binary table" in help_text
    assert "default: the recipe's" in " ".join(help_text.split())


def test_summarize_command_prints_a_table_or_json(run):
    result = _invoke(run, commands.summarize)
    assert result.return_value == 0
    assert "irregular (merger proxy)" in result.stdout
    assert json.loads(_invoke(run, commands.summarize, "--json").stdout)["account"]["read"] == 5


def test_summarize_command_ends_with_3_beyond_the_tolerance(tmp_path):
    made = write_run(tmp_path / "run", clash(*TWO_BANDS), [galaxies(9)], scattered(), [("duplicate", "kept the first")])
    result = _invoke(made, commands.summarize)
    assert result.return_value == 3
    assert result.stderr.splitlines()[-1].startswith(
        "catmorph: done, but 10.00% of the rows have a fault, more than run.tolerance 1.00%; see "
    )


def test_gallery_command(run, tmp_path):
    output = tmp_path / "sheet.png"
    result = _invoke(run, commands.gallery, "--band", "F435W", "--output", str(output), "--per-page", "4", "--json")
    told = json.loads(result.stdout)
    assert "no such checkpoint" in told.pop("outdated")[0]
    assert told == {"path": str(output), "ids": ["2", "4", "1", "3"], "available": 4}
    assert output.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="the gallery is a PNG file"):
        _invoke(run, commands.gallery, "--output", "a.jpg")


@pytest.mark.parametrize("command", [commands.export, commands.summarize, commands.gallery])
def test_a_folder_without_sources_is_refused_and_not_made(run, tmp_path, command):
    run.path = tmp_path / "nothing"
    with pytest.raises(UsageError, match="the survey table is not read in yet; run `catmorph ingest`"):
        _invoke(run, command)
    assert not run.path.exists()
